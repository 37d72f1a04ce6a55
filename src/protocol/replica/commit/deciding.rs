//! Decided: tell everyone who waits, until every branch has applied it; then it is finished.

use crate::protocol::message::{Decision, Message, Unapplied};
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{Branch, BranchSet, CommitId, Outcome, Peer};

use crate::protocol::replica::record::Record;
use crate::protocol::replica::terms::Terms;
use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::asking::may_finish;
use super::ballots::send_to_others;
use super::instance::{Dispute, Instance, Phase, Waiter};
use super::{End, Instances, Turn};

/// How this replica came to know an outcome; it settles what must be saved and who must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From reports of ballot 0. Every learner got those too, and the votes on disk show it again.
    Votes,
    /// From reports of a ballot that this replica leads: it tells everyone.
    Ballot,
    /// From another replica, which has told everyone.
    Told,
    /// From all branches, which have applied it.
    Applied,
}

impl Instances {
    /// Counts one replica's acceptance; decides when the outcome is chosen.
    pub(super) fn learn(
        &mut self,
        id: CommitId,
        from: ReplicaId,
        ballot: Ballot,
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) {
        let Some(instance) = self.under_way.get_mut(&id) else {
            return;
        };
        let Some(acceptors) = turn.terms.generations.acceptors(id.txn.generation) else {
            return;
        };
        let Some(chosen) = instance
            .learner
            .on_phase2b(acceptors, from, ballot, outcome)
        else {
            return;
        };
        let source = if ballot.is_zero() {
            Source::Votes
        } else {
            Source::Ballot
        };
        let unapplied = match chosen {
            Outcome::Abort => None,
            // Reports alone do not say whom to tell, and a commit without that would be taken as
            // finished. One who lacks a vote learns it in the next ballot, from those who have it.
            Outcome::Commit => match instance.to_apply() {
                Some(unapplied) => Some(unapplied),
                None => return,
            },
        };
        let decision = Decision {
            id,
            outcome: chosen,
            unapplied,
        };
        self.decide(decision, source, turn);
    }

    /// Another replica knows the outcome.
    pub(crate) fn on_decided(
        &mut self,
        from: ReplicaId,
        decision: Decision,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let id = decision.id;
        let is_of_id = |unapplied: &Unapplied| CommitId::new(id.txn, &unapplied.roster) == id;
        if !decision.unapplied.as_ref().is_none_or(is_of_id) {
            return Err(Rejection::WrongRoster);
        }
        let all_applied = Decision {
            id,
            outcome: Outcome::Commit,
            unapplied: None,
        };
        match self.outcome(&id) {
            // All branches have applied it, as the other one knows. (A listed commit leaves the list
            // by the log alone.)
            Some(Outcome::Commit) if decision == all_applied && !turn.terms.is_settled(&id) => {
                self.finish(id, Outcome::Commit, Source::Told, turn);
            }
            Some(_) => {}
            // The other one still waits for a branch, and this one knows that none is left.
            None if turn.terms.is_settled(&id) => {
                turn.out
                    .send(Peer::Replica(from), Message::Expired { id, branch: None });
            }
            None if !turn.terms.decides(turn.terms.config.id, &id) => {}
            None => self.decide(decision, Source::Told, turn),
        }
        Ok(())
    }

    /// The branch has durably applied the commit.
    pub(crate) fn on_applied(
        &mut self,
        from: &Branch,
        id: CommitId,
        branch: &Branch,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        if !may_finish(from, branch) {
            return Err(Rejection::NotInRoster);
        }
        let Some(instance) = self.under_way.get_mut(&id) else {
            return Ok(());
        };
        // Without the roster nothing can be noted; the branch says it again when it is asked to.
        if instance.roster.is_none() {
            return Ok(());
        }
        let index = instance.index_of(branch).ok_or(Rejection::NotInRoster)?;
        instance.applied = instance.applied.union(BranchSet::of(index));
        match (instance.phase, instance.to_apply()) {
            // All branches say so, and one at least does not lie. (Counter-example to the word of
            // one: it votes at this replica only and says that it has applied the commit. This
            // replica tells another branch to commit and crashes; the others abort by a ballot.)
            (Phase::Undecided, Some(unapplied)) if instance.is_applied() => {
                let decision = Decision {
                    id,
                    outcome: Outcome::Commit,
                    unapplied: Some(unapplied),
                };
                self.decide(decision, Source::Applied, turn);
            }
            // The other replicas are asked when it is time.
            (Phase::Undecided, _) => {}
            (Phase::Committed, _) => self.finish_if_applied(id, Source::Applied, turn),
        }
        Ok(())
    }

    /// A commit that all branches have applied is finished. A listed one stays until the log says so
    /// ([`Unlist`](crate::protocol::types::Entry::Unlist)).
    fn finish_if_applied(&mut self, id: CommitId, source: Source, turn: &mut Turn<'_>) {
        let is_applied = self.under_way.get(&id).is_some_and(Instance::is_applied);
        if turn.terms.is_settled(&id) {
            self.charge(id, turn);
        } else if is_applied {
            self.finish(id, Outcome::Commit, source, turn);
        }
    }

    /// The outcome is chosen.
    fn decide(&mut self, decision: Decision, source: Source, turn: &mut Turn<'_>) {
        let Decision {
            id,
            outcome,
            unapplied,
        } = decision;
        let patience = turn.terms.config.push_ticks;
        if source == Source::Ballot {
            self.announce(id, outcome, turn.terms, turn.out);
        }
        let finished = unapplied.is_none();
        let instance = self.instance(id, patience);
        if let Some(unapplied) = &unapplied {
            instance.take(unapplied);
        }
        instance.tell_waiters(id, outcome, turn.out);
        if outcome == Outcome::Abort || finished || instance.is_applied() {
            self.finish(id, outcome, source, turn);
            return;
        }
        // It is decided, and will most likely be applied in a moment.
        let instance = self.instance(id, patience);
        let place = std::mem::take(&mut instance.place);
        turn.front.places_mut().free(&place, instance.cost(id));
        instance.phase = Phase::Committed;
        instance.patience = patience;
        instance.attempts = 0;
        if let (Source::Ballot | Source::Told, Some(unapplied)) = (source, unapplied) {
            turn.out.save.push(Record::Committed { id, unapplied });
        }
        self.undecided -= 1;
        self.recovery.end(&id);
    }

    /// Nobody waits for the transaction any more: an abort that is decided (whoever missed it asks
    /// and is told), or a commit that all branches have applied.
    fn finish(&mut self, id: CommitId, outcome: Outcome, source: Source, turn: &mut Turn<'_>) {
        self.recovery.end(&id);
        let mut against = None;
        if let Some(instance) = self.under_way.remove(&id) {
            turn.front
                .places_mut()
                .free(&instance.place, instance.cost(id));
            against = instance.against();
            if instance.phase == Phase::Undecided {
                self.undecided -= 1;
            }
            // A vote on disk shows an abort at ballot 0 again.
            if source != Source::Votes || !instance.acceptor.holds_aborted() {
                turn.out.save.push(Record::Finished { id, outcome });
            }
        }
        if !turn.terms.is_settled(&id) {
            self.finished.insert(id, End { outcome, against });
        }
    }

    /// Tells everyone who may wait what this replica's ballot came to.
    fn announce(&self, id: CommitId, outcome: Outcome, terms: Terms<'_>, out: &mut Out) {
        let Some(instance) = self.under_way.get(&id) else {
            return;
        };
        let decision = |unapplied| {
            Message::Decided(Decision {
                id,
                outcome,
                unapplied,
            })
        };
        let unapplied = match outcome {
            Outcome::Commit => instance.to_apply(),
            Outcome::Abort => None,
        };
        send_to_others(&id, &decision(unapplied), terms, out);
        out.send(Peer::Initiator(id.txn.initiator), decision(None));
        for branch in instance.unapplied() {
            let peer = Peer::Session(branch.clone());
            let finish = Message::Finish {
                id,
                branch,
                outcome,
            };
            out.send(peer, finish);
        }
    }

    /// Pushes commits to branches that have not said that they applied them: to the session itself
    /// if it is connected, else to another one of the same participant, in turns.
    pub(super) fn push(&mut self, due: Vec<CommitId>, turn: &mut Turn<'_>) {
        for id in due {
            let Some(instance) = self.under_way.get_mut(&id) else {
                continue;
            };
            let attempt = instance.attempts;
            instance.attempts = attempt.saturating_add(1);
            let ticks = turn
                .terms
                .config
                .push_ticks
                .saturating_mul(1 << attempt.min(16));
            instance.patience = ticks.min(turn.terms.config.push_ticks_max).max(1);
            let unapplied = self.under_way[&id].unapplied();
            self.charge(id, turn);
            for branch in unapplied {
                if let Some(session) = turn.front.session_for(&branch, attempt) {
                    let peer = Peer::Session(session.clone());
                    let order = self.order_to_commit(id, branch);
                    turn.out.send(peer, order);
                }
            }
        }
    }

    /// Tells a branch to commit; and whether this replica holds an abort of it.
    fn order_to_commit(&self, id: CommitId, branch: Branch) -> Message {
        let instance = self.under_way.get(&id);
        match instance.map(|instance| instance.dispute) {
            Some(Dispute::Aborted) => Message::Disputed { id, branch },
            Some(Dispute::None) | None => {
                let outcome = Outcome::Commit;
                Message::Finish {
                    id,
                    branch,
                    outcome,
                }
            }
        }
    }

    /// Answers with the outcome, if it is known. A session is told for the branch that it asks for.
    pub(super) fn answer(
        &self,
        peer: &Peer,
        branch: Option<&Branch>,
        id: CommitId,
        terms: Terms<'_>,
        out: &mut Out,
    ) -> bool {
        let Some(outcome) = self.outcome(&id) else {
            let settled = terms.is_settled(&id);
            if settled {
                let branch = branch.cloned();
                out.send(peer.clone(), Message::Expired { id, branch });
            }
            return settled;
        };
        let unapplied = match peer {
            Peer::Replica(_) => self.under_way.get(&id).and_then(Instance::to_apply),
            Peer::Session(_) | Peer::Initiator(_) | Peer::Operator(_) => None,
        };
        match branch {
            Some(branch) => {
                let waiter = Waiter {
                    peer: peer.clone(),
                    branch: Some(branch.clone()),
                };
                tell(&waiter, id, outcome, out);
            }
            None => {
                let decision = Decision {
                    id,
                    outcome,
                    unapplied,
                };
                out.send(peer.clone(), Message::Decided(decision));
            }
        }
        true
    }
}

impl Instance {
    /// Tells everyone who asked. A session that asked before the roster was known here may stand
    /// outside it: it is told nothing.
    pub(super) fn tell_waiters(&mut self, id: CommitId, outcome: Outcome, out: &mut Out) {
        let roster = self.roster.as_ref();
        let is_outside = |branch: &Branch| roster.is_some_and(|of| of.index_of(branch).is_none());
        for waiter in std::mem::take(&mut self.waiters) {
            if !waiter.branch.as_ref().is_some_and(is_outside) {
                tell(&waiter, id, outcome, out);
            }
        }
    }
}

fn tell(waiter: &Waiter, id: CommitId, outcome: Outcome, out: &mut Out) {
    let message = match &waiter.branch {
        Some(branch) => Message::Finish {
            id,
            branch: branch.clone(),
            outcome,
        },
        None => Message::Decided(Decision {
            id,
            outcome,
            unapplied: None,
        }),
    };
    out.send(waiter.peer.clone(), message);
}
