//! Judges one state: from all disks, memories and stores.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use paxos_commit::protocol::types::Entry;

use crate::cast::REPLICAS;
use crate::intern::Mix;
use crate::state::NOBODY;
use crate::summary::Summary;

use super::ends;
use super::start::SETTLE_SLOT;
use super::state::{State, wrong};
use super::store::Kept;
use super::system::System;
use super::tables::Tables;

/// What holds in every state.
pub(crate) const RULES: [&str; 8] = [
    "one entry for each slot, learned when it is chosen",
    "the list after each slot is the same at every replica",
    "a commit leaves the list when every store that the roster names has applied it",
    "a marker is deleted when the log has taken its commit off the list",
    "no replica and no session takes a listed commit for one that is off the list",
    "a branch of the roster is said to be applied by its own store alone",
    "no message of a correct host is refused, and none is fatal",
    "the commit can leave every list, and no store has to wait for proof",
];

/// What happens somewhere.
pub(crate) const SIGHTS: [&str; 11] = [
    "a marker is deleted",
    "a marker is kept, since its commit is listed",
    "a marker proves the commit to a replica that orders it again",
    "a store without proof is told that the commit is off the list",
    "a replica that has heard of all that it is applied crashes and forgets it",
    "an Unlist found in phase 1 is proposed by another leader",
    "a new replica takes the commit over with the list",
    "a new replica takes the list over without the commit",
    "a message of the second store is refused",
    "the second store's copy of the branch is rolled back",
    "the second store's copy of the branch is committed",
];

/// The bits of [`SIGHTS`].
pub(crate) mod sight {
    pub(crate) const DELETED: u16 = 1;
    pub(crate) const KEPT: u16 = 2;
    pub(crate) const PROVED: u16 = 4;
    pub(crate) const ANSWERED: u16 = 8;
    pub(crate) const FORGOTTEN: u16 = 16;
    pub(crate) const FOUND_AGAIN: u16 = 32;
    pub(crate) const TAKEN_OVER: u16 = 64;
    pub(crate) const TAKEN_OVER_WITHOUT: u16 = 128;
    pub(crate) const REFUSED: u16 = 256;
    pub(crate) const COPY_ROLLED_BACK: u16 = 512;
    pub(crate) const COPY_COMMITTED: u16 = 1024;
}

/// What all disks together show of the log, from the slot of the Settle on.
#[derive(Debug, Default)]
struct Log {
    chosen: Vec<Entry>,
    /// Two entries were chosen in one slot, or one was learned that was not.
    broken: bool,
}

impl Log {
    fn of(disks: &[Arc<Summary>]) -> Self {
        let mut log = Log::default();
        let mut members = [0, 1, 2];
        loop {
            let slot = SETTLE_SLOT + log.chosen.len() as u64;
            let mut chosen: Vec<&Entry> = Vec::new();
            let entries = members.iter().flat_map(|index| &disks[*index].entries);
            for accepted in entries.filter(|(of, _, _)| *of == slot) {
                let mut by = members.iter().map(|index| &disks[*index].entries);
                let by = by.by_ref().filter(|entries| entries.contains(accepted));
                if by.count() >= 2 && !chosen.contains(&&accepted.2) {
                    chosen.push(&accepted.2);
                }
            }
            log.broken |= chosen.len() > 1;
            let Some(entry) = chosen.first() else {
                break;
            };
            if matches!(entry, Entry::Open(_)) {
                members = [1, 2, 3];
            }
            log.chosen.push((*entry).clone());
        }
        for (slot, entry) in disks.iter().flat_map(|disk| &disk.learned) {
            let at = slot.checked_sub(SETTLE_SLOT).map(|at| at as usize);
            let chosen = at.map(|at| log.chosen.get(at));
            log.broken |= chosen.is_some_and(|chosen| chosen != Some(entry));
        }
        log
    }

    /// How many slots come before the one after which the commit is off the list.
    fn unlisted_at(&self) -> Option<u64> {
        let takes_off = |entry: &Entry| matches!(entry, Entry::Unlist { .. });
        let at = self.chosen.iter().position(takes_off)?;
        Some(SETTLE_SLOT + at as u64)
    }
}

impl System {
    fn log(&self, tables: &Tables, state: &State) -> Log {
        let summary = |disk| tables.ledger.summaries.get(disk).cloned();
        let disks = state.disks.iter();
        let disks: Vec<_> = disks
            .map(|disk| summary(disk).unwrap_or_default())
            .collect();
        Log::of(&disks)
    }

    /// Whether the log has taken the commit off the list.
    pub(crate) fn is_unlisted(&self, state: &State) -> bool {
        self.log(&self.tables(), state).unlisted_at().is_some()
    }

    /// A bit for each of the rules that is broken.
    pub(crate) fn judge(&self, state: &State) -> u8 {
        let tables = self.tables();
        let log = self.log(&tables, state);
        let unlisted_at = log.unlisted_at();
        let (mut lists_differ, mut is_off) = (false, unlisted_at.is_some());
        for host in state.hosts.into_iter().filter(|host| *host != NOBODY) {
            let replica = tables.hosts.value(host);
            let slot = replica.generations().slot();
            let is_settled = replica.generations().is_settled(&tables.cast.id);
            let is_listed = replica.listed().any(|id| *id == tables.cast.id);
            let was_unlisted = unlisted_at.is_some_and(|at| at < slot);
            lists_differ |= is_settled != (slot > SETTLE_SLOT);
            lists_differ |= is_listed != (is_settled && !was_unlisted);
            is_off |= is_settled && !is_listed;
        }
        let named = &state.stores[..self.bounds.branches];
        let is_applied = named.iter().all(|node| node.kept.is_committed());
        let is_bare = named.iter().any(|node| node.kept == Kept::Unmarked);
        let wrong = |bits: u16| state.wrong & bits != 0;
        let broken = [
            log.broken,
            lists_differ,
            is_off && !is_applied,
            is_bare && unlisted_at.is_none(),
            wrong(wrong::UNTRUE),
            wrong(wrong::NOT_APPLIED),
            wrong(wrong::REFUSED | wrong::PANICKED),
            self.is_sampled(state) && !ends::all_can_finish(self, &tables, state),
        ];
        let bit = |(index, set): (usize, bool)| u8::from(set) << index;
        broken.into_iter().enumerate().map(bit).sum()
    }

    /// One of so many states, by its hash, is run to its end.
    fn is_sampled(&self, state: &State) -> bool {
        let mut hash = Mix::default();
        state.hash(&mut hash);
        self.bounds.sample > 0 && (hash.finish() >> 16).is_multiple_of(self.bounds.sample)
    }

    /// Sees what a state shows.
    pub(crate) fn look(&self, state: &State) {
        let tables = self.tables();
        let disks = state.disks.iter();
        let disks = disks.filter_map(|disk| tables.ledger.summaries.get(disk));
        let entries: Vec<_> = disks.flat_map(|disk| &disk.entries).collect();
        let found_again = entries.iter().any(|(_, ballot, entry)| {
            matches!(entry, Entry::Unlist { .. })
                && entries
                    .iter()
                    .any(|(_, at, other)| other == entry && at.replica != ballot.replica)
        });
        if found_again {
            self.see(sight::FOUND_AGAIN);
        }
        let last = state.hosts[REPLICAS - 1];
        if last != NOBODY {
            let replica = tables.hosts.value(last);
            let is_listed = replica.listed().any(|id| *id == tables.cast.id);
            match (replica.generations().is_settled(&tables.cast.id), is_listed) {
                (false, _) => {}
                (true, true) => self.see(sight::TAKEN_OVER),
                (true, false) => self.see(sight::TAKEN_OVER_WITHOUT),
            }
        }
    }
}
