//! The work of a service under a transaction.

use std::fmt;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::protocol::types::TxnId;

use super::Postgres;
use super::connection::{Connection, Lease, TRIES};
use super::error::WorkError;
use super::state::{Process, Seat, Slot};

/// The setting that lives exactly as long as the local transaction which set it. By it a prepare
/// knows that the transaction on its connection is still the one that was begun for the branch.
pub(super) const MARK: &str = "paxos_commit.branch";

/// The connection of one transaction, for as long as this is held.
///
/// Everyone who works under the same transaction works on the same connection, in the same local
/// transaction, one after the other: drop this when the statements are done. The prepare waits for
/// it, too.
pub struct Work {
    seat: Arc<Seat>,
    slot: OwnedMutexGuard<Slot>,
}

impl Work {
    /// The client: plain SQL, inside a local transaction that has begun already and that the
    /// participant ends.
    ///
    /// **Leave its end to the participant.** `COMMIT`, `ROLLBACK` or `PREPARE TRANSACTION` are
    /// noticed: the branch then votes to abort, and an error is logged. But what was committed so
    /// stands. Savepoints may be used.
    pub fn client(&self) -> &Client {
        &self.lease().client
    }

    /// The transaction.
    pub fn txn(&self) -> TxnId {
        self.seat.txn
    }

    pub(super) fn connection(&self) -> &Connection {
        self.lease()
    }

    /// Takes the connection out; nobody works here any more.
    pub(super) fn into_lease(mut self) -> Lease {
        match std::mem::replace(&mut *self.slot, Slot::Over(Process::Free)) {
            Slot::Open(lease) => lease,
            Slot::Empty | Slot::Over(_) => unreachable!("{HELD}"),
        }
    }

    fn lease(&self) -> &Lease {
        match &*self.slot {
            Slot::Open(lease) => lease,
            Slot::Empty | Slot::Over(_) => unreachable!("{HELD}"),
        }
    }
}

impl Drop for Work {
    /// Whoever rolled the transaction back meanwhile could not have its connection.
    fn drop(&mut self) {
        if self.seat.is_over() && matches!(*self.slot, Slot::Open(_)) {
            *self.slot = Slot::Over(Process::Unknown);
        }
    }
}

const HELD: &str = "work is handed out with its connection";

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work({})", self.seat.txn)
    }
}

impl Postgres {
    /// The work of a transaction in this database: begins a local transaction for it, or goes on
    /// with the one that was begun. Waits while somebody else holds it.
    ///
    /// Call it only once the participant has given this service a branch of the transaction: it is
    /// the participant who will prepare the work, or let it go.
    ///
    /// # Errors
    /// When the transaction is being prepared or over; when its connection is lost or held for too
    /// long; when there is no connection for it.
    pub async fn work(&self, txn: TxnId) -> Result<Work, WorkError> {
        let seat = self.registry().join(txn);
        let work = self.sit(seat.ok_or(WorkError::Ended(txn))?).await?;
        // While this waited, commit may have been asked for: what it would add now is not all of it.
        match work.seat.is_asked() {
            true => Err(WorkError::Ended(txn)),
            false => Ok(work),
        }
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
            let lease = self.begin(&seat).await?;
            *slot = Slot::Open(lease);
        }
        // It may have been let go of while it began, or while this waited.
        match &*slot {
            Slot::Open(_) if seat.is_over() => Err(WorkError::Ended(txn)),
            Slot::Open(lease) if lease.client.is_closed() => Err(WorkError::Lost(txn)),
            Slot::Open(_) => Ok(Work { seat, slot }),
            Slot::Empty | Slot::Over(_) => Err(WorkError::Ended(txn)),
        }
    }

    /// Begins on a connection that is not in use, or on a new one: those that the server has closed
    /// meanwhile (it was restarted, say) are replaced.
    async fn begin(&self, seat: &Seat) -> Result<Lease, WorkError> {
        let level = self.options().isolation;
        let txn = seat.txn;
        let mark = self.inner.names.mark_of(txn);
        let begin =
            format!("BEGIN ISOLATION LEVEL {level} READ WRITE; SET LOCAL {MARK} = '{mark}'");
        let mut tries = 0;
        loop {
            let lease = self.inner.working.lease().await?;
            let beginning = async {
                // Outside of the transaction, where an error spoils nothing.
                lease.statements(self.schema()).await?;
                lease.client.batch_execute(&begin).await
            };
            tries += 1;
            match timeout(self.options().answer_max, beginning).await {
                Ok(Ok(())) => {
                    // As seen when the adapter was opened; whoever took the right away since then has
                    // it back to give.
                    let backend = lease.backend.ok_or(WorkError::Lost(txn))?;
                    // Before anybody works on it: whoever closes the seat later has the process ended,
                    // whoever did so before is noticed after this.
                    let backend = seat.backend.set(backend);
                    backend.expect("a transaction begins once");
                    return Ok(lease);
                }
                Ok(Err(error)) if lease.is_lost(&error) && tries < TRIES => {
                    drop(lease);
                    self.inner.working.drop_idle();
                }
                Ok(Err(source)) => return Err(WorkError::Begin { source }),
                Err(_) => return Err(WorkError::Lost(txn)),
            }
        }
    }
}
