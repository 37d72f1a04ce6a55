//! What is done without the connection of the work: finish what stands prepared, look for it, prove
//! commits and forget the proofs.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use mysql_async::Error;
use mysql_async::prelude::Queryable;
use tokio::time::sleep;

use crate::participant::BranchId;
use crate::protocol::types::{Branch, CommitId, Session, TxnId};
use crate::resource::masking::highest_masked;

use super::Mariadb;
use super::connection::Lease;
use super::error::{BranchError, code, code_of};
use super::xid::{Process, Xid, hex};

/// How many markers one transaction drops.
pub const MARKERS_PER_DELETE: usize = 1_000;

/// The pauses before something that is about to be over is looked at again.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(1);
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How many connections are replaced, one after the other, if each turns out to be lost.
pub(super) const LOST_MAX: usize = 3;

/// How long the server may take to hand a branch over, once its session has let go of its lock. It
/// takes microseconds: without any pause 1 of 8,000 tries came in between.
const HANDED_OVER: Duration = Duration::from_millis(50);

/// What a prepared branch comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    Rollback,
}

impl Ending {
    fn sql(self, xid: &Xid) -> String {
        match self {
            Ending::Commit => format!("XA COMMIT {xid}"),
            Ending::Rollback => format!("XA ROLLBACK {xid}"),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Ending::Commit => "commit what is prepared",
            Ending::Rollback => "roll back what is prepared",
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    Done,
    /// It does not stand prepared.
    Missing,
}

/// The columns `commit_id` and `session` of a row.
type Key = (Vec<u8>, Vec<u8>);

/// What tells a branch from all others of this participant: a session has one store.
fn key_of(branch: &BranchId) -> (CommitId, Session) {
    (branch.id, branch.branch.session)
}

impl Mariadb {
    /// Ends a branch on the connection on which it was prepared. False if that broke.
    pub(super) async fn finish_on(
        &self,
        mut lease: Lease,
        ending: Ending,
        branch: &BranchId,
    ) -> Result<bool, BranchError> {
        let names = &self.inner.names;
        let sql = ending.sql(&names.xid(branch.id.txn, names.process));
        match self
            .answer(ending.what(), lease.conn.query_drop(sql))
            .await?
        {
            Ok(()) => {
                lease.clean(self.options().answer_max);
                if ending == Ending::Rollback {
                    // Where the service worked it may have set whatever it likes: no autocommit, say.
                    let mut lease = self.inner.finishing.lease().await?;
                    self.force(&mut lease).await?;
                    lease.release();
                }
                Ok(true)
            }
            Err(error) => {
                let code = code_of(&error);
                tracing::warn!(%branch, %error, code, "not finished where it was prepared");
                Ok(false)
            }
        }
    }

    /// Ends a branch that no living session of the server has.
    ///
    /// The server hands a branch over in two steps when its session ends: first everybody can finish
    /// it, and only then InnoDB knows that. Who comes in between is told that the branch has ended,
    /// and nothing has happened. So this waits until the session is gone, and looks afterwards.
    pub(super) async fn try_finish(
        &self,
        ending: Ending,
        branch: &BranchId,
        known: Option<Process>,
    ) -> Result<Finished, BranchError> {
        let mut lease = self.inner.finishing.lease().await?;
        let found = self.process_of(&mut lease, branch).await?;
        // Whose session may have other work by now.
        let is_over = found.is_some() && self.is_committed(&mut lease, branch).await?;
        let Some(process) = found.or(known).filter(|_| !is_over) else {
            if ending == Ending::Rollback && !is_over {
                // It may have been rolled back a moment ago by a process that did not come to this.
                self.force(&mut lease).await?;
            }
            lease.release();
            return Ok(Finished::Missing);
        };
        let xid = self.inner.names.xid(branch.id.txn, process);
        let session = self.session_of(&mut lease, &xid).await?;
        lease.release();
        if session.is_some() {
            return Err(BranchError::Held(branch.clone()));
        }
        sleep(HANDED_OVER).await;
        let mut lease = self.inner.finishing.lease().await?;
        let what = ending.what();
        let finishing = lease.conn.query_drop(ending.sql(&xid));
        let finished = match self.answer(what, finishing).await? {
            Ok(()) => Finished::Done,
            Err(source) => match code_of(&source) {
                Some(code::UNKNOWN_XID) => {
                    if self.is_held(&mut lease, &xid).await? {
                        lease.release();
                        return Err(BranchError::Held(branch.clone()));
                    }
                    Finished::Missing
                }
                Some(
                    code::ROLLED_BACK
                    | code::ROLLED_BACK_BY_TIMEOUT
                    | code::ROLLED_BACK_BY_DEADLOCK,
                ) if ending == Ending::Commit => {
                    return Err(BranchError::RolledBack(branch.clone()));
                }
                Some(
                    code::ROLLED_BACK
                    | code::ROLLED_BACK_BY_TIMEOUT
                    | code::ROLLED_BACK_BY_DEADLOCK,
                ) => Finished::Done,
                Some(_) | None => return Err(BranchError::Server { what, source }),
            },
        };
        self.expect_ended(&mut lease, ending, branch, finished)
            .await?;
        if ending == Ending::Rollback {
            self.force(&mut lease).await?;
        }
        lease.release();
        Ok(finished)
    }

    /// Looks whether the server did what it said: a row that is there and not committed is of a
    /// branch that still stands.
    async fn expect_ended(
        &self,
        lease: &mut Lease,
        ending: Ending,
        branch: &BranchId,
        finished: Finished,
    ) -> Result<(), BranchError> {
        let is_ended = match (ending, finished) {
            (Ending::Commit, Finished::Done) => self.is_committed(lease, branch).await?,
            // The server knows a branch no more whose end it has falsely reported, and so answers the
            // next try that there is none.
            (Ending::Commit, Finished::Missing) | (Ending::Rollback, _) => {
                self.process_of(lease, branch).await?.is_none()
                    || self.is_committed(lease, branch).await?
            }
        };
        match is_ended {
            true => Ok(()),
            false => {
                let branch = branch.clone();
                let error = BranchError::NotEnded { branch };
                tracing::error!("{error}");
                Err(error)
            }
        }
    }

    /// Whether the branch's row is committed: then the branch is.
    async fn is_committed(
        &self,
        lease: &mut Lease,
        branch: &BranchId,
    ) -> Result<bool, BranchError> {
        let (table, key) = (&self.inner.tables.branch, self.inner.names.key(branch));
        let what = "say whether a branch has committed";
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {key})");
        let found = self.answer(what, lease.row::<bool>(sql));
        let found = found.await?;
        let found = found.map_err(|source| BranchError::Server { what, source })?;
        Ok(found == Some(true))
    }

    /// The session of the server that works for a branch, or holds it, while that lives.
    async fn session_of(&self, lease: &mut Lease, xid: &Xid) -> Result<Option<u32>, BranchError> {
        let what = "say which session works for a branch";
        let sql = format!("SELECT IS_USED_LOCK({})", xid.lock());
        let found = lease.row::<Option<u32>>(sql);
        let found = self.answer(what, found).await?;
        let found = found.map_err(|source| BranchError::Server { what, source })?;
        Ok(found.flatten())
    }

    /// Whether somebody has a branch of this name, in whatever state: who can take the name knows
    /// that nobody does, and that nothing surfaces under it any more.
    async fn is_held(&self, lease: &mut Lease, xid: &Xid) -> Result<bool, BranchError> {
        let what = "say whether somebody has a branch";
        let taking = lease.conn.query_drop(format!("XA START {xid}"));
        match self.answer(what, taking).await? {
            Ok(()) => {}
            Err(error) if code_of(&error) == Some(code::DUPLICATE_XID) => return Ok(true),
            Err(source) => return Err(BranchError::Server { what, source }),
        }
        let leaving = format!("XA END {xid}; XA ROLLBACK {xid}");
        let left = self.answer(what, lease.conn.query_drop(leaving)).await?;
        left.map_err(|source| BranchError::Server { what, source })?;
        Ok(false)
    }

    /// Which process works, or has worked, for a branch. Its row says so as soon as it is written:
    /// what is not committed shows to whoever reads at the lowest level, prepared branches after a
    /// restart of the server included.
    async fn process_of(
        &self,
        lease: &mut Lease,
        branch: &BranchId,
    ) -> Result<Option<Process>, BranchError> {
        let what = "say who has prepared a branch";
        let (table, key) = (&self.inner.tables.branch, self.inner.names.key(branch));
        let asking = async {
            // For the next statement only.
            let dirty = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED";
            lease.conn.query_drop(dirty).await?;
            let sql = format!("SELECT process FROM {table} WHERE {key}");
            lease.row::<Vec<u8>>(sql).await
        };
        let found = self.answer(what, asking).await?;
        let found = found.map_err(|source| BranchError::Server { what, source })?;
        Ok(found.and_then(|bytes| Some(Process(bytes.try_into().ok()?))))
    }

    /// Whether the branch has committed, durably: then there is its row, which is its marker. Only the
    /// marker proves it.
    pub(super) async fn has_marker(&self, branch: &BranchId) -> Result<bool, BranchError> {
        for _ in 0..LOST_MAX {
            match self.try_has_marker(branch).await {
                Err(error) if error.is_lost() => {}
                found => return found,
            }
        }
        self.try_has_marker(branch).await
    }

    async fn try_has_marker(&self, branch: &BranchId) -> Result<bool, BranchError> {
        let mut lease = self.inner.finishing.lease().await?;
        let found = self.is_committed(&mut lease, branch).await?;
        if found {
            // InnoDB shows a commit before it has forced it to disk.
            self.force(&mut lease).await?;
        }
        lease.release();
        Ok(found)
    }

    /// Has the server's log forced to disk up to here, by a small commit. The server does not do so
    /// for a rollback: without this, what was rolled back stands prepared again after a crash.
    async fn force(&self, lease: &mut Lease) -> Result<(), BranchError> {
        // Few rows, so that few wait for each other.
        let sql = format!(
            "INSERT INTO {} (slot, times) VALUES (CONNECTION_ID() % 64, 1) \
             ON DUPLICATE KEY UPDATE times = times + 1",
            self.inner.tables.forced
        );
        let what = "force its log to disk";
        let forced = self.answer(what, lease.conn.query_drop(sql)).await?;
        forced.map_err(|source| BranchError::Server { what, source })
    }

    /// The branches of this participant that stand prepared in this database.
    pub(super) async fn standing(&self) -> Result<Vec<BranchId>, BranchError> {
        for _ in 0..LOST_MAX {
            match self.try_standing().await {
                Err(error) if error.is_lost() => {}
                found => return found,
            }
        }
        self.try_standing().await
    }

    async fn try_standing(&self) -> Result<Vec<BranchId>, BranchError> {
        let what = "list what stands prepared";
        let mut lease = self.inner.finishing.lease().await?;
        let answer = self.answer(what, self.list(&mut lease)).await?;
        let found = answer.map_err(|source| BranchError::Server { what, source })?;
        lease.release();
        self.measure(&found);
        Ok(found)
    }

    async fn list(&self, lease: &mut Lease) -> Result<Vec<BranchId>, Error> {
        let names = &self.inner.names;
        // It lists the branches of everybody on this server.
        let rows: Vec<(i64, u64, u64, Vec<u8>)> = lease.rows("XA RECOVER").await?;
        let xids = rows.iter().filter_map(|(format, gtrid, bqual, data)| {
            names.parse((*format, *gtrid, *bqual), data)
        });
        let mut found = Vec::new();
        for xid in xids {
            // For the next statement only: what is prepared is not committed.
            let dirty = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED";
            lease.conn.query_drop(dirty).await?;
            let (table, rows) = (&self.inner.tables.branch, names.rows_of(&xid));
            let sql = format!("SELECT commit_id, session FROM {table} WHERE {rows}");
            let row: Option<(Vec<u8>, Vec<u8>)> = lease.row(sql).await?;
            // Without a row it was rolled back since it was listed.
            let branch = row.and_then(|(id, session)| {
                let session = u64::from_be_bytes(session.try_into().ok()?);
                Some(BranchId {
                    id: names.id_of(&id)?,
                    branch: Branch {
                        participant: names.participant.clone(),
                        session: Session(session),
                        store: names.store,
                    },
                })
            });
            found.extend(branch);
        }
        Ok(found)
    }

    /// Remembers since when each was seen.
    fn measure(&self, standing: &[BranchId]) {
        let now = Instant::now();
        {
            let mut seen = super::lock(&self.inner.seen);
            let before = std::mem::take(&mut *seen);
            for branch in standing {
                let since = before.get(branch).copied().unwrap_or(now);
                seen.insert(branch.clone(), since);
            }
        }
        let participant = self.inner.names.participant.to_string();
        let oldest = self.oldest_seen().unwrap_or_default().as_secs_f64();
        metrics::gauge!("paxos_commit_mariadb_prepared", "participant" => participant.clone())
            .set(standing.len() as f64);
        metrics::gauge!("paxos_commit_mariadb_prepared_oldest_seconds", "participant" => participant)
            .set(oldest);
    }

    pub(super) fn oldest_seen(&self) -> Option<Duration> {
        let seen = super::lock(&self.inner.seen);
        seen.values().map(Instant::elapsed).max()
    }

    /// Has the server end the session that works for a transaction here, and returns when that is
    /// gone: what was not prepared is rolled back, and what was is everybody's.
    pub(super) async fn end_session(&self, txn: TxnId) -> Result<(), BranchError> {
        let what = "end one of its sessions";
        let (begun, mut pause) = (Instant::now(), PAUSE_MIN);
        let xid = self.inner.names.xid(txn, self.inner.names.process);
        loop {
            let mut lease = self.inner.finishing.lease().await?;
            let Some(connection) = self.session_of(&mut lease, &xid).await? else {
                lease.release();
                return Ok(());
            };
            let kill = lease
                .conn
                .query_drop(format!("KILL CONNECTION {connection}"));
            match self.answer(what, kill).await? {
                Ok(()) => {}
                Err(error) if code_of(&error) == Some(code::NO_SUCH_THREAD) => {}
                Err(source) => return Err(BranchError::Server { what, source }),
            }
            lease.release();
            if begun.elapsed() > self.options().answer_max {
                return Err(BranchError::Stays { connection });
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Drops the markers up to `through`, except those of `listed`: few at a time, each time in a
    /// transaction of its own, and none that another session has locked: those are of branches that
    /// stand prepared.
    pub(super) async fn drop_markers(
        &self,
        through: CommitId,
        listed: &[BranchId],
    ) -> Result<(), BranchError> {
        let what = "forget the markers of settled commits";
        let listed: BTreeSet<_> = listed.iter().map(key_of).collect();
        let names = &self.inner.names;
        let is_over = |(id, session): &Key| {
            let id = names.id_of(id).filter(|id| *id <= through);
            let session = session.as_slice().try_into().map(u64::from_be_bytes);
            let key = id.zip(session.ok().map(Session));
            key.is_some_and(|key| !listed.contains(&key))
        };
        let (mut last, mut lost) = (Key::default(), 0);
        loop {
            // Others want a connection, too.
            let mut lease = self.inner.finishing.lease().await?;
            let dropping = self.drop_some(&mut lease, &last, through, is_over);
            let dropped = self.answer(what, dropping).await?;
            if matches!(&dropped, Err(error) if error.is_fatal()) && lost < LOST_MAX {
                lost += 1;
                continue;
            }
            let found = dropped.map_err(|source| BranchError::Server { what, source })?;
            lease.release();
            match found.into_iter().nth(MARKERS_PER_DELETE - 1) {
                Some(key) => last = key,
                None => return Ok(()),
            }
        }
    }

    /// Goes through the next rows, in order, and drops those that are over. Returns the keys of all of
    /// them. The last may be above `through`: masked ids tell that only up to the nonce.
    async fn drop_some(
        &self,
        lease: &mut Lease,
        last: &Key,
        through: CommitId,
        is_over: impl Fn(&Key) -> bool,
    ) -> Result<Vec<Key>, Error> {
        let (table, store) = (&self.inner.tables.branch, self.inner.names.store);
        let (id, session) = (hex(&last.0), hex(&last.1));
        lease.conn.query_drop("START TRANSACTION").await?;
        let sql = format!(
            "SELECT commit_id, session FROM {table} \
             WHERE owner = X'{store}' AND commit_id BETWEEN X'{id}' AND X'{}' \
             AND NOT (commit_id = X'{id}' AND session <= X'{session}') \
             ORDER BY commit_id, session LIMIT {MARKERS_PER_DELETE} FOR UPDATE SKIP LOCKED",
            hex(&highest_masked(through))
        );
        let found: Vec<Key> = lease.rows(sql).await?;
        let over: Vec<Key> = found.iter().filter(|key| is_over(key)).cloned().collect();
        // One key after another, so that no plan of the server's looks at a row that is not among
        // them, and waits for its lock.
        let delete = format!(
            "DELETE FROM {table} WHERE owner = X'{store}' AND commit_id = ? AND session = ?"
        );
        if !over.is_empty() {
            lease.conn.exec_batch(delete, over).await?;
        }
        lease.conn.query_drop("COMMIT").await?;
        Ok(found)
    }

    /// The server's answer, if it comes in time; else the lease must not be given back.
    async fn answer<T>(
        &self,
        what: &'static str,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, BranchError> {
        let answer = self.bounded(asking).await;
        if let Some(Err(error)) = &answer
            && error.is_fatal()
        {
            self.inner.finishing.drop_idle();
        }
        answer.ok_or_else(|| self.silent(what))
    }

    pub(super) fn silent(&self, what: &'static str) -> BranchError {
        let seconds = self.options().answer_max.as_secs_f32();
        BranchError::Silent { what, seconds }
    }
}
