//! A branch, as its service holds it.

use std::sync::Weak;

use thiserror::Error;

use crate::protocol::participant::{NotEntered, ParticipantCommand};
#[cfg(feature = "embedded")]
use crate::protocol::types::StoreId;
use crate::protocol::types::{Outcome, TxnId};

use super::builder::Participant;
use super::shell::Call;
use super::ticket::{Plan, Ticket};

/// The part of this session in one transaction, from its beginning until it is prepared.
///
/// Dropping it changes nothing: the work waits until the initiator asks for commit or rolls back,
/// or for so long that nobody will.
#[derive(Clone, Debug)]
pub struct Branch {
    pub(super) txn: TxnId,
    pub(super) participant: Participant,
    /// Its session has the other end, for as long as work may be done under the branch.
    pub(super) open: Weak<()>,
}

impl Branch {
    /// The transaction.
    pub fn txn(&self) -> TxnId {
        self.txn
    }

    /// Whether work may be done under the branch: it was not asked to prepare, and its session has
    /// not released it.
    ///
    /// A session makes this false before it asks its resource manager to prepare the branch or to
    /// release its locks. So a resource manager that asks under the mutex of its locks begins no
    /// work that its session does not end.
    pub fn is_open(&self) -> bool {
        self.open.strong_count() > 0
    }

    /// The store with which the participant is connected.
    #[cfg(feature = "embedded")]
    pub(crate) fn store(&self) -> StoreId {
        self.participant.me().store
    }

    /// What the service hands back to its caller, who enlists it.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            txn: self.txn,
            branch: self.participant.me().clone(),
        }
    }

    /// The work failed, or the connection to the database broke: the branch can only vote to abort.
    pub async fn poison(&self) {
        let command = ParticipantCommand::Poison(self.txn);
        self.participant.call(Call::Give(command)).await;
    }

    /// Gives the work up. If commit is asked for all the same, the branch votes to abort.
    pub async fn rollback(self) {
        let command = ParticipantCommand::Rollback(self.txn);
        self.participant.call(Call::Give(command)).await;
    }

    /// The work is done, and the caller has handed the whole roster over: prepares and votes
    /// without being asked, and waits for the outcome. From here on only the outcome releases it.
    ///
    /// # Errors
    /// When the plan is of another transaction; when this process stops before the outcome is
    /// known (the next one will learn it); when the outcome was forgotten.
    pub async fn prepare(self, plan: Plan) -> Result<Outcome, BranchError> {
        if plan.id.txn != self.txn || plan.roster.index_of(self.participant.me()).is_none() {
            return Err(BranchError::NotInPlan(self.txn));
        }
        let (answer, outcome) = tokio::sync::oneshot::channel();
        let call = Call::Prepare(plan.prepare(), answer);
        self.participant.call(call).await;
        outcome.await.map_err(|_| BranchError::Unknown(self.txn))
    }
}

/// Why nothing can be done under a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BranchError {
    /// It is being prepared, or over, or was begun too long ago.
    #[error("no work can begin under {0} here: it is being prepared, or over, or too old")]
    Over(TxnId),
    /// Its generation is not open.
    #[error(
        "expected a transaction of a generation that is open, got {0}: the replicas were asked and \
         do not know it; check the id, and begin another transaction"
    )]
    NotOpen(TxnId),
    /// This session holds as many transactions as it takes.
    #[error("this session holds too many transactions of the initiator of {0}; try again later")]
    TooMany(TxnId),
    /// The participant's name stands for another store, or this one is an older copy.
    #[error(transparent)]
    NotEntered(#[from] NotEntered),
    /// The participant stops.
    #[error("this participant is shutting down; ask another process of it")]
    Stopping,
    /// The plan that was handed over does not hold this branch.
    #[error("the plan does not hold this session's branch of {0}")]
    NotInPlan(TxnId),
    /// What came of it cannot be told here any more.
    #[error("what came of {0} is not known here: this process stops, or the outcome is forgotten")]
    Unknown(TxnId),
}
