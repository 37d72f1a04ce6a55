//! One transaction, as its application holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::participant::{Plan, Ticket};
use crate::protocol::initiator::{CommitError as Refusal, PrepareBy};
use crate::protocol::types::{
    Branch, CommitId, ParticipantName, REQUEST_BYTES_MAX, ROSTER_MAX, Request, Roster, TxnId,
};

use super::builder::Inner;
use super::shell::{Answer, Call, Commit, GivenUp};
use super::{AbortReason, CommitError, Outcome};

/// How long to look for a session of a participant.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// How long to wait for an answer before a question is asked again.
const RESOLVE_RETRY: Duration = Duration::from_millis(250);

/// What is said of an outcome that no replica remembers.
const FORGOTTEN: &str = "its generation is settled, and the outcome is forgotten";

/// What is said when the initiator stops while the outcome is open.
const STOPPED: &str = "the initiator has stopped";

/// A transaction that was begun.
///
/// Dropping it is a [rollback](Self::rollback) in the background: of a transaction whose plan was
/// never handed out, it tells the branches to release their work; of a planned transaction, it asks
/// the replicas for a ballot, which may find that the transaction is committed. Keep the id of the
/// plan to ask for the [`outcome`](super::Initiator::outcome).
#[derive(Debug)]
pub struct Transaction {
    inner: Inner,
    txn: TxnId,
    branches: BTreeMap<Branch, Option<Request>>,
    /// The participants without which nothing is asked for.
    expected: BTreeSet<String>,
    /// The plan, from the moment it is asked for. It may be in the hands of services.
    plan: Option<Plan>,
    vote_timeout: Duration,
    deadline: Duration,
    /// What must be said when it is dropped.
    end: End,
}

/// What dropping a transaction means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Rollback,
    GiveUp,
    Nothing,
}

/// Why a branch cannot be enlisted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnlistError {
    /// The ticket is of another transaction.
    #[error("a ticket of {got} was handed to {expected}")]
    OtherTransaction {
        /// This one.
        expected: TxnId,
        /// The ticket's.
        got: TxnId,
    },
    /// Too many branches.
    #[error("a transaction has at most {ROSTER_MAX} branches")]
    TooMany,
    /// A request is too long.
    #[error("a request has at most {REQUEST_BYTES_MAX} bytes, got {got}")]
    RequestTooLong {
        /// Its length.
        got: usize,
    },
    /// The branch has a request already.
    #[error("{0} has a request already; put both into one")]
    SecondRequest(Branch),
    /// No session of the participant is connected.
    #[error("no session of participant {0} is connected to any replica that answers")]
    NotConnected(ParticipantName),
    /// This is no participant's name.
    #[error("{0}")]
    Name(String),
    /// The plan fixed the roster.
    #[error("{0} is planned, so its roster is fixed; enlist every branch before the plan")]
    Planned(CommitId),
}

impl Transaction {
    pub(super) fn new(
        inner: Inner,
        txn: TxnId,
        vote_timeout: Duration,
        deadline: Duration,
    ) -> Self {
        Transaction {
            inner,
            txn,
            branches: BTreeMap::new(),
            expected: BTreeSet::new(),
            plan: None,
            vote_timeout,
            deadline,
            end: End::Rollback,
        }
    }

    /// Its id: services work under it.
    pub fn id(&self) -> TxnId {
        self.txn
    }

    /// How long replicas wait for votes before they decide without the missing ones.
    pub fn vote_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.vote_timeout = timeout;
        self
    }

    /// How long [`commit`](Self::commit) waits for the outcome before it answers that it is not
    /// known.
    pub fn deadline(&mut self, deadline: Duration) -> &mut Self {
        self.deadline = deadline;
        self
    }

    /// These participants must be enlisted: otherwise [`commit`](Self::commit) and
    /// [`plan`](Self::plan) are refused with [`CommitError::Missing`]. It protects against a ticket
    /// that was forgotten, whose branch would not be part of the commit.
    ///
    /// ```no_run
    /// # async fn example(mut txn: paxos_commit::initiator::Transaction)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// txn.expect(["stock", "ledger"]);
    /// let outcome = txn.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn expect<N: Into<String>>(
        &mut self,
        participants: impl IntoIterator<Item = N>,
    ) -> &mut Self {
        let participants = participants.into_iter().map(N::into);
        self.expected.extend(participants);
        self
    }

    /// The [expected](Self::expect) participants that are not enlisted.
    pub fn missing(&self) -> Vec<String> {
        let enlisted = self.branches.keys();
        let expected = self.expected.iter();
        let missing = expected.filter(|name| {
            let mut enlisted = enlisted.clone();
            !enlisted.any(|branch| branch.participant.as_str() == name.as_str())
        });
        missing.cloned().collect()
    }

    fn check_expected(&self) -> Result<(), CommitError> {
        let (txn, missing) = (self.txn, self.missing());
        if self.plan.is_some() || missing.is_empty() {
            return Ok(());
        }
        Err(CommitError::Missing { txn, missing })
    }

    /// A service has worked under this transaction and handed this ticket back.
    ///
    /// # Errors
    /// When the ticket is of another transaction, there are too many branches, or the plan was made.
    pub fn enlist(&mut self, ticket: Ticket) -> Result<&mut Self, EnlistError> {
        if ticket.txn != self.txn {
            return Err(EnlistError::OtherTransaction {
                expected: self.txn,
                got: ticket.txn,
            });
        }
        self.admit(&ticket.branch)?;
        self.branches.entry(ticket.branch).or_default();
        Ok(self)
    }

    /// Work for a participant that travels with the commit itself: it is run just before the branch
    /// prepares. Goes to a session of the participant that is enlisted already, else to one that is
    /// connected, as a replica says or has said within 15 ms.
    ///
    /// # Errors
    /// When none is connected, a limit is passed, or the plan was made. Nothing has changed then.
    pub async fn request(
        &mut self,
        participant: &str,
        request: impl Into<Vec<u8>>,
    ) -> Result<&mut Self, EnlistError> {
        let name: ParticipantName = participant
            .parse()
            .map_err(|error| EnlistError::Name(format!("{error}")))?;
        let request: Vec<u8> = request.into();
        if request.len() > REQUEST_BYTES_MAX {
            return Err(EnlistError::RequestTooLong { got: request.len() });
        }
        if let Some(plan) = &self.plan {
            return Err(EnlistError::Planned(plan.id()));
        }
        let mut enlisted = self.branches.keys();
        let branch = match enlisted.find(|branch| branch.participant == name) {
            Some(branch) => branch.clone(),
            None => self.resolve(&name).await?,
        };
        self.admit(&branch)?;
        let slot = self.branches.entry(branch.clone()).or_default();
        if slot.is_some() {
            return Err(EnlistError::SecondRequest(branch));
        }
        *slot = Some(Request(request.into()));
        Ok(self)
    }

    /// A connected session of a participant.
    async fn resolve(&self, name: &ParticipantName) -> Result<Branch, EnlistError> {
        let asking = async {
            loop {
                let (answer, answered) = oneshot::channel();
                self.inner.call(Call::Resolve(name.clone(), answer)).await;
                let answered = tokio::time::timeout(RESOLVE_RETRY, answered).await;
                if let Ok(Ok(sessions)) = answered
                    && let Some(session) = fastrand::choice(sessions)
                {
                    return session;
                }
            }
        };
        let session = tokio::time::timeout(RESOLVE_MAX, asking).await;
        session.map_err(|_| EnlistError::NotConnected(name.clone()))
    }

    fn admit(&self, branch: &Branch) -> Result<(), EnlistError> {
        if self.branches.contains_key(branch) {
            return Ok(());
        }
        if let Some(plan) = &self.plan {
            return Err(EnlistError::Planned(plan.id()));
        }
        if self.branches.len() >= ROSTER_MAX {
            return Err(EnlistError::TooMany);
        }
        Ok(())
    }

    /// The id under which the transaction will be decided with the branches that are enlisted now.
    /// It asks for nothing and fixes nothing: another branch makes another id.
    ///
    /// # Errors
    /// When no branch is enlisted.
    pub fn commit_id(&self) -> Result<CommitId, CommitError> {
        Ok(CommitId::new(self.txn, &self.roster()?))
    }

    fn roster(&self) -> Result<Roster, CommitError> {
        let roster = Roster::new(self.branches.keys().cloned());
        roster.map_err(|error| CommitError::Refused(error.into()))
    }

    /// The whole roster, for services that prepare by themselves at the end of their last piece of
    /// work; then ask for the outcome with [`commit_prepared`](Self::commit_prepared). Every branch
    /// must be enlisted by now, and none may have a request. Asked again, it is the same plan.
    ///
    /// **Once this returns, only an outcome ends the transaction**: services may prepare, vote and
    /// apply at any time. Every later call tells the outcome, or [`CommitError::Unknown`] with the
    /// id.
    ///
    /// # Errors
    /// When no branch is enlisted, one has a request, an [expected](Self::expect) participant is
    /// missing, the generation of the transaction is closed, or the initiator has stopped. Nothing
    /// happened then, and the transaction goes on.
    pub async fn plan(&mut self) -> Result<Plan, CommitError> {
        let plan = match &self.plan {
            Some(plan) => plan.clone(),
            None => self.make_plan()?,
        };
        // From now on it is planned, even if this call is cancelled.
        let again = self.plan.replace(plan.clone()).is_some();
        let refusal = match self.fix(&plan).await {
            Some(Ok(_)) => return Ok(plan),
            // The plan was handed out before.
            None if again => return Ok(plan),
            Some(Err(refusal)) => refusal.into(),
            None => CommitError::Stopped(self.txn),
        };
        self.plan = None;
        Err(refusal)
    }

    fn make_plan(&self) -> Result<Plan, CommitError> {
        self.check_expected()?;
        if self.branches.values().any(Option::is_some) {
            return Err(Refusal::RequestWithoutRelay.into());
        }
        let roster = self.roster()?;
        Ok(Plan {
            id: CommitId::new(self.txn, &roster),
            roster,
            vote_timeout: self.vote_timeout,
        })
    }

    /// Tells the initiator that the plan is handed out. None if the initiator has stopped.
    async fn fix(&self, plan: &Plan) -> Option<Result<CommitId, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let call = Call::Plan {
            txn: self.txn,
            branches: plan.roster.iter().cloned().collect(),
            vote_timeout: plan.vote_timeout,
            answer,
        };
        self.inner.call(call).await;
        answered.await.ok()
    }

    /// Asks for commit, and waits for the outcome. Of a [planned](Self::plan) transaction this asks
    /// for the outcome, and a replica gets the branches to prepare that have not done so.
    ///
    /// To stop waiting (dropping the future) leaves the question open: the transaction goes on and
    /// becomes one or the other.
    ///
    /// # Errors
    /// When commit cannot be asked for, or the outcome is not known by the
    /// [`deadline`](Self::deadline). The error carries the id to ask for it later. If an
    /// [expected](Self::expect) participant is missing, the branches that are enlisted release their
    /// work.
    pub async fn commit(self) -> Result<Outcome, CommitError> {
        self.commit_by(PrepareBy::Relay).await
    }

    /// As [`commit`](Self::commit), when every branch was given the [`plan`](Self::plan) and
    /// prepares by itself.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn commit_prepared(self) -> Result<Outcome, CommitError> {
        self.commit_by(PrepareBy::Itself).await
    }

    async fn commit_by(mut self, prepare: PrepareBy) -> Result<Outcome, CommitError> {
        // Dropped with an error, it is rolled back.
        self.check_expected()?;
        let txn = self.txn;
        let id = self.commit_id();
        let Some(room) = self.inner.room().await else {
            self.end = End::Nothing;
            return Err(match &self.plan {
                Some(plan) => unknown(plan.id(), STOPPED),
                None => CommitError::Stopped(txn),
            });
        };
        let branches = self.branches.clone().into_iter();
        let commit = Commit {
            txn,
            branches: branches.collect(),
            prepare,
            vote_timeout: self.vote_timeout,
        };
        let (answer, answered) = oneshot::channel();
        self.end = End::GiveUp;
        room.send(Call::Commit(commit, answer));
        let answer = self.wait(answered).await;
        self.end = End::Nothing;
        match (answer, id) {
            (Ok(Answer::Refused(refusal)), _) => {
                // Nothing was asked for.
                self.end = End::Rollback;
                Err(CommitError::Refused(refusal))
            }
            (Ok(answer), _) => ended(answer),
            // Under this id it will be decided, if it was asked for at all.
            (Err(why), Ok(id)) => Err(unknown(id, why)),
            (Err(_), Err(_)) => Err(CommitError::Stopped(txn)),
        }
    }

    /// Rolls back. If no [plan](Self::plan) was handed out, the branches release their work and
    /// nothing else happens. The rollback of a planned transaction is a ballot of the replicas, and
    /// the answer is the outcome that the ballot reached: it is [`Outcome::Committed`] if commit may
    /// have been chosen before.
    ///
    /// Dropping the future leaves the rollback to the background.
    ///
    /// # Errors
    /// Of a planned transaction, when the outcome is not known by the
    /// [`deadline`](Self::deadline). The rollback goes on in the background then.
    pub async fn rollback(mut self) -> Result<Outcome, CommitError> {
        let (answer, answered) = oneshot::channel();
        let Some(room) = self.inner.room().await else {
            self.end = End::Nothing;
            return match &self.plan {
                Some(plan) => Err(unknown(plan.id(), STOPPED)),
                None => Ok(Outcome::Aborted(AbortReason::Rollback)),
            };
        };
        let branches = self.branches.keys().cloned().collect();
        room.send(Call::Rollback(self.txn, branches, answer));
        self.end = End::Nothing;
        match (self.wait(answered).await, &self.plan) {
            (Ok(answer), _) => ended(answer),
            (Err(why), Some(plan)) => Err(unknown(plan.id(), why)),
            // Commit was never asked for, and never will be.
            (Err(_), None) => Ok(Outcome::Aborted(AbortReason::Rollback)),
        }
    }

    /// Waits for the answer until the deadline, then stops waiting; why there is no answer.
    async fn wait(&self, answered: oneshot::Receiver<Answer>) -> Result<Answer, String> {
        let mut answered = std::pin::pin!(answered);
        if let Ok(answer) = tokio::time::timeout(self.deadline, &mut answered).await {
            return answer.map_err(|_| STOPPED.into());
        }
        let (tell, told) = oneshot::channel();
        answered.close();
        let what = GivenUp::Transaction(self.txn);
        self.inner.call(Call::GiveUp(what, tell)).await;
        match (told.await, answered.try_recv()) {
            // It came at the last moment.
            (_, Ok(answer)) => Ok(answer),
            (Ok(Some((_, why))), Err(_)) => Err(why),
            (Ok(None), Err(_)) => Err("no replica has said anything about it".into()),
            (Err(_), Err(_)) => Err(STOPPED.into()),
        }
    }
}

fn ended(answer: Answer) -> Result<Outcome, CommitError> {
    match answer {
        Answer::Committed => Ok(Outcome::Committed),
        Answer::Aborted(reason) => Ok(Outcome::Aborted(reason)),
        Answer::Refused(refusal) => Err(CommitError::Refused(refusal)),
        Answer::Forgotten(id) => Err(unknown(id, FORGOTTEN)),
    }
}

fn unknown(id: CommitId, why: impl Into<String>) -> CommitError {
    let why = why.into();
    CommitError::Unknown { id, why }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let call = match self.end {
            End::Rollback => {
                let branches = std::mem::take(&mut self.branches);
                let branches = branches.into_keys().collect();
                Call::Rollback(self.txn, branches, oneshot::channel().0)
            }
            // The caller does not wait any more; the outcome stays open.
            End::GiveUp => Call::GiveUp(GivenUp::Transaction(self.txn), oneshot::channel().0),
            End::Nothing => return,
        };
        self.inner.call_later(call);
    }
}
