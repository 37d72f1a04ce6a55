//! The work of a service under a transaction.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, Params, Row, from_row_opt};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::protocol::types::TxnId;

use super::Mariadb;
use super::connection::Lease;
use super::error::WorkError;
use super::state::{Seat, Slot};

/// How often a branch is begun anew on another connection, if one turns out to be dead.
const BEGIN_TRIES: usize = 4;

/// For how many seconds the server waits for the lock of a branch. Nobody has it but a session in
/// which this process began the same branch before, and which is about to end.
const LOCKED_SECONDS_MAX: u32 = 1;

/// For so long a prepared branch keeps its connection, even if work waits for one. Usually its outcome
/// comes earlier, and then the connection is free at once; a branch that was handed over is finished
/// only some 50 ms later.
const KEPT_MIN: Duration = Duration::from_millis(20);

/// The connection of one transaction, for as long as this is held.
///
/// Everyone who works under the same transaction works on the same connection, in the same XA branch,
/// one after the other: drop this when the statements are done. The prepare waits for it, too.
///
/// The branch has begun already, and the participant ends it: the server refuses `COMMIT`,
/// `ROLLBACK`, `BEGIN` and whatever commits implicitly (1399). Savepoints may be used.
///
/// User locks (`GET_LOCK`) may be used, too; they end with the branch. **But `RELEASE_ALL_LOCKS` gives
/// up that of the adapter as well**, by which other sessions know that this one lives: then the branch
/// can only abort.
///
/// **A statement whose future is dropped before it has ended loses the connection**, and with it the
/// work: nobody could tell its answer from that of the next statement. Rather than by a timeout of
/// your own, have the server end it ([`lock_max`](super::Options::lock_max), `max_statement_time`).
pub struct Work {
    seat: Arc<Seat>,
    slot: OwnedMutexGuard<Slot>,
}

impl Work {
    /// Runs a statement. How many rows it has changed.
    ///
    /// # Errors
    /// When the server refuses it, or the connection is lost.
    pub async fn execute(
        &mut self,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<u64, WorkError> {
        let params = params.into();
        let statement = async |conn: &mut Conn| {
            conn.exec_drop(sql, params).await?;
            Ok(conn.affected_rows())
        };
        self.run(sql, statement).await
    }

    /// Runs a statement once for each set of parameters.
    ///
    /// # Errors
    /// As [`execute`](Self::execute). Those before the one that failed stand.
    pub async fn execute_each<P>(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = P, IntoIter: Send> + Send,
    ) -> Result<(), WorkError>
    where
        P: Into<Params> + Send,
    {
        let statement = async |conn: &mut Conn| conn.exec_batch(sql, params).await;
        self.run(sql, statement).await
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); and [`WorkError::Row`] if a row is not a `T`: then the statement
    /// is done, and the work can go on.
    pub async fn query<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Vec<T>, WorkError> {
        let params = params.into();
        let statement = async |conn: &mut Conn| conn.exec::<Row, _, _>(sql, params).await;
        let rows = self.run(sql, statement).await?.into_iter().map(convert);
        rows.collect()
    }

    /// The first row of a query.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn first<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Option<T>, WorkError> {
        let params = params.into();
        let statement = async |conn: &mut Conn| conn.exec_first::<Row, _, _>(sql, params).await;
        self.run(sql, statement).await?.map(convert).transpose()
    }

    /// The transaction.
    pub fn txn(&self) -> TxnId {
        self.seat.txn
    }

    /// Takes the connection out; nobody works here any more.
    pub(super) fn into_lease(mut self) -> Option<Lease> {
        match std::mem::replace(&mut *self.slot, Slot::Over) {
            Slot::Open(lease) => Some(lease),
            Slot::Empty | Slot::Lost | Slot::Over => None,
        }
    }

    /// Runs something on the connection, which is not in its place meanwhile: if this is dropped
    /// before it ends, or the work is let go of, the connection goes with it.
    async fn run<T>(
        &mut self,
        sql: &str,
        statement: impl AsyncFnOnce(&mut Conn) -> Result<T, Error>,
    ) -> Result<T, WorkError> {
        let txn = self.seat.txn;
        if self.seat.is_over() {
            return Err(WorkError::Ended(txn));
        }
        let mut lease = match std::mem::replace(&mut *self.slot, Slot::Lost) {
            Slot::Open(lease) => lease,
            Slot::Empty | Slot::Lost | Slot::Over => return Err(WorkError::Lost(txn)),
        };
        // A server that vanished never answers, and nobody else can take the connection from here.
        lease.note(sql);
        let answer = tokio::select! {
            answer = statement(&mut lease.conn) => answer,
            () = self.seat.closed() => return Err(WorkError::Ended(txn)),
        };
        match answer {
            Ok(done) => {
                *self.slot = Slot::Open(lease);
                Ok(done)
            }
            Err(source) => {
                // What the client itself refuses (parameters, conversions) may leave half an answer.
                if matches!(source, Error::Server(_)) && !lease.conn.is_disconnected() {
                    *self.slot = Slot::Open(lease);
                }
                Err(WorkError::Statement { source })
            }
        }
    }
}

/// The client's own conversion panics.
fn convert<T: FromRow>(row: Row) -> Result<T, WorkError> {
    from_row_opt(row).map_err(|source| WorkError::Row {
        expected: type_name::<T>(),
        source,
    })
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work({})", self.seat.txn)
    }
}

impl Mariadb {
    /// The work of a transaction in this database: begins a branch for it, or goes on with the one
    /// that was begun. Waits while somebody else holds it.
    ///
    /// Call it only once the participant has given this service a branch of the transaction: it is
    /// the participant who will prepare the work, or let it go.
    ///
    /// # Errors
    /// When the transaction is being prepared or over; when its connection is lost or held for too
    /// long; when there is no connection for it.
    pub async fn work(&self, txn: TxnId) -> Result<Work, WorkError> {
        let seat = self.registry().join(txn);
        self.sit(seat.ok_or(WorkError::Ended(txn))?).await
    }

    /// Waits for the connection of a transaction, and begins if nobody has.
    pub(super) async fn sit(&self, seat: Arc<Seat>) -> Result<Work, WorkError> {
        let (txn, patience) = (seat.txn, self.options().acquire_max);
        let waiting = timeout(patience, seat.slot.clone().lock_owned());
        let Ok(mut slot) = waiting.await else {
            let seconds = patience.as_secs_f32();
            return Err(WorkError::Busy { txn, seconds });
        };
        if let Slot::Empty = *slot {
            let begun = self.begin(&seat).await;
            if let Err(WorkError::Lost(_)) = begun {
                // The server may work for it yet, and is told to stop when it is rolled back.
                *slot = Slot::Lost;
            }
            *slot = Slot::Open(begun?);
        }
        // It may have been let go of while it began, or while this waited.
        match &*slot {
            Slot::Open(_) if seat.is_over() => {
                // Whoever let go of it found it taken.
                *slot = Slot::Over;
                Err(WorkError::Ended(txn))
            }
            Slot::Open(_) => Ok(Work { seat, slot }),
            Slot::Lost => Err(WorkError::Lost(txn)),
            Slot::Empty | Slot::Over => Err(WorkError::Ended(txn)),
        }
    }

    async fn begin(&self, seat: &Seat) -> Result<Lease, WorkError> {
        let names = &self.inner.names;
        let xid = names.xid(seat.txn, names.process);
        // The lock tells everybody whether the session lives that works for the branch.
        let begin = format!(
            "SELECT GET_LOCK({}, {LOCKED_SECONDS_MAX}); XA START {xid}",
            xid.lock()
        );
        let mut tries = 0;
        loop {
            let mut lease = self.lease_for_work().await?;
            seat.begin();
            let beginning = async {
                let mut result = lease.conn.query_iter(&begin).await?;
                let answer = result.next().await?;
                result.drop_result().await?;
                let locked = answer.and_then(|row| row.get_opt::<i64, _>(0));
                Ok::<_, Error>(matches!(locked, Some(Ok(1))))
            };
            let answer = self.bounded(beginning).await;
            tries += 1;
            match answer {
                Some(Ok(true)) => return Ok(lease),
                Some(Ok(false)) => {
                    // Others would take its session for gone, and finish the branch under it.
                    if self.roll_back_on(&mut lease, seat).await {
                        lease.clean(self.options().answer_max);
                    }
                    return Err(WorkError::Locked {
                        txn: seat.txn,
                        seconds: LOCKED_SECONDS_MAX,
                    });
                }
                // Whatever was done on it goes with it, and its lock.
                Some(Err(source)) if source.is_fatal() && tries < BEGIN_TRIES => {
                    self.inner.working.drop_idle();
                }
                Some(Err(source)) => return Err(WorkError::Begin { source }),
                None => return Err(WorkError::Lost(seat.txn)),
            }
        }
    }

    /// A connection to work on. If none becomes free for a while, the prepared branch that has kept
    /// its own for the longest time gives it up, and so on.
    async fn lease_for_work(&self) -> Result<Lease, WorkError> {
        let mut leasing = pin!(self.inner.working.lease());
        loop {
            if let Ok(lease) = timeout(KEPT_MIN, leasing.as_mut()).await {
                return Ok(lease?);
            }
            let oldest = self.registry().hand_over_oldest(KEPT_MIN);
            if let Some(held) = oldest {
                held.hang_up(self.options().answer_max).await;
            }
        }
    }

    /// An answer of the server, if it comes in time.
    pub(super) async fn bounded<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        timeout(self.options().answer_max, asking).await.ok()
    }
}
