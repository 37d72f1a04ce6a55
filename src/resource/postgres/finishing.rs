//! What is done without the connection of the work: finish what stands prepared, look for it, prove
//! commits and forget the proofs.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::participant::BranchId;
use crate::protocol::types::{CommitId, Session};

use super::Postgres;
use super::branch::Age;
use super::connection::{Answer, Backend, Parameter, TRIES};
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
            match self.ask(what, &sql, &[]).await? {
                // That may say that no standby has it.
                Ok(answer) if answer.has_warned && ending == Ending::Commit => {
                    self.confirm().await?;
                    return Ok(Finished::Done);
                }
                // A rollback that a standby does not have is rolled back there, too: it stands prepared
                // there, so its outcome is asked for.
                Ok(_) => return Ok(Finished::Done),
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

    /// Whether the branch has committed, and no standby can take that back: then there is the marker,
    /// which the same transaction wrote. Only the marker proves it. The server makes a commit visible
    /// before it forgets the name, so a session that misses the name sees the marker of a commit that
    /// another session has just made.
    pub(super) async fn is_committed(&self, branch: &BranchId) -> Result<bool, BranchError> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {}.committed WHERE gid = $1)",
            self.schema()
        );
        let name = self.inner.names.name_of(branch);
        let parameters = [(&name as _, Type::TEXT)];
        let what = "say whether it has committed";
        let rows = self.asked(what, &sql, &parameters).await?.rows;
        let is_found = rows.first().is_some_and(|row| row.get(0));
        if is_found {
            // A commit whose wait for the standby was cut short shows like any other.
            self.confirm().await?;
        }
        Ok(is_found)
    }

    /// Returns when the standbys for which the server waits have all that shows here now: a small
    /// write waits for them, and comes after it in the log.
    pub(super) async fn confirm(&self) -> Result<(), BranchError> {
        // One transaction, which leaves nothing.
        let row = "'confirm ' || pg_catalog.pg_backend_pid()";
        let sql = format!(
            "INSERT INTO {0}.committed VALUES ({row}); DELETE FROM {0}.committed WHERE gid = {row}",
            self.schema()
        );
        let what = "write what the standby is to confirm";
        match self.asked(what, &sql, &[]).await?.has_warned {
            false => Ok(()),
            true => Err(BranchError::Unconfirmed),
        }
    }

    /// The branches of this participant that stand prepared in this database, and for how long.
    pub(super) async fn standing(&self) -> Result<Vec<(BranchId, Age)>, BranchError> {
        // The view shows those of all databases of the server.
        let sql = "SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8 \
                   FROM pg_catalog.pg_prepared_xacts \
                   WHERE database = pg_catalog.current_database() \
                   AND pg_catalog.starts_with(gid, $1)";
        let names = &self.inner.names;
        let parameters = [(&names.family() as _, Type::TEXT)];
        let what = "list what stands prepared";
        let rows = self.asked(what, sql, &parameters).await?.rows;
        let mut standing = Vec::with_capacity(rows.len());
        for row in rows {
            let (name, age): (&str, f64) = (row.get(0), row.get(1));
            match names.branch_of(name) {
                // The server's clock may have been set back.
                Some(branch) => standing.push((branch, Age::from_secs_f64(age.max(0.0)))),
                None => {
                    let store = names.store;
                    tracing::warn!(name, %store, "stands prepared, and is of another store");
                }
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
            let rows = self.asked(what, sql, &parameters).await?.rows;
            // None: there is none. Some(None): it is not shown to this role, and it may be the one.
            match rows.first().map(|row| row.get::<_, Option<i64>>(0)) {
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

    /// Drops the markers up to `through`, except those of `listed`: few at a time, each time in a
    /// transaction of its own, and none that another session has locked.
    pub(super) async fn drop_markers(
        &self,
        through: CommitId,
        listed: &[BranchId],
    ) -> Result<(), BranchError> {
        let listed: BTreeSet<_> = listed.iter().map(key_of).collect();
        let names = &self.inner.names;
        let is_over = |name: &&String| {
            let branch = names.branch_of(name);
            branch.is_some_and(|of| of.id <= through && !listed.contains(&key_of(&of)))
        };
        let mut last = names.prefix().to_owned();
        loop {
            let found = self.markers_after(&last, through).await?;
            let over: Vec<&String> = found.iter().filter(is_over).collect();
            if !over.is_empty() {
                self.delete_markers(&over).await?;
            }
            match found.into_iter().nth(MARKERS_PER_DELETE as usize - 1) {
                Some(name) => last = name,
                None => return Ok(()),
            }
        }
    }

    /// The names of the next markers, in order. The last may be above `through`: masked names tell
    /// that only up to the nonce.
    async fn markers_after(
        &self,
        last: &String,
        through: CommitId,
    ) -> Result<Vec<String>, BranchError> {
        let sql = format!(
            "SELECT gid FROM {}.committed WHERE gid > $1 AND gid < $2 ORDER BY gid LIMIT $3",
            self.schema()
        );
        let end = self.inner.names.end_of(through);
        let parameters = [
            (last as _, Type::TEXT),
            (&end as _, Type::TEXT),
            (&MARKERS_PER_DELETE as _, Type::INT8),
        ];
        let what = "list the markers of commits";
        let rows = self.asked(what, &sql, &parameters).await?.rows;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// On a standby that is promoted they may be there again: the next horizon deletes them.
    async fn delete_markers(&self, over: &[&String]) -> Result<(), BranchError> {
        let sql = format!(
            "DELETE FROM {0}.committed WHERE gid IN (SELECT gid FROM {0}.committed \
             WHERE gid = ANY ($1) FOR UPDATE SKIP LOCKED)",
            self.schema()
        );
        let parameters = [(&over as _, Type::TEXT_ARRAY)];
        let what = "forget the markers of settled commits";
        self.asked(what, &sql, &parameters).await?;
        Ok(())
    }

    /// What the server answers to statements that may be sent twice, if it comes in time; several of
    /// them need no parameters, and give no rows. A connection that is lost is replaced: mostly the
    /// server has closed it while it was idle.
    async fn ask(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Result<Answer, Error>, BranchError> {
        let mut tries = 0;
        loop {
            let lease = self.inner.finishing.lease().await?;
            // If it does not come in time, the lease is closed.
            let answer = timeout(self.options().answer_max, lease.ask(sql, parameters)).await;
            let answer = answer.map_err(|_| self.silent(what))?;
            tries += 1;
            match &answer {
                Err(error) if lease.is_lost(error) => {
                    drop(lease);
                    self.inner.finishing.drop_idle();
                    if tries < TRIES {
                        continue;
                    }
                }
                // Outside of transactions an error leaves nothing open.
                Ok(_) | Err(_) => lease.release(),
            }
            return Ok(answer);
        }
    }

    /// The same, if it is no error.
    async fn asked(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Answer, BranchError> {
        let answer = self.ask(what, sql, parameters).await?;
        answer.map_err(|source| BranchError::Server { what, source })
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

/// What tells a branch from all others of this participant: a session has one store.
fn key_of(branch: &BranchId) -> (CommitId, Session) {
    (branch.id, branch.branch.session)
}
