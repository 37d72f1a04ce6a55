//! The directory of a store: creating it, opening it, and the names in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, Slice};

use crate::participant::BranchId;
use crate::protocol::types::{Branch, CommitId, Session, StoreId};
use crate::store::DATABASE_WORKERS;
use crate::store::journals;

use crate::random::draw_into;
use crate::store::intact::{self, Damage, Forced};

use super::error::OpenError;
use super::footprint::{Footprint, RecordError};
use super::meta::Meta;

/// The format that this program writes, and the latest that it reads.
pub(super) const FORMAT: u32 = 1;

const LOCK: &str = "lock";
const FORMAT_FILE: &str = "format";
const FORMAT_WORDS: &str = "paxos-commit embedded store, format ";
const IDENTITY_WORDS: &str = "identity ";
const DATABASE: &str = "database";
/// A database that is not complete yet.
const NEW_DATABASE: &str = "database.new";
const NEW_FORMAT_FILE: &str = "format.new";

/// The keyspaces of a store. See the [table](super#on-disk).
pub(super) struct Keyspaces {
    pub(super) data: Keyspace,
    pub(super) prepared: Keyspace,
    pub(super) committed: Keyspace,
    pub(super) meta: Keyspace,
}

/// A store as it was found, or made.
pub(super) struct Opened {
    pub(super) keyspaces: Keyspaces,
    pub(super) database: Database,
    pub(super) branches: Vec<(BranchId, Footprint)>,
    pub(super) meta: Meta,
    pub(super) identity: StoreId,
    /// Held as long as the store is open.
    pub(super) lock: File,
}

/// The name of a branch on disk: `commit id/session/store/participant`, which sorts by commit id.
pub(super) fn name_of(branch: &BranchId) -> String {
    let Branch {
        participant,
        session,
        store,
    } = &branch.branch;
    format!("{}/{:016x}/{store}/{participant}", branch.id, session.0)
}

/// The first name that comes after all branches of `id`.
pub(super) fn end_of(id: CommitId) -> String {
    format!("{id}0")
}

fn branch_of(name: &str) -> Option<BranchId> {
    let mut parts = name.splitn(4, '/');
    let id = parts.next()?.parse().ok()?;
    let session = u64::from_str_radix(parts.next()?, 16).ok().map(Session)?;
    let store = parts.next()?.parse().ok()?;
    let participant = parts.next()?.parse().ok()?;
    let branch = BranchId {
        id,
        branch: Branch {
            participant,
            session,
            store,
        },
    };
    // One branch has one name.
    (name_of(&branch) == name).then_some(branch)
}

/// Opens the store in `dir`, or makes one.
pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Opened, OpenError> {
    let disk = Disk { dir, cache_bytes };
    disk.create_directory()?;
    // Asked before anything is touched, and again once nobody else can.
    if disk.identity()?.is_none() {
        disk.expect_nothing_else()?;
    }
    let lock = disk.lock()?;
    let identity = if let Some(identity) = disk.identity()? {
        if !disk.path(DATABASE).join("version").exists() {
            return Err(disk.damaged("its database is missing"));
        }
        // fjall would go on without what was in it.
        let database = disk.path(DATABASE);
        if !journals::exist(&database).map_err(io("list", &database))? {
            return Err(disk.damaged("its journal is missing"));
        }
        intact::check(&disk.path(DATABASE), Forced::Each).map_err(|damage| match damage {
            Damage::Rotten(what) => disk.damaged(what),
            Damage::Io(source) => io("read", &disk.path(DATABASE))(source),
        })?;
        identity
    } else {
        disk.create()?
    };
    disk.load(lock, identity)
}

/// A directory that is being opened.
pub(super) struct Disk<'d> {
    dir: &'d Path,
    cache_bytes: u64,
}

impl Disk<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            dir: self.dir.into(),
            what: what.into(),
        }
    }

    pub(super) fn database(&self, source: fjall::Error) -> OpenError {
        let dir = self.dir.into();
        match source {
            fjall::Error::Locked => OpenError::InUse { dir },
            source => OpenError::Database { dir, source },
        }
    }

    fn create_directory(&self) -> Result<(), OpenError> {
        let dir = std::path::absolute(self.dir).map_err(io("find", self.dir))?;
        let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        // A directory is durable when the one above says so.
        for above in missing.into_iter().filter_map(Path::parent) {
            sync(above)?;
        }
        Ok(())
    }

    /// Two processes that finish the same branches would each undo the locks of the other.
    fn lock(&self) -> Result<File, OpenError> {
        let path = self.path(LOCK);
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        let file = options.open(&path).map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
                dir: self.dir.into(),
            }),
            Err(TryLockError::Error(error)) => Err(io("lock", &path)(error)),
        }
    }

    /// The identity of the store, if it was completed once. That file is written last.
    fn identity(&self) -> Result<Option<StoreId>, OpenError> {
        let path = self.path(FORMAT_FILE);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let rest = text.strip_prefix(FORMAT_WORDS).unwrap_or_default();
        let mut lines = rest.lines();
        let number = lines.next().and_then(|number| number.parse().ok());
        let identity = lines.next().and_then(|line| {
            let identity = line.strip_prefix(IDENTITY_WORDS)?;
            identity.parse().ok()
        });
        match number {
            Some(FORMAT) if identity.is_some() => Ok(identity),
            Some(FORMAT) => Err(self.damaged(format!(
                "its file {FORMAT_FILE} has no identity: expected a second line \
                 \"{IDENTITY_WORDS}\" and 32 hexadecimal digits, got {text:?}"
            ))),
            Some(got) if got > FORMAT => Err(OpenError::Newer {
                dir: self.dir.into(),
                got,
                known: FORMAT,
            }),
            Some(_) | None => Err(OpenError::NotAStore {
                dir: self.dir.into(),
                found: format!("a file {FORMAT_FILE} that says {text:?}"),
            }),
        }
    }

    /// A store owns its directory.
    fn expect_nothing_else(&self) -> Result<(), OpenError> {
        let known = [LOCK, DATABASE, NEW_DATABASE, NEW_FORMAT_FILE];
        for entry in fs::read_dir(self.dir).map_err(io("list", self.dir))? {
            let name = entry.map_err(io("list", self.dir))?.file_name();
            if !known.iter().any(|known| name == *known) {
                return Err(OpenError::NotAStore {
                    dir: self.dir.into(),
                    found: name.to_string_lossy().into_owned(),
                });
            }
        }
        Ok(())
    }

    /// Makes a store. A crash at any point leaves nothing, or an empty database, and the next start
    /// goes on from there.
    fn create(&self) -> Result<StoreId, OpenError> {
        self.expect_nothing_else()?;
        let (new, database) = (self.path(NEW_DATABASE), self.path(DATABASE));
        if database.exists() {
            self.expect_empty()?;
        } else {
            if new.exists() {
                fs::remove_dir_all(&new).map_err(io("remove", &new))?;
            }
            let opened = self.open_database(&new)?;
            for name in ["data", "prepared", "committed", "meta"] {
                let made = opened.keyspace(name, KeyspaceCreateOptions::default);
                made.map_err(|error| self.database(error))?;
            }
            drop(opened);
            // fjall does not force the directories of new keyspaces to disk.
            sync_below(&new)?;
            fs::rename(&new, &database).map_err(io("rename", &new))?;
            sync(self.dir)?;
        }
        let (new, format) = (self.path(NEW_FORMAT_FILE), self.path(FORMAT_FILE));
        let mut file = File::create(&new).map_err(io("create", &new))?;
        let mut identity = [0; 16];
        draw_into(&mut identity);
        let identity = StoreId::from(identity);
        let text = format!("{FORMAT_WORDS}{FORMAT}\n{IDENTITY_WORDS}{identity}\n");
        let written = file.write_all(text.as_bytes());
        written
            .and_then(|()| file.sync_all())
            .map_err(io("write", &new))?;
        fs::rename(&new, &format).map_err(io("rename", &new))?;
        sync(self.dir)?;
        Ok(identity)
    }

    /// A database without a format file was never used; if it was, someone took the file away.
    fn expect_empty(&self) -> Result<(), OpenError> {
        let database = self.open_database(&self.path(DATABASE))?;
        let keyspaces = self.keyspaces(&database)?;
        let Keyspaces {
            data,
            prepared,
            committed,
            meta,
        } = keyspaces;
        for keyspace in [data, prepared, committed, meta] {
            let is_empty = keyspace.is_empty();
            if !is_empty.map_err(|error| self.database(error))? {
                return Err(self.damaged(format!("its file {FORMAT_FILE} is missing")));
            }
        }
        Ok(())
    }

    fn open_database(&self, path: &Path) -> Result<Database, OpenError> {
        let builder = Database::builder(path)
            .cache_size(self.cache_bytes)
            .worker_threads(DATABASE_WORKERS)
            // What is durable is said by the committer, save by save.
            .manual_journal_persist(true)
            .journal_compression(CompressionType::None);
        // fjall answers to some damage with a panic: that is a refusal too, and not a bug of ours.
        let opened = catch_unwind(AssertUnwindSafe(|| builder.open()));
        let opened = opened.map_err(|_| {
            self.damaged("its database cannot be read, and panicked (its message is above)")
        })?;
        opened.map_err(|error| self.database(error))
    }

    /// The keyspaces. One that is missing is never made again: what it held was acknowledged.
    fn keyspaces(&self, database: &Database) -> Result<Keyspaces, OpenError> {
        let keyspace = |name: &str| {
            if !database.keyspace_exists(name) {
                return Err(self.damaged(format!("its keyspace {name} is missing")));
            }
            let keyspace = database.keyspace(name, KeyspaceCreateOptions::default);
            keyspace.map_err(|error| self.database(error))
        };
        Ok(Keyspaces {
            data: keyspace("data")?,
            prepared: keyspace("prepared")?,
            committed: keyspace("committed")?,
            meta: keyspace("meta")?,
        })
    }

    fn load(&self, lock: File, identity: StoreId) -> Result<Opened, OpenError> {
        let path = self.path(DATABASE);
        // What is read must be durable before anybody is told of it.
        journals::force(&path).map_err(io("force to disk the journals in", &path))?;
        let database = self.open_database(&self.path(DATABASE))?;
        let keyspaces = self.keyspaces(&database)?;
        let mut branches = Vec::new();
        for entry in keyspaces.prepared.iter() {
            let (name, record) = entry.into_inner().map_err(|error| self.database(error))?;
            branches.push(self.branch(&name, &record)?);
        }
        let meta = Meta::load(self, &keyspaces)?;
        Ok(Opened {
            keyspaces,
            database,
            branches,
            meta,
            identity,
            lock,
        })
    }

    fn branch(&self, name: &Slice, record: &[u8]) -> Result<(BranchId, Footprint), OpenError> {
        let key = String::from_utf8_lossy(name).into_owned();
        let Some(branch) = branch_of(&key) else {
            return Err(self.damaged(format!("{key:?} names no prepared branch")));
        };
        let dir = self.dir.into();
        match Footprint::decode(name, record) {
            Ok(footprint) => Ok((branch, footprint)),
            Err(RecordError::Version { got }) => Err(OpenError::RecordVersion { dir, key, got }),
            Err(source) => Err(OpenError::Record { dir, key, source }),
        }
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

/// Forces a file, or the entries of a directory, to disk.
fn sync(path: &Path) -> Result<(), OpenError> {
    let file = File::open(path).map_err(io("open", path))?;
    file.sync_all().map_err(io("force to disk", path))
}

fn sync_below(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(io("list", path))? {
            sync_below(&entry.map_err(io("list", path))?.path())?;
        }
    }
    sync(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{InitiatorId, Roster, TxnId};

    #[test]
    fn names_are_fixed_read_back_and_sort_by_commit_id() {
        let branch = Branch {
            participant: "ledger".parse().unwrap(),
            session: Session(7),
            store: StoreId::from_u128(1),
        };
        let roster = Roster::new([branch.clone()]).unwrap();
        let id = |sequence| {
            let txn = TxnId {
                generation: 1,
                initiator: InitiatorId::from_u128(2),
                sequence,
                nonce: 9,
            };
            CommitId::new(txn, &roster)
        };
        let of = |sequence| BranchId {
            id: id(sequence),
            branch: branch.clone(),
        };
        let name = name_of(&of(3));
        let store = "00000000000000000000000000000001";
        assert_eq!(
            name,
            format!("{}/0000000000000007/{store}/ledger", id(3)),
            "the commit id, the session, the store, the participant"
        );
        assert_eq!(branch_of(&name), Some(of(3)));
        for wrong in [
            "",
            "/",
            &name[1..],
            &name.replace("/0", "/"),
            &name.to_uppercase(),
        ] {
            assert_eq!(branch_of(wrong), None, "{wrong}");
        }
        assert!(name < end_of(id(3)) && end_of(id(3)) < name_of(&of(4)));
    }
}
