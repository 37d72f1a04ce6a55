//! A transactional key-value store inside the service's process, that takes part in distributed
//! transactions.
//!
//! Keys and values are bytes; rows sort by key. A service works under a transaction's id
//! ([`Embedded::work`]), a participant prepares and finishes that work (the store is its
//! [`ResourceManager`](crate::participant::ResourceManager)), and [`Embedded::local`] commits what
//! concerns nobody else.
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
//! In a distributed transaction the work may be done before the commit, under the id that the
//! caller sends along, or by a request that travels inside the prepare and runs here just before
//! the branch is saved:
//!
//! ```no_run
//! use paxos_commit::protocol::types::TxnId;
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
//! // Or: work first, under the id that came with the caller's message, once the participant has
//! // given this service a branch of that transaction.
//! let txn: TxnId = "00000001-00c0ffee00c0ffee-0000002a".parse()?;
//! let work = store.work(txn);
//! take(&work, b"account/alice 30")?;
//! # Ok::<(), RequestError>(())
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
//! **Nobody waits for a lock.** Who cannot have one is told at once who holds it
//! ([`WorkError::Conflict`]), aborts and tries again. So there are no deadlocks; but nothing is
//! fair either, and one hot row makes many aborts. A branch in doubt keeps its locks for as long as
//! its outcome is unknown.
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
//! | `format` | `paxos-commit embedded store, format 1`; written last when a store is made |
//! | `database/` | fjall, with four keyspaces |
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `data` | the row's key | the row's value |
//! | `prepared` | the branch: `commit id/session/participant`, as text | what it wrote and locked (below) |
//! | `committed` | the branch | nothing: the marker that proves the commit |
//! | `meta` | `settled` | the horizon, a commit id as text: up to there markers are dropped |
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
//! 3. A branch up to the horizon that is not in `prepared` has had its outcome.
//!
//! Every save goes through one thread, which writes whatever waits in one batch with one
//! `fdatasync`. If that fails the process ends, since nobody can know what is on disk then.
//!
//! # What is noticed of damage, and what is not
//!
//! [`Embedded::open`] refuses a store without one of its parts, with a journal that is damaged before
//! its last save, or with lists of tables that are not what was written. Damaged blocks of tables are
//! noticed when they are read: the operation fails, and its transaction aborts.
//!
//! Not noticed: that the last save is damaged, which looks like one that a crash has torn; that the
//! directory is an older copy of itself, or a new and empty one. (A replica keeps a second file for
//! that, and its peers remember; a participant has none.) Lost prepared branches come to light when
//! their commit comes ([`BranchError::NoProof`]); lost commits do not. Never restore a store from a
//! backup while transactions of its participant are under way.

mod branch;
mod disk;
mod error;
mod footprint;
mod locks;
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
use tokio::sync::oneshot;

use crate::protocol::types::{Request, TxnId};
use crate::store::committer::{Committer, CommitterConfig, Stats};

use disk::{Keyspaces, Opened};
use locks::Owner;
use save::{Save, StoreSaver, What};
use state::{Role, State};

pub use branch::MARKERS_PER_SAVE;
pub use error::{BranchError, Holder, LocalError, OpenError, ReadError, RequestError, WorkError};
pub use footprint::RecordError;
pub use snapshot::{Rows, Snapshot};
pub use state::ENDED_MAX;
pub use work::{
    KEY_BYTES_MAX, READS_MAX, Row, SCAN_ROWS_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITES_MAX,
    Work,
};

/// Runs the request of a `Prepare`.
type RequestHandler = dyn Fn(&Work, &Request) -> Result<(), RequestError> + Send + Sync;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    cache_bytes: u64,
    requests: Option<Arc<RequestHandler>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: 32 * 1024 * 1024,
            requests: None,
        }
    }
}

impl Options {
    /// A cache of 32 MiB, and no requests.
    pub fn new() -> Self {
        Options::default()
    }

    /// How many bytes of rows the store keeps in memory, besides those written lately.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// What runs the requests that travel inside a prepare. Without it they abort.
    ///
    /// If the handler returns an error, or panics, the branch aborts. It runs on the task that
    /// prepares: its reads come from memory, or now and then from the disk, and to hand it to
    /// another thread would cost more than all the rest of a prepare. So it must not wait for
    /// anything else.
    pub fn requests(
        mut self,
        handler: impl Fn(&Work, &Request) -> Result<(), RequestError> + Send + Sync + 'static,
    ) -> Self {
        self.requests = Some(Arc::new(handler));
        self
    }
}

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
    /// Held while markers are dropped.
    settling: tokio::sync::Mutex<()>,
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
            settled,
            lock,
        } = disk::open(dir, cache_bytes)?;
        let mut state = State::new(settled);
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
            settling: tokio::sync::Mutex::new(()),
        };
        Ok(Embedded {
            inner: Arc::new(inner),
        })
    }

    /// The work of a transaction in this store. All handles of one transaction share it.
    ///
    /// Call it only once the participant has given this service a branch of the transaction: it is
    /// the participant who will prepare the work, or let it go.
    pub fn work(&self, txn: TxnId) -> Work {
        let store = &self.inner.store;
        let owner = store.lock().join(txn);
        // The number of nobody: every operation answers that the transaction has ended.
        let owner = owner.unwrap_or(Owner(0));
        Work::new(Arc::clone(store), owner, Role::Service)
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

    /// A transaction of this store alone: `work` reads and writes, with the same locks as any other,
    /// and when it returns `Ok` its writes are committed; they are durable when this returns.
    ///
    /// `work` runs on the calling task and must not wait for anything. If this future is dropped
    /// before it is ready, the transaction has been committed, is being committed, or was never
    /// begun.
    ///
    /// # Errors
    /// The error of `work`; then nothing was changed. On [`WorkError::Conflict`] try again.
    pub async fn local<T, E>(
        &self,
        work: impl FnOnce(&Work) -> Result<T, E>,
    ) -> Result<T, LocalError<E>> {
        let (told, durable) = oneshot::channel();
        let value = {
            let store = &self.inner.store;
            let owner = {
                let mut state = store.lock();
                if state.is_closed {
                    return Err(LocalError::Closed);
                }
                state.begin(Holder::Local)
            };
            let local = Local { store, owner };
            let handle = Work::new(Arc::clone(store), owner, Role::Service);
            let value = work(&handle).map_err(LocalError::Work)?;
            let buffer = {
                let mut state = store.lock();
                match state.work(owner, Role::Service).err() {
                    None => {}
                    Some(WorkError::Closed) => return Err(LocalError::Closed),
                    Some(_) => return Err(LocalError::Poisoned),
                }
                state.take_work(owner)
            };
            drop(local);
            let buffer = buffer.expect("only its own local transaction takes this work");
            self.submit(
                What::Local {
                    owner,
                    footprint: buffer.footprint,
                },
                told,
            );
            value
        };
        durable.await.map_err(|_| LocalError::Closed)?;
        Ok(value)
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

    fn submit(&self, what: What, told: oneshot::Sender<()>) {
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

/// A local transaction whose work runs: if it fails, or panics, its locks are let go.
struct Local<'s> {
    store: &'s Store,
    owner: Owner,
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        self.store.lock().drop_work(self.owner);
    }
}
