//! An application that begins transactions and asks for commit.
//!
//! ```no_run
//! # async fn example(
//! #     access: paxos_commit::transport::Access,
//! #     ticket: paxos_commit::participant::Ticket,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use paxos_commit::initiator::{Initiator, Outcome};
//!
//! let initiator = Initiator::builder(access).connect().await?;
//! let mut txn = initiator.begin().await?;
//! // Services work under `txn.id()` and hand tickets back; or work travels with the commit.
//! txn.enlist(ticket)?;
//! txn.request("stock", b"reserve 7".to_vec()).await?;
//! match txn.commit().await? {
//!     Outcome::Committed => println!("done, everywhere"),
//!     Outcome::Aborted(reason) => println!("nothing happened, anywhere: {reason}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An initiator needs a majority of replicas, not any particular one, and saves nothing. If
//! [`commit`](Transaction::commit) cannot tell the outcome, its error carries the transaction's id:
//! keep the id, and ask for the [`outcome`](Initiator::outcome) later, from this process or another
//! of the same name.
//!
//! "Nothing happened" ([`CommitError::Refused`], [`CommitError::Missing`] and
//! [`CommitError::Stopped`]) is said only of a transaction whose [`plan`](Transaction::plan) was
//! never handed out and whose commit was never asked for. After that, every call ends in an outcome
//! or in [`CommitError::Unknown`].

mod builder;
mod directory;
mod hedge;
mod lately;
mod shell;
mod suspects;
mod transaction;

use std::fmt;

use thiserror::Error;

use crate::protocol::initiator as protocol;
use crate::protocol::types::{CommitId, TxnId};

pub use builder::{BeginError, Initiator, InitiatorBuilder};
pub use transaction::{EnlistError, Transaction};

/// What a transaction came to. Abort is an outcome, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every branch commits.
    Committed,
    /// No branch does.
    Aborted(AbortReason),
}

/// Why a transaction was aborted, as far as that can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AbortReason {
    /// A participant voted to abort: its request failed, a conflict, a broken connection.
    Vote,
    /// Replicas decided by a ballot: a vote did not come in time, or an operator or the application
    /// ended the transaction.
    Ballot,
    /// The application rolled it back before any branch was asked to prepare.
    Rollback,
    /// It was aborted; the outcome was asked for later, and why is not known any more.
    Unknown,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AbortReason::Vote => "a participant voted to abort",
            AbortReason::Ballot => {
                "a vote did not come in time, or an operator or the application ended it"
            }
            AbortReason::Rollback => "the application rolled it back",
            AbortReason::Unknown => "the reason is not known any more",
        })
    }
}

/// What is known of a transaction that was asked about later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Every branch commits, or has.
    Committed,
    /// No branch does.
    Aborted,
    /// The generation of the transaction is settled, and no commit waits for a branch any more. The
    /// transaction was aborted, or it was committed and every branch has applied it; no replica
    /// remembers which of the two.
    Forgotten,
}

/// Why commit, a plan or a rollback did not come to an outcome here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Commit was not asked for; nothing happened, and the branches release their work.
    #[error("commit was not asked for: {0}")]
    Refused(#[from] protocol::CommitError),
    /// Commit was not asked for, because a participant that is
    /// [expected](Transaction::expect) is not enlisted.
    #[error(
        "commit of {txn} was not asked for: expected a branch of {}, and none is enlisted; enlist \
         the ticket that the service returned",
        missing.join(", ")
    )]
    Missing {
        /// The transaction.
        txn: TxnId,
        /// The participants that are not enlisted.
        missing: Vec<String>,
    },
    /// The outcome is not known here. It may be commit or abort; ask for it with this id.
    #[error("the outcome of {id} is unknown, it may be commit or abort: {why}")]
    Unknown {
        /// Keep it, to ask for the [`outcome`](Initiator::outcome) later.
        id: CommitId,
        /// As far as it was told.
        why: String,
    },
    /// An outcome is told to those who take part.
    #[error("{0} was begun by an initiator of another name; only that one may ask for it")]
    NotOurs(CommitId),
    /// This initiator stopped before a plan was handed out and before commit was asked for.
    #[error("the initiator has stopped; commit of {0} was not asked for")]
    Stopped(TxnId),
}
