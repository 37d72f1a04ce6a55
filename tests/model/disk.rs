//! Disks of replicas, as sets of records.

use crate::invariant::{Facts, Violation};
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{BranchSet, Outcome, Roster, Vote};

use crate::cast::{Cast, replica_id};
use crate::intern::{Interner, Map};
use crate::network::bits;

/// A set of records, by number.
///
/// A set and no list, because [`recover`](paxos_commit::protocol::Host::recover) takes records in
/// any order. That nothing goes back behind a promise is judged when a record is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk(u64);

/// The records, by number.
///
/// The roster stands with the first vote that a replica saves. Which one that was makes no
/// difference later, so votes have numbers without it, and whether a vote brought it is one bit.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: Interner<Record>,
    roster: Option<Roster>,
    /// What came of saving the second set where the first was.
    pub(crate) saved: Map<(Disk, Disk), Saved>,
    summaries: Map<Disk, Summary>,
    nothing: Summary,
}

/// What comes of saving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    pub(crate) disk: Disk,
    /// The replica breaks its word, in the eyes of [`Facts`]: it goes back behind a promise, or
    /// uses a ballot twice.
    pub(crate) goes_back: bool,
}

const ROSTER: u64 = 1 << 63;

impl Disk {
    #[must_use]
    pub(crate) fn union(self, other: Disk) -> Disk {
        Disk(self.0 | other.0)
    }

    #[must_use]
    pub(crate) fn minus(self, other: Disk) -> Disk {
        Disk(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Ledger {
    /// The set of `records`.
    pub(crate) fn disk(&mut self, records: &[Record]) -> Disk {
        let mut disk = Disk::default();
        for record in records {
            let mut record = record.clone();
            if let Record::Vote { roster, .. } = &mut record
                && let Some(roster) = roster.take()
            {
                self.roster = Some(roster);
                disk.0 |= ROSTER;
            }
            let number = self.records.number(record);
            assert!(number < 63, "more records than the set has room for");
            disk.0 |= 1 << number;
        }
        disk
    }

    /// The disk without the promises that a higher one, or an accept, stands for as well: on load
    /// the highest counts.
    fn normal(&self, disk: Disk) -> Disk {
        let ballots = self
            .records(disk)
            .into_iter()
            .filter_map(|record| match record {
                Record::Promise { ballot, .. } => Some((ballot, 0)),
                Record::Accept { ballot, .. } => Some((ballot, 1)),
                Record::Vote { .. }
                | Record::Committed { .. }
                | Record::Finished { .. }
                | Record::Round { .. }
                | Record::Log(_)
                | Record::Disputed { .. }
                | Record::Frozen { .. }
                | Record::Chosen { .. }
                | Record::State { .. } => None,
            });
        let highest = ballots.max();
        let mut normal = disk;
        for number in bits(u128::from(disk.0 & !ROSTER)) {
            if let Record::Promise { ballot, .. } = self.records.value(u32::from(number))
                && Some((*ballot, 0)) < highest
            {
                normal.0 &= !(1 << number);
            }
        }
        normal
    }

    /// The records of a disk: votes, then promises and accepts by ballot, then the rest.
    pub(crate) fn records(&self, disk: Disk) -> Vec<Record> {
        let numbers = bits(u128::from(disk.0 & !ROSTER)).map(u32::from);
        let mut records: Vec<Record> = numbers
            .map(|number| self.records.value(number).clone())
            .collect();
        records.sort_by_key(rank);
        if disk.0 & ROSTER != 0
            && let Some(Record::Vote { roster, .. }) = records.first_mut()
        {
            *roster = self.roster.clone();
        }
        records
    }

    /// What the disk shows of votes and accepts.
    pub(crate) fn summary(&self, disk: Disk) -> &Summary {
        self.summaries.get(&disk).unwrap_or(&self.nothing)
    }

    fn read(&self, disk: Disk) -> Summary {
        let mut summary = Summary::default();
        for record in self.records(disk) {
            match record {
                Record::Vote { index, vote, .. } => {
                    let branch = BranchSet::of(usize::from(index));
                    match vote {
                        Vote::Prepared | Vote::ReadOnly => {
                            summary.prepared = summary.prepared.union(branch);
                        }
                        Vote::Aborted => summary.aborted = summary.aborted.union(branch),
                    }
                }
                Record::Accept {
                    ballot, outcome, ..
                } => summary.accepted.push((ballot, outcome)),
                Record::Promise { .. }
                | Record::Committed { .. }
                | Record::Finished { .. }
                | Record::Round { .. }
                | Record::Log(_)
                | Record::Disputed { .. }
                | Record::Frozen { .. }
                | Record::Chosen { .. }
                | Record::State { .. } => {}
            }
        }
        summary
    }
}

/// What a disk shows of votes and accepts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) prepared: BranchSet,
    pub(crate) aborted: BranchSet,
    pub(crate) accepted: Vec<(Ballot, Outcome)>,
}

/// Adds `new` to a disk that holds `before`.
pub(crate) fn save(ledger: &mut Ledger, cast: &Cast, before: Disk, new: Disk) -> Saved {
    let mut facts = facts_of(ledger, cast, 0, before);
    let goes_back = ledger.records(new).iter().any(|record| {
        let judged = facts.durable(replica_id(0), record);
        matches!(
            judged,
            Err(Violation::WentBack { .. } | Violation::BallotUsedTwice { .. })
        )
    });
    let saved = Saved {
        disk: ledger.normal(before.union(new)),
        goes_back,
    };
    ledger.saved.insert((before, new), saved);
    ledger.summaries.insert(saved.disk, ledger.read(saved.disk));
    saved
}

/// What [`Facts`] know of one replica by its disk.
pub(crate) fn facts_of(ledger: &Ledger, cast: &Cast, index: usize, disk: Disk) -> Facts {
    let mut facts = Facts::new(cast.acceptors.clone());
    for record in ledger.records(disk) {
        // What the disk itself shows is judged elsewhere.
        let _ = facts.durable(replica_id(index), &record);
    }
    facts
}

fn rank(record: &Record) -> (u8, Option<Ballot>, u64) {
    match record {
        Record::Vote { index, .. } => (0, None, u64::from(*index)),
        Record::Promise { ballot, .. } => (1, Some(*ballot), 0),
        Record::Accept { ballot, .. } => (1, Some(*ballot), 1),
        Record::Round { round } => (2, None, *round),
        Record::Committed { .. } => (3, None, 0),
        Record::Finished { .. } => (4, None, 0),
        Record::Log(_)
        | Record::Disputed { .. }
        | Record::Frozen { .. }
        | Record::Chosen { .. }
        | Record::State { .. } => {
            panic!("no control log runs in this model: {record:?}")
        }
    }
}
