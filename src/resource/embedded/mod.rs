//! A transactional key-value store inside the service's process, that takes part in distributed
//! transactions.
//!
//! Keys and values are bytes; rows sort by key. A service works under a branch
//! ([`Embedded::work`]), a participant prepares and finishes that work (the store is its
//! [`ResourceManager`](crate::participant::ResourceManager)), and [`Embedded::local`] commits
//! transactions of this store alone.
//!
//! ```
//! use paxos_commit::resource::embedded::{Embedded, Options, WorkError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let store = Embedded::open(dir.path().join("ledger"), Options::new())?;
//!
//! // Initial data, with no coordinator: durable when it returns.
//! store
//!     .local(|work| {
//!         work.put("account/alice", "100")?;
//!         work.put("account/bob", "0")
//!     })
//!     .await?;
//!
//! assert_eq!(store.read("account/alice")?.as_deref(), Some(&b"100"[..]));
//! for row in store.snapshot().scan("account/") {
//!     let row = row?;
//!     println!("{} has {}", row.key.escape_ascii(), row.value.escape_ascii());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! In a distributed transaction the work may be done before the commit, under the branch that the
//! participant gives for the caller's id, or by a request that travels inside the prepare and runs
//! here just before the branch is saved:
//!
//! ```no_run
//! # async fn example(
//! #     access: paxos_commit::Access,
//! #     txn: paxos_commit::protocol::types::TxnId,
//! # ) -> Result<(), paxos_commit::resource::embedded::RequestError> {
//! use paxos_commit::participant::Participant;
//! use paxos_commit::resource::embedded::{Embedded, Options, RequestError, Work};
//!
//! fn balance(work: &Work, account: &[u8]) -> Result<u64, RequestError> {
//!     let Some(text) = work.get(account)? else {
//!         return Err("no such account".into());
//!     };
//!     Ok(std::str::from_utf8(&text)?.parse()?)
//! }
//!
//! // A request is the account and the amount, `account/alice 30`.
//! fn take(work: &Work, request: &[u8]) -> Result<(), RequestError> {
//!     let text = std::str::from_utf8(request)?;
//!     let (account, amount) = text.split_once(' ').ok_or("expected an account and an amount")?;
//!     let balance = balance(work, account.as_bytes())?;
//!     let rest = balance.checked_sub(amount.parse()?).ok_or("not enough money")?;
//!     work.put(account, rest.to_string())?;
//!     Ok(())
//! }
//!
//! let options = Options::new().requests(|work, request| take(work, &request.0));
//! let store = Embedded::open("/var/lib/ledger", options)?;
//!
//! let participant = Participant::builder(access).connect(store.clone()).await?;
//!
//! // Or: work first, under a branch of the transaction whose id came with the caller's message.
//! let branch = participant.branch(txn).await?;
//! take(&store.work(&branch), b"account/alice 30")?;
//! # Ok(())
//! # }
//! ```
//!
//! # Isolation
//!
//! **Transactions are serializable**, by strict two-phase locking: a read locks its row, or the
//! prefix that it scans, shared; a write locks its row exclusively; all locks are held until the
//! outcome is durable here, across restarts of the process too. A scan locks rows that are not
//! there as well: nobody else can write, add or delete a row under its prefix, so there are no
//! phantoms. Since every branch of a distributed transaction holds its locks until the outcome,
//! whole transactions are serializable across all participants that do the same. (A branch that
//! votes `ReadOnly` lets its locks go early, which is allowed only when the work has ended in
//! every branch.)
//!
//! **No transaction waits for a lock.** An operation that cannot have its lock fails at once, and says
//! which transaction holds it ([`WorkError::Conflict`]): abort and try again. So there are no
//! deadlocks; but nothing is fair either, and one hot row makes many aborts. A branch in doubt keeps
//! its locks for as long as its outcome is unknown.
//!
//! **A failed operation poisons its branch**, as in SQL: the branch votes `Aborted`, even if the
//! service ignores the error. [`Work::attempt`] is the savepoint for what may fail.
//!
//! **Locks end with the branch.** A branch that is not asked to prepare within the participant's
//! [`work_max`](crate::participant::ParticipantBuilder::work_max) is released, and a handle of it
//! that a service still has locks nothing more ([`WorkError::Ended`]).
//!
//! What this does not cover: [`read`](Embedded::read) and [`snapshot`](Embedded::snapshot) take no
//! locks. A snapshot is one consistent state of *this* store, with all of a transaction's local
//! effects or none; of two stores one snapshot may hold a transaction that the other does not hold
//! yet. To read several participants consistently, read under a transaction.
//!
//! # On disk
//!
//! A store owns its directory:
//!
//! | name | what |
//! |---|---|
//! | `lock` | locked by the process that has the store open |
//! | `format` | `paxos-commit embedded store, format 1`, and a second line with the store's identity; written last when a store is created |
//! | `database/` | fjall, with four keyspaces |
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `data` | the row's key | the row's value |
//! | `prepared` | the branch: `commit id/session/store/participant`, as text | what it wrote and locked (below) |
//! | `committed` | the branch | nothing: the marker that proves the commit |
//! | `meta` | `opening/` and its number, 20 digits | a number drawn for that opening, 16 hexadecimal digits; the last 65,536 are kept |
//! | `meta` | `cluster`, `participant` | the names of the first participant that was connected |
//!
//! A prepared branch is saved as
//!
//! ```text
//! version  1 byte    1
//! counts   3 x u32   of writes, reads, prefixes
//! writes             each: key, then 0 (deleted), or 1 and the value
//! reads              each: key; keys that were written too are left out
//! prefixes           each: prefix
//! checksum u32       CRC-32 of the branch's key and all bytes before
//! ```
//!
//! where keys, prefixes and values are a u32 length and so many bytes, and numbers are
//! little-endian.
//!
//! Invariants:
//! 1. A branch is in `prepared` from before its vote until its outcome. To commit is one batch: its
//!    writes into `data`, its entry out of `prepared`, its marker into `committed`. To roll back
//!    removes the entry. So `data` never holds an effect of what is not committed.
//! 2. No two prepared branches hold locks that exclude each other.
//! 3. A marker is there from the commit until the commit is settled and off the list of those that
//!    still wait for a branch. No other thing proves a commit: not the horizon, and not time.
//! 4. An opening is durable before [`Embedded::open`] returns.
//!
//! Every save but that of an opening goes through one thread, which writes whatever waits in one
//! batch with one `fdatasync`. If that fails the process ends, since nobody can know what is on disk
//! then.
//!
//! # What is noticed of damage, and what is not
//!
//! [`Embedded::open`] refuses a store without one of its parts, with a journal that is damaged before
//! its last save, or with lists of tables that are not what was written. Damaged blocks of tables are
//! noticed when they are read: the operation fails, and its transaction aborts.
//!
//! Not noticed when it is opened: that the last save is damaged, which looks like one that a crash
//! has torn; that the directory is an older copy of itself, or a new and empty one. (Both of these are
//! noticed when its participant connects: openings are counted, and the control log knows the last one.)
//!
//! # Another directory under the same name
//!
//! A store has an **identity**, which is drawn when its directory is made, and counts its
//! **openings**. The identity stands in every ticket and roster, and the control log names the store of
//! each participant, so only sessions of the right store work and finish branches. What happens if the
//! directory is not the one that it was:
//!
//! | directory | identity | what happens |
//! |---|---|---|
//! | empty (a volume that is not mounted), or of another store | another one | [`connect`](crate::participant::ParticipantBuilder::connect) refuses it with both identities. What it holds prepared it finishes first. If the right directory is lost for good, `paxos-commit participant gone` gives the name to the next store; commits that it has not applied stay listed until an operator releases them by name. |
//! | an older copy of the directory | the same | It is turned away, however often it is opened: it does not remember the opening that worked last. If it is to take the place of the original (a backup), `paxos-commit participant restored` lets it in, and the operator who says so answers for what was committed after the copy was made: a branch that was prepared and is not there is [`Missing`](crate::participant::Proof::Missing) when its commit comes, and a commit that was applied and is not there is lost **without a word**. |
//! | a copy that is made while the original is open, and opened | the same | It is let in, and the original is turned away. |
//! | of another participant | – | [`serves`](crate::participant::ResourceManager::serves) refuses it: the store keeps the names of the first participant that was connected. |
//!
//! `Missing` does not change by waiting. Never restore a store from a backup while transactions of
//! its participant are in flight; never open a copy beside the original. A second process needs a
//! participant's name, a certificate and a directory of its own.

mod attempt;
mod branch;
mod disk;
mod error;
mod footprint;
mod local;
mod locks;
mod meta;
mod options;
mod save;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod work;

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
pub(crate) use footprint::fuzz;
#[cfg(all(test, feature = "cluster", feature = "embedded"))]
pub(crate) use footprint::fuzz_seeds;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use fjall::{Database, Slice};

use crate::participant::Branch;
use crate::protocol::types::{Opening, StoreId, TxnId};
use crate::store::committer::{Committer, CommitterConfig, Stats};

use disk::{Keyspaces, Opened};
use locks::Owner;
use options::RequestHandler;
use save::{Save, StoreSaver, Told, What};
use state::{Role, State};
use work::Scope;

pub use branch::MARKERS_PER_SAVE;
pub use error::{BranchError, Holder, LocalError, OpenError, ReadError, RequestError, WorkError};
pub use footprint::RecordError;
pub use meta::Served;
pub use options::Options;
pub use snapshot::{Rows, Snapshot};
pub use state::ENDED_MAX;
pub use work::{
    KEY_BYTES_MAX, READS_MAX, Row, SCAN_ROWS_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITES_MAX,
    Work,
};

/// A store; see the [module](self). Clones are handles of the same store.
///
/// It serves one participant at a time. The directory is free for others once the last handle,
/// [`Work`] and [`Snapshot`] is dropped.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

/// What the handles share.
struct Inner {
    committer: Committer<StoreSaver>,
    store: Arc<Store>,
    requests: Option<Arc<RequestHandler>>,
    identity: StoreId,
    /// Those that the store remembers, this one last.
    openings: Vec<Opening>,
    /// Held while the first participant is saved.
    serving: Mutex<()>,
}

/// What the committer's thread, handles of work and snapshots share too. Dropped in this order: the
/// directory is unlocked last.
struct Store {
    state: Mutex<State>,
    keyspaces: Keyspaces,
    database: Database,
    #[cfg(test)]
    reads_fail: std::sync::atomic::AtomicBool,
    /// Whoever holds it holds up all saves.
    #[cfg(test)]
    saves: Mutex<()>,
    _lock: File,
}

type StateGuard<'s> = MutexGuard<'s, State>;

impl Store {
    fn lock(&self) -> StateGuard<'_> {
        let state = self.state.lock();
        state.expect("nothing panics while it holds the state")
    }

    /// The committed value of a row.
    fn committed(&self, key: &[u8]) -> fjall::Result<Option<Slice>> {
        #[cfg(test)]
        self.fail_if_told()?;
        self.keyspaces.data.get(key)
    }

    /// The first committed rows that start with `prefix`.
    fn committed_under(&self, prefix: &[u8], max: usize) -> fjall::Result<Vec<(Slice, Slice)>> {
        #[cfg(test)]
        self.fail_if_told()?;
        let rows = self.keyspaces.data.prefix(prefix).take(max);
        rows.map(|row| row.into_inner()).collect()
    }

    #[cfg(test)]
    fn fail_if_told(&self) -> fjall::Result<()> {
        if self.reads_fail.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(std::io::Error::other("a test breaks the disk").into());
        }
        Ok(())
    }
}

impl Embedded {
    /// Opens the store in `dir`, or makes one if there is nothing. Blocks until that is durable.
    ///
    /// Branches that were prepared hold their locks again until they are finished.
    ///
    /// # Errors
    /// When it is open already, was written by a newer program, is damaged, or the file system or
    /// the database refuse. In none of these cases is anything changed.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        let Options {
            cache_bytes,
            requests,
        } = options;
        let Opened {
            keyspaces,
            database,
            branches,
            meta,
            identity,
            lock,
        } = disk::open(dir, cache_bytes)?;
        let mut state = State::new(meta.served);
        for (branch, footprint) in branches {
            let name = branch.to_string();
            if let Err(held) = state.restore(branch, footprint) {
                let key = held.key.escape_ascii();
                return Err(OpenError::Damaged {
                    dir: dir.into(),
                    what: format!("two prepared branches, one of them {name}, have locked {key}"),
                });
            }
        }
        let openings = meta::open_again(&database, &keyspaces, meta.openings);
        let openings = openings.map_err(|source| OpenError::Database {
            dir: dir.into(),
            source,
        })?;
        let store = Arc::new(Store {
            state: Mutex::new(state),
            keyspaces,
            database: database.clone(),
            #[cfg(test)]
            reads_fail: false.into(),
            #[cfg(test)]
            saves: Mutex::new(()),
            _lock: lock,
        });
        let saver = StoreSaver(Arc::clone(&store));
        let config = CommitterConfig::new("embedded", format!("in {}", dir.display()));
        let committer =
            Committer::start(database, saver, config).map_err(|source| OpenError::Io {
                action: "start the thread that saves to",
                path: dir.into(),
                source,
            })?;
        let inner = Inner {
            committer,
            store,
            requests,
            identity,
            openings,
            serving: Mutex::new(()),
        };
        Ok(Embedded {
            inner: Arc::new(inner),
        })
    }

    /// The work of a branch in this store. All handles of one branch share it.
    ///
    /// The branch comes from the participant that is connected with this store: it is its session
    /// that will prepare the work, or release its locks. Once that has happened, every operation
    /// answers [`WorkError::Ended`].
    pub fn work(&self, branch: &Branch) -> Work {
        let (expected, got) = (self.inner.identity, branch.store());
        if expected != got {
            return Work {
                scope: Scope::OtherStore { expected, got },
                ..self.join(branch.txn(), || false)
            };
        }
        self.join(branch.txn(), || branch.is_open())
    }

    fn join(&self, txn: TxnId, is_open: impl FnOnce() -> bool) -> Work {
        let store = &self.inner.store;
        let owner = store.lock().join(txn, is_open);
        // No work has this number: every operation answers that the transaction has ended.
        let owner = owner.unwrap_or(Owner(0));
        Work::new(Arc::clone(store), owner, Role::Service)
    }

    /// The work of a transaction, as if a session had begun it.
    #[cfg(test)]
    pub(crate) fn work_of(&self, txn: TxnId) -> Work {
        self.join(txn, || true)
    }

    /// The committed value of a row; `None` if it is not there. Takes no lock and waits for nobody.
    /// (A value can be seen here a moment before the branch that wrote it lets go of its lock.)
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn read(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self.inner.store.committed(key.as_ref())?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// All committed rows as they are now, whatever is committed later. Takes no locks.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.inner.store))
    }

    /// How many rows and prefixes are locked now, by everyone together.
    pub fn locks(&self) -> usize {
        self.inner.store.lock().locks.len()
    }

    /// What was saved so far, for metrics.
    pub fn stats(&self) -> Stats {
        self.inner.committer.stats()
    }

    /// Closes the store for all handles: what is being saved becomes durable, what is prepared
    /// stays prepared, all other work is gone. Blocks until then. Dropping the last handle does the
    /// same.
    pub fn close(&self) {
        self.inner.close();
    }

    fn submit(&self, what: What, told: Told) {
        self.inner.committer.submit(Save { what, told });
    }
}

impl Inner {
    fn close(&self) {
        self.store.lock().is_closed = true;
        self.committer.close();
        self.store.lock().wake_all();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
