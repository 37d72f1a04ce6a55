//! What is durable: [group commit](committer) over fjall, and the replica's store.
//!
//! [`Records`](crate::protocol::replica::Records) says what of all that a replica ever saved must be
//! there after a crash. This module keeps that on a disk, in one fjall database per replica, with one
//! `fdatasync` for everything that waits; and it refuses to open a disk that has lost some of it.
//!
//! # On disk: files
//!
//! | in the data directory | what |
//! |---|---|
//! | `identity` | who the replica is; written last by [`Store::init`], never changed. A line of text (`paxos-commit replica identity`), the format (4 bytes), the CRC-32 of the rest (4), an [`Identity`] in postcard |
//! | `highwater` | two slots of 4,096 bytes, written in turn: `paxos-commit hw1` (16), LSN (8), CRC-32 of these (4), zeros |
//! | `database/` | fjall's, with one keyspace, `records` |
//!
//! Whoever uses the directory holds a lock (`flock`) on the directory itself.
//!
//! # On disk: keys
//!
//! All numbers are big-endian, so that keys sort as what they name. An *id* is a commit id: generation
//! (4), initiator (16), sequence (4), nonce (8), roster digest (16). A *ballot* is a round (8) and a
//! replica (4).
//!
//! | first byte | then | content of the value |
//! |---|---|---|
//! | `01` save | LSN (8) | nothing |
//! | `02` peer | replica (4) | the highest LSN that it said it had |
//! | `10` round | round (8) | nothing |
//! | `11` log round | round (8) | nothing |
//! | `12` log promise | ballot | nothing |
//! | `13` log accept | slot (8), ballot, piece (2) | a piece of the entry |
//! | `14` frozen | generation (4) | nothing |
//! | `20` generations | slot (8), piece (2) | a piece of the generations |
//! | `21` listed | id | whom to tell of this settled commit |
//! | `22` swept | | the last dead key that was removed |
//! | `23` disputed | id | nothing: this listed commit was aborted here |
//! | `30` transaction | id, `01` finished | the outcome |
//! | | id, `02` roster | the first vote: the roster that came with it, whose it is (1), and the vote |
//! | | id, `03` ballot | nothing; with the first of the last three |
//! | | id, `04` vote, index (1) | a later vote |
//! | | id, `05` promise, ballot | nothing |
//! | | id, `06` accept, ballot | the outcome, and whom to tell |
//! | | id, `07` committed | whom to tell |
//!
//! A value is a version (1 byte, `01`), the CRC-32 of key and content (4), and the content in postcard.
//! The content of a piece is the number of pieces (2) and at most 2,048 bytes of what was cut. No key
//! with its value reaches 4 KiB: fjall would compress longer ones in its journal.
//!
//! # Definitions
//!
//! - A **save** is one batch of the database, forced to disk. It serves all jobs that waited. Its **LSN**
//!   is one more than that of the save before; [`Store::init`] makes save 0.
//! - The **horizon** is the last id that is settled. A transaction up to it is **dead**.
//! - The **ledger** is everything but the transactions, in memory: generations, which ids are listed,
//!   what is frozen, the highest ballot of the log. Transactions are never in memory here.
//!
//! # Invariants
//!
//! 1. `then` of a save is called when it, and all saves before it, are durable; in the order in which
//!    they were asked for.
//! 2. A key of a transaction only ever has one value; what replaces an older promise or accept
//!    is a key of its own, and the highest counts. Nothing older can take the place of something newer.
//! 3. The horizon moves in the same batch in which what the `Settle` lists is adopted. Dead keys are
//!    ignored from then on, and removed later: a part with each save, more when none waits. Removals
//!    are not forced; after a crash they are done again.
//! 4. The highest 131,072 LSNs are all there, up to that of the last save.
//! 5. What a start reads is durable before anybody acts on it: the journals that an earlier process left
//!    are written once more and forced (`journals.rs`), because it may not have come to that, or in vain.
//! 6. The high-water sector never says more than what was durable when it was written.
//!
//! # What the guard against amnesia sees
//!
//! An acceptor that forgot a promise makes others lose commits, and it cannot remember that it forgot.
//! [`Store::open`] therefore refuses a directory without an identity; an identity without its sector,
//! database, journal or keyspace; a database that ends before the save that the sector says was
//! complete, as when fjall truncates its journal at a damaged place; one that lacks a save in the
//! middle; a record whose checksum is wrong; and files of fjall's that are not as it wrote them, where
//! fjall itself does not look (`intact.rs`). A refusal is final: the replica is replaced by one with
//! a new id.
//!
//! What it does **not** see, and who does:
//!
//! - That exactly the last save is gone, when the machine crashed within 20 ms after it: its trace is
//!   forced no sooner. On the disk that looks like a write that was never finished, which is no
//!   amnesia; so it takes damage *and* a crash at that moment. Peers that were told the LSN see it.
//! - That the whole directory is an older copy of itself: a backup, a snapshot, a rolled back virtual
//!   disk. It is consistent. Peers see it: they [remember](Store::remember) the LSN that they were told.
//! - Where direct writes are refused, the sector may be older after a crash of the machine.
//! - A device that says that it has written what it has not, sector and journal alike. Peers see it,
//!   up to what they were told: they are told each second.
//! - A record that a table of fjall lost without an error. Its blocks have checksums.
//!
//! # What it costs
//!
//! On 2 cores and a virtual disk whose `fdatasync` takes 100 µs (the best of each twentieth, because
//! others used the machine): one record per save 150 µs; 32 per save 150,000 records/s; 128 per save
//! 430,000 records/s. That nothing is known of a transaction takes 11 µs of the processor with ids drawn
//! at random from 500,000, what is known of one 18 µs. A start with 2,000,000 keys takes 0.8 s.

pub mod committer;

mod directory;
mod error;
#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
pub(crate) mod fuzzing;
mod highwater;
mod identity;
#[cfg_attr(not(feature = "embedded"), allow(dead_code))]
pub(crate) mod intact;
pub(crate) mod journals;
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
use load::LoadError;
use sweep::Sweep;

pub use error::{DamagedRecord, InitError, OpenError, RecallError};
pub use identity::{CLUSTER_BYTES_MAX, ClusterNameError, FORMAT, Identity};

/// How many threads of fjall flush and merge, in every database here.
///
/// One is kept free to flush: a single one would hold writers up for a whole merge. But while all the
/// others merge, the one that is kept free turns in a circle with the next order to merge (fjall
/// 3.1.13): with two threads that took a tenth of all processors. Of a database as small as these, two
/// merges can be under way at a time (from the first level to the second, and below), so a third
/// thread takes that order and finds that there is nothing to do.
pub(crate) const DATABASE_WORKERS: usize = 4;

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
    directory: Directory,
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
            sweep: Sweep::new(horizon, found.swept),
            lsn,
            marked: lsn,
            last_save: Instant::now(),
        };
        let id = opened.identity.replica;
        let whose = format!("of replica {id} in {}", dir.display());
        let mut settings = CommitterConfig::new(format!("store-{id}"), whose);
        settings.commit_max = config.save_max;
        settings.observer = config.observer;
        settings.on_fatal = config.on_fatal;
        let committer = Committer::start(opened.database.clone(), keeper, settings);
        let store = Store {
            committer: committer.map_err(io)?,
            shared,
            records: opened.records,
            database: opened.database,
            directory,
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

    /// Saves `records`, and calls `then` with the number of the last save when they, and all that was
    /// saved before, are durable. With no records, only the waiting is left. `then` runs on the thread that saves; it must not
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

    /// The records of an instance that is not settled; none if there are none. It sees every save
    /// whose `then` was called. To learn that there are none takes some microseconds.
    ///
    /// # Errors
    /// When the disk or a record on it is damaged: the replica must stop.
    pub fn recall(&self, id: &CommitId) -> Result<Vec<Record>, RecallError> {
        if self.shared.is_settled(id) {
            return Ok(Vec::new());
        }
        load::recall(&self.records, *id)
    }

    /// The same of all instances of a transaction. Slower: there is no filter for it.
    ///
    /// # Errors
    /// When the disk or a record on it is damaged: the replica must stop.
    pub fn recall_txn(&self, txn: TxnId) -> Result<Vec<Record>, RecallError> {
        let is_live = |id: &CommitId| !self.shared.is_settled(id);
        load::recall_all(&self.records, &layout::prefix_of_txn(txn), is_live)
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

    /// The data directory.
    pub fn place(&self) -> &Path {
        self.directory.place()
    }

    /// Whether the data directory that was opened still stands at its path. If not, what does.
    ///
    /// # Errors
    /// When it was removed, or another one stands there.
    pub fn is_there(&self) -> Result<(), String> {
        self.directory.is_there()
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
        LoadError::Unreadable(RecallError::Version { key, got, known }) => {
            OpenError::RecordVersion {
                dir,
                key,
                got,
                known,
            }
        }
        LoadError::Hole { missing } => OpenError::Hole { dir, missing },
    }
}
