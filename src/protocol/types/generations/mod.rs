//! Generations: which are open, on which configuration each runs, and what is settled.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::paxos::{Acceptors, ReplicaId};

use super::configuration::Configuration;
use super::entry::{Entry, Open, Settle};
use super::id::{CommitId, RosterDigest, TxnId};

/// The most generations that may wait to be settled. Past that none is opened: it takes a majority
/// of an old configuration that is gone for good to come so far.
pub const UNSETTLED_MAX: usize = 16;

/// What the entries of the control log come to, as far as their holder knows them.
///
/// Replicas hold it and tell it to everyone who connects; it is all that a client needs to know of
/// the cluster. Of two, the one with the higher [slot](Self::slot) is the newer.
///
/// A clone shares what it holds: it travels in messages to everyone, and changes every few minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Known")]
pub struct Generations(Arc<Known>);

/// What [`Generations`] hold; from a peer, before it was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Known {
    slot: u64,
    /// The generations that are not settled; the last is the latest.
    unsettled: BTreeMap<u32, Configuration>,
    /// The last id that is settled.
    horizon: Option<CommitId>,
    /// The highest name that any replica ever had: names are never used again.
    highest: u32,
}

/// What may be done about the transactions of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Openness {
    /// It is not open yet, as far as is known here.
    Unknown,
    /// Transactions begin and run in it.
    Open,
    /// The second one after it is open: what is under way finishes, nothing else begins.
    Closed,
    /// It has come to its end.
    Settled,
}

/// Why a peer's generations were refused: no entries of a log come to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {UNSETTLED_MAX} consecutive generations after the settled ones")]
pub struct GenerationsError;

impl TryFrom<Known> for Generations {
    type Error = GenerationsError;

    fn try_from(told: Known) -> Result<Self, GenerationsError> {
        let (slot, highest, horizon) = (told.slot, told.highest, told.horizon);
        let count = told.unsettled.len();
        let generations = Generations(Arc::new(told));
        let (oldest, latest) = (generations.oldest(), generations.latest());
        let nothing = generations == Generations::default();
        let consecutive = u64::from(latest) + 1 == u64::from(oldest) + count as u64;
        let is_known = |id: ReplicaId| id.0 <= highest;
        let right = (1..=UNSETTLED_MAX).contains(&count)
            && oldest > 0
            && latest < u32::MAX
            && slot < u64::MAX
            && consecutive
            && generations.replicas().into_iter().all(is_known)
            && horizon.is_none_or(|horizon| horizon < Self::last_id(oldest));
        if nothing || right {
            Ok(generations)
        } else {
            Err(GenerationsError)
        }
    }
}

/// Whether an entry of the log has any effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// It does what it says.
    Yes,
    /// It came too late: another one did it, or something else.
    No,
}

impl Generations {
    /// The first generation of a new cluster.
    pub fn genesis(configuration: Configuration) -> Self {
        let mut generations = Generations::default();
        let generation = 1;
        generations.open(Open {
            generation,
            configuration,
        });
        generations
    }

    /// How many entries of the log this comes from.
    pub fn slot(&self) -> u64 {
        self.0.slot
    }

    /// The latest generation, in which new transactions begin; 0 if nothing is known.
    pub fn latest(&self) -> u32 {
        self.0.unsettled.keys().next_back().copied().unwrap_or(0)
    }

    /// The oldest generation that is not settled.
    pub fn oldest(&self) -> u32 {
        self.0.unsettled.keys().next().copied().unwrap_or(0)
    }

    /// The generations that are not settled.
    pub fn unsettled(&self) -> impl Iterator<Item = (u32, &Configuration)> + '_ {
        let unsettled = self.0.unsettled.iter();
        unsettled.map(|(generation, configuration)| (*generation, configuration))
    }

    /// The last id that is settled: nothing up to it is under way any more.
    pub fn horizon(&self) -> Option<CommitId> {
        self.0.horizon
    }

    /// Whether the instance `id` has come to its end by a Settle.
    pub fn is_settled(&self, id: &CommitId) -> bool {
        self.0.horizon.is_some_and(|horizon| *id <= horizon)
    }

    /// Whether every instance of `txn` has.
    pub fn is_txn_settled(&self, txn: TxnId) -> bool {
        let last = CommitId {
            txn,
            roster: RosterDigest::MAX,
        };
        self.is_settled(&last)
    }

    /// What may be done in `generation`.
    pub fn openness(&self, generation: u32) -> Openness {
        let latest = self.latest();
        if generation > latest {
            Openness::Unknown
        } else if !self.0.unsettled.contains_key(&generation) {
            Openness::Settled
        } else if latest - generation < 2 {
            Openness::Open
        } else {
            Openness::Closed
        }
    }

    /// The oldest generation, if it is closed: it is the next to be settled.
    pub fn closed(&self) -> Option<u32> {
        let oldest = self.oldest();
        (self.openness(oldest) == Openness::Closed).then_some(oldest)
    }

    /// The configuration in force: that of the latest generation, which decides the log too.
    pub fn in_force(&self) -> Option<&Configuration> {
        let (_, configuration) = self.0.unsettled.last_key_value()?;
        Some(configuration)
    }

    /// The acceptors of an unsettled generation.
    pub fn acceptors(&self, generation: u32) -> Option<&Acceptors> {
        self.0
            .unsettled
            .get(&generation)
            .map(Configuration::acceptors)
    }

    /// Those who can tell what came of `txn`: the acceptors of its generation, or, when it is
    /// settled, those in force. Unknown if the generation is not open yet.
    pub fn who_knows(&self, txn: TxnId) -> Option<&Acceptors> {
        match self.acceptors(txn.generation) {
            Some(acceptors) => Some(acceptors),
            None if txn.generation <= self.latest() => {
                self.in_force().map(Configuration::acceptors)
            }
            None => None,
        }
    }

    /// All replicas of unsettled generations.
    pub fn replicas(&self) -> BTreeSet<ReplicaId> {
        let configurations = self.0.unsettled.values();
        configurations
            .flat_map(|configuration| configuration.acceptors().iter())
            .collect()
    }

    /// Whether `replica` is one of an unsettled generation.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        let mut configurations = self.0.unsettled.values();
        configurations.any(|configuration| configuration.acceptors().contains(replica))
    }

    /// Whether no replica ever had this name.
    pub fn is_new(&self, replica: ReplicaId) -> bool {
        replica.0 > self.0.highest
    }

    /// The last id that can stand in `generation`.
    pub fn last_id(generation: u32) -> CommitId {
        CommitId {
            txn: TxnId::last_of(generation),
            roster: RosterDigest::MAX,
        }
    }

    /// Whether `other` comes from more entries of the log.
    pub fn is_older_than(&self, other: &Generations) -> bool {
        self.0.slot < other.0.slot
    }

    /// Takes the next entry of the log. Says whether it has any effect: one that does not follow
    /// from what is known here is counted and changes nothing, everywhere alike. (A leader proposes
    /// none.)
    pub fn apply(&mut self, entry: &Entry) -> Applies {
        let slot = self.0.slot.saturating_add(1);
        Arc::make_mut(&mut self.0).slot = slot;
        match entry {
            Entry::Open(open) if self.may_follow(Some(entry)) => {
                self.open(open.clone());
                Applies::Yes
            }
            Entry::Settle(settle) if self.follows(settle) => {
                let known = Arc::make_mut(&mut self.0);
                known.horizon = Some(settle.through);
                let goes_on = |generation: u32| Self::last_id(generation) > settle.through;
                known.unsettled.retain(|generation, _| goes_on(*generation));
                Applies::Yes
            }
            Entry::Release { id } if self.is_settled(id) => Applies::Yes,
            Entry::Unlist { ids } if ids.iter().all(|id| self.is_settled(id)) => Applies::Yes,
            // What they come to is in [`Stores`](super::Stores).
            Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. } => Applies::Yes,
            Entry::Open(_) | Entry::Settle(_) | Entry::Release { .. } | Entry::Unlist { .. } => {
                Applies::No
            }
        }
    }

    /// Whether it moves the horizon onwards, within a generation that is closed, and lists nothing
    /// else.
    fn follows(&self, settle: &Settle) -> bool {
        let Settle {
            after,
            through,
            unfinished,
        } = settle;
        let in_range = |id: CommitId| Some(id) > self.0.horizon && id <= *through;
        *after == self.0.horizon
            && Some(*through) > self.0.horizon
            && self.closed() == Some(through.txn.generation)
            && unfinished.iter().all(|listed| in_range(listed.id))
    }

    /// Whether a correct replica could propose `entry` next: a generation follows the latest.
    pub(crate) fn may_follow(&self, entry: Option<&Entry>) -> bool {
        match entry {
            Some(Entry::Open(open)) => {
                let next = self.latest().checked_add(1);
                next == Some(open.generation) && self.0.unsettled.len() < UNSETTLED_MAX
            }
            Some(
                Entry::Settle(_)
                | Entry::Release { .. }
                | Entry::Unlist { .. }
                | Entry::Enter { .. }
                | Entry::Gone { .. }
                | Entry::Restored { .. },
            )
            | None => true,
        }
    }

    fn open(&mut self, open: Open) {
        let ids = open.configuration.acceptors().iter().map(|id| id.0);
        let highest = ids.fold(self.0.highest, u32::max);
        let known = Arc::make_mut(&mut self.0);
        known.highest = highest;
        known.unsettled.insert(open.generation, open.configuration);
    }
}
