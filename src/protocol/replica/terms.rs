//! On what terms this replica takes part in a transaction, and a store in the work of a name.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::protocol::message::{Admission, Message};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Branch, CommitId, Generations, Opening, Openness, Stores};

use super::config::ReplicaConfig;

/// What the control log and the settings say, lent to those who deal with transactions.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) config: &'a ReplicaConfig,
    /// What the entries of the control log come to.
    pub(super) generations: &'a Generations,
    /// What they come to for participants' stores.
    pub(super) stores: &'a Stores,
    /// The generations, not settled yet, that this replica must not touch any more.
    pub(super) frozen: &'a BTreeSet<u32>,
}

/// What a replica may do about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Take part in it.
    Open,
    /// Nothing: its generation is frozen here.
    Frozen,
    /// Nothing: its generation is closed, or not open here, or others decide it.
    Elsewhere,
}

impl Terms<'_> {
    /// What may be done about `id`, which is not settled.
    pub(super) fn standing(&self, id: &CommitId, is_under_way: impl FnOnce() -> bool) -> Standing {
        let generation = id.txn.generation;
        if !self.decides(self.config.id, id) {
            return Standing::Elsewhere;
        }
        if self.frozen.contains(&generation) {
            return Standing::Frozen;
        }
        match self.generations.openness(generation) {
            Openness::Open => Standing::Open,
            // What is under way finishes; nothing else begins.
            Openness::Closed if is_under_way() => Standing::Open,
            Openness::Closed | Openness::Unknown | Openness::Settled => Standing::Elsewhere,
        }
    }

    /// Whether every outcome up to `id` is settled by the log.
    pub(super) fn is_settled(&self, id: &CommitId) -> bool {
        self.generations.is_settled(id)
    }

    /// Whether `replica` is one of those that decide `id`.
    pub(super) fn decides(&self, replica: ReplicaId, id: &CommitId) -> bool {
        let acceptors = self.generations.acceptors(id.txn.generation);
        acceptors.is_some_and(|acceptors| acceptors.contains(replica))
    }

    /// Ticks until this replica starts a ballot: the timeout, then its turn.
    pub(super) fn vote_ticks(&self, vote_timeout: Duration, generation: u32) -> u32 {
        let (min, max) = (self.config.vote_timeout_min, self.config.vote_timeout_max);
        // Of a u64: every vote comes by here, and to divide a u128 takes as long as to look it up.
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let timeout = nanos(vote_timeout.min(max).max(min));
        let ticks = timeout.div_ceil(nanos(self.config.tick).max(1));
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        ticks.saturating_add(self.turn_ticks(generation)).max(1)
    }

    /// The same for one of whose timeout this replica knows nothing.
    pub(super) fn shortest_vote_ticks(&self, generation: u32) -> u32 {
        self.vote_ticks(self.config.vote_timeout_min, generation)
    }

    /// Ticks until this replica asks the others whether Commit at ballot 0 is chosen.
    pub(super) fn exchange_ticks(&self, generation: u32) -> u32 {
        let turn = self.turn_ticks(generation);
        self.config.exchange_ticks.saturating_add(turn)
    }

    /// Ticks that this replica waits for those before it in the configuration.
    pub(super) fn turn_ticks(&self, generation: u32) -> u32 {
        let acceptors = self.generations.acceptors(generation);
        let index = acceptors.and_then(|acceptors| acceptors.index_of(self.config.id));
        let index = index.map_or(0, |index| index as u32);
        self.config.stagger_ticks.saturating_mul(index)
    }

    /// Whether another store works under this session's name.
    pub(super) fn is_of_other_store(&self, session: &Branch) -> bool {
        let entered = self.stores.get(&session.participant);
        entered.is_some_and(|entered| entered.store != session.store)
    }

    /// Whether a session that has opened its store like this may work.
    pub(super) fn may_work(&self, session: &Branch, opening: Option<Opening>) -> bool {
        self.admission(session, opening) == Admission::Entered
    }

    /// What the log says to a session.
    fn admission(&self, session: &Branch, opening: Option<Opening>) -> Admission {
        match self.stores.get(&session.participant) {
            None if self.stores.is_full() => Admission::TooManyNames,
            None => Admission::Vacant,
            Some(entered) if entered.store != session.store => Admission::OtherStore {
                entered: entered.store,
            },
            Some(entered) if entered.opening == opening => Admission::Entered,
            Some(entered) => match entered.opening {
                Some(seen) => Admission::Opened { seen },
                None => Admission::Vacant,
            },
        }
    }

    /// The same, as a message to it.
    pub(super) fn admission_message(&self, session: &Branch, opening: Option<Opening>) -> Message {
        Message::Admission {
            slot: self.generations.slot(),
            admission: self.admission(session, opening),
        }
    }
}
