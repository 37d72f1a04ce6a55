//! Connections, and the two pools that hold them.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, Socket};

use crate::protocol::types::StoreId;
use crate::resource::identity::Owner;

use super::error::AcquireError;
use super::options::Options;
use super::schema;
use super::session::{self, Purpose};
use super::statements::Statements;

/// What undoes whatever work may have left in its session. (`PREPARE TRANSACTION` refuses temporary
/// tables and the like; but what was only read ends by a `COMMIT`, which does not.) The adapter's own
/// statements stay, and with them those that a service has made by `PREPARE`.
const CLEAN: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
                     DISCARD TEMP; SELECT pg_catalog.pg_advisory_unlock_all()";

/// For how long a connection waits to be cleaned, if nobody is short of one: the server's time is
/// wanted for what comes of the votes. It is over in less, mostly.
const CLEAN_AFTER: Duration = Duration::from_millis(5);

/// On how many connections something is tried, one after the other, if each turns out to be lost.
pub(super) const TRIES: usize = 4;

/// A process of the server. Its number is used again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) id: i32,
    /// When it started, in microseconds.
    pub(super) started: i64,
}

/// A parameter of a statement.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What the server answers.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// It sent a warning, too.
    pub(super) has_warned: bool,
}

/// One connection. Dropping it closes its socket.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The process of the server that serves it; none if this role may not see it, or not end it.
    pub(super) backend: Option<Backend>,
    /// As whom it is connected.
    pub(super) user: String,
    statements: OnceCell<Statements>,
    /// What cleans it.
    cleaning: String,
    /// The server has sent a warning.
    has_warned: Arc<AtomicBool>,
    /// It must not be used again.
    is_spoiled: AtomicBool,
    task: JoinHandle<()>,
}

impl Connection {
    /// The adapter's own statements; prepares them when they are first asked for.
    pub(super) async fn statements(&self, schema: &str) -> Result<&Statements, Error> {
        let preparing = || Statements::prepare(&self.client, schema);
        self.statements.get_or_try_init(preparing).await
    }

    /// When the one who has it is done with it, it is closed.
    pub(super) fn spoil(&self) {
        self.is_spoiled.store(true, Ordering::Relaxed);
    }

    /// Runs a statement; or several of them, without parameters and rows.
    pub(super) async fn ask(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Answer, Error> {
        self.forget_warnings();
        let rows = match parameters.is_empty() {
            true => {
                self.client.batch_execute(sql).await?;
                Vec::new()
            }
            false => self.client.query_typed(sql, parameters).await?,
        };
        let has_warned = self.has_warned();
        Ok(Answer { rows, has_warned })
    }

    /// The warnings of earlier statements do not count.
    pub(super) fn forget_warnings(&self) {
        self.has_warned.store(false, Ordering::SeqCst);
    }

    /// Whether the server has sent a warning since they were forgotten, up to the last answer.
    pub(super) fn has_warned(&self) -> bool {
        self.has_warned.load(Ordering::SeqCst)
    }

    /// Whether an error of this connection says that the connection is lost: all that the server does
    /// on it ends with it.
    pub(super) fn is_lost(&self, error: &Error) -> bool {
        let severity = error.as_db_error().map(|error| error.parsed_severity());
        self.client.is_closed()
            || matches!(
                severity,
                None | Some(Some(Severity::Fatal | Severity::Panic))
            )
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Dialing = Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send>>;

/// The store that every new connection must lead to.
pub(super) struct Expected {
    pub(super) schema: String,
    pub(super) owner: Owner,
    /// Not set while the adapter is being opened: its first connection reads it.
    pub(super) store: OnceLock<StoreId>,
}

impl Expected {
    /// Refuses a connection that leads to another store. (Counter-example: the server's address leads
    /// to an empty server after a failover. A branch that the old server has committed is missing
    /// there, and so is its marker; the other branches of a transaction are committed by then.)
    async fn check(&self, client: &Client) -> Result<(), DialError> {
        let Some(expected) = self.store.get().copied() else {
            return Ok(());
        };
        match schema::found_identity(client, &self.schema, &self.owner).await? {
            Some(got) if got == expected => Ok(()),
            got => Err(DialError::OtherStore { expected, got }),
        }
    }
}

/// Why a connection was not made.
pub(super) enum DialError {
    Server(Error),
    OtherStore {
        expected: StoreId,
        got: Option<StoreId>,
    },
}

impl From<Error> for DialError {
    fn from(error: Error) -> Self {
        DialError::Server(error)
    }
}

impl From<DialError> for AcquireError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Server(source) => AcquireError::Refused { source },
            DialError::OtherStore { expected, got } => AcquireError::OtherStore { expected, got },
        }
    }
}

/// Makes connections; knows how, whatever secures them.
#[derive(Clone)]
pub(super) struct Dialer {
    dial: Arc<dyn Fn() -> Dialing + Send + Sync>,
    expected: Arc<Expected>,
}

impl Dialer {
    pub(super) fn new<T>(config: Config, tls: T, purpose: Purpose, expected: Arc<Expected>) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let dial = move || -> Dialing {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, connection) = config.connect(tls).await?;
                let sets = session::sets(purpose, connection.parameter("server_version"));
                let has_warned = Arc::new(AtomicBool::new(false));
                let task = tokio::spawn(listen(connection, has_warned.clone()));
                introduce(client, task, has_warned, &sets).await
            })
        };
        let dial = Arc::new(dial);
        Dialer { dial, expected }
    }
}

/// Serves a connection to its end. What the server sends without being asked comes before the answer
/// of the statement that it is about.
async fn listen<S, T>(mut connection: tokio_postgres::Connection<S, T>, has_warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::info!("{}: {}", notice.severity(), notice.message());
                if notice.parsed_severity() == Some(Severity::Warning) {
                    has_warned.store(true, Ordering::SeqCst);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                // Whoever uses the connection hears of it, too.
                tracing::debug!(%error, "a connection to PostgreSQL ended");
                return;
            }
            None => return,
        }
    }
}

/// Asks the server which of its processes serves this connection, and as whom; and sets what the
/// adapter needs.
async fn introduce(
    client: Client,
    task: JoinHandle<()>,
    has_warned: Arc<AtomicBool>,
    sets: &str,
) -> Result<Connection, Error> {
    let asking = client.query_typed_one(
        "SELECT pid, CASE WHEN pg_catalog.pg_has_role(session_user, 'USAGE') \
         THEN (extract(epoch FROM backend_start) OPERATOR(pg_catalog.*) 1000000) \
         ::pg_catalog.int8 END, \
         current_user::pg_catalog.text \
         FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())",
        &[],
    );
    let cleaning = format!("{CLEAN}; {sets}");
    match tokio::try_join!(biased; client.batch_execute(sets), asking) {
        Ok(((), row)) => Ok(Connection {
            client,
            backend: row.get::<_, Option<i64>>(1).map(|started| Backend {
                id: row.get(0),
                started,
            }),
            user: row.get(2),
            statements: OnceCell::new(),
            cleaning,
            has_warned,
            is_spoiled: AtomicBool::new(false),
            task,
        }),
        Err(error) => {
            task.abort();
            Err(error)
        }
    }
}

impl Manager for Dialer {
    type Type = Connection;
    type Error = DialError;

    async fn create(&self) -> Result<Connection, DialError> {
        let connection = (self.dial)().await?;
        self.expected.check(&connection.client).await?;
        Ok(connection)
    }

    async fn recycle(&self, held: &mut Connection, _: &Metrics) -> RecycleResult<DialError> {
        if held.client.is_closed() || held.is_spoiled.load(Ordering::Relaxed) {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

/// Some connections.
pub(super) struct Connections {
    pool: Pool<Dialer>,
    what: &'static str,
    max: usize,
    acquire_max: Duration,
    answer_max: Duration,
}

impl Connections {
    pub(super) fn new(
        dialer: Dialer,
        what: &'static str,
        max: usize,
        options: &Options,
    ) -> Connections {
        let max = max.max(1);
        let pool = Pool::builder(dialer)
            .max_size(max)
            // The one that was used last: what serves it at the server is warm.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.acquire_max))
            .create_timeout(Some(options.answer_max))
            .build();
        Connections {
            pool: pool.expect("the timeouts have their runtime"),
            what,
            max,
            acquire_max: options.acquire_max,
            answer_max: options.answer_max,
        }
    }

    pub(super) async fn lease(&self) -> Result<Lease, AcquireError> {
        match self.pool.get().await {
            Ok(object) => Ok(Lease(Some(Box::new(object)))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(AcquireError::Exhausted {
                what: self.what,
                max: self.max,
                seconds: self.acquire_max.as_secs_f32(),
            }),
            Err(PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)) => {
                let seconds = self.answer_max.as_secs_f32();
                Err(AcquireError::Silent { seconds })
            }
            Err(PoolError::Backend(error)) => Err(error.into()),
            Err(PoolError::Closed) => Err(AcquireError::Closed),
            Err(PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
                unreachable!("there is a runtime, and no hook")
            }
        }
    }

    /// One was found lost: the server was restarted, say, and those that nobody holds are lost too.
    pub(super) fn drop_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// Gives out no more connections, and closes those that nobody holds.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pool.status())
    }
}

/// A connection out of a pool. When it is dropped the connection is **closed**, since nobody knows
/// what stands open on it; only [`release`](Self::release) and [`clean`](Self::clean) give it back.
pub(super) struct Lease(Option<Box<Object<Dialer>>>);

impl Lease {
    /// Nothing is open on it, and its session is as it was.
    pub(super) fn release(mut self) {
        drop(self.0.take());
    }

    /// Nothing is open on it, but a service worked on it. Nobody waits for this: it is done a moment
    /// later, unless the pool has no other connection to give.
    pub(super) fn clean(self, patience: Duration) {
        tokio::spawn(async move {
            if self.has_others() {
                tokio::time::sleep(CLEAN_AFTER).await;
            }
            let cleaning = self.client.batch_execute(&self.cleaning);
            if let Ok(Ok(())) = tokio::time::timeout(patience, cleaning).await {
                self.release();
            }
        });
    }
}

impl Lease {
    /// Whether its pool can give another connection at once, or make one.
    fn has_others(&self) -> bool {
        let pool = self.0.as_ref().and_then(|object| Object::pool(object));
        let status = pool.map(|pool| pool.status());
        status.is_some_and(|of| of.waiting == 0 && (of.available > 0 || of.size < of.max_size))
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        let held = self.0.as_ref();
        held.expect("only what consumes the lease takes the connection out of it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(*object));
        }
    }
}
