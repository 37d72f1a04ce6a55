//! The acceptor of one transaction's instance: ballot 0 belongs to the votes.

use crate::protocol::paxos::{Acceptor, Ballot, Nack, Refusal};
use crate::protocol::types::{BranchSet, Outcome, Roster, Vote};

/// A Paxos acceptor whose ballot 0 is made of the branches' votes.
///
/// When it holds `Prepared` or `ReadOnly` of the whole roster, it has accepted Commit at ballot 0;
/// when it holds one `Aborted`, it has accepted Abort at ballot 0. These never both happen
/// anywhere, because a branch never says both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct VoteAcceptor {
    paxos: Acceptor<Outcome>,
    prepared: BranchSet,
    read_only: BranchSet,
    aborted: BranchSet,
}

/// What came of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voted {
    /// It is held; others are missing.
    Held,
    /// It is held, and with it the outcome is accepted at ballot 0.
    Accepted(Outcome),
    /// The branch's first vote is held already.
    Again,
    /// The same, and this one says something else.
    Otherwise,
    /// A higher ballot was promised: the vote comes too late to count here.
    TooLate,
}

impl VoteAcceptor {
    /// Takes the vote of the branch at position `index` of `roster`.
    pub(super) fn vote(&mut self, roster: &Roster, index: usize, vote: Vote) -> Voted {
        if self.any().contains(index) {
            let held = match vote {
                Vote::Prepared => self.prepared,
                Vote::ReadOnly => self.read_only,
                Vote::Aborted => self.aborted,
            };
            return match held.contains(index) {
                true => Voted::Again,
                false => Voted::Otherwise,
            };
        }
        // The vote is a phase 2a message of ballot 0: ignored if a higher ballot was promised.
        if !self.paxos.promised().is_zero() {
            return Voted::TooLate;
        }
        self.hold(index, vote);
        match self.accept_votes(roster) {
            Some(outcome) => Voted::Accepted(outcome),
            None => Voted::Held,
        }
    }

    /// Phase 1b: promises `ballot`. Says whether that is news that must be saved.
    pub(super) fn promise(&mut self, ballot: Ballot) -> Result<Promise, Nack> {
        let before = self.paxos.promised();
        self.paxos.promise(ballot)?;
        Ok(if before < ballot {
            Promise::New
        } else {
            Promise::Again
        })
    }

    /// Phase 2b: accepts `outcome` at `ballot`, above 0.
    pub(super) fn accept(&mut self, ballot: Ballot, outcome: Outcome) -> Result<(), Refusal> {
        debug_assert!(!ballot.is_zero(), "ballot 0 belongs to the votes");
        self.paxos.accept(ballot, outcome)
    }

    /// Takes back a vote from disk. Whatever was promised later does not hide it.
    pub(super) fn restore_vote(&mut self, roster: &Roster, index: usize, vote: Vote) {
        self.hold(index, vote);
        if self.aborted.is_empty() && !self.held().covers(roster.all()) {
            return;
        }
        self.paxos
            .restore_accept(Ballot::ZERO, self.outcome_of_votes());
    }

    /// Takes back a promise from disk.
    pub(super) fn restore_promise(&mut self, ballot: Ballot) {
        self.paxos.restore_promise(ballot);
    }

    /// Takes back an accepted outcome from disk.
    pub(super) fn restore_accept(&mut self, ballot: Ballot, outcome: Outcome) {
        self.paxos.restore_accept(ballot, outcome);
    }

    /// What was accepted at the highest ballot.
    pub(super) fn accepted(&self) -> Option<(Ballot, Outcome)> {
        self.paxos.accepted().copied()
    }

    /// The highest ballot promised.
    pub(super) fn promised(&self) -> Ballot {
        self.paxos.promised()
    }

    /// The branches whose `Prepared` or `ReadOnly` is held.
    pub(super) fn held(&self) -> BranchSet {
        self.prepared.union(self.read_only)
    }

    /// The branches that voted `ReadOnly` here: they wait for nothing.
    pub(super) fn read_only(&self) -> BranchSet {
        self.read_only
    }

    /// The branches that voted here, whatever they said.
    pub(super) fn any(&self) -> BranchSet {
        self.held().union(self.aborted)
    }

    /// The branches that voted `Aborted` here.
    pub(super) fn aborted(&self) -> BranchSet {
        self.aborted
    }

    /// Whether a branch has voted `Aborted` here.
    pub(super) fn holds_aborted(&self) -> bool {
        !self.aborted.is_empty()
    }

    fn hold(&mut self, index: usize, vote: Vote) {
        let branch = BranchSet::of(index);
        match vote {
            Vote::Prepared => self.prepared = self.prepared.union(branch),
            Vote::ReadOnly => self.read_only = self.read_only.union(branch),
            Vote::Aborted => self.aborted = self.aborted.union(branch),
        }
    }

    fn outcome_of_votes(&self) -> Outcome {
        if self.holds_aborted() {
            Outcome::Abort
        } else {
            Outcome::Commit
        }
    }

    /// Accepts at ballot 0 what the votes held add up to, if they do.
    fn accept_votes(&mut self, roster: &Roster) -> Option<Outcome> {
        let complete = self.holds_aborted() || self.held().covers(roster.all());
        if !complete || self.paxos.accepted().is_some() {
            return None;
        }
        let outcome = self.outcome_of_votes();
        let accepted = self.paxos.accept(Ballot::ZERO, outcome);
        debug_assert!(accepted.is_ok(), "nothing above ballot 0 was promised");
        Some(outcome)
    }
}

/// Whether a promise is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// It must be saved before the answer leaves.
    New,
    /// It was given before.
    Again,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::paxos::ReplicaId;
    use crate::protocol::types::StoreId;
    use crate::protocol::types::{Branch, Session};

    fn roster(branches: u64) -> Roster {
        let branch = |session| Branch {
            participant: "p".parse().unwrap(),
            session: Session(session),
            store: StoreId::from_u128(1),
        };
        Roster::new((0..branches).map(branch)).unwrap()
    }

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(1),
        }
    }

    #[test]
    fn the_whole_roster_prepared_or_read_only_is_commit_at_ballot_0() {
        let mut acceptor = VoteAcceptor::default();
        assert_eq!(acceptor.vote(&roster(2), 1, Vote::Prepared), Voted::Held);
        assert_eq!(acceptor.accepted(), None);
        let last = acceptor.vote(&roster(2), 0, Vote::ReadOnly);
        assert_eq!(last, Voted::Accepted(Outcome::Commit));
        assert_eq!(acceptor.accepted(), Some((Ballot::ZERO, Outcome::Commit)));
        assert_eq!(acceptor.read_only(), BranchSet::of(0));
        assert_eq!(acceptor.held(), roster(2).all());
    }

    #[test]
    fn one_aborted_is_abort_at_ballot_0() {
        let mut acceptor = VoteAcceptor::default();
        assert_eq!(acceptor.vote(&roster(3), 0, Vote::Prepared), Voted::Held);
        let second = acceptor.vote(&roster(3), 2, Vote::Aborted);
        assert_eq!(second, Voted::Accepted(Outcome::Abort));
        assert_eq!(acceptor.vote(&roster(3), 1, Vote::Aborted), Voted::Held);
        assert_eq!(acceptor.accepted(), Some((Ballot::ZERO, Outcome::Abort)));
        assert!(acceptor.holds_aborted());
    }

    #[test]
    fn the_first_vote_of_a_branch_stands() {
        let mut acceptor = VoteAcceptor::default();
        acceptor.vote(&roster(2), 0, Vote::Prepared);
        assert_eq!(acceptor.vote(&roster(2), 0, Vote::Prepared), Voted::Again);
        for other in [Vote::Aborted, Vote::ReadOnly] {
            assert_eq!(acceptor.vote(&roster(2), 0, other), Voted::Otherwise);
        }
        assert!(!acceptor.holds_aborted());
    }

    #[test]
    fn a_promise_shuts_out_later_votes_and_keeps_the_earlier() {
        let mut acceptor = VoteAcceptor::default();
        acceptor.vote(&roster(2), 0, Vote::Prepared);
        assert_eq!(acceptor.promise(ballot(1)), Ok(Promise::New));
        assert_eq!(acceptor.promise(ballot(1)), Ok(Promise::Again));
        assert_eq!(acceptor.vote(&roster(2), 1, Vote::Prepared), Voted::TooLate);
        assert_eq!(acceptor.vote(&roster(2), 0, Vote::Prepared), Voted::Again);
        assert_eq!(acceptor.held(), BranchSet::of(0));
        assert_eq!(acceptor.accepted(), None);
        assert_eq!(acceptor.accept(ballot(1), Outcome::Abort), Ok(()));
        assert_eq!(acceptor.accepted(), Some((ballot(1), Outcome::Abort)));
    }

    #[test]
    fn restored_in_any_order_a_bare_promise_hides_no_vote() {
        let roster = roster(2);
        let mut promise_first = VoteAcceptor::default();
        promise_first.restore_promise(ballot(3));
        promise_first.restore_vote(&roster, 0, Vote::Prepared);
        promise_first.restore_vote(&roster, 1, Vote::Prepared);
        let mut votes_first = VoteAcceptor::default();
        votes_first.restore_vote(&roster, 1, Vote::Prepared);
        assert_eq!(votes_first.accepted(), None);
        votes_first.restore_vote(&roster, 0, Vote::Prepared);
        votes_first.restore_promise(ballot(3));
        assert_eq!(promise_first, votes_first);
        assert_eq!(
            votes_first.accepted(),
            Some((Ballot::ZERO, Outcome::Commit))
        );
        assert_eq!(votes_first.promised(), ballot(3));

        votes_first.restore_accept(ballot(2), Outcome::Abort);
        votes_first.restore_vote(&roster, 0, Vote::Prepared);
        assert_eq!(votes_first.accepted(), Some((ballot(2), Outcome::Abort)));
        let mut aborted = VoteAcceptor::default();
        aborted.restore_vote(&roster, 0, Vote::Aborted);
        assert_eq!(aborted.accepted(), Some((Ballot::ZERO, Outcome::Abort)));
    }
}
