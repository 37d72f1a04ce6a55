//! Connections, and the two pools that hold them.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, Socket};

use super::error::AcquireError;
use super::options::Options;
use super::statements::Statements;

/// What undoes whatever work may have left in its session. (`PREPARE TRANSACTION` refuses temporary
/// tables and the like; but what was only read ends by a `COMMIT`, which does not.) The adapter's own
/// statements stay, and with them those that a service has made by `PREPARE`.
const CLEAN: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
                     DISCARD TEMP; SELECT pg_catalog.pg_advisory_unlock_all()";

/// For how long a connection waits to be cleaned, if nobody is short of one: the server's time is
/// wanted for what comes of the votes. It is over in less, mostly.
const CLEAN_AFTER: Duration = Duration::from_millis(5);

/// A process of the server. Its number is used again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) id: i32,
    /// When it started, in microseconds.
    pub(super) started: i64,
}

/// One connection. Dropping it closes its socket.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The process of the server that serves it; none if this role may not see it, or not end it.
    pub(super) backend: Option<Backend>,
    /// As whom it is connected.
    pub(super) user: String,
    statements: OnceCell<Statements>,
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
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Dialing = Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send>>;

/// Makes connections; knows how, whatever secures them.
#[derive(Clone)]
pub(super) struct Dialer(Arc<dyn Fn() -> Dialing + Send + Sync>);

impl Dialer {
    pub(super) fn new<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Dialer(Arc::new(move || {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, connection) = config.connect(tls).await?;
                let task = tokio::spawn(async move {
                    // Whoever uses the connection hears of it, too.
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection to PostgreSQL ended");
                    }
                });
                introduce(client, task).await
            })
        }))
    }

    pub(super) async fn dial(&self) -> Result<Connection, Error> {
        (self.0)().await
    }
}

/// Asks the server which of its processes serves this connection, and as whom.
async fn introduce(client: Client, task: JoinHandle<()>) -> Result<Connection, Error> {
    let row = client
        .query_typed_one(
            "SELECT pid, CASE WHEN pg_catalog.pg_has_role(session_user, 'USAGE') \
             THEN (extract(epoch FROM backend_start) * 1000000)::int8 END, \
             current_user::text \
             FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())",
            &[],
        )
        .await;
    match row {
        Ok(row) => Ok(Connection {
            client,
            backend: row.get::<_, Option<i64>>(1).map(|started| Backend {
                id: row.get(0),
                started,
            }),
            user: row.get(2),
            statements: OnceCell::new(),
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
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        self.dial().await
    }

    async fn recycle(&self, held: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
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
            Err(PoolError::Backend(source)) => Err(AcquireError::Refused { source }),
            Err(PoolError::Closed) => Err(AcquireError::Closed),
            Err(PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
                unreachable!("there is a runtime, and no hook")
            }
        }
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
            let cleaning = self.client.batch_execute(CLEAN);
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
