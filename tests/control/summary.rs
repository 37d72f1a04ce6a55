//! What one disk shows.

use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::paxos::log::LogRecord;
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{BranchSet, Entry, Outcome};

use crate::cast::Cast;

/// What one disk shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The branches whose Prepared is held.
    pub(crate) held: BranchSet,
    /// What was accepted above ballot 0.
    pub(crate) accepted: Vec<(Ballot, Outcome)>,
    /// What was accepted in the log.
    pub(crate) entries: Vec<(u64, Ballot, Entry)>,
    /// What was learned of the log.
    pub(crate) learned: Vec<(u64, Entry)>,
    /// How many entries were learned, one by one or with a state.
    pub(crate) slot: u64,
    /// Generation 1 is frozen.
    pub(crate) frozen: bool,
    /// Generation 1 is settled, as far as this replica has learned.
    pub(crate) settled: bool,
    /// The outcome that it says was chosen.
    pub(crate) decided: Vec<Outcome>,
}

impl Summary {
    pub(crate) fn of(cast: &Cast, records: &[Record]) -> Self {
        let mut summary = Summary::default();
        for record in records {
            summary.take(cast, record);
        }
        summary
    }

    fn take(&mut self, cast: &Cast, record: &Record) {
        match record {
            Record::Vote { index, .. } => {
                self.held = self.held.union(BranchSet::of(usize::from(*index)));
            }
            Record::Accept {
                ballot, outcome, ..
            } => self.accepted.push((*ballot, *outcome)),
            Record::Log(LogRecord::Accept {
                slot,
                ballot,
                entry,
            }) => self.entries.push((*slot, *ballot, entry.clone())),
            Record::Frozen { generation } => self.frozen |= *generation == 1,
            Record::Chosen { slot, entry } => {
                self.slot = self.slot.max(slot + 1);
                self.settled |= settles(cast, entry).is_some();
                self.learned.push((*slot, entry.clone()));
            }
            Record::State { generations, .. } => {
                self.slot = self.slot.max(generations.slot());
                self.settled |= generations.is_settled(&cast.id);
            }
            Record::Committed { .. } => self.decided.push(Outcome::Commit),
            Record::Finished { outcome, .. } => self.decided.push(*outcome),
            Record::Promise { .. }
            | Record::Disputed { .. }
            | Record::Round { .. }
            | Record::Log(LogRecord::Round { .. } | LogRecord::Promise { .. }) => {}
        }
    }
}

/// Whether `entry` settles the transaction, and if so, whether as a commit that waits for a branch.
pub(crate) fn settles(cast: &Cast, entry: &Entry) -> Option<bool> {
    match entry {
        Entry::Settle(settle) if settle.through >= cast.id => {
            Some(settle.unfinished.iter().any(|it| it.id == cast.id))
        }
        Entry::Settle(_)
        | Entry::Open(_)
        | Entry::Release { .. }
        | Entry::Unlist { .. }
        | Entry::Enter { .. }
        | Entry::Gone { .. }
        | Entry::Restored { .. } => None,
    }
}
