//! The stage of one check: processes of the participant, and what they are told.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::participant::{BranchId, Expiry, Proof, ResourceManager};
use crate::protocol::participant::Owner;
use crate::protocol::types::{
    Branch, CommitId, InitiatorId, Outcome, ReadOnly, Request, Roster, Session, TxnId, Vote,
};

use super::subject::{Applied, Failure, Processes, Subject};

/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Why a check did not pass.
pub(super) enum Verdict {
    Broken(Broken),
    NotApplicable(&'static str),
}

/// A rule was broken.
pub(super) struct Broken {
    pub(super) expected: String,
    pub(super) got: String,
}

/// A rule was broken.
pub(super) fn broken<T>(expected: impl fmt::Display, got: impl fmt::Display) -> Result<T, Verdict> {
    Err(Verdict::Broken(Broken {
        expected: expected.to_string(),
        got: got.to_string(),
    }))
}

/// What one check uses, and no other.
pub(super) struct Scene<'s, S> {
    pub(super) subject: &'s S,
    patience: Duration,
    generation: u32,
    sequence: AtomicU32,
    sessions: AtomicU32,
}

/// A process of the participant.
pub(super) struct Process<'s, S: Subject> {
    pub(super) scene: &'s Scene<'s, S>,
    pub(super) manager: S::Manager,
    me: Branch,
}

impl<'s, S: Subject> Scene<'s, S> {
    pub(super) fn new(subject: &'s S, generation: u32, patience: Duration) -> Self {
        Scene {
            subject,
            patience,
            generation,
            sequence: AtomicU32::new(0),
            sessions: AtomicU32::new(0),
        }
    }

    /// A new process, with a session of its own.
    pub(super) async fn open(&'s self) -> Result<Process<'s, S>, Verdict> {
        let manager = self.bounded("open the store", self.subject.open()).await?;
        Ok(self.process(manager))
    }

    /// A process of the same participant with a store of its own, new and empty.
    pub(super) async fn open_another(&'s self) -> Result<Process<'s, S>, Verdict> {
        let opening = self.subject.open_another();
        match self.bounded("open another store", opening).await? {
            Some(manager) => Ok(self.process(manager)),
            None => Err(Verdict::NotApplicable("the subject opens no other store")),
        }
    }

    /// A process of the same participant with a copy of the store.
    pub(super) async fn open_copy(&'s self) -> Result<Process<'s, S>, Verdict> {
        let opening = self.subject.open_copy();
        match self.bounded("open a copy of the store", opening).await? {
            Some(manager) => Ok(self.process(manager)),
            None => Err(Verdict::NotApplicable("the subject copies no store")),
        }
    }

    fn process(&'s self, manager: S::Manager) -> Process<'s, S> {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let me = Branch {
            participant: self.subject.participant(),
            session: Session(u64::from(self.generation) << 32 | u64::from(session)),
            store: manager.store(),
        };
        Process {
            scene: self,
            manager,
            me,
        }
    }

    /// The store crashes, the processes live.
    pub(super) async fn crash_store(&self) -> Result<(), Verdict> {
        let crash = self.subject.crash_store();
        self.applied(self.bounded("crash the store", crash).await?)
    }

    pub(super) fn applied(&self, applied: Applied) -> Result<(), Verdict> {
        match applied {
            Applied::Done => Ok(()),
            Applied::NotApplicable(reason) => Err(Verdict::NotApplicable(reason)),
        }
    }

    /// Goes on only where several processes may share the store.
    pub(super) fn needs_many(&self) -> Result<(), Verdict> {
        match self.subject.processes() {
            Processes::Many => Ok(()),
            Processes::One => Err(Verdict::NotApplicable(
                "one process at a time has this store open",
            )),
        }
    }

    /// A counter of this check.
    pub(super) fn counter(&self, name: &str) -> String {
        format!("{name}-{}", self.generation)
    }

    /// A new transaction.
    pub(super) fn txn(&self) -> TxnId {
        TxnId {
            generation: self.generation,
            initiator: InitiatorId::from_u128(0x00c0_ffee_00c0_ffee),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            nonce: 9,
        }
    }

    /// What the subject does itself, which is not the resource manager's fault, but ends the check.
    async fn bounded<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Verdict> {
        match timeout(self.patience, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => broken(format_args!("to {what}"), chain(&*error)),
            Err(_) => broken(
                format_args!("to {what}"),
                format_args!("nothing for {:?}", self.patience),
            ),
        }
    }

    /// Tries again what fails, as a participant does, until patience ends.
    async fn until_done<T, E: std::error::Error, F: Future<Output = Result<T, E>>>(
        &self,
        what: impl fmt::Display,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Verdict> {
        let deadline = Instant::now() + self.patience;
        let mut last = "nothing".to_owned();
        while let Ok(result) = tokio::time::timeout_at(deadline, call()).await {
            match result {
                Ok(done) => return Ok(done),
                Err(error) => last = chain(&error),
            }
            if Instant::now() + RETRY >= deadline {
                break;
            }
            sleep(RETRY).await;
        }
        broken(
            format_args!("{what}: an answer that is Ok"),
            format_args!("for {:?}, at last: {last}", self.patience),
        )
    }
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("the error \"{error}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text + "\""
}

impl<'s, S: Subject> Process<'s, S> {
    /// A branch of this session in a transaction of its own.
    pub(super) fn branch(&self) -> BranchId {
        self.branch_in(self.scene.txn(), &[])
    }

    /// A branch of this session in a transaction, in which others stand, too.
    pub(super) fn branch_in(&self, txn: TxnId, others: &[Branch]) -> BranchId {
        let branches = others.iter().cloned().chain([self.me.clone()]);
        let roster = Roster::new(branches).expect("a few branches make a roster");
        BranchId {
            id: CommitId::new(txn, &roster),
            branch: self.me.clone(),
        }
    }

    pub(super) fn me(&self) -> &Branch {
        &self.me
    }

    /// A branch that has added to a counter.
    pub(super) async fn work(&self, counter: &str, amount: i64) -> Result<BranchId, Verdict> {
        let branch = self.branch();
        self.add(&branch, counter, amount).await?;
        Ok(branch)
    }

    /// A branch that has added to a counter, and is prepared.
    pub(super) async fn prepared(&self, counter: &str, amount: i64) -> Result<BranchId, Verdict> {
        let branch = self.work(counter, amount).await?;
        self.prepare(&branch).await?;
        Ok(branch)
    }

    /// A branch that has added to a counter, and is committed.
    pub(super) async fn committed(&self, counter: &str, amount: i64) -> Result<BranchId, Verdict> {
        let branch = self.prepared(counter, amount).await?;
        self.commit(&branch).await?;
        Ok(branch)
    }

    pub(super) async fn add(&self, of: &BranchId, to: &str, amount: i64) -> Result<(), Verdict> {
        let what = format!("add to {to} under {}", of.id.txn);
        let subject = self.scene.subject;
        let add = subject.add(&self.manager, of.id.txn, to, amount);
        self.scene.bounded(&what, add).await
    }

    /// Tries to add where somebody may hold a lock: `None` if that takes long.
    pub(super) async fn try_add(
        &self,
        of: &BranchId,
        to: &str,
        amount: i64,
    ) -> Option<Result<(), Failure>> {
        let subject = self.scene.subject;
        let add = subject.add(&self.manager, of.id.txn, to, amount);
        timeout(self.scene.patience / 20, add).await.ok()
    }

    pub(super) async fn look(&self, of: &BranchId, counter: &str) -> Result<i64, Verdict> {
        let what = format!("look at {counter} under {}", of.id.txn);
        let look = self.scene.subject.look(&self.manager, of.id.txn, counter);
        self.scene.bounded(&what, look).await
    }

    /// One prepare, and its vote.
    pub(super) async fn vote(
        &self,
        of: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Result<Vote, String>, Verdict> {
        let prepare = self.manager.prepare(of, request, read_only);
        match timeout(self.scene.patience, prepare).await {
            Ok(Ok(vote)) => Ok(Ok(vote)),
            Ok(Err(error)) => Ok(Err(chain(&error))),
            Err(_) => broken(format_args!("prepare of {of} to answer"), "nothing"),
        }
    }

    /// Prepares what has changed something, and must be able to.
    pub(super) async fn prepare(&self, of: &BranchId) -> Result<(), Verdict> {
        self.expect_prepared(of, None, ReadOnly::Forbidden).await
    }

    pub(super) async fn expect_prepared(
        &self,
        of: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<(), Verdict> {
        match self.vote(of, request, read_only).await? {
            Ok(Vote::Prepared) => Ok(()),
            other => broken(
                format_args!("prepare of {of} to vote Prepared"),
                said(&other),
            ),
        }
    }

    /// A prepare that cannot be.
    pub(super) async fn expect_no_vote(&self, of: &BranchId, why: &str) -> Result<(), Verdict> {
        match self.vote(of, None, ReadOnly::Allowed).await? {
            Ok(Vote::Aborted) | Err(_) => Ok(()),
            other => broken(
                format_args!("prepare of {of} to vote Aborted or fail, since {why}"),
                said(&other),
            ),
        }
    }

    pub(super) async fn commit(&self, of: &BranchId) -> Result<(), Verdict> {
        let commit = || self.manager.commit(of);
        let what = format!("commit of {of}");
        match self.scene.until_done(&what, commit).await? {
            Proof::Found => Ok(()),
            Proof::Missing => broken(format_args!("{what} to be done"), "no proof"),
        }
    }

    /// A commit of what is not there. (An error does not say this: a call that fails is repeated.)
    pub(super) async fn expect_no_proof(&self, of: &BranchId, what: &str) -> Result<(), Verdict> {
        let commit = || self.manager.commit(of);
        let expected = format!("Missing from the commit of {of}, {what}");
        match self.scene.until_done(&expected, commit).await? {
            Proof::Missing => Ok(()),
            Proof::Found => broken(expected, "Found, as if it had been committed"),
        }
    }

    pub(super) async fn rollback(&self, of: &BranchId) -> Result<(), Verdict> {
        let rollback = || self.manager.rollback(of);
        let what = format!("rollback of {of}");
        self.scene.until_done(what, rollback).await
    }

    pub(super) async fn finish(&self, of: &BranchId, outcome: Outcome) -> Result<(), Verdict> {
        match outcome {
            Outcome::Commit => self.commit(of).await,
            Outcome::Abort => self.rollback(of).await,
        }
    }

    pub(super) async fn expire(&self, of: &BranchId, expected: Expiry) -> Result<(), Verdict> {
        let expire = || self.manager.expire(of);
        let what = format!("expire of {of}");
        let got = self.scene.until_done(&what, expire).await?;
        if got != expected {
            return broken(
                format_args!("{what} to say {expected:?}"),
                format_args!("{got:?}"),
            );
        }
        Ok(())
    }

    pub(super) async fn settled(
        &self,
        through: CommitId,
        listed: &[BranchId],
    ) -> Result<(), Verdict> {
        let settled = || self.manager.settled(through, listed);
        let what = format!("settled through {through}");
        self.scene.until_done(what, settled).await
    }

    pub(super) async fn let_go(&self, of: &BranchId) -> Result<(), Verdict> {
        let let_go = async {
            self.manager.let_go(of.id.txn).await;
            Ok(())
        };
        let what = format!("let go of {}", of.id.txn);
        self.scene.bounded(&what, let_go).await
    }

    /// What is in doubt of this check's transactions: ids, sessions and owners.
    pub(super) async fn in_doubt(&self) -> Result<Vec<(CommitId, Session, Owner)>, Verdict> {
        let all = || self.manager.in_doubt();
        let all = self.scene.until_done("in_doubt", all).await?;
        let mine = all
            .into_iter()
            .filter(|found| found.id.txn.generation == self.scene.generation);
        let found = mine.map(|found| (found.id, found.session, found.owner));
        Ok(found.collect())
    }

    /// Exactly these stand prepared.
    pub(super) async fn expect_in_doubt(&self, expected: &[&BranchId]) -> Result<(), Verdict> {
        let names = |found: &[(CommitId, Session)]| {
            let names = found
                .iter()
                .map(|(id, session)| format!("{id} of session {:016x}", session.0));
            let names: Vec<String> = names.collect();
            match names.is_empty() {
                true => "nothing".to_owned(),
                false => names.join(", "),
            }
        };
        let mut expected: Vec<_> = expected
            .iter()
            .map(|branch| (branch.id, branch.branch.session))
            .collect();
        expected.sort_unstable();
        let found = self.in_doubt().await?;
        let mut found: Vec<_> = found
            .into_iter()
            .map(|(id, session, _)| (id, session))
            .collect();
        found.sort_unstable();
        if found != expected {
            return broken(
                format_args!("in doubt exactly {}", names(&expected)),
                names(&found),
            );
        }
        Ok(())
    }

    /// The committed value of a counter.
    pub(super) async fn read(&self, counter: &str) -> Result<i64, Verdict> {
        let read = || async {
            let read = self.scene.subject.read(&self.manager, counter).await;
            read.map_err(|error| std::io::Error::other(error.to_string()))
        };
        let what = format!("read of {counter}");
        self.scene.until_done(what, read).await
    }

    pub(super) async fn expect_value(
        &self,
        counter: &str,
        expected: i64,
        when: &str,
    ) -> Result<(), Verdict> {
        let got = self.read(counter).await?;
        if got != expected {
            return broken(
                format_args!("{counter} to be {expected} {when}"),
                format_args!("{got}"),
            );
        }
        Ok(())
    }

    /// This process ends, without order, and a new one comes up.
    pub(super) async fn restart(self) -> Result<Process<'s, S>, Verdict> {
        let scene = self.scene;
        self.kill().await?;
        scene.open().await
    }

    pub(super) async fn kill(self) -> Result<(), Verdict> {
        let kill = self.scene.subject.kill(self.manager);
        self.scene.bounded("end the process", kill).await
    }
}

fn said(vote: &Result<Vote, String>) -> String {
    match vote {
        Ok(vote) => format!("{vote:?}"),
        Err(error) => error.clone(),
    }
}
