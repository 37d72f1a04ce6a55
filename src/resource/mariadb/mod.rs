//! MariaDB takes part in distributed transactions.
//!
//! ```no_run
//! # async fn example(
//! #     access: paxos_commit::Access,
//! #     txn: paxos_commit::protocol::types::TxnId,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use paxos_commit::Participant;
//! use paxos_commit::resource::mariadb::mysql_async::Opts;
//! use paxos_commit::resource::mariadb::{Mariadb, Options};
//!
//! // Once: the names of the cluster and the participant, as in the certificate.
//! let server = Opts::from_url("mysql://ledger:secret@db.example/ledger")?;
//! let mariadb = Mariadb::connect(server, Options::new("shop", "ledger")).await?;
//! let participant = Participant::builder(access).connect(mariadb.clone()).await?;
//!
//! // A request came in, with the id of a transaction: work under it, with plain SQL.
//! let branch = participant.branch(txn).await?;
//! let mut db = mariadb.work(branch.txn()).await?;
//! let sql = "UPDATE account SET balance = balance - ? WHERE name = ?";
//! let changed = db.execute(sql, (30, "alice")).await?;
//! drop(db);
//! if changed != 1 {
//!     branch.rollback().await;
//!     return Err("no such account".into());
//! }
//! // Goes back to the caller with the answer, who enlists it and asks for commit.
//! let ticket = branch.ticket().to_string();
//! # Ok(())
//! # }
//! ```
//!
//! Or the work travels inside the prepare, as a request of a few bytes:
//!
//! ```no_run
//! use paxos_commit::protocol::types::Request;
//! use paxos_commit::resource::mariadb::{Options, RequestError, Work};
//!
//! async fn take(mut db: Work, request: Request) -> Result<(), RequestError> {
//!     let sum: i64 = std::str::from_utf8(&request.0)?.parse()?;
//!     let sql = "UPDATE account SET balance = balance - ? WHERE name = 'alice'";
//!     db.execute(sql, (sum,)).await?;
//!     Ok(())
//! }
//!
//! let options = Options::new("shop", "ledger").requests(take);
//! ```
//!
//! The adapter begins an XA branch at the first [`Mariadb::work`], prepares it when commit is asked
//! for, and later commits or rolls back what was prepared, in this process or another. Any number of
//! processes of one participant may share the database.
//!
//! # What to set on the server
//!
//! - **All tables that take part are InnoDB.** What is written to a table of MyISAM, Aria or MEMORY
//!   under a transaction stands at once and whatever the outcome; nothing warns of it.
//! - `innodb_flush_log_at_trx_commit` = 1 and, with a binary log, `sync_binlog` = 1. The first is the
//!   default, the second is **not**. At any other value [`Mariadb::connect`] logs an error.
//! - `binlog_format` MIXED or ROW; [`Mariadb::connect`] refuses STATEMENT.
//! - `max_connections`: for each process [`work_connections`](Options::work_connections) and
//!   [`finish_connections`](Options::finish_connections).
//! - Every process of a participant connects as the same user (who may end his own connections),
//!   straight to the server, and not to one of Galera, which knows no XA.
//! - TLS: turn on one of the features of `mysql_async` in your own `Cargo.toml`.
//!
//! MariaDB 10.6 or later; tested with 10.11. MySQL 8 is not in Debian: untested, and refused.
//!
//! # What to monitor
//!
//! A prepared branch **keeps its locks, and holds back purge**, also while nobody is connected.
//! Gauges, set at every scan for branches in doubt: `paxos_commit_mariadb_prepared` and
//! `paxos_commit_mariadb_prepared_oldest_seconds`; [`Mariadb::prepared`] tells the same. The server
//! does not tell how old a branch is: the age is for how long this process has seen it. What is older
//! than some minutes waits for coordinators that do not answer. Never end it by hand
//! ([`BranchError::RolledBack`] and [`BranchError::NoProof`] are what comes of that): ask the
//! coordinators (`paxos-commit txn`), or start the participant.
//!
//! # Isolation
//!
//! By default branches are [`Serializable`](Isolation::Serializable), which in InnoDB is strict
//! two-phase locking: what is read is locked, gaps between rows included, until the outcome is
//! applied. So whole transactions are serializable across all participants that do the same, such as
//! the embedded store. (At lower levels they are not: reads that lock nothing may see one participant
//! before a commit and another after it.) Deadlocks within the server end at once with an error
//! (1213), those that go through several participants by [`lock_max`](Options::lock_max) (1205).
//! **After 1205 only the statement was undone, and the rest can still be prepared**: a service that
//! meets an error gives its branch up, unless it knows better.
//!
//! Two limits (10.11). **After a crash of the server a prepared branch has the locks of what it wrote,
//! and no others**: what it only read may change before its outcome is applied, so for that time
//! transactions that read here and write elsewhere are not serializable. And below `Serializable`
//! shared locks (`LOCK IN SHARE MODE`) end when the branch is prepared; those of `FOR UPDATE` stay.
//!
//! # In the database
//!
//! | table | what |
//! |---|---|
//! | `paxos_commit_branch` | a row for each branch, which the branch itself writes just before it is prepared: `owner` (a digest of cluster, participant and database, as the server spells it), `commit_id`, `session`, `process` |
//! | `paxos_commit_settled` | for each owner the horizon: up to there rows of the first table are dropped |
//! | `paxos_commit_disputed` | commits of which neither a prepared branch nor a marker was found ([`BranchError::NoProof`]): the horizon does not prove them |
//! | `paxos_commit_forced` | written to so that the log is forced to disk |
//!
//! An xid has the format id `0x50584331`; its gtrid is the transaction's id and eight random bytes of
//! the adapter (`process`), its bqual the `owner`. The server wants it before the work begins, when
//! neither the roster nor the session is known; the branch's row says both. **It is read before it is
//! committed**, at READ UNCOMMITTED, to name what stands prepared. Once the branch has committed it
//! is the marker that proves this. Rows are dropped when their transaction is settled, a thousand at
//! a time.
//!
//! The adapter **never votes `ReadOnly`**: the server has no cheap and sound way to tell that a
//! branch wrote nothing (`innodb_trx` needs a privilege and does not know of other engines), and the
//! row makes every branch one that wrote something, which it must be to stay prepared (below).
//!
//! # What the server does
//!
//! Seen on 10.11.19, from Debian, and what the adapter does about it:
//!
//! - **While the session that prepared a branch lives, no other can finish it**: XAER_NOTA (1397),
//!   although `XA RECOVER` lists it. So 1397 may mean "missing" and "somebody has it"; `XA START` of
//!   the same xid tells (XAER_DUPID, 1440, if anybody has it in whatever state). The adapter finishes
//!   a branch where it was prepared. If the outcome takes longer than
//!   [`hold_max`](Options::hold_max), or work waits for a connection for more than 20 ms, it closes
//!   that connection, and the branch is everybody's. The same happens when a client is lost, or at `KILL CONNECTION`. (A
//!   session that has a prepared branch can do nothing else: 1399.)
//! - **Who finishes a branch in the very moment in which its session ends is told that it is done,
//!   and it is not**: `XA COMMIT` answers OK and commits nothing, the branch keeps its locks, and
//!   neither `XA RECOVER` nor anybody else knows it until the server is restarted; then it stands
//!   prepared again. Seen in 40 of 6,000 tries that did nothing but hit that moment. (The server lets
//!   others have the xid before InnoDB lets go of the session.) A session that works for a
//!   branch therefore has a user lock (`GET_LOCK`) of the branch's name, without which it neither
//!   begins nor is prepared: nobody else finishes the branch before that is free, and for 50 ms after,
//!   and looks afterwards whether its row is committed
//!   or gone. If not, the adapter never says that it is done ([`BranchError::NotEnded`]), and no
//!   horizon proves it: the server answers the next try with XAER_NOTA, and lets others take the name.
//! - **A prepared branch that wrote nothing is listed by `XA RECOVER`, and lost when its session
//!   ends**: `XA COMMIT` answers 1402. The row that every branch writes prevents that.
//! - **`XA ROLLBACK` is not durable when it returns.** After a SIGKILL of the server at that moment
//!   the branch stood prepared again, in 20 of 20 tries; not in one of 20 if any commit came in
//!   between. The adapter makes a small one.
//! - `XA PREPARE` and `XA COMMIT` survived every SIGKILL right after them, without a binary log and
//!   with one; with `innodb_flush_log_at_trx_commit` = 0 no prepare did. (What the loss of power does
//!   with `sync_binlog` = 0 a SIGKILL does not show.)
//! - **With `autocommit` = 0 a session that has read anything can finish no branch**: XAER_OUTSIDE
//!   (1400). The adapter sets it to 1 in its sessions, whatever the server or the URL says. (A service
//!   can set it to 0 in its own, inside the branch too: what makes a rollback durable is committed
//!   elsewhere.)
//! - `COMMIT`, `ROLLBACK`, `BEGIN`, `LOCK TABLES` and DDL are refused inside a branch (1399).
//! - A deadlock rolls the whole branch back, and the session can do nothing but `XA ROLLBACK`
//!   (1399); a timeout of a lock undoes the statement only.
//! - A connection whose client is gone keeps its locks while a statement waits for a lock: the
//!   adapter ends it (`KILL CONNECTION`) when it lets go of the work.

mod branch;
mod connection;
mod error;
mod finishing;
mod options;
mod schema;
mod state;
mod work;
mod xid;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mysql_async::{Opts, OptsBuilder};
use tokio::time::timeout;

use crate::participant::BranchId;

use connection::Connections;
use options::RequestHandler;
use schema::Tables;
use state::Registry;
use xid::Names;

pub use error::{AcquireError, BranchError, ConnectError, RequestError, WorkError};
pub use finishing::MARKERS_PER_DELETE;
/// The client whose parameters and rows [`Work`] takes and gives.
pub use mysql_async;
pub use options::{Isolation, Options};
pub use state::ENDED_MAX;
pub use work::Work;

/// After how long without a word a connection of TCP is asked whether the other end lives, unless the
/// URL says it (`tcp_keepalive`, in ms). The client has no default, and a host that vanished would keep
/// whoever waits for it for ever.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A database that takes part; see the [module](self). Clones are handles of the same.
#[derive(Clone)]
pub struct Mariadb {
    inner: Arc<Inner>,
}

/// What the handles share.
struct Inner {
    names: Names,
    tables: Tables,
    options: Options,
    requests: Option<Arc<RequestHandler>>,
    /// One for each transaction that works.
    working: Connections,
    /// For all that must not wait until somebody has worked.
    finishing: Connections,
    registry: Mutex<Registry>,
    /// Since when branches that stand prepared have been seen.
    seen: Mutex<BTreeMap<BranchId, Instant>>,
}

/// The branches of one participant that stand prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// How many.
    pub count: usize,
    /// For how long this process has seen the oldest so. The server does not tell its age.
    pub oldest: Option<Duration>,
}

impl Mariadb {
    /// Connects, looks whether the server can take part, and makes the adapter's tables if they are
    /// missing.
    ///
    /// # Errors
    /// When it cannot take part. The error says what to change.
    pub async fn connect(server: Opts, options: Options) -> Result<Self, ConnectError> {
        server.db_name().ok_or(ConnectError::NoDatabase)?;
        let (working, finishing) = pools(&server, &options);
        let mut lease = finishing.lease().await?;
        let preparing = async {
            schema::check_server(&mut lease).await?;
            let database = schema::database(&mut lease).await?;
            let names = Names::new(&options.cluster, &options.participant, &database)?;
            let tables = Tables::new(&database);
            schema::prepare_tables(&mut lease, &tables).await?;
            Ok::<_, ConnectError>((names, tables))
        };
        let Ok(prepared) = timeout(options.answer_max, preparing).await else {
            let seconds = options.answer_max.as_secs_f32();
            return Err(AcquireError::Silent { seconds }.into());
        };
        let (names, tables) = prepared?;
        lease.release();
        Ok(Mariadb {
            inner: Arc::new(Inner {
                names,
                tables,
                requests: options.requests.clone(),
                working,
                finishing,
                registry: Mutex::default(),
                seen: Mutex::default(),
                options,
            }),
        })
    }

    /// Closes the adapter for all handles: no new work begins, nothing is prepared or finished any
    /// more, and the work under way is gone. What is prepared stays prepared. Dropping the last
    /// handle does the same.
    pub fn close(&self) {
        self.inner.working.close();
        self.inner.finishing.close();
        self.registry().close();
    }

    fn options(&self) -> &Options {
        &self.inner.options
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.inner.registry)
    }
}

/// The connections to work on, and those for all that must not wait until somebody has worked.
fn pools(server: &Opts, options: &Options) -> (Connections, Connections) {
    let given = server.setup();
    let with_setup = |sql: String| -> Opts {
        // Run in this order backwards, at first and whenever a session is cleaned.
        let setup = [&[sql], given].concat();
        OptsBuilder::from_opts(server.clone())
            .setup(setup)
            .tcp_keepalive(server.tcp_keepalive().or(Some(KEEPALIVE)))
            .into()
    };
    // Above this level the removal of markers would lock gaps between them.
    let finishing = "SET SESSION autocommit = 1; \
                     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        .to_owned();
    let working = format!(
        "SET SESSION autocommit = 1; SET SESSION TRANSACTION ISOLATION LEVEL {}; SET SESSION \
         innodb_lock_wait_timeout = {}, lock_wait_timeout = {}, idle_transaction_timeout = {}",
        options.isolation,
        options.lock_max.as_secs().max(1),
        options.lock_max.as_secs().max(1),
        options.idle_max.as_secs().max(1)
    );
    let patience = options.acquire_max;
    let (working, finishing) = (with_setup(working), with_setup(finishing));
    let (work_max, finish_max) = (options.work_connections, options.finish_connections);
    (
        Connections::new(working, "work", work_max, patience),
        Connections::new(finishing, "commit and rollback", finish_max, patience),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let guard = mutex.lock();
    guard.expect("nothing panics while it holds a lock")
}

impl fmt::Debug for Mariadb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mariadb")
            .field("options", self.options())
            .field("working", &self.inner.working)
            .field("finishing", &self.inner.finishing)
            .finish_non_exhaustive()
    }
}
