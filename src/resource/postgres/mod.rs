//! PostgreSQL takes part in distributed transactions.
//!
//! ```no_run
//! # async fn example(
//! #     access: paxos_commit::Access,
//! #     txn: paxos_commit::protocol::types::TxnId,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use paxos_commit::Participant;
//! use paxos_commit::resource::postgres::tokio_postgres::NoTls;
//! use paxos_commit::resource::postgres::{Options, Postgres};
//!
//! // Once: the names of the cluster and the participant, as in the certificate.
//! let server = "postgresql://ledger@db.example/ledger".parse()?;
//! let postgres = Postgres::connect(server, NoTls, Options::new("shop", "ledger")).await?;
//! let participant = Participant::builder(access).connect(postgres.clone()).await?;
//!
//! // A request came in, with the id of a transaction: work under it, with plain SQL.
//! let branch = participant.branch(txn).await?;
//! let db = postgres.work(branch.txn()).await?;
//! let sql = "UPDATE account SET balance = balance - $1 WHERE name = $2";
//! let changed = db.client().execute(sql, &[&30_i64, &"alice"]).await?;
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
//! use paxos_commit::resource::postgres::{Options, RequestError, Work};
//!
//! async fn take(db: Work, request: Request) -> Result<(), RequestError> {
//!     let sum: i64 = std::str::from_utf8(&request.0)?.parse()?;
//!     let sql = "UPDATE account SET balance = balance - $1 WHERE name = 'alice'";
//!     db.client().execute(sql, &[&sum]).await?;
//!     Ok(())
//! }
//!
//! let options = Options::new("shop", "ledger").requests(take);
//! ```
//!
//! The adapter begins a local transaction at the first [`Postgres::work`], prepares it
//! (`PREPARE TRANSACTION`) when commit is asked for, and later commits or rolls back what was
//! prepared, in this process or another. Any number of processes of one participant may share the
//! database.
//!
//! # What to set on the server
//!
//! - **`max_prepared_transactions`**: 0 by default, and [`Postgres::connect`] refuses that. At least
//!   as many as branches can stand prepared at a time, of all participants in all databases of the
//!   server; those in doubt count. When there is no room for one more, it aborts and says so. A
//!   standby needs at least the value of its primary.
//! - `max_connections`: for each process [`work_connections`](Options::work_connections) and
//!   [`finish_connections`](Options::finish_connections).
//! - `fsync` and `full_page_writes` on, as they are by default.
//! - Every process of a participant connects as the same role, straight to the server: a pooler that
//!   hands one connection to several clients cannot be in between.
//! - With standbys: `synchronous_standby_names`; see [below](#copies-backups-and-standbys).
//! - `tcp_keepalives_idle` and `client_connection_check_interval`, so that the server notices soon
//!   when a client's machine is gone.
//!
//! PostgreSQL 13 or later; tested with 15. `PREPARE TRANSACTION` refuses work that used temporary
//! tables, foreign tables, `LISTEN`, `NOTIFY`, or cursors `WITH HOLD`: it aborts. (A branch that only read and called
//! `NOTIFY` may vote `ReadOnly`; then its notification goes out whatever the outcome.) Sequences
//! never roll back.
//!
//! # What to monitor
//!
//! A prepared transaction **holds its locks and holds back vacuum** in the whole server, also while
//! nobody is connected. Gauges, set at every scan for branches in doubt:
//! `paxos_commit_postgres_prepared` and `paxos_commit_postgres_prepared_oldest_seconds`;
//! [`Postgres::prepared`] tells the same. What is older than some minutes waits for coordinators that
//! do not answer, or for a participant that does not run. Never end it by hand: ask the coordinators
//! (`paxos-commit txn`), or start the participant. What no participant of any name will ever ask for
//! shows in `pg_prepared_xacts` with its owner's name in it. The adapter logs a warning about each
//! prepared transaction of this participant that belongs to another store.
//!
//! # Isolation
//!
//! Branches are as isolated as [`Isolation`] says, each in its own database. A prepared branch keeps
//! its row locks until the outcome; but readers of PostgreSQL do not lock, so while an outcome is
//! applied, a transaction may read one participant before the commit and another after it, at every
//! level. Also **serializable in each database is not serializable across them**: PostgreSQL finds
//! dangerous reads within one server only, so two transactions may each miss, in a different database,
//! what the other wrote. Where that matters, lock what the decision rests on: `SELECT … FOR SHARE` or
//! `FOR UPDATE` for rows, `pg_advisory_xact_lock` or a table lock for rows that are not there yet. (An
//! advisory lock of the session is gone before the outcome.) When all do that
//! (strict two-phase locking by hand), transactions are serializable across all participants that do
//! the same, at any level. Deadlocks that go through several participants end by
//! [`lock_max`](Options::lock_max).
//!
//! # In the database
//!
//! Prepared transactions have the name
//! `paxos-commit/2/<cluster>/<participant>/<store>/<masked commit id>/<session>`, at most 199 bytes.
//! The store is the first 8 digits of the store's identity. Masked commit id and session are base32hex
//! of fixed length. A name of a cluster or participant with more than 40 bytes is its first 15, `~`
//! and half of its SHA-256. The adapter touches no other name, and no other database.
//!
//! | table | column | what |
//! |---|---|---|
//! | `store` | `cluster`, `participant`, `database` | whose row it is |
//! | | `identity` | the identity of the store: 128 random bits, drawn when the row is created |
//! | | `secret` | the key that masks ids in names: 256 random bits |
//! | `committed` | `gid` | the marker of a commit: a row that the branch itself wrote, just before it was prepared |
//!
//! A name that is missing was finished, or never prepared. The marker, visible only if the branch
//! committed, tells which, and nothing else does: without a marker, `commit` answers
//! [`Proof::Missing`](crate::participant::Proof::Missing), whatever has been settled. Markers are
//! deleted, a thousand at a time, when their transaction is settled and off the list of commits that
//! wait for a participant.
//!
//! The adapter reads the identity when it connects, and compares it on every new connection. A
//! connection that leads to another store is refused ([`AcquireError::OtherStore`]).
//!
//! # Who can read what
//!
//! A transaction's id entitles its holder to take part in the transaction, and
//! `pg_prepared_xacts` shows the names of the whole server to every role. So the random part of each
//! id (the nonce) is masked with the key in `store`, in the names of prepared transactions, in the
//! markers, and in the setting `paxos_commit.branch` that marks a local transaction. No statement of
//! the adapter holds an id in plain text, so `pg_stat_activity`, `pg_stat_statements` and the server's
//! log show none.
//!
//! **Only the service's role may read the table `store`.** [`Postgres::connect`] takes all rights to
//! the tables from `PUBLIC` when it creates them, and refuses tables that `PUBLIC` may read
//! ([`ConnectError::Public`]). Check the rights of other roles yourself: `\dp paxos_commit.*` lists
//! them, and members of `pg_read_all_data` and superusers read everything. The role needs `USAGE` on
//! the schema, `SELECT` and `INSERT` on `store`, and `SELECT`, `INSERT`, `UPDATE` and `DELETE` on
//! `committed`. Participants that share a schema can read each other's keys; give each a
//! [`schema`](Options::schema) of its own if they must not.
//!
//! **Never change or delete a row of `store` while branches stand prepared.** With another identity or
//! key, the adapter does not recognize them: they keep their locks until you end each by hand.
//!
//! # Copies, backups and standbys
//!
//! A copy has the identity of its original: the identity is a row, and a copy has that row. Neither
//! the adapter nor the replicas can tell a copy from the original. **Only one of them may serve.**
//! This is what each case means, and what to do.
//!
//! *Another server, or an empty database, at the same address.* It has another identity or none. The
//! adapter refuses new connections, and after a restart of the service the replicas refuse it: the
//! control log names the store of each participant. Nothing is lost: correct the address. If the old
//! data are gone for good, see the last paragraph of this section.
//!
//! *A standby that was synchronous when it was promoted* (`synchronous_standby_names` names it) has
//! everything that was voted and committed. Nothing is lost. Make sure that the old primary cannot
//! serve any more. No setting weakens this: see [below](#what-the-adapter-sets-in-its-sessions). While
//! no standby answers, nothing is voted or committed, and commits are tried again until one does.
//!
//! *A standby that lagged behind when it was promoted, or a restored backup,* lacks what happened in
//! its last seconds or hours, the window. What was in the window decides:
//!
//! | in the window | afterwards | noticed? |
//! |---|---|---|
//! | a branch was prepared, and its commit not acknowledged to the replicas | the branch is missing | yes: the commit stays listed, and the participant reports that there is no proof of it |
//! | a branch was prepared before, and finished in the window | it stands prepared again. While the replicas know its outcome, it is finished again, as it was. If a commit is settled and off their list, they answer that it is forgotten, and the branch **is rolled back: the commit is lost** | only by a log line about the rollback |
//! | a branch was prepared, committed, and acknowledged | nothing is left of it: **the commit is lost** | no |
//!
//! So, before any service starts on such data:
//!
//! 1. Make sure that the original cannot serve any more.
//! 2. Run `SELECT gid, prepared FROM pg_prepared_xacts` and compare each entry with the records of the
//!    other participants. Commit by hand (`COMMIT PREPARED`) what they have committed.
//! 3. Compare the data of the window with the other participants, and correct them by hand.
//! 4. Start the service. `paxos-commit txn list` shows the commits that wait for it. When the data are right,
//!    `paxos-commit txn release` ends each commit that the store has no proof of.
//!
//! No check finds out that a database was set back.
//!
//! *A logical copy* (`pg_dump`) has the rows of `store` and `committed`, and no prepared transactions.
//! Restored in place of the original, it is a backup as above, whose prepared branches are missing.
//!
//! *A copy beside its original,* for tests or reports, is the most dangerous: if it reaches the
//! replicas with the participant's certificate, then it acknowledges commits that the original has not
//! applied, and the original loses them. Conversely, a commit can be applied in both, which counts it
//! twice if the two are merged later. Before a service starts on a copy, take its certificate away,
//! end its prepared transactions, and run `DELETE FROM paxos_commit.store` there.
//!
//! *A database with another name* (`ALTER DATABASE … RENAME`, `CREATE DATABASE … TEMPLATE`) is another
//! store, with an identity of its own. After a renaming, and before the service starts, run
//! `UPDATE paxos_commit.store SET database = 'new' WHERE database = 'old'`.
//!
//! *Data that are gone for good,* or that shall not count as the same store: run `paxos-commit
//! participant gone NAME STORE`, then start with an empty `store` table: it is entered as the new
//! store. `paxos-commit txn release` ends what still waits for the old one. That work is lost here, and
//! committed at the other participants.
//!
//! # What the adapter sets in its sessions
//!
//! A server, a database and a role can set what every session begins with, and work can set what it
//! likes up to its end. What the adapter needs it sets itself.
//!
//! | setting | sessions for work | sessions that commit and roll back |
//! |---|---|---|
//! | `synchronous_commit` | at the prepare `on`, unless it is `remote_apply` | `on`, unless it is `remote_apply` |
//! | `statement_timeout` | as it is; the wait of a prepare does not count | 0 |
//! | `transaction_timeout` (17 and later; untested) | as it is | 0 |
//! | `lock_timeout` | [`lock_max`](Options::lock_max) | [`answer_max`](Options::answer_max) |
//! | `idle_in_transaction_session_timeout` | [`idle_max`](Options::idle_max) | 0 |
//! | `idle_session_timeout` (14 and later) | 0 | 0 |
//! | `default_transaction_read_only`, `default_transaction_isolation`, `exit_on_error` | off, `read committed`, off | off, `read committed`, off |
//! | `search_path` | as it is; no statement of the adapter depends on it | `pg_catalog`, then as it is |
//!
//! `remote_apply` stays when it is set before the session begins, or by the work: then a commit waits
//! until a standby has applied it. (A prepare waits until a standby has it, and for no more at any
//! setting.) The other settings of a session for work are the service's own, and last to the end of its
//! work. Triggers that are deferred run just before the prepare, so what they set does not weaken it.
//!
//! **An answer of the server does not prove that a standby has a commit**: the wait for it can be cut
//! short. If its session is ended (`pg_terminate_backend`), the commit shows like any other. If it is
//! canceled (`pg_cancel_backend`), the server reports success and adds a warning. So a prepare with a
//! warning, a commit with a warning and a commit that is found done are each confirmed by a small write,
//! which waits for the standby and comes later in the log ([`BranchError::Unconfirmed`] if that is
//! canceled, too). A rollback is not: what stands prepared on a promoted standby is asked about there,
//! and rolled back again.
//!
//! # Connections that break
//!
//! A connection that the server has closed while it was idle is replaced before work begins, and
//! before a branch is committed or rolled back.
//!
//! When the connection of a transaction is lost its work is gone, and the branch can only abort. When
//! that happens during the prepare nobody knows what the server did: the branch votes to abort, and
//! to roll it back, the adapter has the server end the process that served the connection, waits
//! until it is gone, and only then looks for the name; so nothing surfaces behind its back. A process
//! that dies itself cannot do that: what it sent may be prepared at any time later. It is found by
//! the scan of any other process of the participant, asked about, and comes to the outcome of its
//! transaction.

mod branch;
mod connection;
mod error;
mod finishing;
mod gid;
mod options;
mod schema;
mod session;
mod state;
mod statements;
mod work;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use crate::resource::identity::Owner;

use connection::{Connection, Connections, Dialer, Expected};
use gid::Names;
use options::RequestHandler;
use session::Purpose;
use state::Registry;

pub use error::{AcquireError, BranchError, ConnectError, RequestError, WorkError};
pub use finishing::MARKERS_PER_DELETE;
pub use options::{Isolation, Options};
pub use state::ENDED_MAX;
/// The client that [`Work::client`] is of.
pub use tokio_postgres;
pub use work::Work;

/// A server that has not answered a packet for so long has vanished.
const VANISHED: Duration = Duration::from_secs(20);

/// A database that takes part; see the [module](self). Clones are handles of the same.
#[derive(Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
}

/// What the handles share.
struct Inner {
    names: Names,
    options: Options,
    requests: Option<Arc<RequestHandler>>,
    /// One for each transaction that works.
    working: Connections,
    /// For all that must not wait until somebody has worked.
    finishing: Connections,
    registry: Mutex<Registry>,
}

/// The branches of one participant that stand prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// How many.
    pub count: usize,
    /// How long the oldest has stood so, by the server's clock.
    pub oldest: Option<Duration>,
}

impl Postgres {
    /// Connects, looks whether the server can take part, and makes the adapter's two tables if they
    /// are missing. Draws the identity of the store if the database has none for this participant.
    ///
    /// # Errors
    /// When it cannot take part. The error says what to change.
    pub async fn connect<T>(server: Config, tls: T, options: Options) -> Result<Self, ConnectError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let owner = Owner::new(&options.cluster, &options.participant)?;
        schema::check_name(&options.schema)?;
        let mut server = server;
        if server.get_application_name().is_none() {
            server.application_name(format!("paxos-commit {}", owner.participant));
        }
        watch_over(&mut server);
        let expected = Arc::new(Expected {
            schema: options.schema.clone(),
            owner,
            store: OnceLock::new(),
        });
        let given = server.get_options().unwrap_or_default().to_owned();
        let dialer = |purpose| {
            let mut server = server.clone();
            server.options(session::options(purpose, &given, &options));
            Dialer::new(server, tls.clone(), purpose, expected.clone())
        };
        let (finishing, working) = (dialer(Purpose::Finishing), dialer(Purpose::Working));
        let (work_max, finish_max) = (options.work_connections, options.finish_connections);
        let finishing = Connections::new(finishing, "commit and rollback", finish_max, &options);
        let lease = finishing.lease().await?;
        let entering = enter(&lease, &expected, work_max);
        let Ok(entered) = timeout(options.answer_max, entering).await else {
            let seconds = options.answer_max.as_secs_f32();
            return Err(AcquireError::Silent { seconds }.into());
        };
        let names = entered?;
        lease.release();
        Ok(Postgres {
            inner: Arc::new(Inner {
                names,
                requests: options.requests.clone(),
                working: Connections::new(working, "work", work_max, &options),
                finishing,
                registry: Mutex::new(Registry::default()),
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
        *self.registry() = Registry::default();
    }

    fn options(&self) -> &Options {
        &self.inner.options
    }

    fn schema(&self) -> &str {
        &self.inner.options.schema
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        let registry = self.inner.registry.lock();
        registry.expect("nothing panics while it holds the registry")
    }
}

/// Makes the server ready, and reads which store it is. From then on every new connection must lead to
/// that store.
async fn enter(
    connection: &Connection,
    expected: &Expected,
    prepared_max: usize,
) -> Result<Names, ConnectError> {
    schema::prepare_server(connection, &expected.schema, prepared_max).await?;
    let identity = schema::identity(connection, &expected.schema, &expected.owner).await?;
    expected.store.get_or_init(|| identity.store);
    Ok(Names::new(&expected.owner, &identity))
}

/// A server that vanishes is noticed, and of several hosts the one is meant that can be written to.
fn watch_over(server: &mut Config) {
    if server.get_tcp_user_timeout().is_none() {
        server.tcp_user_timeout(VANISHED);
    }
    if server.get_keepalives_interval().is_none() {
        server.keepalives_idle(VANISHED);
        server.keepalives_interval(VANISHED / 4);
        server.keepalives_retries(4);
    }
    let has_any = server.get_target_session_attrs() == TargetSessionAttrs::Any;
    if server.get_hosts().len() > 1 && has_any {
        server.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("options", self.options())
            .field("working", &self.inner.working)
            .field("finishing", &self.inner.finishing)
            .finish_non_exhaustive()
    }
}
