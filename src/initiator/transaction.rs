//! One transaction, as its application holds it.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::participant::{Plan, Ticket};
use crate::protocol::initiator::PrepareBy;
use crate::protocol::types::{
    Branch, CommitId, ParticipantName, REQUEST_BYTES_MAX, ROSTER_MAX, Request, Roster, RosterError,
    TxnId,
};

use super::builder::Inner;
use super::shell::{Answer, Call, Commit};
use super::{CommitError, Outcome};

/// How long to look for a session of a participant.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// How long to wait for an answer before a question is asked again.
const RESOLVE_RETRY: Duration = Duration::from_millis(250);

/// A transaction that was begun. Dropping it before commit was asked for tells its branches to let
/// go.
#[derive(Debug)]
pub struct Transaction {
    inner: Inner,
    txn: TxnId,
    branches: BTreeMap<Branch, Option<Request>>,
    vote_timeout: Duration,
    deadline: Duration,
    /// Whether somebody must be told when it is dropped.
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

    /// A service has worked under this transaction and handed this ticket back.
    ///
    /// # Errors
    /// When the ticket is of another transaction, or there are too many branches.
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
    /// When none is connected, or a limit is passed. Nothing has changed then.
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
        let session = session.map_err(|_| EnlistError::NotConnected(name.clone()))?;
        Ok(Branch {
            participant: name.clone(),
            session,
        })
    }

    fn admit(&self, branch: &Branch) -> Result<(), EnlistError> {
        if self.branches.len() >= ROSTER_MAX && !self.branches.contains_key(branch) {
            return Err(EnlistError::TooMany);
        }
        Ok(())
    }

    /// The whole roster, for services that prepare by themselves at the end of their last piece of
    /// work; then ask for the outcome with [`commit_prepared`](Self::commit_prepared). Every branch
    /// must be enlisted by now, and none may have a request.
    ///
    /// # Errors
    /// When no branch is enlisted.
    pub async fn plan(&self) -> Result<Plan, RosterError> {
        let roster = Roster::new(self.branches.keys().cloned())?;
        let (answer, floor) = oneshot::channel();
        self.inner.call(Call::Floor(answer)).await;
        Ok(Plan {
            id: CommitId::new(self.txn, &roster),
            roster,
            // A floor of 0 only lets sessions remember for longer.
            floor: floor.await.unwrap_or(0),
            vote_timeout: self.vote_timeout,
        })
    }

    /// Asks for commit, and waits for the outcome.
    ///
    /// To stop waiting (dropping the future) leaves the question open: the transaction goes on and
    /// becomes one or the other.
    ///
    /// # Errors
    /// When commit cannot be asked for, or the outcome is not known by the
    /// [`deadline`](Self::deadline). The error carries the id to ask for it later.
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
        let txn = self.txn;
        let branches = std::mem::take(&mut self.branches);
        let enlisted: Vec<Branch> = branches.keys().cloned().collect();
        let stopped = || match Roster::new(enlisted.iter().cloned()) {
            // Under which it will be decided, if it is asked for at all.
            Ok(roster) => CommitError::Unknown {
                id: CommitId::new(txn, &roster),
                why: "nobody has said anything about it so far".into(),
            },
            Err(_) => CommitError::Stopped(txn),
        };
        let commit = Commit {
            txn,
            branches: branches.into_iter().collect(),
            prepare,
            vote_timeout: self.vote_timeout,
        };
        let (answer, answered) = oneshot::channel();
        self.end = End::GiveUp;
        if !self.inner.call(Call::Commit(commit, answer)).await {
            return Err(CommitError::Stopped(txn));
        }
        let mut answered = std::pin::pin!(answered);
        let answer = match tokio::time::timeout(self.deadline, &mut answered).await {
            Ok(answer) => answer.map_err(|_| stopped())?,
            Err(_) => {
                let (tell, told) = oneshot::channel();
                answered.close();
                self.inner.call(Call::GiveUp(txn, tell)).await;
                self.end = End::Nothing;
                match (told.await, answered.try_recv()) {
                    // It came at the last moment.
                    (_, Ok(answer)) => answer,
                    (Ok(Some((id, why))), Err(_)) => return Err(CommitError::Unknown { id, why }),
                    (Ok(None) | Err(_), Err(_)) => return Err(stopped()),
                }
            }
        };
        self.end = End::Nothing;
        match answer {
            Answer::Committed => Ok(Outcome::Committed),
            Answer::Aborted(reason) => Ok(Outcome::Aborted(reason)),
            Answer::Refused(error) => {
                // Nothing was asked for; the branches let go.
                self.inner.call(Call::Rollback(txn, enlisted)).await;
                Err(CommitError::Refused(error))
            }
            Answer::Forgotten(id) => Err(CommitError::Forgotten(id)),
        }
    }

    /// Commit will not be asked for: the branches let go.
    pub async fn rollback(mut self) {
        self.end = End::Nothing;
        let branches = std::mem::take(&mut self.branches);
        let call = Call::Rollback(self.txn, branches.into_keys().collect());
        self.inner.call(call).await;
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let call = match self.end {
            End::Rollback => {
                let branches = std::mem::take(&mut self.branches);
                Call::Rollback(self.txn, branches.into_keys().collect())
            }
            // Whoever waited does so no more; what comes of it is open.
            End::GiveUp => Call::GiveUp(self.txn, oneshot::channel().0),
            End::Nothing => return,
        };
        self.inner.call_later(call);
    }
}
