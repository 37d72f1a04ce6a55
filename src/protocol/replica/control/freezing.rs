//! Freezing: this replica's side of the last ballot of a whole generation.

use crate::protocol::message::{BATCH_MAX, Message};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, Generations, Openness, Peer};

use crate::protocol::replica::record::Record;
use crate::protocol::replica::vocabulary::Rejection;

use super::catching_up::Cursor;
use super::{Control, Rest};

impl Control {
    /// The leader of the log wants to settle a generation: freeze it, and tell what is unfinished.
    pub(crate) fn on_freeze(
        &mut self,
        from: ReplicaId,
        generation: u32,
        after: Option<CommitId>,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if !self.freeze(from, generation, rest)? {
            return Ok(());
        }
        let last = Generations::last_id(generation);
        let after = after.filter(|after| *after <= last);
        let (ids, more) = rest.commit.unfinished(generation, after);
        let frozen = Message::Frozen {
            generation,
            after,
            ids,
            more,
        };
        rest.out.send(Peer::Replica(from), frozen);
        Ok(())
    }

    /// What does this replica hold of these?
    pub(crate) fn on_collect(
        &mut self,
        from: ReplicaId,
        generation: u32,
        ids: Vec<CommitId>,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if ids.len() > BATCH_MAX {
            return Err(Rejection::TooLong);
        }
        if !self.freeze(from, generation, rest)? {
            return Ok(());
        }
        if ids.iter().any(|id| self.generations.is_settled(id)) {
            // The leader has not learned that this part is settled.
            self.send_state(&Peer::Replica(from), &Cursor::default(), rest);
            return Ok(());
        }
        let of_it = ids.into_iter();
        let of_it = of_it.filter(|id| id.txn.generation == generation);
        let records = of_it.map(|id| rest.commit.frozen_record(id)).collect();
        let collected = Message::Collected {
            generation,
            records,
        };
        rest.out.send(Peer::Replica(from), collected);
        Ok(())
    }

    /// Freezes the generation, for ever and whoever asked: the promise of its last ballot. Says
    /// whether it is frozen.
    fn freeze(
        &mut self,
        from: ReplicaId,
        generation: u32,
        rest: &mut Rest<'_>,
    ) -> Result<bool, Rejection> {
        match self.generations.openness(generation) {
            // Whoever leads has seen it closed; this replica has not.
            Openness::Unknown | Openness::Open => {
                self.fetch(from, rest.out);
                return Ok(false);
            }
            Openness::Settled => {
                self.send_state(&Peer::Replica(from), &Cursor::default(), rest);
                return Ok(false);
            }
            Openness::Closed => {}
        }
        let acceptors = self.generations.acceptors(generation);
        if !acceptors.is_some_and(|acceptors| acceptors.contains(rest.config.id)) {
            return Err(Rejection::NotItsGeneration);
        }
        if self.frozen.insert(generation) {
            rest.out.save.push(Record::Frozen { generation });
        }
        Ok(true)
    }
}
