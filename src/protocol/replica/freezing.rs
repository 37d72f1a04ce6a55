//! Freezing: this replica's side of the last ballot of a whole generation.

use std::ops::Bound;

use crate::protocol::effects::Effects;
use crate::protocol::message::{BATCH_MAX, Frozen, Message, Report, Waits};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{BranchSet, CommitId, Generations, Openness, Outcome, Peer};

use super::catching_up::Cursor;
use super::instance::{Instance, Phase};
use super::{Record, Rejection, Replica};

impl Replica {
    /// The leader of the log wants to settle a generation: freeze it, and tell what is unfinished.
    pub(super) fn on_freeze(
        &mut self,
        from: ReplicaId,
        generation: u32,
        after: Option<CommitId>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if !self.freeze(from, generation, out)? {
            return Ok(());
        }
        let last = Generations::last_id(generation);
        let after = after.filter(|after| *after <= last);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.instances.range((start, Bound::Included(last)));
        let ids = ids.filter(|(id, instance)| {
            id.txn.generation == generation && instance.may_be_committed()
        });
        let mut ids: Vec<CommitId> = ids.map(|(id, _)| *id).take(BATCH_MAX + 1).collect();
        let more = ids.len() > BATCH_MAX;
        ids.truncate(BATCH_MAX);
        let frozen = Message::Frozen {
            generation,
            after,
            ids,
            more,
        };
        out.send(Peer::Replica(from), frozen);
        Ok(())
    }

    /// What does this replica hold of these?
    pub(super) fn on_collect(
        &mut self,
        from: ReplicaId,
        generation: u32,
        ids: Vec<CommitId>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if ids.len() > BATCH_MAX {
            return Err(Rejection::TooLong);
        }
        if !self.freeze(from, generation, out)? {
            return Ok(());
        }
        if ids.iter().any(|id| self.generations.is_settled(id)) {
            // The leader has not learned that this part is settled.
            self.send_state(&Peer::Replica(from), &Cursor::default(), out);
            return Ok(());
        }
        let of_it = ids.into_iter();
        let of_it = of_it.filter(|id| id.txn.generation == generation);
        let records = of_it.map(|id| self.frozen_record(id)).collect();
        let collected = Message::Collected {
            generation,
            records,
        };
        out.send(Peer::Replica(from), collected);
        Ok(())
    }

    /// Freezes the generation, for ever and whoever asked: the promise of its last ballot. Says
    /// whether it is frozen.
    fn freeze(
        &mut self,
        from: ReplicaId,
        generation: u32,
        out: &mut Effects<Self>,
    ) -> Result<bool, Rejection> {
        match self.generations.openness(generation) {
            // Whoever leads has seen it closed; this replica has not.
            Openness::Unknown | Openness::Open => {
                self.fetch(from, out);
                return Ok(false);
            }
            Openness::Settled => {
                self.send_state(&Peer::Replica(from), &Cursor::default(), out);
                return Ok(false);
            }
            Openness::Closed => {}
        }
        let acceptors = self.generations.acceptors(generation);
        if !acceptors.is_some_and(|acceptors| acceptors.contains(self.config.id)) {
            return Err(Rejection::NotItsGeneration);
        }
        if self.frozen.insert(generation) {
            out.save.push(Record::Frozen { generation });
        }
        Ok(true)
    }

    fn frozen_record(&self, id: CommitId) -> Frozen {
        let instance = self.instances.get(&id);
        let decided = match instance.map(|instance| instance.phase) {
            Some(Phase::Committed) => Some((Outcome::Commit, Waits::Some)),
            Some(Phase::Undecided) => None,
            None => self.finished.get(&id).map(|end| (end.outcome, Waits::None)),
        };
        let report = instance.map_or_else(|| Report::nothing(id), |it| it.report(id));
        Frozen { report, decided }
    }
}

impl Report {
    /// Nothing is known of the instance.
    fn nothing(id: CommitId) -> Self {
        Report {
            id,
            accepted: None,
            held: BranchSet::default(),
            read_only: BranchSet::default(),
            roster: None,
        }
    }
}

impl Instance {
    /// What this replica reports of the instance in phase 1b.
    pub(super) fn report(&self, id: CommitId) -> Report {
        Report {
            id,
            accepted: self.acceptor.accepted(),
            held: self.acceptor.held(),
            read_only: self.read_only(),
            roster: self.roster.clone(),
        }
    }

    /// Whether anything is held here that could make it a commit.
    fn may_be_committed(&self) -> bool {
        self.phase == Phase::Committed
            || self.acceptor.accepted().is_some()
            || !self.acceptor.held().is_empty()
    }
}
