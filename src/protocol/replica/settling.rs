//! Decided: tell everyone who waits, until every branch has applied it; then it is finished.

use crate::protocol::effects::Effects;
use crate::protocol::message::{Decision, Message, Unapplied};
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{Branch, BranchSet, CommitId, Outcome, Peer};

use super::asking::may_finish;
use super::instance::{Dispute, Instance, Phase, Waiter};
use super::{End, Record, Rejection, Replica};

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

impl Replica {
    /// Counts one replica's acceptance; decides when the outcome is chosen.
    pub(super) fn learn(
        &mut self,
        id: CommitId,
        from: ReplicaId,
        ballot: Ballot,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        let Some(acceptors) = self.generations.acceptors(id.txn.generation) else {
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
        self.decide(decision, source, out);
    }

    /// Another replica knows the outcome.
    pub(super) fn on_decided(
        &mut self,
        from: ReplicaId,
        decision: Decision,
        out: &mut Effects<Self>,
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
            Some(Outcome::Commit)
                if decision == all_applied && !self.generations.is_settled(&id) =>
            {
                self.finish(id, Outcome::Commit, Source::Told, out);
            }
            Some(_) => {}
            // The other one still waits for a branch, and this one knows that none is left.
            None if self.generations.is_settled(&id) => {
                out.send(Peer::Replica(from), Message::Expired { id, branch: None });
            }
            None if !self.decides(self.config.id, &id) => {}
            None => self.decide(decision, Source::Told, out),
        }
        Ok(())
    }

    /// The branch has durably applied the commit.
    pub(super) fn on_applied(
        &mut self,
        from: &Branch,
        id: CommitId,
        branch: &Branch,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if !may_finish(from, branch) {
            return Err(Rejection::NotInRoster);
        }
        let Some(instance) = self.instances.get_mut(&id) else {
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
                self.decide(decision, Source::Applied, out);
            }
            // The other replicas are asked when it is time.
            (Phase::Undecided, _) => {}
            (Phase::Committed, _) => self.finish_if_applied(id, Source::Applied, out),
        }
        Ok(())
    }

    /// A commit that all branches have applied is finished. A listed one stays until the log says so
    /// ([`Unlist`](crate::protocol::types::Entry::Unlist)).
    fn finish_if_applied(&mut self, id: CommitId, source: Source, out: &mut Effects<Self>) {
        let is_applied = self.instances.get(&id).is_some_and(Instance::is_applied);
        if self.generations.is_settled(&id) {
            self.charge(id);
        } else if is_applied {
            self.finish(id, Outcome::Commit, source, out);
        }
    }

    /// The outcome is chosen.
    fn decide(&mut self, decision: Decision, source: Source, out: &mut Effects<Self>) {
        let Decision {
            id,
            outcome,
            unapplied,
        } = decision;
        let patience = self.config.push_ticks;
        if source == Source::Ballot {
            self.announce(id, outcome, out);
        }
        let finished = unapplied.is_none();
        let instance = self.instance(id, patience);
        if let Some(unapplied) = &unapplied {
            instance.take(unapplied);
        }
        instance.tell_waiters(id, outcome, out);
        if outcome == Outcome::Abort || finished || instance.is_applied() {
            self.finish(id, outcome, source, out);
            return;
        }
        self.release_place(id);
        let instance = self.instance(id, patience);
        instance.phase = Phase::Committed;
        instance.patience = patience;
        instance.attempts = 0;
        if let (Source::Ballot | Source::Told, Some(unapplied)) = (source, unapplied) {
            out.save.push(Record::Committed { id, unapplied });
        }
        self.undecided -= 1;
        self.recovery.end(&id);
    }

    /// Nobody waits for the transaction any more: an abort that is decided (whoever missed it asks
    /// and is told), or a commit that all branches have applied.
    fn finish(&mut self, id: CommitId, outcome: Outcome, source: Source, out: &mut Effects<Self>) {
        self.recovery.end(&id);
        let mut against = None;
        if let Some(instance) = self.instances.remove(&id) {
            self.places.free(&instance.place, instance.cost(id));
            against = instance.against();
            if instance.phase == Phase::Undecided {
                self.undecided -= 1;
            }
            // A vote on disk shows an abort at ballot 0 again.
            if source != Source::Votes || !instance.acceptor.holds_aborted() {
                out.save.push(Record::Finished { id, outcome });
            }
        }
        if !self.generations.is_settled(&id) {
            self.finished.insert(id, End { outcome, against });
        }
    }

    /// A settled commit that waits for a branch, whether it was known here or not.
    pub(super) fn adopt(&mut self, id: CommitId, unapplied: &Unapplied, out: &mut Effects<Self>) {
        let patience = self.config.push_ticks;
        let instance = self.instance(id, patience);
        instance.take(unapplied);
        instance.tell_waiters(id, Outcome::Commit, out);
        if instance.phase == Phase::Undecided {
            instance.phase = Phase::Committed;
            instance.patience = patience;
            instance.attempts = 0;
            self.undecided -= 1;
            self.recovery.end(&id);
        }
        self.charge(id);
    }

    /// Another replica has settled `id`, and does not list it. If this one does not know that, or
    /// still lists it, it is behind in the log.
    pub(super) fn on_expired(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if !self.generations.is_settled(&id) || self.instances.contains_key(&id) {
            self.fetch(from, out);
        }
        Ok(())
    }

    /// Tells everyone who may wait what this replica's ballot came to.
    fn announce(&self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        let Some(instance) = self.instances.get(&id) else {
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
        self.send_to_others(&id, &decision(unapplied), out);
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
    pub(super) fn push(&mut self, due: Vec<CommitId>, out: &mut Effects<Self>) {
        for id in due {
            let Some(instance) = self.instances.get_mut(&id) else {
                continue;
            };
            let turn = instance.attempts;
            instance.attempts = turn.saturating_add(1);
            let ticks = self.config.push_ticks.saturating_mul(1 << turn.min(16));
            instance.patience = ticks.min(self.config.push_ticks_max).max(1);
            let unapplied = self.instances[&id].unapplied();
            self.charge(id);
            for branch in unapplied {
                if let Some(session) = self.session_for(&branch, turn) {
                    let peer = Peer::Session(session.clone());
                    let order = self.order_to_commit(id, branch);
                    out.send(peer, order);
                }
            }
        }
    }

    /// Tells a branch to commit; and whether this replica holds an abort of it.
    fn order_to_commit(&self, id: CommitId, branch: Branch) -> Message {
        let instance = self.instances.get(&id);
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
        out: &mut Effects<Self>,
    ) -> bool {
        let Some(outcome) = self.outcome(&id) else {
            let settled = self.generations.is_settled(&id);
            if settled {
                let branch = branch.cloned();
                out.send(peer.clone(), Message::Expired { id, branch });
            }
            return settled;
        };
        let unapplied = match peer {
            Peer::Replica(_) => self.instances.get(&id).and_then(Instance::to_apply),
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
    fn tell_waiters(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Replica>) {
        let roster = self.roster.as_ref();
        let is_outside = |branch: &Branch| roster.is_some_and(|of| of.index_of(branch).is_none());
        for waiter in std::mem::take(&mut self.waiters) {
            if !waiter.branch.as_ref().is_some_and(is_outside) {
                tell(&waiter, id, outcome, out);
            }
        }
    }
}

fn tell(waiter: &Waiter, id: CommitId, outcome: Outcome, out: &mut Effects<Replica>) {
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
