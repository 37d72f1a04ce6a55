//! What the thread that saves does for the replica's store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fjall::Keyspace;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::replica::Record;
use crate::protocol::types::CommitId;

use super::committer::{Batch, Failure, Idle, Saver};
use super::highwater::HighWater;
use super::layout::{self, Tag, key, key_of_u32, key_of_u64};
use super::ledger::Ledger;
use super::load::TRACES;
use super::sweep::Sweep;

/// After this much time without a save, the last one is forced to the high-water sector.
const QUIET: Duration = Duration::from_millis(20);

/// How many dead keys are removed at once when no save waits: about a millisecond's worth, which is
/// what a save that comes meanwhile may have to wait.
const SWEEP_IDLE: usize = 512;

/// With this many memtables to flush the sweep pauses: at four, fjall makes every writer wait for a
/// tenth of a second.
const SEALED_MAX: usize = 2;

/// How long it pauses.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// How many dead keys a save takes along for each key that it writes. Without any, a replica that is
/// never idle would never get rid of them; with more than one, it catches up.
const SWEEP_PER_KEY: usize = 2;

/// One call of [`Store::save`](super::Store::save).
pub(super) struct Save {
    pub(super) records: Vec<Record>,
    pub(super) then: Box<dyn FnOnce(u64) + Send>,
}

/// What the thread that saves and everyone else see.
#[derive(Default)]
pub(super) struct Shared {
    /// The last save that is durable.
    pub(super) lsn: AtomicU64,
    /// The last id that is settled, by a save that is durable.
    horizon: Mutex<Option<CommitId>>,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    lsns: BTreeMap<ReplicaId, u64>,
    /// Those whose LSN is higher than what is on disk.
    unsaved: BTreeSet<ReplicaId>,
}

impl Shared {
    pub(super) fn new(
        lsn: u64,
        horizon: Option<CommitId>,
        peers: BTreeMap<ReplicaId, u64>,
    ) -> Self {
        Shared {
            lsn: AtomicU64::new(lsn),
            horizon: Mutex::new(horizon),
            peers: Mutex::new(Peers {
                lsns: peers,
                unsaved: BTreeSet::new(),
            }),
        }
    }

    pub(super) fn is_settled(&self, id: &CommitId) -> bool {
        let horizon = *locked(&self.horizon);
        horizon.is_some_and(|horizon| *id <= horizon)
    }

    pub(super) fn remember(&self, peer: ReplicaId, lsn: u64) {
        let mut peers = locked(&self.peers);
        if peers.lsns.get(&peer).is_none_or(|known| *known < lsn) {
            peers.lsns.insert(peer, lsn);
            peers.unsaved.insert(peer);
        }
    }

    pub(super) fn peer(&self, peer: ReplicaId) -> Option<u64> {
        locked(&self.peers).lsns.get(&peer).copied()
    }
}

/// A panic elsewhere leaves these whole: nothing is ever half changed under the lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Keeper {
    pub(super) records: Keyspace,
    pub(super) ledger: Ledger,
    pub(super) shared: Arc<Shared>,
    pub(super) high_water: HighWater,
    pub(super) sweep: Sweep,
    /// The last save, durable or under way.
    pub(super) lsn: u64,
    /// The last save that the high-water sector says was complete, by a write that was forced.
    pub(super) marked: u64,
    pub(super) last_save: Instant,
}

impl Keeper {
    fn write_record(&mut self, record: Record, batch: &mut Batch) {
        let Some(id) = layout::id_of(&record) else {
            self.ledger.apply(record);
            return;
        };
        if self.ledger.generations.is_settled(&id) {
            // Behind the horizon there is nothing but the list. A start would not look at it.
            return;
        }
        layout::write_transaction(&record, |key, value| {
            batch.insert(&self.records, key, value);
        });
    }

    fn write_peers(&self, batch: &mut Batch) {
        let peers = &mut *locked(&self.shared.peers);
        while let Some(peer) = peers.unsaved.pop_first() {
            let key = key_of_u32(Tag::Peer, peer.0);
            let value = layout::value(&key, &peers.lsns[&peer]);
            batch.insert(&self.records, key, value);
        }
    }

    fn sweep(&mut self, max: usize, batch: &mut Batch) -> Result<(), Failure> {
        let dead = self.sweep.next(&self.records, max)?;
        if let Some(last) = dead.last() {
            let key = key(Tag::Swept);
            let value = layout::value(&key, &**last);
            batch.insert(&self.records, key, value);
        }
        for key in dead {
            batch.remove(&self.records, key);
        }
        Ok(())
    }

    /// Forces what the high-water sector says.
    fn mark(&mut self) -> Result<(), Failure> {
        if self.marked < self.lsn {
            self.high_water.sync()?;
            self.marked = self.lsn;
        }
        Ok(())
    }
}

impl Saver for Keeper {
    type Job = Save;

    fn write(&mut self, save: &mut Save, batch: &mut Batch) -> Result<(), Failure> {
        for record in save.records.drain(..) {
            self.write_record(record, batch);
        }
        Ok(())
    }

    fn seal(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        for (key, change) in self.ledger.take_changes() {
            match change {
                Some(value) => batch.insert(&self.records, key, value),
                None => batch.remove(&self.records, key),
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.lsn += 1;
        self.sweep(SWEEP_PER_KEY * batch.len(), batch)?;
        self.write_peers(batch);
        let key = key_of_u64(Tag::Lsn, self.lsn);
        let value = layout::value(&key, &());
        batch.insert(&self.records, key, value);
        if let Some(old) = self.lsn.checked_sub(TRACES) {
            batch.remove(&self.records, key_of_u64(Tag::Lsn, old));
        }
        Ok(())
    }

    fn saved(&mut self) {
        let horizon = self.ledger.generations.horizon();
        self.sweep.move_to(horizon);
        *locked(&self.shared.horizon) = horizon;
        self.shared.lsn.store(self.lsn, Ordering::Release);
        self.last_save = Instant::now();
    }

    fn completed(&mut self) -> Result<(), Failure> {
        Ok(self.high_water.write(self.lsn)?)
    }

    fn done(&mut self, save: Save) {
        (save.then)(self.lsn);
    }

    fn idle(&mut self, batch: &mut Batch) -> Result<Idle, Failure> {
        let quiet = self.last_save.elapsed();
        if quiet >= QUIET {
            self.mark()?;
        }
        if self.records.sealed_memtable_count() >= SEALED_MAX {
            return Ok(Idle::After(SWEEP_PAUSE));
        }
        self.sweep(SWEEP_IDLE, batch)?;
        if !batch.is_empty() {
            return Ok(Idle::Again);
        }
        if self.marked == self.lsn {
            return Ok(Idle::UntilNextSave);
        }
        Ok(Idle::After(QUIET.saturating_sub(quiet)))
    }

    fn close(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        self.write_peers(batch);
        Ok(())
    }

    fn closed(&mut self) -> Result<(), Failure> {
        self.high_water.write(self.lsn)?;
        self.mark()
    }
}
