//! What is durable: [group commit](committer) over fjall, and the replica's store.

pub mod committer;

mod directory;
mod error;
mod highwater;
mod identity;
mod keeper;
mod layout;
mod ledger;
mod load;
mod sweep;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace};

use crate::protocol::paxos::ReplicaId;
use crate::protocol::replica::Record;
use crate::protocol::types::{CommitId, InitiatorId, TxnId};

use committer::{COMMIT_MAX, Committer, CommitterConfig, Fatal, Observer, OnFatal, Stats};
use directory::Directory;
use highwater::HighWater;
use keeper::{Keeper, Save, Shared};
use layout::Tag;
use load::LoadError;
use sweep::Sweep;

pub use error::{DamagedRecord, InitError, OpenError, RecallError};
pub use identity::{CLUSTER_BYTES_MAX, ClusterNameError, FORMAT, Identity};

/// How a [`Store`] runs.
#[non_exhaustive]
pub struct StoreConfig {
    /// A save that takes longer ends the process.
    pub save_max: Duration,
    /// Told of each save, on the thread that saves.
    pub observer: Option<Observer>,
    /// What is done when a save fails: [`Fatal::abort`], except in tests.
    pub on_fatal: OnFatal,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            save_max: COMMIT_MAX,
            observer: None,
            on_fatal: Arc::new(|fatal: Fatal| fatal.abort()),
        }
    }
}

/// What was in a store when it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// Whose store it is.
    pub identity: Identity,
    /// The number of the last save.
    pub lsn: u64,
    /// The number of the last save that each peer said it had.
    pub peers: BTreeMap<ReplicaId, u64>,
    /// What to recover from: the same, to [`recover`](crate::protocol::Host::recover), as everything
    /// that was ever saved, less the transactions that have a `Finished` record. These are asked for
    /// with [`Store::recall`].
    pub records: Vec<Record>,
    /// Which transactions can be in the store at all: the highest sequence number of each initiator
    /// in each generation that is not settled, over all transactions, finished or not.
    pub finished: BTreeMap<(u32, InitiatorId), u32>,
}

/// The durable half of a replica.
///
/// Dropping it is an orderly [close](Self::close).
pub struct Store {
    committer: Committer<Keeper>,
    shared: Arc<Shared>,
    records: Keyspace,
    database: Database,
    // Last: the directory is another's only when the database is closed.
    _directory: Directory,
}

impl Store {
    /// Makes a store for a new replica, in a directory that is empty or not there.
    ///
    /// # Errors
    /// When it is not empty, is in use, or the system says no; then what is there must be removed
    /// before another attempt.
    pub fn init(dir: &Path, identity: &Identity) -> Result<(), InitError> {
        Directory::init(dir, identity)
    }

    /// Opens a replica's store with the usual settings. Never creates anything.
    ///
    /// # Errors
    /// See [`OpenError`]: with most of them, the replica must be replaced.
    pub fn open(dir: &Path) -> Result<(Store, Loaded), OpenError> {
        Self::open_with(dir, StoreConfig::default())
    }

    /// Opens a replica's store. Never creates anything.
    ///
    /// # Errors
    /// See [`OpenError`]: with most of them, the replica must be replaced.
    pub fn open_with(dir: &Path, config: StoreConfig) -> Result<(Store, Loaded), OpenError> {
        let directory = Directory::open(dir)?;
        let opened = directory.contents()?;
        let found = load::load(&opened.records, opened.identity.genesis.clone());
        let found = found.map_err(|error| refused(dir, error))?;
        let (lsn, complete) = (found.lsn, opened.complete);
        if lsn < complete {
            return Err(OpenError::Amnesia {
                dir: dir.to_owned(),
                lsn,
                complete,
            });
        }
        let io = |source| OpenError::Io {
            dir: dir.to_owned(),
            source,
        };
        let high_water = HighWater::open(&directory.high_water(), lsn).map_err(io)?;
        let horizon = found.ledger.generations.horizon();
        let shared = Arc::new(Shared::new(lsn, horizon, found.peers.clone()));
        let keeper = Keeper {
            records: opened.records.clone(),
            ledger: found.ledger,
            shared: Arc::clone(&shared),
            high_water,
            sweep: Sweep::new(horizon),
            lsn,
            marked: lsn,
            finishing: Vec::new(),
            last_save: Instant::now(),
        };
        let mut settings = CommitterConfig::new(format!("store-{}", opened.identity.replica));
        settings.commit_max = config.save_max;
        settings.observer = config.observer;
        settings.on_fatal = config.on_fatal;
        let committer = Committer::start(opened.database.clone(), keeper, settings);
        let store = Store {
            committer: committer.map_err(io)?,
            shared,
            records: opened.records,
            database: opened.database,
            _directory: directory,
        };
        let loaded = Loaded {
            identity: opened.identity,
            lsn,
            peers: found.peers,
            records: found.records,
            finished: found.highest,
        };
        Ok((store, loaded))
    }

    /// Saves `records`, and calls `then` when they, and all that was saved before, are durable. With
    /// no records, only the waiting is left. `then` runs on the thread that saves; it must not
    /// block, nor panic.
    ///
    /// Blocks while [`QUEUE_MAX`](committer::QUEUE_MAX) saves wait. A failure ends the process.
    pub fn save(&self, records: Vec<Record>, then: impl FnOnce(u64) + Send + 'static) {
        let then = Box::new(then);
        self.committer.submit(Save { records, then });
    }

    /// A peer said that its last save was `lsn`. It is saved along with the next records; until then,
    /// a crash forgets it.
    pub fn remember(&self, peer: ReplicaId, lsn: u64) {
        self.shared.remember(peer, lsn);
    }

    /// The last save that `peer` said it had.
    pub fn remembered(&self, peer: ReplicaId) -> Option<u64> {
        self.shared.peer(peer)
    }

    /// The number of the last save that is durable; one higher each time.
    pub fn lsn(&self) -> u64 {
        self.shared.lsn.load(Ordering::Acquire)
    }

    /// How many saves were asked for whose `then` has not returned yet.
    pub fn pending(&self) -> u64 {
        self.committer.pending()
    }

    /// All records of an instance that is not settled; none if there are none. It sees every save
    /// whose `then` was called.
    ///
    /// # Errors
    /// When the disk or a record on it is damaged: the replica must stop.
    pub fn recall(&self, id: &CommitId) -> Result<Vec<Record>, RecallError> {
        if self.shared.is_settled(id) {
            return Ok(Vec::new());
        }
        load::recall(&self.records, &layout::key_of_id(Tag::Transaction, *id))
    }

    /// All records of all instances of a transaction that are not settled.
    ///
    /// # Errors
    /// When the disk or a record on it is damaged: the replica must stop.
    pub fn recall_txn(&self, txn: TxnId) -> Result<Vec<Record>, RecallError> {
        let records = load::recall(&self.records, &layout::prefix_of_txn(txn))?;
        let is_live = |record: &Record| {
            let id = layout::of_transaction(record).map(|(id, ..)| id);
            id.is_some_and(|id| !self.shared.is_settled(&id))
        };
        Ok(records.into_iter().filter(is_live).collect())
    }

    /// What was saved so far, for metrics.
    pub fn stats(&self) -> Stats {
        self.committer.stats()
    }

    /// How many bytes the database has on disk, for metrics. Its journal takes 64 MiB from the start.
    ///
    /// # Errors
    /// When the system says no.
    pub fn disk_bytes(&self) -> fjall::Result<u64> {
        self.database.disk_space()
    }

    /// Saves everything that was asked for, what peers said included, and stops.
    pub fn close(&self) {
        self.committer.close();
    }
}

fn refused(dir: &Path, error: LoadError) -> OpenError {
    let dir = dir.to_owned();
    match error {
        LoadError::Unreadable(RecallError::Database(source)) => OpenError::Database { dir, source },
        LoadError::Unreadable(RecallError::Damaged(record)) => OpenError::Damaged { dir, record },
        LoadError::Hole { missing } => OpenError::Hole { dir, missing },
    }
}
