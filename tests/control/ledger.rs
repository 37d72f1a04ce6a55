//! Disks of replicas, as sets of records.

use std::sync::Arc;

use paxos_commit::protocol::paxos::log::LogRecord;
use paxos_commit::protocol::replica::Record;

use crate::cast::Cast;
use crate::intern::{Interner, Map};
use crate::state::{Disk, bits};
use crate::summary::Summary;

/// The records by number, and what each disk shows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: Interner<Record>,
    pub(crate) summaries: Map<Disk, Arc<Summary>>,
}

impl Ledger {
    /// The set of `records`.
    pub(crate) fn disk(&mut self, records: &[Record]) -> Disk {
        records.iter().fold(Disk::default(), |disk, record| {
            let number = self.records.number(record.clone());
            assert!(number < 64, "more records than the set has room for");
            Disk(disk.0 | 1 << number)
        })
    }

    pub(crate) fn records(&self, disk: Disk) -> Vec<Record> {
        let numbers = bits(u128::from(disk.0)).map(u32::from);
        numbers
            .map(|number| self.records.value(number).clone())
            .collect()
    }

    /// Adds records to a disk; promises of the log that a higher one stands for leave it.
    pub(crate) fn save(&mut self, cast: &Cast, before: Disk, new: Disk) -> Disk {
        let mut disk = before.union(new);
        let promised = |record: &Record| match record {
            Record::Log(LogRecord::Promise { ballot }) => Some((*ballot, false)),
            Record::Log(LogRecord::Accept { ballot, .. }) => Some((*ballot, true)),
            _ => None,
        };
        let records = self.records(disk);
        let highest = records.iter().filter_map(promised).max();
        for number in bits(u128::from(disk.0)) {
            let record = self.records.value(u32::from(number));
            if matches!(record, Record::Log(LogRecord::Promise { .. }))
                && promised(record) < highest
            {
                disk.0 &= !(1 << number);
            }
        }
        if !self.summaries.contains_key(&disk) {
            let summary = Arc::new(Summary::of(cast, &self.records(disk)));
            self.summaries.insert(disk, summary);
        }
        disk
    }

    pub(crate) fn summary(&self, disk: Disk) -> &Arc<Summary> {
        &self.summaries[&disk]
    }
}
