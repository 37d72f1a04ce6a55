//! Up to where the store may hold transactions that are not in memory.

use std::collections::BTreeMap;

use crate::protocol::types::{Generations, InitiatorId, TxnId};

/// For each generation and initiator the highest sequence number of any transaction that the store
/// may hold and the memory does not: of one that was evicted, or that was finished on disk at start.
///
/// It spares a look at the disk for each new transaction. An initiator counts upwards, so nearly
/// every id that is new here lies above the mark, and that is safe:
///
/// - An id that is on disk, and of a generation that is not settled, is in memory or was evicted or
///   was left out at start. In the last two cases it was [noted](Self::note), and marks never go
///   down; so it lies at or below its mark.
/// - An id above its mark is therefore on disk only if it is in memory. One that is in neither place
///   was never heard of here, and nothing is lost by treating it as new.
///
/// It takes no part in this how initiators count. One that counts in no order, or a second one that
/// took its name, costs a look at the disk for each id below its highest, and nothing else.
///
/// A mark goes when its generation is settled: no id of it is looked up any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stored {
    highest: BTreeMap<(u32, InitiatorId), u32>,
}

impl Stored {
    /// The store holds `txn`, or may hold it, and the memory does not.
    pub fn note(&mut self, txn: TxnId) {
        let mark = self.highest.entry((txn.generation, txn.initiator));
        let mark = mark.or_insert(txn.sequence);
        *mark = txn.sequence.max(*mark);
    }

    /// Whether the store may hold `txn` although it is not in memory.
    pub fn may_hold(&self, txn: TxnId) -> bool {
        let mark = self.highest.get(&(txn.generation, txn.initiator));
        mark.is_some_and(|highest| txn.sequence <= *highest)
    }

    /// How many marks there are: one for each initiator and generation.
    pub fn len(&self) -> usize {
        self.highest.len()
    }

    /// Whether the store holds nothing that is not in memory.
    pub fn is_empty(&self) -> bool {
        self.highest.is_empty()
    }

    /// Takes the higher mark of both, for each initiator and generation.
    pub(in crate::protocol::replica) fn merge(&mut self, other: Stored) {
        for ((generation, initiator), sequence) in other.highest {
            self.note(TxnId {
                generation,
                initiator,
                sequence,
                nonce: 0,
            });
        }
    }

    /// Drops the marks of generations that are settled.
    pub(in crate::protocol::replica) fn forget_settled(&mut self, generations: &Generations) {
        let is_settled = |generation| generations.is_settled(&Generations::last_id(generation));
        self.highest
            .retain(|(generation, _), _| !is_settled(*generation));
    }
}

impl FromIterator<TxnId> for Stored {
    fn from_iter<I: IntoIterator<Item = TxnId>>(txns: I) -> Self {
        let mut stored = Stored::default();
        for txn in txns {
            stored.note(txn);
        }
        stored
    }
}
