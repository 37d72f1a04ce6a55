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
//! than some minutes waits for coordinators that do not answer. Never end it by hand (what comes of
//! that is [`BranchError::RolledBack`], or a commit without proof): ask the coordinators
//! (`paxos-commit txn`), or start the participant.
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
//! | `paxos_commit_store` | a row for each `cluster`, `participant` and database (`db`, as the server spells it): `identity`, the identity of the store, and `secret`, the key that masks ids; both drawn at random when the row is created |
//! | `paxos_commit_branch` | a row for each branch, which the branch itself writes just before it is prepared: `owner` (the identity), `commit_id` (masked), `session`, `process` |
//! | `paxos_commit_forced` | written to so that the log is forced to disk |
//!
//! An xid has the format id `0x50584332`; its gtrid is the masked id of the transaction and eight random
//! bytes of the adapter (`process`), its bqual the identity of the store. The server wants it before
//! the work begins, when neither the roster nor the session is known; the branch's row says both. **It
//! is read before it is committed**, at READ UNCOMMITTED, to name what stands prepared. Once the branch
//! has committed, the row is the marker that proves the commit, and nothing else proves it: without
//! it, `commit` answers [`Proof::Missing`](crate::participant::Proof::Missing), whatever has been
//! settled. Rows are deleted, a thousand at a time, when their transaction is settled and off the list
//! of commits that wait for a participant.
//!
//! The adapter reads the identity when it connects, and compares it on every new connection. A
//! connection that leads to another store is refused ([`AcquireError::OtherStore`]).
//!
//! The adapter **never votes `ReadOnly`**: the server has no cheap and sound way to tell that a
//! branch wrote nothing (`innodb_trx` needs a privilege and does not know of other engines), and the
//! row makes every branch one that wrote something, which it must be to stay prepared (below).
//!
//! # Who can read what
//!
//! A transaction's id entitles its holder to take part in the transaction, and `XA RECOVER` shows the
//! xids of the whole server to every user. So the random part of each id (the nonce) is masked with
//! the key in `paxos_commit_store`, in xids and in rows. No statement of the adapter holds an id in
//! plain text, so the process list and the server's logs show none. The name of a branch's user lock
//! is a keyed digest: no other user can take the lock.
//!
//! **Only the service's user may read `paxos_commit_store`.** MariaDB grants rights by database:
//! a user with `SELECT` on the whole database can read the key. Check with `SHOW GRANTS`, and give
//! other users rights to single tables. The databases `test` and `test_…` of an older installation are
//! open to every user. The service's user needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the
//! adapter's tables. Participants in one database can read each other's keys; give each a database of
//! its own if they must not.
//!
//! **Never change or delete a row of `paxos_commit_store` while branches stand prepared.** With another
//! identity or key, the adapter does not recognize them: they keep their locks until you end each by
//! hand.
//!
//! # Copies, backups and replicas of the server
//!
//! A copy has the identity of its original: the identity is a row, and a copy has that row. Neither
//! the adapter nor the coordinators can tell a copy from the original. **Only one of them may serve.**
//! This is what each case means, and what to do.
//!
//! *Another server, or an empty database, at the same address.* It has another identity or none. The
//! adapter refuses new connections, and after a restart of the service the replicas refuse it: the
//! control log names the store of each participant. Nothing is lost: correct the address. If the old
//! data are gone for good, see the last paragraph of this section.
//!
//! *A replica of the server that was promoted, or a restored backup,* lacks what happened in its last
//! seconds or hours, the window. Semi-synchronous replication makes the window small, but never closes
//! it: see [below](#semi-synchronous-replication). What was in the window decides:
//!
//! | in the window | afterwards | noticed? |
//! |---|---|---|
//! | a branch was prepared, and its commit not acknowledged to the coordinators | the branch is missing | yes: the commit stays listed, and the participant reports that there is no proof of it |
//! | a branch was prepared before, and finished in the window | it stands prepared again. While the coordinators know its outcome, it is finished again, as it was. If a commit is settled and off their list, they answer that it is forgotten, and the branch **is rolled back: the commit is lost** | only by a log line about the rollback |
//! | a branch was prepared, committed, and acknowledged | nothing is left of it: **the commit is lost** | no |
//!
//! So, before any service starts on such data:
//!
//! 1. Make sure that the original cannot serve any more.
//! 2. Run `XA RECOVER FORMAT='SQL'` and compare each entry with the records of the other participants.
//!    Commit by hand (`XA COMMIT`) what they have committed.
//! 3. Compare the data of the window with the other participants, and correct them by hand.
//! 4. Start the service. `paxos-commit txn list` shows the commits that wait for it. When the data are right,
//!    `paxos-commit txn release` ends each commit that the store has no proof of.
//!
//! No check finds out that a database was set back.
//!
//! *A logical copy* (`mariadb-dump`) has the adapter's tables, and no prepared branches. Restored in
//! place of the original, it is a backup as above, whose prepared branches are missing. Restored under
//! another name of the database, it is another store, with an identity of its own.
//!
//! *A copy beside its original,* for tests or reports, is the most dangerous: if it reaches the
//! coordinators with the participant's certificate, then it acknowledges commits that the original has
//! not applied, and the original loses them. Conversely, a commit can be applied in both, which counts
//! it twice if the two are merged later. Before a service starts on a copy, take its certificate away,
//! end its prepared branches, and run `DELETE FROM paxos_commit_store` there.
//!
//! *Data that are gone for good,* or that shall not count as the same store: run `paxos-commit
//! participant gone NAME STORE`, then start with an empty `paxos_commit_store`: it is entered as the new
//! store. `paxos-commit txn release` ends what still waits for the old one. That work is lost here, and
//! committed at the other participants.
//!
//! # Semi-synchronous replication
//!
//! **A promoted replica may lack what was voted and committed, whatever you set.** The adapter cannot
//! do for MariaDB what it does for PostgreSQL: the server answers alike whether a replica has a branch
//! or not. Seen on 10.11.19, from Debian, with one replica, whose process was stopped (SIGSTOP):
//!
//! - With `rpl_semi_sync_master_wait_point` = `AFTER_COMMIT`, the default, **`XA PREPARE` does not wait**:
//!   it returned at once, and no replica had the branch. `XA COMMIT` and `XA ROLLBACK` waited.
//! - With `AFTER_SYNC`, `XA PREPARE`, `XA COMMIT` and `XA ROLLBACK` waited, and a commit was not visible
//!   before the wait ended.
//! - After `rpl_semi_sync_master_timeout` (10 s by default) the wait ended with success and no warning,
//!   and the server went on without replicas (`Rpl_semi_sync_master_status` = OFF).
//! - `KILL QUERY` on a session that waited had it answer success, with no warning, for `XA PREPARE` and
//!   `XA COMMIT`. `KILL CONNECTION` ended the session, and the commit was visible; no replica had it.
//!
//! What comes closest, on the primary: `rpl_semi_sync_master_enabled` = ON,
//! `rpl_semi_sync_master_wait_point` = AFTER_SYNC, `rpl_semi_sync_master_timeout` as long as the service
//! may stand still (in ms), `rpl_semi_sync_master_wait_no_slave` = ON (the default), `log_bin` with
//! `sync_binlog` = 1. On the replica: `rpl_semi_sync_slave_enabled` = ON, and `log_slave_updates`. Watch
//! `Rpl_semi_sync_master_status`: while it is OFF, votes are on the primary only. A replica confirms what
//! it has received: have it apply its whole relay log before it is promoted. A commit that is found
//! done is confirmed by a small write, which waits as the server's settings say.
//! [`Mariadb::connect`] logs an error if semi-synchronous replication is on and waits after the commit.
//!
//! # What the adapter sets in its sessions
//!
//! Whatever the server, its `init_connect` or the URL sets. All sessions: `autocommit` = 1, transactions
//! read and write (`tx_read_only` = 0), `unique_checks` = 1. Sessions for work: the isolation level,
//! `innodb_lock_wait_timeout`, `lock_wait_timeout` and `idle_transaction_timeout` as in the options, and
//! a `wait_timeout` that is longer. `sql_mode`, `max_statement_time` and the rest are the service's own.
//! Sessions that commit and roll back: READ COMMITTED, a `sql_mode` of their own, no
//! `sql_safe_updates`, `completion_type`, `sql_select_limit` or `max_statement_time`.
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
//!   or gone. If not, the adapter never says that it is done ([`BranchError::NotEnded`]): the server answers the next try with XAER_NOTA, and lets others take the name.
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
mod session;
mod state;
mod work;
mod xid;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use mysql_async::{Opts, OptsBuilder};
use tokio::time::timeout;

use crate::participant::BranchId;

use crate::resource::identity::Owner;

use connection::{Connection, Connections, Expected, Known};
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
    /// missing. Draws the identity of the store if the database has none for this participant.
    ///
    /// # Errors
    /// When it cannot take part. The error says what to change.
    pub async fn connect(server: Opts, options: Options) -> Result<Self, ConnectError> {
        server.db_name().ok_or(ConnectError::NoDatabase)?;
        let expected = Arc::new(Expected {
            owner: Owner::new(&options.cluster, &options.participant)?,
            store: OnceLock::new(),
        });
        let (working, finishing) = pools(&server, &options, &expected);
        let mut lease = finishing.lease().await?;
        let entering = enter(&mut lease, &expected);
        let Ok(entered) = timeout(options.answer_max, entering).await else {
            let seconds = options.answer_max.as_secs_f32();
            return Err(AcquireError::Silent { seconds }.into());
        };
        let (names, tables) = entered?;
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

/// Makes the server ready, and reads which store it is. From then on every new connection must lead to
/// that store.
async fn enter(
    connection: &mut Connection,
    expected: &Expected,
) -> Result<(Names, Tables), ConnectError> {
    schema::check_server(connection).await?;
    let tables = Tables::new(&schema::database(connection).await?);
    schema::prepare_tables(connection, &tables).await?;
    let identity = schema::identity(connection, &tables, &expected.owner).await?;
    expected.store.get_or_init(|| Known {
        table: tables.store.clone(),
        store: identity.store,
    });
    Ok((Names::new(&expected.owner, &identity), tables))
}

/// The connections to work on, and those for all that must not wait until somebody has worked.
fn pools(server: &Opts, options: &Options, expected: &Arc<Expected>) -> (Connections, Connections) {
    let given = server.setup();
    let with_setup = |sql: String| -> Opts {
        // Run in this order backwards, at first and whenever a session is cleaned.
        let setup = [&[sql], given].concat();
        OptsBuilder::from_opts(server.clone())
            .setup(setup)
            .tcp_keepalive(server.tcp_keepalive().or(Some(KEEPALIVE)))
            .into()
    };
    let (working, finishing) = (session::working(options), session::finishing(options));
    let patience = options.acquire_max;
    let (working, finishing) = (with_setup(working), with_setup(finishing));
    let (work_max, finish_max) = (options.work_connections, options.finish_connections);
    (
        Connections::new(working, expected.clone(), "work", work_max, patience),
        Connections::new(
            finishing,
            expected.clone(),
            "commit and rollback",
            finish_max,
            patience,
        ),
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
