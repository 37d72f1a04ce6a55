//! Connections, and the two pools that hold them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};
use mysql_async::prelude::{AsQuery, FromRow, Queryable};
use mysql_async::{Conn, Error, FromRowError, Opts, Row, from_row_opt};
use tokio::time::timeout;

use crate::protocol::types::StoreId;
use crate::resource::identity::Owner;

use super::error::AcquireError;
use super::schema;

/// A connection that was idle for longer is asked whether it lives before it is used.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How many statements of the last work are prepared again on a connection that was cleaned, and how
/// long they may be.
const AGAIN_MAX: usize = 8;
const AGAIN_BYTES_MAX: usize = 4 * 1024;

/// One connection.
pub(super) struct Connection {
    pub(super) conn: Conn,
    /// What the work of this lease had the server prepare.
    prepared: Vec<Box<str>>,
}

impl Connection {
    /// The work runs a statement that the server prepares for it.
    pub(super) fn note(&mut self, sql: &str) {
        let is_kept = self.conn.opts().stmt_cache_size() > 0
            && self.prepared.len() < AGAIN_MAX
            && sql.len() <= AGAIN_BYTES_MAX
            && !self.prepared.iter().any(|noted| **noted == *sql);
        if is_kept {
            self.prepared.push(sql.into());
        }
    }

    /// Cleans the session. That takes its prepared statements away, and most work is like the last:
    /// so these are prepared again now, when nobody waits for it. False if it cannot be cleaned.
    async fn reset(&mut self) -> Result<bool, Error> {
        if !self.conn.reset().await? {
            return Ok(false);
        }
        for sql in std::mem::take(&mut self.prepared) {
            match self.conn.prep(&*sql).await {
                // What the server refuses now may be gone, or not be there yet.
                Ok(_) | Err(Error::Server(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The rows of a query. The client's own `query` panics when one is not what is expected.
    pub(super) async fn rows<T: FromRow>(
        &mut self,
        sql: impl AsQuery + 'static,
    ) -> Result<Vec<T>, Error> {
        let rows: Vec<Row> = self.conn.query(sql).await?;
        let rows = rows.into_iter().map(from_row_opt);
        rows.collect::<Result<_, _>>().map_err(unexpected)
    }

    /// The first row of a query.
    pub(super) async fn row<T: FromRow>(
        &mut self,
        sql: impl AsQuery + 'static,
    ) -> Result<Option<T>, Error> {
        let row: Option<Row> = self.conn.query_first(sql).await?;
        row.map(from_row_opt).transpose().map_err(unexpected)
    }
}

fn unexpected(error: FromRowError) -> Error {
    Error::Other(Box::new(error))
}

/// The store that every new connection must lead to.
pub(super) struct Expected {
    pub(super) owner: Owner,
    /// Not set while the adapter is being opened: its first connection reads it.
    pub(super) store: OnceLock<Known>,
}

/// A store, and where its identity is kept.
pub(super) struct Known {
    pub(super) table: String,
    pub(super) store: StoreId,
}

impl Expected {
    /// Refuses a connection that leads to another store. (Counter-example: the server's address leads
    /// to an empty server after a failover. A branch that the old server has committed is missing
    /// there, and so is its marker; the other branches of a transaction are committed by then.)
    async fn check(&self, connection: &mut Connection) -> Result<(), DialError> {
        let Some(Known { table, store }) = self.store.get() else {
            return Ok(());
        };
        let expected = *store;
        match schema::found_identity(connection, table, &self.owner).await? {
            Some(got) if got == expected => Ok(()),
            got => Err(DialError::OtherStore { expected, got }),
        }
    }
}

/// Why a connection was not made, or is not used again.
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

/// Makes connections.
pub(super) struct Dialer {
    opts: Opts,
    expected: Arc<Expected>,
}

impl Manager for Dialer {
    type Type = Connection;
    type Error = DialError;

    async fn create(&self) -> Result<Connection, DialError> {
        let conn = Conn::new(self.opts.clone()).await?;
        let mut connection = Connection {
            conn,
            prepared: Vec::new(),
        };
        self.expected.check(&mut connection).await?;
        Ok(connection)
    }

    async fn recycle(&self, held: &mut Connection, metrics: &Metrics) -> RecycleResult<DialError> {
        if held.conn.is_disconnected() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if metrics.last_used() > IDLE_MAX {
            held.conn.ping().await.map_err(DialError::from)?;
        }
        Ok(())
    }
}

/// Some connections.
pub(super) struct Connections {
    pool: Pool<Dialer>,
    what: &'static str,
    max: usize,
    patience: Duration,
}

impl Connections {
    pub(super) fn new(
        opts: Opts,
        expected: Arc<Expected>,
        what: &'static str,
        max: usize,
        patience: Duration,
    ) -> Self {
        let max = max.max(1);
        let pool = Pool::builder(Dialer { opts, expected })
            .max_size(max)
            // The one that was used last: what serves it at the server is warm.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(patience))
            .create_timeout(Some(patience))
            .recycle_timeout(Some(patience))
            .build();
        Connections {
            pool: pool.expect("the timeouts have their runtime"),
            what,
            max,
            patience,
        }
    }

    pub(super) async fn lease(&self) -> Result<Lease, AcquireError> {
        let seconds = self.patience.as_secs_f32();
        match self.pool.get().await {
            Ok(object) => Ok(Lease(Some(object))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(AcquireError::Exhausted {
                what: self.what,
                max: self.max,
                seconds,
            }),
            Err(PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)) => {
                Err(AcquireError::Silent { seconds })
            }
            Err(PoolError::Backend(error)) => Err(error.into()),
            Err(PoolError::Closed) => Err(AcquireError::Closed),
            Err(PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
                unreachable!("there is a runtime, and no hook")
            }
        }
    }

    /// One was found dead: the server was restarted, and those that nobody holds are dead as well.
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
/// what stands open on it, nor whose answer comes next on it: a call that is cut short drops it. Only
/// [`release`](Self::release) and [`clean`](Self::clean) give it back.
pub(super) struct Lease(Option<Object<Dialer>>);

impl Lease {
    /// Nothing is open on it, and its session is as it was.
    pub(super) fn release(mut self) {
        drop(self.0.take());
    }

    /// Nothing is open on it, but a service worked on it. Nobody waits for this.
    pub(super) fn clean(mut self, patience: Duration) {
        tokio::spawn(async move {
            if let Ok(Ok(true)) = timeout(patience, self.reset()).await {
                self.release();
            }
        });
    }

    /// Closes it in order. What stands prepared on it is everybody's a moment later.
    pub(super) async fn hang_up(mut self, patience: Duration) {
        if let Some(object) = self.0.take() {
            let connection = Object::take(object);
            // If that takes too long, it is closed without order.
            let _ = timeout(patience, connection.conn.disconnect()).await;
        }
    }
}

const HELD: &str = "only what consumes the lease takes the connection out of it";

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.as_mut().expect(HELD)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
