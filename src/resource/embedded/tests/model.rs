//! The model of the random histories: it keeps everything in memory, and locks by looking at all that
//! was ever read and written.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Row;

pub(super) type Key = String;

/// What one transaction has done, in the model.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub(super) reads: BTreeSet<Key>,
    pub(super) scans: BTreeSet<Key>,
    pub(super) writes: BTreeMap<Key, Option<String>>,
    /// An operation failed.
    pub(super) is_poisoned: bool,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) committed: BTreeMap<Key, String>,
    pub(super) working: BTreeMap<u32, Done>,
    pub(super) prepared: BTreeMap<u32, Done>,
    /// Transactions that were committed, those of them with a marker, the others that ended, and the
    /// horizon.
    pub(super) commits: BTreeSet<u32>,
    pub(super) markers: BTreeSet<u32>,
    pub(super) ends: BTreeSet<u32>,
    pub(super) settled: u32,
}

impl Model {
    pub(super) fn others(&self, me: u32) -> impl Iterator<Item = (u32, &Done)> {
        let all = self.working.iter().chain(&self.prepared);
        all.filter(move |(txn, _)| **txn != me)
            .map(|(txn, done)| (*txn, done))
    }

    pub(super) fn read(&self, me: u32, key: &str) -> Result<(), BTreeSet<u32>> {
        self.unless(me, |done| done.writes.contains_key(key))
    }

    pub(super) fn scan(&self, me: u32, prefix: &str) -> Result<(), BTreeSet<u32>> {
        self.unless(me, |done| {
            done.writes.keys().any(|key| key.starts_with(prefix))
        })
    }

    pub(super) fn write(&self, me: u32, key: &str) -> Result<(), BTreeSet<u32>> {
        self.unless(me, |done| {
            done.writes.contains_key(key)
                || done.reads.contains(key)
                || done.scans.iter().any(|prefix| key.starts_with(prefix))
        })
    }

    fn unless(&self, me: u32, hit: impl Fn(&Done) -> bool) -> Result<(), BTreeSet<u32>> {
        let others = self.others(me).filter(|(_, done)| hit(done));
        let holders: BTreeSet<u32> = others.map(|(txn, _)| txn).collect();
        if holders.is_empty() {
            Ok(())
        } else {
            Err(holders)
        }
    }

    pub(super) fn sees(&self, done: &Done, prefix: &str) -> Vec<Row> {
        let mut rows = self.committed.clone();
        apply(&mut rows, &done.writes);
        let under = rows.into_iter().filter(|(key, _)| key.starts_with(prefix));
        let row = |(key, value): (String, String)| Row {
            key: key.into(),
            value: value.into(),
        };
        under.map(row).collect()
    }

    pub(super) fn crash(&mut self) {
        self.working.clear();
        self.ends.clear();
    }
}

pub(super) fn apply(rows: &mut BTreeMap<Key, String>, writes: &BTreeMap<Key, Option<String>>) {
    for (key, value) in writes {
        match value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(key),
        };
    }
}
