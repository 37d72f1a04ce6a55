//! What is done without the connection of the work: finish what stands prepared, look for it, prove
//! commits and forget the proofs.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::participant::BranchId;
use crate::protocol::types::CommitId;

use super::Postgres;
use super::branch::Age;
use super::connection::{Backend, Lease};
use super::error::BranchError;

/// How many markers one statement drops.
pub const MARKERS_PER_DELETE: i64 = 1_000;

/// The pauses before something that is about to be over is looked at again.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// For how long another session may be at the same branch before that is an error, to be tried
/// again.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// What a prepared transaction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    Rollback,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    Done,
    /// It does not stand prepared.
    Missing,
}

impl Postgres {
    /// Ends a prepared transaction, durably.
    pub(super) async fn finish(
        &self,
        ending: Ending,
        branch: &BranchId,
    ) -> Result<Finished, BranchError> {
        let (verb, what) = match ending {
            Ending::Commit => ("COMMIT", "commit what is prepared"),
            Ending::Rollback => ("ROLLBACK", "roll back what is prepared"),
        };
        let sql = format!("{verb} PREPARED '{}'", self.inner.names.name_of(branch));
        let (begun, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let lease = self.inner.finishing.lease().await?;
            let answer = self.answer(what, lease.client.batch_execute(&sql));
            let answer = answer.await?;
            give_back(lease);
            match answer {
                Ok(()) => return Ok(Finished::Done),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
                    return Ok(Finished::Missing);
                }
                // Another session is at it, or the process that has just prepared it is not quite
                // done.
                Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                    if begun.elapsed() > BUSY_MAX {
                        return Err(BranchError::Busy(branch.clone()));
                    }
                }
                Err(source) => return Err(BranchError::Server { what, source }),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// A branch that is told to commit and is not prepared was committed before: there is its
    /// marker, which the same transaction wrote, or it is settled (then it has had its outcome, or
    /// it would still be prepared). Once neither was so, it is disputed, durably: a horizon that comes
    /// later is not to take that for its end. The server makes a commit visible before it forgets the name, so
    /// whoever misses the name sees the marker.
    pub(super) async fn expect_committed(&self, branch: &BranchId) -> Result<(), BranchError> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {0}.committed WHERE gid = $1) \
             OR EXISTS (SELECT FROM {0}.settled WHERE prefix = $2 AND through >= $3) \
             AND NOT EXISTS (SELECT FROM {0}.disputed WHERE gid = $1)",
            self.schema()
        );
        let names = &self.inner.names;
        let (name, id) = (names.name_of(branch), branch.id.to_string());
        let parameters = [
            (&name as _, Type::TEXT),
            (&names.prefix() as _, Type::TEXT),
            (&id as _, Type::TEXT),
        ];
        let what = "say whether it has committed";
        let lease = self.inner.finishing.lease().await?;
        let answer = self.answer(what, lease.client.query_typed_one(&sql, &parameters));
        let answer = answer.await?;
        let row = answer.map_err(|source| BranchError::Server { what, source })?;
        if row.get(0) {
            give_back(lease);
            return Ok(());
        }
        let what = "remember that a commit is disputed";
        let sql = format!(
            "INSERT INTO {}.disputed VALUES ($1) ON CONFLICT DO NOTHING",
            self.schema()
        );
        let disputing = lease.client.execute_typed(&sql, &parameters[..1]);
        self.answered(what, disputing).await?;
        give_back(lease);
        let branch = branch.clone();
        let error = BranchError::NoProof { branch };
        tracing::error!("{error}");
        Err(error)
    }

    /// The branches of this participant that stand prepared in this database, and for how long.
    pub(super) async fn standing(&self) -> Result<Vec<(BranchId, Age)>, BranchError> {
        // The view shows those of all databases of the server.
        let sql = "SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8 \
                   FROM pg_catalog.pg_prepared_xacts \
                   WHERE database = pg_catalog.current_database() \
                   AND pg_catalog.starts_with(gid, $1)";
        let names = &self.inner.names;
        let parameters = [(&names.prefix() as _, Type::TEXT)];
        let what = "list what stands prepared";
        let lease = self.inner.finishing.lease().await?;
        let answer = self.answer(what, lease.client.query_typed(sql, &parameters));
        let answer = answer.await?;
        give_back(lease);
        let rows = answer.map_err(|source| BranchError::Server { what, source })?;
        let mut standing = Vec::with_capacity(rows.len());
        for row in rows {
            let (name, age): (&str, f64) = (row.get(0), row.get(1));
            match names.branch_of(name) {
                // The server's clock may have been set back.
                Some(branch) => standing.push((branch, Age::from_secs_f64(age.max(0.0)))),
                None => tracing::warn!(name, "stands prepared; its name is nobody's"),
            }
        }
        self.measure(&standing);
        Ok(standing)
    }

    fn measure(&self, standing: &[(BranchId, Age)]) {
        let participant = self.inner.names.participant.to_string();
        let oldest = standing.iter().map(|(_, age)| age.as_secs_f64());
        metrics::gauge!("paxos_commit_postgres_prepared", "participant" => participant.clone())
            .set(standing.len() as f64);
        metrics::gauge!("paxos_commit_postgres_prepared_oldest_seconds", "participant" => participant)
            .set(oldest.fold(0.0, f64::max));
    }

    /// Has the server end one of its processes, and returns when that is gone: whatever it was at
    /// has happened, or never will.
    pub(super) async fn end_process(&self, backend: Backend) -> Result<(), BranchError> {
        // It is asked for its activity by its number; the entry goes after its transaction and all
        // its locks.
        let sql = "SELECT started, \
                   CASE started WHEN $2 THEN pg_catalog.pg_terminate_backend(pid) END \
                   FROM (SELECT pid, (extract(epoch FROM backend_start) * 1000000)::int8 AS started \
                   FROM pg_catalog.pg_stat_get_activity($1)) AS process";
        let parameters = [
            (&backend.id as _, Type::INT4),
            (&backend.started as _, Type::INT8),
        ];
        let what = "end one of its processes";
        let (begun, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let lease = self.inner.finishing.lease().await?;
            let answer = self.answer(what, lease.client.query_typed_opt(sql, &parameters));
            let answer = answer.await?;
            give_back(lease);
            let answer = answer.map_err(|source| BranchError::Server { what, source })?;
            // None: there is none. Some(None): it is not shown to this role, and it may be the one.
            match answer.map(|row| row.get::<_, Option<i64>>(0)) {
                None => return Ok(()),
                Some(Some(started)) if started != backend.started => return Ok(()),
                Some(_) if begun.elapsed() > self.options().answer_max => {
                    let process = backend.id;
                    return Err(BranchError::Stays { process });
                }
                Some(_) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Moves the horizon, then drops the markers up to there: few at a time, each time in a
    /// transaction of its own, and none that another session is at.
    pub(super) async fn drop_markers(&self, through: CommitId) -> Result<(), BranchError> {
        // The horizon stands before the first marker goes, and never goes back.
        let horizon = format!(
            "INSERT INTO {0}.settled AS held VALUES ($1, $2) ON CONFLICT (prefix) \
             DO UPDATE SET through = excluded.through WHERE held.through < excluded.through",
            self.schema()
        );
        let delete = format!(
            "DELETE FROM {0}.committed WHERE gid IN (SELECT gid FROM {0}.committed \
             WHERE gid >= $1 AND gid < $2 ORDER BY gid LIMIT $3 FOR UPDATE SKIP LOCKED)",
            self.schema()
        );
        // What has a marker is disputed no more.
        let proved = format!(
            "DELETE FROM {0}.disputed WHERE gid IN (SELECT gid FROM {0}.committed) \
             AND gid >= $1 AND gid < $2",
            self.schema()
        );
        let names = &self.inner.names;
        let (id, end) = (through.to_string(), names.end_of(through));
        let what = "forget the markers of settled commits";
        let failed = |source| BranchError::Server { what, source };
        let lease = self.inner.finishing.lease().await?;
        let prefix = (&names.prefix() as _, Type::TEXT);
        let parameters = [prefix, (&id as _, Type::TEXT)];
        let moving = lease.client.execute_typed(&horizon, &parameters);
        self.answer(what, moving).await?.map_err(failed)?;
        let parameters = [
            (&names.prefix() as _, Type::TEXT),
            (&end as _, Type::TEXT),
            (&MARKERS_PER_DELETE as _, Type::INT8),
        ];
        let settling = lease.client.execute_typed(&proved, &parameters[..2]);
        self.answer(what, settling).await?.map_err(failed)?;
        give_back(lease);
        loop {
            // Others want a connection, too.
            let lease = self.inner.finishing.lease().await?;
            let deleting = lease.client.execute_typed(&delete, &parameters);
            let deleted = self.answer(what, deleting).await?.map_err(failed)?;
            give_back(lease);
            if deleted < MARKERS_PER_DELETE as u64 {
                return Ok(());
            }
        }
    }

    /// The server's answer, if it comes in time; else the lease must not be given back.
    async fn answer<T>(
        &self,
        what: &'static str,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, BranchError> {
        let answer = timeout(self.options().answer_max, asking).await;
        answer.map_err(|_| self.silent(what))
    }

    /// The server's answer, if it comes in time and is no error.
    pub(super) async fn answered<T>(
        &self,
        what: &'static str,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, BranchError> {
        let answer = timeout(self.options().answer_max, asking).await;
        let answer = answer.map_err(|_| self.silent(what))?;
        answer.map_err(|source| BranchError::Server { what, source })
    }

    pub(super) fn silent(&self, what: &'static str) -> BranchError {
        let seconds = self.options().answer_max.as_secs_f32();
        BranchError::Silent { what, seconds }
    }
}

/// Outside of transactions an error leaves nothing open.
fn give_back(lease: Lease) {
    if !lease.client.is_closed() {
        lease.release();
    }
}
