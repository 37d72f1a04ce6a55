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
//! - With standbys: `synchronous_standby_names`. A standby that lagged behind when it was promoted
//!   has lost what was voted and committed ([`BranchError::NoProof`] may be how that shows). The
//!   same holds for a database restored from a backup.
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
//! shows in `pg_prepared_xacts` with its owner's name in it.
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
//! `paxos-commit/1/<cluster>/<participant>/<commit id>/<session>`, at most 199 bytes: commit id and
//! session are hexadecimal digits of fixed length; a name of a cluster or participant with more than
//! 48 bytes is its first 15, `~` and half of its SHA-256. The adapter touches no other name, and no
//! other database.
//!
//! | table | column | what |
//! |---|---|---|
//! | `committed` | `gid` | the marker of a commit: a row that the branch itself wrote, just before it was prepared |
//! | `settled` | `prefix`, `through` | for a participant (a name up to `<participant>/`) the horizon, a commit id: up to there markers are dropped |
//! | `disputed` | `gid` | a commit of which neither a prepared transaction nor a marker was found ([`BranchError::NoProof`]): the horizon does not prove it |
//!
//! A name that is missing was finished, or never prepared; the marker, visible only if the branch
//! committed, tells which. Markers are dropped once their transaction is settled, a thousand at a
//! time.
//!
//! # Connections that break
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
mod state;
mod statements;
mod work;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use connection::{Connections, Dialer};
use gid::Names;
use options::RequestHandler;
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
    /// are missing.
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
        let names = Names::new(&options.cluster, &options.participant)?;
        schema::check_name(&options.schema)?;
        let mut server = server;
        if server.get_application_name().is_none() {
            server.application_name(format!("paxos-commit {}", names.participant));
        }
        // Whatever the database does by itself, a statement of the adapter's own is a transaction
        // that may write.
        let given = server.get_options().unwrap_or_default();
        let common = format!(
            "{given} -c default_transaction_read_only=off \
             -c default_transaction_isolation=read\\ committed"
        );
        watch_over(&mut server);
        // A statement timeout would cut the wait for synchronous standbys short, and the server would
        // call the commit done.
        server.options(format!("{common} -c statement_timeout=0"));
        let finishing = Dialer::new(server.clone(), tls.clone());
        server.options(format!(
            "{common} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
            milliseconds(options.lock_max),
            milliseconds(options.idle_max)
        ));
        let working = Dialer::new(server, tls);
        let (work_max, finish_max) = (options.work_connections, options.finish_connections);
        let finishing = Connections::new(finishing, "commit and rollback", finish_max, &options);
        let postgres = Postgres {
            inner: Arc::new(Inner {
                names,
                requests: options.requests.clone(),
                working: Connections::new(working, "work", work_max, &options),
                finishing,
                registry: Mutex::new(Registry::default()),
                options,
            }),
        };
        let lease = postgres.inner.finishing.lease().await?;
        let preparing = schema::prepare_server(&lease, postgres.schema(), work_max);
        let patience = postgres.options().answer_max;
        let seconds = patience.as_secs_f32();
        let prepared = timeout(patience, preparing).await;
        prepared.map_err(|_| AcquireError::Silent { seconds })??;
        lease.release();
        Ok(postgres)
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

/// As the server's settings take it: 0 would be none at all.
fn milliseconds(time: Duration) -> u128 {
    time.as_millis().clamp(1, i32::MAX as u128)
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
