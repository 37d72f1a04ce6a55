//! Branches: prepare, commit, roll back, and what is asked about them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use tokio::time::sleep;

use crate::participant::{BranchId, Expiry, Proof, ResourceManager};
use crate::protocol::participant::{InDoubt, Owner};
use crate::protocol::types::{CommitId, ParticipantName, ReadOnly, Request, StoreId, TxnId, Vote};

use super::connection::Lease;
use super::error::{BranchError, Refusal, WorkError};
use super::finishing::{Ending, Finished, LOST_MAX, PAUSE_MAX, PAUSE_MIN};
use super::state::{Known, Preparing, Seat, Slot};
use super::xid::Process;
use super::{Mariadb, Prepared};

/// For how long a session of the server may have a branch before that is an error, to be tried
/// again.
const HELD_MAX: Duration = Duration::from_secs(1);

/// Why a branch is not prepared.
enum Unprepared {
    /// It has said no; now it is to be rolled back.
    Refused(Refusal),
    /// Nobody knows what the server did.
    Failed(BranchError),
}

/// What became of a branch's row. Whether the branch stands prepared does not depend on it.
enum Row {
    Written,
    /// The session is not in the branch, or has given up its lock.
    Refused,
}

impl<E: Into<BranchError>> From<E> for Unprepared {
    fn from(error: E) -> Self {
        Unprepared::Failed(error.into())
    }
}

impl From<Refusal> for Unprepared {
    fn from(refusal: Refusal) -> Self {
        Unprepared::Refused(refusal)
    }
}

impl ResourceManager for Mariadb {
    type Error = BranchError;

    fn store(&self) -> StoreId {
        self.inner.names.store
    }

    fn serves(&self, cluster: &str, participant: &ParticipantName) -> Result<(), BranchError> {
        let options = self.options();
        if (options.cluster.as_str(), &self.inner.names.participant) == (cluster, participant) {
            return Ok(());
        }
        Err(BranchError::OtherNames {
            expected: format!("{cluster}/{participant}"),
            got: format!("{}/{}", options.cluster, options.participant),
        })
    }

    /// Never votes `ReadOnly`; the [module](super#in-the-database) says why.
    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        _: ReadOnly,
    ) -> Result<Vote, BranchError> {
        self.expect_ours(branch)?;
        let preparing = self.registry().prepare(branch);
        let seat = match preparing {
            Preparing::Mine(seat) => seat,
            Preparing::Prepared => return Ok(Vote::Prepared),
            Preparing::Over => {
                tracing::info!(%branch, "aborts: its transaction is over, or in another instance");
                return Ok(Vote::Aborted);
            }
            Preparing::Busy => return Err(BranchError::Preparing(branch.clone())),
        };
        match self.prepare_at(&seat, branch, request).await {
            Ok(()) => Ok(Vote::Prepared),
            Err(Unprepared::Failed(error)) => Err(error),
            Err(Unprepared::Refused(refusal)) => {
                match refusal {
                    Refusal::EndedByItself | Refusal::NoHandler => {
                        tracing::error!(%branch, "aborts: {refusal}");
                    }
                    Refusal::Request(_) | Refusal::Server(_) | Refusal::Lost => {
                        tracing::info!(%branch, "aborts: {refusal}");
                    }
                }
                self.rollback(branch).await?;
                Ok(Vote::Aborted)
            }
        }
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, BranchError> {
        self.expect_ours(branch)?;
        let finished = self.finish(Ending::Commit, branch).await?;
        if finished == Finished::Missing && !self.has_marker(branch).await? {
            tracing::info!(%branch, "to be committed, neither stands prepared nor has a marker");
            return Ok(Proof::Missing);
        }
        self.registry().ended(branch);
        Ok(Proof::Found)
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), BranchError> {
        self.undo(branch).await?;
        Ok(())
    }

    async fn let_go(&self, txn: TxnId) {
        let seat = self.registry().let_go(txn);
        if let Some(seat) = seat {
            self.let_go_of(&seat).await;
        }
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, BranchError> {
        let found = self.standing().await?;
        let found = found.into_iter().map(|branch| InDoubt {
            id: branch.id,
            session: branch.branch.session,
            // Any number of processes may share the database.
            owner: Owner::Unknown,
        });
        Ok(found.collect())
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, BranchError> {
        match self.undo(branch).await? {
            Finished::Done => Ok(Expiry::RolledBack),
            Finished::Missing => Ok(Expiry::NotPrepared),
        }
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), BranchError> {
        let seats = self.registry().settle(through);
        for seat in seats {
            self.let_go_of(&seat).await;
        }
        self.drop_markers(through, listed).await
    }
}

impl Mariadb {
    /// How many branches of this participant stand prepared in this database, of whatever session,
    /// and for how long the oldest has been seen so by this process: the server does not tell their
    /// age. They keep their locks, and hold back purge.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn prepared(&self) -> Result<Prepared, BranchError> {
        let found = self.standing().await?;
        Ok(Prepared {
            count: found.len(),
            oldest: self.oldest_seen(),
        })
    }

    /// From the work to the vote.
    async fn prepare_at(
        &self,
        seat: &Arc<Seat>,
        branch: &BranchId,
        request: Option<Request>,
    ) -> Result<(), Unprepared> {
        let mut work = self.take(seat).await?;
        if let Some(request) = request {
            let handler = self.inner.requests.as_ref().ok_or(Refusal::NoHandler)?;
            handler(work, request).await.map_err(Refusal::Request)?;
            work = self.take(seat).await?;
        }
        // From here on the connection is not in its place: if this is dropped it is closed, and the
        // rollback that follows finds out what the server did.
        let mut lease = work.into_lease().ok_or(Refusal::Lost)?;
        match self.prepare_on(&mut lease, seat, branch).await? {
            Row::Written => {
                self.hold(branch, lease);
                Ok(())
            }
            Row::Refused => {
                // It stands prepared without a name: only here can it be rolled back for sure.
                self.finish_on(lease, Ending::Rollback, branch).await?;
                Err(Refusal::EndedByItself.into())
            }
        }
    }

    /// Waits until the service has let go of the connection.
    async fn take(&self, seat: &Arc<Seat>) -> Result<super::Work, Unprepared> {
        match self.sit(seat.clone()).await {
            Ok(work) => Ok(work),
            Err(WorkError::Lost(_)) => Err(Refusal::Lost.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the branch's row, and prepares: in one message, of which the server does nothing any
    /// more after the first error.
    async fn prepare_on(
        &self,
        lease: &mut Lease,
        seat: &Seat,
        branch: &BranchId,
    ) -> Result<Row, Unprepared> {
        let names = &self.inner.names;
        let (xid, row) = (names.xid(seat.txn, names.process), names.values(branch));
        let table = &self.inner.tables.branch;
        // Outside of the branch the row would be committed at once, and prove what never was. Without
        // the session's lock, which the service can release, others would take it for gone.
        let sql = format!(
            "INSERT INTO {table} (owner, commit_id, session, process) SELECT {row} FROM DUAL \
             WHERE @@in_transaction = 1 AND IS_USED_LOCK({}) = CONNECTION_ID(); \
             XA END {xid}; XA PREPARE {xid}",
            xid.lock()
        );
        seat.ask();
        let preparing = async {
            let result = lease.conn.query_iter(sql).await?;
            let inserted = result.affected_rows();
            result.drop_result().await?;
            Ok(inserted)
        };
        match self.bounded(preparing).await {
            Some(Ok(1)) => Ok(Row::Written),
            Some(Ok(_)) => Ok(Row::Refused),
            Some(Err(error @ mysql_async::Error::Server(_))) => Err(Refusal::Server(error).into()),
            Some(Err(source)) => {
                let what = "prepare";
                Err(BranchError::Server { what, source }.into())
            }
            None => Err(self.silent("prepare").into()),
        }
    }

    /// A prepared branch keeps its connection for a while.
    fn hold(&self, branch: &BranchId, lease: Lease) {
        let patience = self.options().answer_max;
        self.registry().prepared(branch, lease);
        let (txn, hold_max) = (branch.id.txn, self.options().hold_max);
        if hold_max.is_zero() {
            let held = self.registry().hand_over(txn);
            tokio::spawn(async move {
                if let Some(held) = held {
                    held.hang_up(patience).await;
                }
            });
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            sleep(hold_max).await;
            let held = inner.upgrade().and_then(|inner| {
                let mut registry = super::lock(&inner.registry);
                registry.hand_over(txn)
            });
            if let Some(held) = held {
                held.hang_up(patience).await;
            }
        });
    }

    /// Ends a prepared branch: on the connection on which it was prepared, if this process still
    /// has it, else on any.
    async fn finish(&self, ending: Ending, branch: &BranchId) -> Result<Finished, BranchError> {
        let known = self.registry().finish(branch);
        let process = match known {
            Known::Held(lease) => match self.finish_on(lease, ending, branch).await? {
                true => return Ok(Finished::Done),
                // The connection broke. What the server did it tells on another one.
                false => Some(self.inner.names.process),
            },
            Known::Mine => Some(self.inner.names.process),
            Known::No => None,
        };
        self.finish_anywhere(ending, branch, process).await
    }

    /// Ends a branch on any connection. One that is being handed over is there a moment later.
    async fn finish_anywhere(
        &self,
        ending: Ending,
        branch: &BranchId,
        process: Option<Process>,
    ) -> Result<Finished, BranchError> {
        let (begun, mut pause, mut lost) = (Instant::now(), PAUSE_MIN, 0);
        loop {
            match self.try_finish(ending, branch, process).await {
                Err(BranchError::Held(_)) if begun.elapsed() < HELD_MAX => {}
                // The server has closed it while it was idle, mostly.
                Err(error) if error.is_lost() && lost < LOST_MAX => {
                    lost += 1;
                    continue;
                }
                ended => return ended,
            }
            if process == Some(self.inner.names.process) && pause == PAUSE_MAX {
                // This process has left that session long ago, and the server has not heard of it.
                self.end_session(branch.id.txn).await?;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Rolls a branch back, wherever it stands.
    ///
    /// When this says that it is done, what this process sent cannot surface as prepared any more: a
    /// name that nobody has can be taken, and is taken to find that out. (What a process sent that is
    /// gone may be prepared at any time later. It is found in doubt by any other one.)
    async fn undo(&self, branch: &BranchId) -> Result<Finished, BranchError> {
        self.expect_ours(branch)?;
        let looked = match self.look_elsewhere(branch).await {
            // Whatever works here under the same transaction is another branch, of another session.
            Some(ended @ (Ok(Finished::Done) | Err(BranchError::Held(_)))) => return ended,
            looked => looked,
        };
        let seat = self.registry().roll_back(branch);
        let finished = match seat {
            Some(seat) => {
                self.roll_back_at(&seat).await?;
                match (seat.is_asked(), looked) {
                    (true, _) => {
                        let process = Some(self.inner.names.process);
                        self.finish_anywhere(Ending::Rollback, branch, process)
                            .await?
                    }
                    (false, Some(looked)) => looked?,
                    // Here nobody tried to prepare it.
                    (false, None) => self.finish_anywhere(Ending::Rollback, branch, None).await?,
                }
            }
            None => self.finish(Ending::Rollback, branch).await?,
        };
        self.registry().ended(branch);
        Ok(finished)
    }

    /// Rolls back what another process has prepared, before the work here under the same transaction
    /// is touched: there may be some. None if there is no such work.
    async fn look_elsewhere(&self, branch: &BranchId) -> Option<Result<Finished, BranchError>> {
        if !self.registry().is_working(branch.id.txn) {
            return None;
        }
        Some(self.finish_anywhere(Ending::Rollback, branch, None).await)
    }

    /// Rolls back what was not prepared, or has the server end the connection that works for it.
    async fn roll_back_at(&self, seat: &Seat) -> Result<(), BranchError> {
        if let Ok(mut slot) = seat.slot.try_lock() {
            match std::mem::replace(&mut *slot, Slot::Over) {
                // Nobody begins any more.
                Slot::Empty => return Ok(()),
                Slot::Open(mut lease) => {
                    if self.roll_back_on(&mut lease, seat).await {
                        lease.clean(self.options().answer_max);
                        return Ok(());
                    }
                }
                Slot::Lost | Slot::Over => {}
            }
        }
        // The connection is lost, or a statement holds it: perhaps one that waits for a lock.
        match seat.has_begun() {
            true => self.end_session(seat.txn).await,
            false => Ok(()),
        }
    }

    /// Rolls back what is not prepared. False if that broke.
    pub(super) async fn roll_back_on(&self, lease: &mut Lease, seat: &Seat) -> bool {
        let names = &self.inner.names;
        let xid = names.xid(seat.txn, names.process);
        // After a deadlock the server has ended the branch itself, and refuses the first.
        let ending = lease.conn.query_drop(format!("XA END {xid}"));
        match self.bounded(ending).await {
            Some(Ok(()) | Err(mysql_async::Error::Server(_))) => {}
            Some(Err(_)) | None => return false,
        }
        let rolling_back = lease.conn.query_drop(format!("XA ROLLBACK {xid}"));
        matches!(self.bounded(rolling_back).await, Some(Ok(())))
    }

    async fn let_go_of(&self, seat: &Seat) {
        if let Err(error) = self.roll_back_at(seat).await {
            // Its connection is closed; the server notices when it next looks at it.
            let txn = seat.txn;
            tracing::warn!(%txn, %error, "let go of, but its locks may stay for a while");
        }
    }

    fn expect_ours(&self, branch: &BranchId) -> Result<(), BranchError> {
        let expected = &self.inner.names.participant;
        if *expected == branch.branch.participant {
            return Ok(());
        }
        Err(BranchError::NotOurs {
            expected: expected.clone(),
            got: branch.clone(),
        })
    }
}
