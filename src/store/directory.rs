//! The data directory: what is in it, who may use it, and whether all of it is there.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::DATABASE_WORKERS;
use super::error::{InitError, OpenError};
use super::highwater::HighWater;
use super::identity::{Identity, IdentityError};
use super::intact::{self, Damage, Forced};
use super::journals;
use super::layout::{self, Tag, key_of_u64};

const IDENTITY: &str = "identity";
const HIGH_WATER: &str = "highwater";
const DATABASE: &str = "database";
const KEYSPACE: &str = "records";

/// What fjall calls its own.
const DATABASE_VERSION: &str = "version";
const DATABASE_KEYSPACES: &str = "keyspaces";

/// Blocks and filters that are read. The working set of a coordinator is what is not finished, and
/// that is in the protocol's memory; disk is read at the start, for late questions, and to sweep.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// A small memtable is flushed often, but what it holds is dead soon after; and there can be five of
/// them (one active, four that are flushed before fjall holds writers up): 40 MiB.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// What a start has to go through, about: the least that fjall takes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// After so many flushes their tables are merged, with the whole first level: a memtable has keys from
/// all over the keyspace. That level is so many tables long, and what grows over that moves down
/// as it is, since ids grow.
const TABLES_MERGED: u8 = 12;

/// How long a merged table is. At 20,000 commits a second, flushing and merging take 5 us of the
/// processor per commit, all three replicas together; with fjall's defaults (4 and 64 MiB) it is 10.
const TABLE_BYTES: u64 = 8 * 1024 * 1024;

/// Far from the 1,024 that many systems give a process, which has connections too.
const FILES_MAX: usize = 256;

/// A data directory that no other process uses.
pub(super) struct Directory {
    dir: PathBuf,
    /// The lock is on the directory itself: there is no file that must be created to take it.
    lock: File,
}

/// What an open store consists of.
pub(super) struct Opened {
    pub(super) identity: Identity,
    pub(super) database: Database,
    pub(super) records: Keyspace,
    /// The last save that is known to have been durable.
    pub(super) complete: u64,
}

impl Directory {
    /// Makes a store for `identity`. The identity file comes last: a directory that has one was
    /// whole, and durable, before any vote left.
    pub(super) fn init(dir: &Path, identity: &Identity) -> Result<(), InitError> {
        let io = |source| InitError::Io {
            dir: dir.to_owned(),
            source,
        };
        let fjall = |source| InitError::Database {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(io)?;
        let locked = Self::lock(dir).map_err(io)?;
        let locked = locked.ok_or_else(|| InitError::InUse {
            dir: dir.to_owned(),
        })?;
        if fs::read_dir(dir).map_err(io)?.next().is_some() {
            return Err(InitError::NotEmpty {
                dir: dir.to_owned(),
            });
        }
        {
            let database = locked.database().map_err(fjall)?;
            let records = database.keyspace(KEYSPACE, options).map_err(fjall)?;
            let key = key_of_u64(Tag::Lsn, 0);
            let value = layout::value(&key, &());
            records.insert(key, value).map_err(fjall)?;
            database.persist(PersistMode::SyncAll).map_err(fjall)?;
        }
        HighWater::create(&locked.high_water()).map_err(io)?;
        // fjall does not force the directories that it makes, `keyspaces/` among them.
        sync_directories(dir).map_err(io)?;
        identity.write(&dir.join(IDENTITY)).map_err(io)?;
        sync(dir).map_err(io)?;
        let absolute = fs::canonicalize(dir).map_err(io)?;
        match absolute.parent() {
            Some(parent) => sync(parent).map_err(io),
            None => Ok(()),
        }
    }

    /// Takes the directory, which must be there.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let dir = dir.to_owned();
        match Self::lock(&dir) {
            Ok(Some(locked)) => Ok(locked),
            Ok(None) => Err(OpenError::InUse { dir }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(OpenError::NoIdentity { dir })
            }
            Err(source) => Err(OpenError::Io { dir, source }),
        }
    }

    /// Whether what was opened still stands at its path. If not, why not.
    pub(super) fn is_there(&self) -> Result<(), String> {
        let opened = self.lock.metadata().map_err(|error| error.to_string())?;
        let now = fs::metadata(&self.dir).map_err(|error| error.to_string())?;
        if (opened.dev(), opened.ino()) != (now.dev(), now.ino()) {
            return Err("another directory stands in its place".into());
        }
        let identity = fs::metadata(self.dir.join(IDENTITY));
        identity.map_err(|error| format!("its identity file: {error}"))?;
        Ok(())
    }

    pub(super) fn place(&self) -> &Path {
        &self.dir
    }

    /// Opens what is in it, and creates nothing.
    pub(super) fn contents(&self) -> Result<Opened, OpenError> {
        let dir = || self.dir.clone();
        let io = |source| OpenError::Io { dir: dir(), source };
        let fjall = |source| OpenError::Database { dir: dir(), source };
        let missing = |what| OpenError::Missing { dir: dir(), what };
        let identity = Identity::read(&self.dir.join(IDENTITY));
        let identity = identity.map_err(|error| match error {
            IdentityError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                OpenError::NoIdentity { dir: dir() }
            }
            IdentityError::Io(source) => OpenError::Io { dir: dir(), source },
            IdentityError::Damaged => OpenError::DamagedIdentity { dir: dir() },
            IdentityError::Newer { format } => OpenError::NewerFormat { dir: dir(), format },
        })?;
        let complete = match HighWater::read(&self.high_water()) {
            Ok(complete) => complete.ok_or_else(|| missing("readable high-water sector"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing("high-water sector"));
            }
            Err(source) => return Err(io(source)),
        };
        // Each of these would be created in silence.
        let database = self.dir.join(DATABASE);
        for part in [DATABASE_VERSION, DATABASE_KEYSPACES] {
            if !database.join(part).try_exists().map_err(io)? {
                return Err(missing("whole database"));
            }
        }
        if !journals::exist(&database).map_err(io)? {
            return Err(missing("journal"));
        }
        intact::check(&database, Forced::Some).map_err(|damage| match damage {
            Damage::Rotten(what) => OpenError::Rotten { dir: dir(), what },
            Damage::Io(source) => io(source),
        })?;
        journals::force(&database).map_err(io)?;
        // fjall answers to some damage with a panic: that is a refusal too, and not a bug of ours.
        let opened = catch_unwind(|| self.database());
        let database = opened.map_err(|_| OpenError::Unreadable { dir: dir() })?;
        let database = database.map_err(fjall)?;
        // Not `keyspace_exists`: that knows the name of one whose files are gone.
        let names = database.list_keyspace_names();
        if !names.iter().any(|name| **name == *KEYSPACE) {
            return Err(missing("keyspace"));
        }
        let records = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default);
        Ok(Opened {
            identity,
            records: records.map_err(fjall)?,
            database,
            complete,
        })
    }

    pub(super) fn high_water(&self) -> PathBuf {
        self.dir.join(HIGH_WATER)
    }

    /// `None` if another process has it.
    fn lock(dir: &Path) -> io::Result<Option<Self>> {
        let lock = File::open(dir)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Directory {
                dir: dir.to_owned(),
                lock,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn database(&self) -> fjall::Result<Database> {
        Database::builder(self.dir.join(DATABASE))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(FILES_MAX))
            .worker_threads(DATABASE_WORKERS)
            .open()
    }
}

/// What a keyspace is made with, and keeps.
///
/// Filters and indexes are cut into blocks of 4 KiB. Whole, those of one table have megabytes: no
/// part of the small cache takes that, so each lookup would read them all again (1 ms instead of some
/// microseconds).
fn options() -> KeyspaceCreateOptions {
    let merging = Leveled::default()
        .with_l0_threshold(TABLES_MERGED)
        .with_table_target_size(TABLE_BYTES);
    let bits_per_key = BloomConstructionPolicy::BitsPerKey(10.0);
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(merging))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(bits_per_key)))
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Forces a directory and all below it.
fn sync_directories(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    sync(dir)
}
