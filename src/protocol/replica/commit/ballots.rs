//! Recovery: phase 1 and phase 2 of ballots above 0, many transactions in one message.

use crate::protocol::message::{BATCH_MAX, Decision, Message, Report};
use crate::protocol::paxos::{Acceptors, Ballot, Refusal, ReplicaId};
use crate::protocol::types::{CommitId, Outcome, Peer};

use crate::protocol::replica::record::Record;
use crate::protocol::replica::terms::{Standing, Terms};
use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::acceptor::Promise;
use super::instance::Phase;
use super::{Instances, Turn};

impl Instances {
    /// Does something about instances whose patience has run out.
    ///
    /// One that has accepted Commit at ballot 0 tells the other replicas first: most likely all of
    /// them have accepted it too and only the branches' `Applied` is late, and then nobody needs a
    /// ballot. Any other one gets a ballot.
    pub(super) fn resolve(&mut self, due: Vec<CommitId>, turn: &mut Turn<'_>) {
        let mut ballots = Vec::new();
        for id in due {
            let standing = self.standing(&id, turn.terms);
            let Some(instance) = self.under_way.get_mut(&id) else {
                continue;
            };
            if standing != Standing::Open {
                // The Settle of its generation decides it.
                instance.patience = turn.terms.config.retry_ticks_max;
                continue;
            }
            instance.attempts += 1;
            instance.patience = turn.terms.config.retry_ticks;
            match instance.acceptor.accepted() {
                Some((ballot, outcome)) if ballot.is_zero() && instance.attempts == 1 => {
                    let report = Message::Phase2b {
                        id,
                        ballot,
                        outcome,
                    };
                    send_to_others(&id, &report, turn.terms, turn.out);
                    self.learn(id, turn.terms.config.id, ballot, outcome, turn);
                }
                Some(_) | None => ballots.push(id),
            }
        }
        self.start_ballots(ballots, turn);
    }

    /// LeaderPhase1a: starts one new ballot in each of `ids`.
    pub(super) fn start_ballots(&mut self, ids: Vec<CommitId>, turn: &mut Turn<'_>) {
        let may_start = |id: &CommitId| self.standing(id, turn.terms) == Standing::Open;
        let ids: Vec<CommitId> = ids.into_iter().filter(may_start).collect();
        if ids.is_empty() {
            return;
        }
        // Above whatever these instances have promised: below, nobody would answer.
        for instance in ids.iter().filter_map(|id| self.under_way.get(id)) {
            let promised = instance.acceptor.promised();
            self.recovery.on_round(promised.round);
        }
        let Some(ballot) = self.recovery.next_ballot() else {
            return;
        };
        // A replica never uses a ballot twice: what it used is saved before the message leaves.
        turn.out.save.push(Record::Round {
            round: ballot.round,
        });
        for id in &ids {
            if let Some(acceptors) = turn.terms.generations.acceptors(id.txn.generation) {
                self.recovery.start(*id, ballot, acceptors);
            }
            self.back_off(id, turn.terms);
        }
        // Ids of one message have one configuration.
        let of_one = |one: &CommitId, other: &CommitId| one.txn.generation == other.txn.generation;
        let batches = ids.chunk_by(of_one).flat_map(|of| of.chunks(BATCH_MAX));
        for ids in batches.map(<[CommitId]>::to_vec) {
            let generation = ids[0].txn.generation;
            send_to_all(generation, &Message::Phase1a { ballot, ids }, turn);
        }
    }

    /// Phase1b: promises the ballot in each instance, reports what was accepted and voted before.
    pub(crate) fn on_phase1a(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        ids: Vec<CommitId>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        check_ballot(from, ballot, ids.len())?;
        self.recovery.on_round(ballot.round);
        let (mut reports, mut refused) = (Vec::new(), Vec::new());
        let generation = ids.first().map_or(0, |id| id.txn.generation);
        let patience = turn.terms.shortest_vote_ticks(generation);
        for id in ids {
            if self.answer(&Peer::Replica(from), None, id, turn.terms, turn.out)
                || !self.may_join(from, &id, turn.terms)
            {
                continue;
            }
            let instance = self.instance(id, patience);
            match instance.acceptor.promise(ballot) {
                Ok(promise) => {
                    reports.push(instance.report(id));
                    if promise == Promise::New {
                        turn.out.save.push(Record::Promise { id, ballot });
                        self.stand_back(&id, ballot, turn.terms);
                    }
                }
                Err(nack) => refused.push((id, nack.promised)),
            }
        }
        let to = Peer::Replica(from);
        if !reports.is_empty() {
            turn.out
                .send(to.clone(), Message::Phase1b { ballot, reports });
        }
        if !refused.is_empty() {
            turn.out.send(to, Message::Nack { ballot, refused });
        }
        Ok(())
    }

    /// LeaderPhase2a: proposes, in each instance that a majority has promised.
    pub(crate) fn on_phase1b(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        reports: Vec<Report>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        check_ballot(turn.terms.config.id, ballot, reports.len())?;
        let mut proposals = Vec::new();
        for report in reports {
            let id = report.id;
            if !turn.terms.decides(from, &id) {
                continue;
            }
            if let Some(proposal) = self.recovery.on_report(from, ballot, report) {
                proposals.push(Decision {
                    id,
                    outcome: proposal.outcome,
                    unapplied: proposal.unapplied,
                });
            }
        }
        if let Some(first) = proposals.first() {
            let generation = first.id.txn.generation;
            send_to_all(generation, &Message::Phase2a { ballot, proposals }, turn);
        }
        Ok(())
    }

    /// Phase2b: accepts what is proposed, unless a higher ballot was promised; tells all learners.
    pub(crate) fn on_phase2a(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        proposals: Vec<Decision>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        check_ballot(from, ballot, proposals.len())?;
        self.recovery.on_round(ballot.round);
        let mut refused = Vec::new();
        for proposal in proposals {
            let id = proposal.id;
            check_proposal(&proposal)?;
            if self.answer(&Peer::Replica(from), None, id, turn.terms, turn.out)
                || !self.may_join(from, &id, turn.terms)
            {
                continue;
            }
            match self.accept(ballot, proposal, turn) {
                Ok(outcome) => {
                    if let Some(instance) = self.under_way.get(&id) {
                        Self::report(instance, id, ballot, outcome, turn.out);
                    }
                    let report = Message::Phase2b {
                        id,
                        ballot,
                        outcome,
                    };
                    turn.out.send(Peer::Replica(from), report);
                }
                Err(Refusal::Nack(nack)) => refused.push((id, nack.promised)),
                Err(Refusal::Conflict) => return Err(Rejection::BallotUsedTwice),
            }
        }
        if !refused.is_empty() {
            turn.out
                .send(Peer::Replica(from), Message::Nack { ballot, refused });
        }
        Ok(())
    }

    fn accept(
        &mut self,
        ballot: Ballot,
        proposal: Decision,
        turn: &mut Turn<'_>,
    ) -> Result<Outcome, Refusal> {
        let patience = turn.terms.shortest_vote_ticks(proposal.id.txn.generation);
        let Decision {
            id,
            outcome,
            unapplied,
        } = proposal;
        let instance = self.instance(id, patience);
        instance.acceptor.accept(ballot, outcome)?;
        if let Some(unapplied) = &unapplied {
            instance.take(unapplied);
        }
        turn.out.save.push(Record::Accept {
            id,
            ballot,
            outcome,
            unapplied,
        });
        self.stand_back(&id, ballot, turn.terms);
        Ok(outcome)
    }

    /// A replica has accepted: above ballot 0 this replica leads the ballot; at ballot 0 the other
    /// one wants to know what came of it.
    pub(crate) fn on_phase2b(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        if self.outcome(&id).is_none() {
            self.learn(id, from, ballot, outcome, turn);
        }
        // Even if this very report decided it: the other one would start a ballot to learn it.
        if ballot.is_zero() {
            self.answer(&Peer::Replica(from), None, id, turn.terms, turn.out);
        }
        Ok(())
    }

    /// A higher ballot is under way in these instances: give up ours, and let it be.
    pub(crate) fn on_nack(
        &mut self,
        ballot: Ballot,
        refused: Vec<(CommitId, Ballot)>,
        terms: Terms<'_>,
    ) -> Result<(), Rejection> {
        check_ballot(terms.config.id, ballot, refused.len())?;
        for (id, promised) in refused {
            if self.recovery.on_nack(id, ballot, promised) {
                self.back_off(&id, terms);
            }
        }
        Ok(())
    }

    /// Sets the patience of an instance after an attempt of this replica: twice as long each time,
    /// and each replica another one, so that two that pre-empt each other come apart.
    fn back_off(&mut self, id: &CommitId, terms: Terms<'_>) {
        let stagger = terms.turn_ticks(id.txn.generation);
        let (retry, max) = (terms.config.retry_ticks, terms.config.retry_ticks_max);
        if let Some(instance) = self.under_way.get_mut(id) {
            let doublings = instance.attempts.min(16);
            let ticks = retry.saturating_mul(1 << doublings).min(max);
            instance.patience = ticks
                .saturating_add(stagger.saturating_mul(doublings))
                .max(1);
        }
    }

    /// Another replica's ballot is under way: give it the time that an attempt of ours would get.
    fn stand_back(&mut self, id: &CommitId, ballot: Ballot, terms: Terms<'_>) {
        if ballot.replica == terms.config.id {
            return;
        }
        if let Some(instance) = self.under_way.get_mut(id)
            && instance.phase == Phase::Undecided
        {
            instance.attempts = instance.attempts.max(1);
        }
        self.back_off(id, terms);
    }

    /// Whether this replica takes part in a ballot of `from`.
    fn may_join(&self, from: ReplicaId, id: &CommitId, terms: Terms<'_>) -> bool {
        terms.decides(from, id) && self.standing(id, terms) == Standing::Open
    }
}

/// To the replicas that decide the transactions of a generation.
fn send_to_all(generation: u32, message: &Message, turn: &mut Turn<'_>) {
    let acceptors = turn.terms.generations.acceptors(generation);
    for replica in acceptors.into_iter().flat_map(Acceptors::iter) {
        turn.out.send(Peer::Replica(replica), message.clone());
    }
}

/// To the other replicas that know, or decide, what came of `id`.
pub(super) fn send_to_others(id: &CommitId, message: &Message, terms: Terms<'_>, out: &mut Out) {
    let acceptors = terms.generations.who_knows(id.txn);
    for replica in acceptors.into_iter().flat_map(Acceptors::iter) {
        if replica != terms.config.id {
            out.send(Peer::Replica(replica), message.clone());
        }
    }
}

/// Whether `ballot` is one that `owner` may lead, and the batch within its limit.
fn check_ballot(owner: ReplicaId, ballot: Ballot, batch: usize) -> Result<(), Rejection> {
    // Gray & Lamport, section 4.2: ballot 0 belongs to the participants, no leader may use it.
    if ballot.replica != owner || ballot.round == 0 {
        return Err(Rejection::NotItsBallot);
    }
    if batch > BATCH_MAX {
        return Err(Rejection::TooLong);
    }
    Ok(())
}

/// Commit travels with those whom it must be told.
fn check_proposal(proposal: &Decision) -> Result<(), Rejection> {
    let Decision {
        id,
        outcome,
        unapplied,
    } = proposal;
    let right = match (outcome, unapplied) {
        (Outcome::Abort, None) => true,
        (Outcome::Commit, Some(unapplied)) => CommitId::new(id.txn, &unapplied.roster) == *id,
        (Outcome::Abort, Some(_)) | (Outcome::Commit, None) => false,
    };
    if right {
        Ok(())
    } else {
        Err(Rejection::WrongRoster)
    }
}
