//! What the store itself must know of what it saves: all but the transactions.
//!
//! [`Records`](crate::protocol::replica::Records) is the specification. It holds every transaction;
//! this holds none, because a store has room for more of them than memory has.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::paxos::Ballot;
use crate::protocol::paxos::log::LogRecord;
use crate::protocol::replica::Record;
use crate::protocol::types::{
    Applies, CommitId, Entry, Generations, Listed, ParticipantName, Stores,
};

use super::layout::{
    self, Tag, key_of_accept, key_of_id, key_of_name, key_of_promise, key_of_u32, key_of_u64,
};

/// The rare records, folded; and the keys that change with them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) round: u64,
    pub(super) log_round: u64,
    pub(super) log_promise: Option<Ballot>,
    /// Slot and ballot of what was accepted in the log. What it was is on disk.
    pub(super) log_accept: Option<(u64, Ballot)>,
    pub(super) frozen: BTreeSet<u32>,
    pub(super) generations: Generations,
    pub(super) listed: BTreeSet<CommitId>,
    pub(super) disputed: BTreeSet<CommitId>,
    pub(super) stores: Stores,
    /// The keys of the accept and of the generations on disk, which are cut into pieces: they go
    /// when the next ones come.
    pub(super) accept_keys: Vec<Vec<u8>>,
    pub(super) generations_keys: Vec<Vec<u8>>,
    /// What the next batch writes and removes. One batch has several jobs, and a key that one of
    /// them sets another may remove: only the last word is written.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Ledger {
    /// What changed since this was last asked for: the value of each key, or that it is gone.
    pub(super) fn take_changes(&mut self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        std::mem::take(&mut self.changes)
    }

    /// A record that is not one of a transaction is saved.
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Round { round } => {
                let before = self.round;
                self.round = before.max(round);
                self.number(Tag::Round, before, self.round);
            }
            Record::Log(LogRecord::Round { round }) => {
                let before = self.log_round;
                self.log_round = before.max(round);
                self.number(Tag::LogRound, before, self.log_round);
            }
            Record::Log(LogRecord::Promise { ballot }) => self.promised(ballot),
            Record::Log(LogRecord::Accept {
                slot,
                ballot,
                entry,
            }) => {
                self.promised(ballot);
                self.accepted(slot, ballot, &entry);
            }
            Record::Frozen { generation } => {
                self.frozen.insert(generation);
                self.set(key_of_u32(Tag::Frozen, generation), &());
            }
            Record::Chosen { slot, entry } => {
                if slot == self.generations.slot() {
                    self.chosen(entry);
                }
            }
            Record::State {
                generations,
                listed,
                stores,
            } => self.install(generations, listed, stores),
            Record::Disputed { id } => {
                if self.listed.contains(&id) && self.disputed.insert(id) {
                    self.set(key_of_id(Tag::Disputed, id), &());
                }
            }
            Record::Vote { .. }
            | Record::Promise { .. }
            | Record::Accept { .. }
            | Record::Committed { .. }
            | Record::Finished { .. } => {}
        }
    }

    /// A settled commit waits for nothing any more.
    fn unlist(&mut self, id: CommitId) {
        if self.listed.remove(&id) {
            self.changes.insert(key_of_id(Tag::Listed, id), None);
        }
        if self.disputed.remove(&id) {
            self.changes.insert(key_of_id(Tag::Disputed, id), None);
        }
    }

    fn set<T: serde::Serialize>(&mut self, key: Vec<u8>, content: &T) {
        let value = layout::value(&key, content);
        self.changes.insert(key, Some(value));
    }

    /// A number that is written in its key, so that what is read is never an older one's value.
    fn number(&mut self, tag: Tag, before: u64, now: u64) {
        if before >= now {
            return;
        }
        if before > 0 {
            self.changes.insert(key_of_u64(tag, before), None);
        }
        self.set(key_of_u64(tag, now), &());
    }

    fn promised(&mut self, ballot: Ballot) {
        if self.log_promise >= Some(ballot) {
            return;
        }
        if let Some(before) = self.log_promise.replace(ballot) {
            self.changes.insert(key_of_promise(before), None);
        }
        self.set(key_of_promise(ballot), &());
    }

    fn accepted(&mut self, slot: u64, ballot: Ballot, entry: &Entry) {
        if self.log_accept > Some((slot, ballot)) {
            return;
        }
        self.log_accept = Some((slot, ballot));
        let pieces = layout::pieces(&key_of_accept(slot, ballot), entry);
        let before = std::mem::take(&mut self.accept_keys);
        self.accept_keys = self.replace(before, pieces);
    }

    /// Removes `before`, writes `pieces`, and answers with their keys.
    fn replace(&mut self, before: Vec<Vec<u8>>, pieces: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
        self.changes
            .extend(before.into_iter().map(|key| (key, None)));
        let keys = pieces.iter().map(|(key, _)| key.clone()).collect();
        let pieces = pieces.into_iter();
        self.changes
            .extend(pieces.map(|(key, value)| (key, Some(value))));
        keys
    }

    fn chosen(&mut self, entry: Entry) {
        let applies = self.generations.apply(&entry);
        for name in self.stores.apply(&entry) {
            self.store_changed(&name);
        }
        match (entry, applies) {
            (
                Entry::Open(_) | Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. },
                _,
            )
            | (_, Applies::No) => {}
            (Entry::Settle(settle), Applies::Yes) => self.adopt(settle.unfinished),
            (Entry::Release { id }, Applies::Yes) => self.unlist(id),
            (Entry::Unlist { ids }, Applies::Yes) => ids.into_iter().for_each(|id| self.unlist(id)),
        }
        self.generations_changed();
    }

    /// What is said of the store of this name, or that nothing is.
    fn store_changed(&mut self, name: &ParticipantName) {
        let key = key_of_name(Tag::Store, name);
        match self.stores.get(name) {
            Some(entered) => self.set(key, &entered),
            None => drop(self.changes.insert(key, None)),
        }
    }

    fn install(&mut self, generations: Generations, listed: Vec<Listed>, stores: Stores) {
        self.generations = generations;
        let before = std::mem::replace(&mut self.stores, stores.clone());
        let names = before.after(None).chain(stores.after(None));
        let names: BTreeSet<&ParticipantName> = names.map(|(name, _)| name).collect();
        for name in names {
            if before.get(name) != stores.get(name) {
                self.store_changed(name);
            }
        }
        let stays: BTreeSet<CommitId> = listed.iter().map(|of| of.id).collect();
        let over: Vec<CommitId> = self.listed.difference(&stays).copied().collect();
        for id in over {
            self.unlist(id);
        }
        self.adopt(listed);
        self.generations_changed();
    }

    fn adopt(&mut self, listed: Vec<Listed>) {
        for Listed { id, unapplied } in listed {
            self.listed.insert(id);
            self.set(key_of_id(Tag::Listed, id), &unapplied);
        }
        let generations = &self.generations;
        let is_over = |generation: &u32| generations.acceptors(*generation).is_none();
        let over: Vec<u32> = self.frozen.iter().copied().filter(is_over).collect();
        for generation in over {
            self.frozen.remove(&generation);
            let key = key_of_u32(Tag::Frozen, generation);
            self.changes.insert(key, None);
        }
    }

    fn generations_changed(&mut self) {
        let prefix = key_of_u64(Tag::Generations, self.generations.slot());
        let pieces = layout::pieces(&prefix, &self.generations);
        let before = std::mem::take(&mut self.generations_keys);
        self.generations_keys = self.replace(before, pieces);
    }
}
