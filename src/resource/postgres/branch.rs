//! Branches: prepare, commit, roll back, and what is asked about them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::participant::{BranchId, Expiry, Proof, ResourceManager};
use crate::protocol::participant::{InDoubt, Owner};
use crate::protocol::types::{CommitId, ParticipantName, ReadOnly, Request, StoreId, TxnId, Vote};

use super::connection::Lease;
use super::error::{BranchError, Refusal, WorkError};
use super::finishing::{Ending, Finished};
use super::state::{End, Preparing, Process, Seat, Slot};
use super::statements::{MAKE_DURABLE, Statements};
use super::work::Work;
use super::{Postgres, Prepared};

/// Why a branch is not prepared.
enum Unprepared {
    /// It has said no; now it is to be rolled back.
    Refused(Refusal),
    /// Nobody knows what the server did.
    Failed(BranchError),
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

impl ResourceManager for Postgres {
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

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, BranchError> {
        self.expect_ours(branch)?;
        let preparing = self.registry().prepare(branch);
        let seat = match preparing {
            Preparing::Mine(seat) => seat,
            Preparing::Prepared => return Ok(Vote::Prepared),
            Preparing::Ended(End::ReadOnly) if read_only == ReadOnly::Allowed => {
                return Ok(Vote::ReadOnly);
            }
            Preparing::Ended(_) | Preparing::Elsewhere => {
                tracing::info!(%branch, "aborts: its transaction is over, or in another instance");
                return Ok(Vote::Aborted);
            }
            Preparing::Busy => return Err(BranchError::Preparing(branch.clone())),
        };
        match self.prepare_at(&seat, branch, request, read_only).await {
            Ok(vote) => Ok(vote),
            Err(Unprepared::Failed(error)) => Err(error),
            Err(Unprepared::Refused(refusal)) => {
                match refusal {
                    Refusal::EndedByItself | Refusal::Role { .. } | Refusal::NoHandler => {
                        tracing::error!(%branch, "aborts: {refusal}");
                    }
                    Refusal::Request(_) | Refusal::Failed | Refusal::Lost => {
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
        if finished == Finished::Missing && !self.is_committed(branch).await? {
            tracing::info!(%branch, "to be committed, neither stands prepared nor has a marker");
            return Ok(Proof::Missing);
        }
        self.registry().ended(branch, End::Over);
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
        let found = found.into_iter().map(|(branch, _)| InDoubt {
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

impl Postgres {
    /// How many branches of this participant stand prepared in this database, of whatever session,
    /// and for how long the oldest has. While one does, vacuum removes no row that was deleted after
    /// it began, and its locks stay.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn prepared(&self) -> Result<Prepared, BranchError> {
        let found = self.standing().await?;
        let oldest = found.iter().map(|(_, age)| *age).max();
        Ok(Prepared {
            count: found.len(),
            oldest,
        })
    }

    /// From the work to the vote.
    async fn prepare_at(
        &self,
        seat: &Arc<Seat>,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, Unprepared> {
        let mut work = self.take(seat).await?;
        if let Some(request) = request {
            let handler = self.inner.requests.as_ref().ok_or(Refusal::NoHandler)?;
            handler(work, request).await.map_err(Refusal::Request)?;
            work = self.take(seat).await?;
        }
        let wrote = match read_only {
            ReadOnly::Allowed => self.inspect(&work).await?,
            ReadOnly::Forbidden => Wrote::Something,
        };
        let (vote, end) = match wrote {
            Wrote::Nothing => {
                // Not a rollback: what a serializable transaction has read counts only if it commits.
                let commit = work.client().batch_execute("COMMIT");
                self.answered("let go of what was only read", commit)
                    .await?;
                (Vote::ReadOnly, Some(End::ReadOnly))
            }
            Wrote::Something => {
                self.prepare_on(&work, branch).await?;
                (Vote::Prepared, None)
            }
        };
        // A prepared transaction belongs to no connection.
        work.into_lease().clean(self.options().answer_max);
        match end {
            Some(end) => self.registry().ended(branch, end),
            None => self.registry().prepared(branch),
        }
        Ok(vote)
    }

    /// Waits until the service has let go of the connection.
    async fn take(&self, seat: &Arc<Seat>) -> Result<Work, Unprepared> {
        match self.sit(seat.clone()).await {
            Ok(work) => Ok(work),
            Err(WorkError::Lost(_)) => Err(Refusal::Lost.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the transaction that was begun for the branch still stands, and what it did.
    async fn inspect(&self, work: &Work) -> Result<Wrote, Unprepared> {
        let what = "say what the work did";
        let statements = self.statements(work).await?;
        let asking = work.client().query_one(&statements.inspect, &[]);
        match timeout(self.options().answer_max, asking).await {
            Ok(Err(_)) if work.client().is_closed() => Err(Refusal::Lost.into()),
            Ok(answer) => Ok(match self.judge(work, answer)?.get(2) {
                true => Wrote::Something,
                false => Wrote::Nothing,
            }),
            Err(_) => Err(self.silent(what).into()),
        }
    }

    /// Whether the answer is of the transaction that was begun for the branch, and of its role.
    fn judge(&self, work: &Work, answer: Result<Row, Error>) -> Result<Row, Unprepared> {
        let row = answer.map_err(|source| match source.code() {
            Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => Refusal::Failed.into(),
            Some(_) | None => self.failed(work, "say what the work did", source),
        })?;
        let mark: Option<String> = row.get(0);
        if mark != Some(self.inner.names.mark_of(work.txn())) {
            work.connection().spoil();
            return Err(Refusal::EndedByItself.into());
        }
        let (got, expected) = (row.get::<_, String>(1), &work.connection().user);
        if got != *expected {
            let expected = expected.clone();
            return Err(Refusal::Role { expected, got }.into());
        }
        Ok(row)
    }

    /// Asks whose transaction it is, writes the marker, and prepares: in one go, since the server
    /// takes one after the other, and what follows an error does nothing.
    ///
    /// Triggers that are deferred run before the server is told to wait for its standbys. (One that ran
    /// at `PREPARE TRANSACTION` itself could tell it not to.)
    ///
    /// A transaction that has failed answers `PREPARE TRANSACTION` with `ROLLBACK`, and with no error;
    /// so does a session that is in none. In both the savepoint before it is an error, and then the
    /// server does not come to the rest of the message: so what it answers without an error is
    /// prepared. (The marker alone does not prove that: its guard can be forged, by a service that sets
    /// the mark for its whole session and commits.)
    async fn prepare_on(&self, work: &Work, branch: &BranchId) -> Result<(), Unprepared> {
        let name = self.inner.names.name_of(branch);
        let prepare = format!(
            "SET CONSTRAINTS ALL IMMEDIATE; EXECUTE {MAKE_DURABLE}; SAVEPOINT paxos_commit; \
             PREPARE TRANSACTION '{name}'"
        );
        let mark = self.inner.names.mark_of(work.txn());
        let user = &work.connection().user;
        let statements = self.statements(work).await?;
        let client = work.client();
        let marker: [&(dyn ToSql + Sync); 3] = [&name, &mark, user];
        work.connection().forget_warnings();
        let all = async {
            tokio::join!(
                biased;
                client.query_one(&statements.who, &[]),
                client.execute(&statements.mark, &marker),
                client.batch_execute(&prepare),
            )
        };
        let answers = timeout(self.options().answer_max, all).await;
        let (inspected, marked, prepared) = answers.map_err(|_| self.silent("prepare"))?;
        self.judge(work, inspected)?;
        let what = "write the marker of the commit";
        let marked = marked.map_err(|source| self.failed(work, what, source))?;
        match prepared {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::OUT_OF_MEMORY) => {
                return Err(BranchError::Full.into());
            }
            Err(source) => return Err(self.failed(work, "prepare", source)),
        }
        if marked != 1 {
            return Err(BranchError::NotMarked(branch.clone()).into());
        }
        if work.connection().has_warned() {
            // Mostly it is a trigger's. It may also say that no standby has the branch.
            self.confirm().await?;
        }
        Ok(())
    }

    async fn statements<'w>(&self, work: &'w Work) -> Result<&'w Statements, Unprepared> {
        let statements = work.connection().statements(self.schema()).await;
        let what = "take the adapter's statements";
        statements.map_err(|source| self.failed(work, what, source))
    }

    fn failed(&self, work: &Work, what: &'static str, source: Error) -> Unprepared {
        if Statements::are_gone(&source) {
            work.connection().spoil();
        }
        BranchError::Server { what, source }.into()
    }

    /// Rolls a branch back, wherever it stands.
    ///
    /// When this says that it is done, the branch cannot surface as prepared any more: if the server
    /// may still be at its `PREPARE TRANSACTION`, the process of the server that is at it has ended
    /// before its name is looked for. (A process that dies with its own connections cannot do that.
    /// What it leaves surfaces sooner or later, and is found in doubt by any other one.)
    async fn undo(&self, branch: &BranchId) -> Result<Finished, BranchError> {
        self.expect_ours(branch)?;
        let seat = self.registry().roll_back(branch);
        if let Some(seat) = seat {
            self.roll_back_at(&seat).await?;
        }
        // Also if nobody here has prepared it: another session of this participant may have.
        let finished = self.finish(Ending::Rollback, branch).await?;
        self.registry().ended(branch, End::Over);
        Ok(finished)
    }

    /// Rolls the local transaction back, or has the server end the process that works for it.
    async fn roll_back_at(&self, seat: &Seat) -> Result<(), BranchError> {
        if let Ok(mut slot) = seat.slot.try_lock() {
            match std::mem::replace(&mut *slot, Slot::Over(Process::Unknown)) {
                // Nobody begins any more; or a rollback comes again, and the process may work for
                // somebody else.
                Slot::Empty | Slot::Over(Process::Free) => {
                    *slot = Slot::Over(Process::Free);
                    return Ok(());
                }
                Slot::Open(lease) if self.roll_back_on(&lease).await => {
                    *slot = Slot::Over(Process::Free);
                    lease.clean(self.options().answer_max);
                    return Ok(());
                }
                Slot::Open(_) | Slot::Over(Process::Unknown) => {}
            }
        }
        // The connection is lost, or a statement holds it: perhaps one that waits for a lock.
        match seat.backend.get() {
            Some(backend) => self.end_process(*backend).await,
            None => Ok(()),
        }
    }

    async fn roll_back_on(&self, lease: &Lease) -> bool {
        let answer = timeout(
            self.options().answer_max,
            lease.client.batch_execute("ROLLBACK"),
        );
        matches!(answer.await, Ok(Ok(())))
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

/// What the work of a branch did.
#[derive(Clone, Copy)]
enum Wrote {
    Something,
    Nothing,
}

/// For how long a prepared branch has stood so.
pub(super) type Age = Duration;
