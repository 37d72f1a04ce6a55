//! The recovering leader: ballots above 0, many transactions at a time.

use std::collections::BTreeMap;

use crate::protocol::message::{Report, Unapplied};
use crate::protocol::paxos::{Acceptors, Ballot, Choice, Nack, Proposer, ReplicaId};
use crate::protocol::types::{BranchSet, CommitId, Outcome, Roster};

/// All ballots that this replica leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    me: ReplicaId,
    /// The highest round that this replica has used; saved before a message of it leaves.
    used: u64,
    /// The highest round heard of, in nacks and in others' ballots.
    heard: u64,
    attempts: BTreeMap<CommitId, Attempt>,
}

/// One ballot in one instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    proposer: Proposer<Outcome>,
    /// The union of the votes reported.
    held: BranchSet,
    read_only: BranchSet,
    roster: Option<Roster>,
}

/// What a ballot proposes. Commit always travels with those whom it must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) outcome: Outcome,
    pub(crate) unapplied: Option<Unapplied>,
}

impl Recovery {
    pub(super) fn new(me: ReplicaId) -> Self {
        Recovery {
            me,
            used: 0,
            heard: 0,
            attempts: BTreeMap::new(),
        }
    }

    /// Takes back from disk that `round` was used.
    pub(super) fn restore_round(&mut self, round: u64) {
        self.used = self.used.max(round);
    }

    /// Notes a round that another replica uses, so that the next ballot here goes above it.
    pub(super) fn on_round(&mut self, round: u64) {
        self.heard = self.heard.max(round);
    }

    /// Takes a ballot that was never used before. Its round must be saved before it leaves.
    pub(super) fn next_ballot(&mut self) -> Option<Ballot> {
        let ballot = Ballot::above(self.used.max(self.heard), self.me)?;
        self.used = ballot.round;
        Some(ballot)
    }

    /// Starts `ballot` in the instance `id`, which `acceptors` decide; an earlier attempt there is
    /// given up.
    pub(super) fn start(&mut self, id: CommitId, ballot: Ballot, acceptors: &Acceptors) {
        self.attempts.insert(id, Attempt::new(ballot, acceptors));
    }

    /// Phase 1b: takes one replica's report. Answers once, with what to propose.
    pub(super) fn on_report(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        report: Report,
    ) -> Option<Proposal> {
        let attempt = self.attempts.get_mut(&report.id)?;
        attempt.on_report(from, ballot, report)
    }

    /// Takes a refusal. Says whether the attempt is thereby given up.
    pub(super) fn on_nack(&mut self, id: CommitId, ballot: Ballot, promised: Ballot) -> bool {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return false;
        };
        if attempt.proposer.ballot() != ballot || !attempt.proposer.on_nack(Nack { promised }) {
            return false;
        }
        self.on_round(promised.round);
        self.attempts.remove(&id);
        true
    }

    /// Ends whatever is under way for `id`.
    pub(super) fn end(&mut self, id: &CommitId) {
        self.attempts.remove(id);
    }

    /// The ballot under way for `id`.
    pub(super) fn ballot(&self, id: &CommitId) -> Option<Ballot> {
        self.attempts
            .get(id)
            .map(|attempt| attempt.proposer.ballot())
    }

    /// The replicas that have not answered the ballot under way for `id`.
    pub(super) fn silent(&self, id: &CommitId) -> Vec<ReplicaId> {
        self.attempts
            .get(id)
            .map_or(Vec::new(), |attempt| attempt.proposer.silent())
    }
}

impl Attempt {
    pub(crate) fn new(ballot: Ballot, acceptors: &Acceptors) -> Self {
        Attempt {
            proposer: Proposer::new(ballot, acceptors.clone()),
            held: BranchSet::default(),
            read_only: BranchSet::default(),
            roster: None,
        }
    }

    /// Takes one replica's report. Answers once, with what to propose.
    ///
    /// Gray & Lamport, section 4.2, over all N instances at once: bound to the outcome of the
    /// highest ballot if any was accepted; else free, and then Commit if every branch's vote was
    /// reported, by whichever replica; else Abort.
    pub(crate) fn on_report(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        report: Report,
    ) -> Option<Proposal> {
        if self.proposer.ballot() != ballot || self.proposer.proposed().is_some() {
            return None;
        }
        let is_of_id = |roster: &Roster| CommitId::new(report.id.txn, roster) == report.id;
        if let Some(roster) = report.roster.filter(is_of_id) {
            self.roster.get_or_insert(roster);
        }
        self.held = self.held.union(report.held);
        self.read_only = self.read_only.union(report.read_only);
        let outcome = match self.proposer.on_promise(from, ballot, report.accepted)? {
            Choice::Bound(outcome) => outcome,
            Choice::Free => self.union_of_votes(),
        };
        let unapplied = match outcome {
            Outcome::Abort => None,
            // Whoever accepted Commit knows the roster and all votes, so a report that binds
            // brings them; the free choice has seen them all. Without the roster this ballot can
            // do nothing; the next one asks again.
            Outcome::Commit => Some(Unapplied {
                roster: self.roster.clone()?,
                read_only: self.read_only,
            }),
        };
        self.proposer.propose(outcome);
        Some(Proposal { outcome, unapplied })
    }

    /// The free choice: Commit if the roster is known and the union of the votes is complete.
    fn union_of_votes(&self) -> Outcome {
        match &self.roster {
            Some(roster) if self.held.covers(roster.all()) => Outcome::Commit,
            Some(_) | None => Outcome::Abort,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::StoreId;
    use crate::protocol::types::{Branch, InitiatorId, Session, TxnId};

    fn roster() -> Roster {
        let branch = |session| Branch {
            participant: "p".parse().unwrap(),
            session: Session(session),
            store: StoreId::from_u128(1),
        };
        Roster::new((0..2).map(branch)).unwrap()
    }

    fn id() -> CommitId {
        let txn = TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(1),
            sequence: 1,
            nonce: 9,
        };
        CommitId::new(txn, &roster())
    }

    fn report(held: &[usize], roster: Option<Roster>) -> Report {
        let held = held.iter().map(|index| BranchSet::of(*index));
        Report {
            id: id(),
            accepted: None,
            held: held.fold(BranchSet::default(), BranchSet::union),
            read_only: BranchSet::default(),
            roster,
        }
    }

    fn started() -> (Recovery, Ballot) {
        let acceptors = Acceptors::new((1..=3).map(ReplicaId)).unwrap();
        let mut recovery = Recovery::new(ReplicaId(2));
        let ballot = recovery.next_ballot().unwrap();
        recovery.start(id(), ballot, &acceptors);
        (recovery, ballot)
    }

    fn propose(reports: [Report; 2]) -> Option<Proposal> {
        let (mut recovery, ballot) = started();
        let [first, second] = reports;
        assert_eq!(recovery.on_report(ReplicaId(1), ballot, first), None);
        recovery.on_report(ReplicaId(3), ballot, second)
    }

    const ABORT: Option<Proposal> = Some(Proposal {
        outcome: Outcome::Abort,
        unapplied: None,
    });

    fn commit() -> Option<Proposal> {
        Some(Proposal {
            outcome: Outcome::Commit,
            unapplied: Some(Unapplied {
                roster: roster(),
                read_only: BranchSet::default(),
            }),
        })
    }

    #[test]
    fn free_and_the_union_of_votes_is_complete_commit() {
        let reports = [report(&[0], Some(roster())), report(&[1], None)];
        assert_eq!(propose(reports), commit());
    }

    #[test]
    fn commit_tells_which_branches_are_read_only() {
        let (mut first, mut second) = (report(&[0], Some(roster())), report(&[1], None));
        first.read_only = BranchSet::of(0);
        let unapplied = propose([first.clone(), second.clone()]).unwrap().unapplied;
        assert_eq!(unapplied.unwrap().read_only, BranchSet::of(0));
        second.read_only = BranchSet::of(1);
        let unapplied = propose([first, second]).unwrap().unapplied;
        assert_eq!(unapplied.unwrap().read_only, roster().all());
    }

    #[test]
    fn free_and_a_vote_is_missing_or_the_roster_unknown_abort() {
        let missing = [report(&[0], Some(roster())), report(&[0], Some(roster()))];
        assert_eq!(propose(missing), ABORT);
        assert_eq!(propose([report(&[0], None), report(&[1], None)]), ABORT);
        let branch = roster().iter().next().unwrap().clone();
        let other = Roster::new([branch]).unwrap();
        let wrong = [report(&[0], Some(other)), report(&[1], None)];
        assert_eq!(propose(wrong), ABORT, "a roster with another digest");
    }

    #[test]
    fn bound_by_the_highest_ballot() {
        let low = Ballot {
            round: 0,
            replica: ReplicaId(3),
        };
        let mut accepted = report(&[], Some(roster()));
        accepted.accepted = Some((low, Outcome::Commit));
        assert_eq!(propose([report(&[], None), accepted.clone()]), commit());
        let mut aborted = report(&[0, 1], Some(roster()));
        aborted.accepted = Some((Ballot::ZERO, Outcome::Abort));
        let complete = report(&[0, 1], Some(roster()));
        assert_eq!(propose([aborted, complete]), ABORT);
        accepted.roster = None;
        assert_eq!(propose([report(&[], None), accepted]), None);
    }

    #[test]
    fn answers_once_and_only_to_its_own_ballot() {
        let (mut recovery, ballot) = started();
        let of = |held| report(held, Some(roster()));
        let old = Ballot::ZERO;
        assert_eq!(recovery.on_report(ReplicaId(1), old, of(&[0, 1])), None);
        assert_eq!(recovery.on_report(ReplicaId(1), ballot, of(&[0])), None);
        assert_eq!(recovery.silent(&id()), [ReplicaId(2), ReplicaId(3)]);
        let second = recovery.on_report(ReplicaId(2), ballot, of(&[0]));
        assert_eq!(second, ABORT);
        assert_eq!(recovery.on_report(ReplicaId(3), ballot, of(&[1])), None);
        assert_eq!(recovery.ballot(&id()), Some(ballot));
        recovery.end(&id());
        assert_eq!(recovery.ballot(&id()), None);
        assert!(recovery.silent(&id()).is_empty());
    }

    #[test]
    fn a_nack_ends_the_attempt_and_lifts_the_next_ballot() {
        let (mut recovery, ballot) = started();
        let higher = Ballot::above(7, ReplicaId(1)).unwrap();
        assert!(!recovery.on_nack(id(), Ballot::ZERO, higher), "not ours");
        assert!(!recovery.on_nack(id(), ballot, ballot), "not higher");
        assert!(recovery.on_nack(id(), ballot, higher));
        assert!(!recovery.on_nack(id(), ballot, higher), "ended already");
        assert_eq!(recovery.next_ballot().unwrap().round, 9);
    }

    #[test]
    fn a_ballot_is_never_used_twice() {
        let (mut recovery, first) = started();
        let second = recovery.next_ballot().unwrap();
        assert!(second > first);
        let (mut restarted, _) = started();
        restarted.restore_round(second.round);
        restarted.restore_round(1);
        assert!(restarted.next_ballot().unwrap() > second);
        restarted.on_round(u64::MAX);
        assert_eq!(restarted.next_ballot(), None);
    }
}
