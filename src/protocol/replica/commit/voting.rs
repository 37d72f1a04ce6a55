//! The normal case: the relay asks for votes, votes come in, acceptances go out.

use crate::protocol::message::{BeginCommit, CastVote, Message, Prepare};
use crate::protocol::paxos::Ballot;
use crate::protocol::types::{
    Branch, CommitId, InitiatorId, Outcome, Peer, REQUEST_BYTES_MAX, ROSTER_MAX, ReadOnly, Request,
    Roster, TxnId, Vote,
};

use crate::protocol::replica::record::Record;
use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::acceptor::Voted;
use super::instance::Instance;
use super::{Instances, Turn};

impl Instances {
    /// BeginCommit: this replica is the relay. It saves nothing; whoever asks twice, or asks two
    /// relays, does no harm.
    pub(crate) fn on_begin(
        &mut self,
        from: &Peer,
        begin: BeginCommit,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        if *from != Peer::Initiator(begin.id.txn.initiator) {
            return Err(Rejection::NotItsInitiator);
        }
        check_requests(&begin)?;
        check_roster(self.under_way.get(&begin.id), begin.id, &begin.roster)?;
        if self.answer(from, None, begin.id, turn.terms, turn.out) {
            return Ok(());
        }
        if !self.admits(from, begin.id, turn) {
            return Ok(());
        }
        let patience = turn
            .terms
            .vote_ticks(begin.vote_timeout, begin.id.txn.generation);
        if self.take_on(from, begin.id, patience, turn).is_none() {
            turn.out.send(from.clone(), Message::Busy { id: begin.id });
            return Ok(());
        }
        self.vouch(begin.id, turn.terms);
        let Some(instance) = self.under_way.get_mut(&begin.id) else {
            return Ok(());
        };
        instance.told_timeout(patience);
        instance.roster.get_or_insert_with(|| begin.roster.clone());
        if let Some((ballot, outcome)) = instance.acceptor.accepted() {
            let id = begin.id;
            let report = Message::Phase2b {
                id,
                ballot,
                outcome,
            };
            turn.out.send(from.clone(), report);
        }
        // Once a ballot was promised no vote counts here any more.
        if instance.acceptor.promised().is_zero() {
            let voted = instance.acceptor.any();
            let missing = begin.roster.all().minus(voted);
            prepare(&begin, |index| missing.contains(index), turn.out);
        }
        Ok(())
    }

    /// Phase 2a of ballot 0: a branch's vote.
    pub(crate) fn on_vote(
        &mut self,
        from: &Peer,
        cast: CastVote,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let Peer::Session(voter) = from else {
            return Err(Rejection::NotFromSuchAPeer);
        };
        let known = self.under_way.get(&cast.id);
        check_roster(known, cast.id, &cast.roster)?;
        // Only the session named in the roster votes at ballot 0.
        let index = cast.roster.index_of(voter).ok_or(Rejection::NotInRoster)?;
        let is_decided = self.outcome_of(&cast.id, known).is_some();
        if is_decided || turn.terms.is_settled(&cast.id) {
            // A read-only branch needs no outcome, and has nothing to apply.
            if cast.vote != Vote::ReadOnly {
                self.answer(from, Some(voter), cast.id, turn.terms, turn.out);
            }
            return Ok(());
        }
        if turn.terms.is_of_other_store(voter) {
            // The session is told what its name stands for.
            let admission = turn.terms.admission_message(voter, None);
            turn.out.send(from.clone(), admission);
            return Err(Rejection::OtherStore);
        }
        if !self.admits(from, cast.id, turn) {
            return Ok(());
        }
        if turn.front.is_exhausted(from, turn.terms.config) {
            turn.out.send(from.clone(), Message::Busy { id: cast.id });
            return Ok(());
        }
        let generation = cast.id.txn.generation;
        let patience = turn.terms.vote_ticks(cast.vote_timeout, generation);
        let exchange = turn.terms.exchange_ticks(generation);
        let Some(instance) = self.take_on(from, cast.id, patience, turn) else {
            turn.out.send(from.clone(), Message::Busy { id: cast.id });
            return Ok(());
        };
        instance.told_timeout(patience);
        instance.roster.get_or_insert_with(|| cast.roster.clone());
        let first = instance.acceptor.any().is_empty();
        let voted = instance.acceptor.vote(&cast.roster, index, cast.vote);
        let is_joint = is_joint(cast.roster.select(instance.acceptor.any()));
        match voted {
            Voted::Held => {
                turn.out.save.push(vote_record(&cast, index, first));
                if is_joint {
                    self.vouch(cast.id, turn.terms);
                }
            }
            Voted::Accepted(outcome) => {
                turn.out.save.push(vote_record(&cast, index, first));
                // No vote is waited for any more, only the branches' Applied.
                instance.patience = instance.patience.min(exchange);
                if instance.acceptor.read_only() == cast.roster.all() {
                    // No branch will ever say Applied.
                    instance.patience = 1;
                }
                Self::report(instance, cast.id, Ballot::ZERO, outcome, turn.out);
                if is_joint {
                    self.vouch(cast.id, turn.terms);
                }
                self.learn(cast.id, turn.terms.config.id, Ballot::ZERO, outcome, turn);
            }
            Voted::Otherwise => return Err(Rejection::VotesOtherwise),
            // A branch that says it again has missed the report, if there was one.
            Voted::Again | Voted::TooLate => {
                if let Some((ballot, outcome)) = instance.acceptor.accepted() {
                    let id = cast.id;
                    let report = Message::Phase2b {
                        id,
                        ballot,
                        outcome,
                    };
                    turn.out.send(from.clone(), report);
                }
            }
        }
        Ok(())
    }

    /// Phase 2b to the learners: the initiator, and every branch that waits. After Commit no
    /// `ReadOnly` branch waits; before Abort even those that have not voted do.
    pub(super) fn report(
        instance: &Instance,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
        out: &mut Out,
    ) {
        let report = Message::Phase2b {
            id,
            ballot,
            outcome,
        };
        out.send(Peer::Initiator(id.txn.initiator), report.clone());
        if let Some(roster) = &instance.roster {
            let waiting = roster.all().minus(instance.read_only());
            for branch in roster.select(waiting) {
                out.send(Peer::Session(branch.clone()), report.clone());
            }
        }
    }
}

/// Whether several participants have voted: no one certificate can do that.
fn is_joint<'a>(voters: impl Iterator<Item = &'a Branch>) -> bool {
    let mut names = voters.map(|branch| &branch.participant);
    let first = names.next();
    names.any(|name| Some(name) != first)
}

/// The roster must be the one that the commit id names. A digest is computed once per instance.
fn check_roster(known: Option<&Instance>, id: CommitId, roster: &Roster) -> Result<(), Rejection> {
    let right = match known.and_then(|instance| instance.roster.as_ref()) {
        Some(known) => known == roster,
        None => CommitId::new(id.txn, roster) == id,
    };
    if right {
        Ok(())
    } else {
        Err(Rejection::WrongRoster)
    }
}

/// Rollback before commit was asked for: pass it on to the sessions. Nothing is decided by it; a
/// branch that has voted already ignores it.
pub(crate) fn on_rollback(
    owner: InitiatorId,
    txn: TxnId,
    branches: Vec<Branch>,
    floor: u32,
    out: &mut Out,
) -> Result<(), Rejection> {
    if owner != txn.initiator {
        return Err(Rejection::NotItsInitiator);
    }
    if branches.len() > ROSTER_MAX {
        return Err(Rejection::TooLong);
    }
    for branch in branches {
        out.send(Peer::Session(branch), Message::LetGo { txn, floor });
    }
    Ok(())
}

/// One request for each branch, or none at all; none too long.
fn check_requests(begin: &BeginCommit) -> Result<(), Rejection> {
    let count = begin.requests.len();
    if count != 0 && count != begin.roster.len() {
        return Err(Rejection::WrongRoster);
    }
    let long = |request: &Request| request.0.len() > REQUEST_BYTES_MAX;
    if begin.requests.iter().flatten().any(long) {
        return Err(Rejection::TooLong);
    }
    Ok(())
}

/// Sends Prepare to the branches whose position is `wanted`.
fn prepare(begin: &BeginCommit, wanted: impl Fn(usize) -> bool, out: &mut Out) {
    let read_only = if begin.requests.iter().any(Option::is_some) {
        ReadOnly::Forbidden
    } else {
        ReadOnly::Allowed
    };
    for (index, branch) in begin.roster.iter().enumerate() {
        if wanted(index) {
            let prepare = Prepare {
                id: begin.id,
                roster: begin.roster.clone(),
                request: begin.requests.get(index).cloned().flatten(),
                read_only,
                floor: begin.floor,
                vote_timeout: begin.vote_timeout,
            };
            out.send(Peer::Session(branch.clone()), Message::Prepare(prepare));
        }
    }
}

fn vote_record(cast: &CastVote, index: usize, first: bool) -> Record {
    Record::Vote {
        id: cast.id,
        index: index as u8,
        vote: cast.vote,
        roster: first.then(|| cast.roster.clone()),
    }
}
