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
//! An initiator needs a majority of replicas, not any particular one, and saves nothing. An error of
//! [`commit`](Transaction::commit) carries the transaction's id: keep it, and ask for the
//! [`outcome`](Initiator::outcome) later, from this process or another of the same name.

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
    /// A vote did not come in time, or an operator ended the transaction: replicas decided by a
    /// ballot.
    Ballot,
    /// It was aborted; the outcome was asked for later, and why is not known any more.
    Unknown,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AbortReason::Vote => "a participant voted to abort",
            AbortReason::Ballot => "a vote did not come in time, or an operator ended it",
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
    /// It came to its end long ago, all its branches have acted, and which end it was is forgotten.
    Forgotten,
}

/// Why commit did not come to an outcome here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Commit was not asked for; nothing happened, and the branches let go.
    #[error("commit was not asked for: {0}")]
    Refused(#[from] protocol::CommitError),
    /// The outcome is not known here. It may become either; ask for it with this id.
    #[error("the outcome of {id} is not known yet: {why}; ask for it later")]
    Unknown {
        /// Keep it.
        id: CommitId,
        /// As far as it was told.
        why: String,
    },
    /// The outcome is forgotten: the question came too late.
    #[error("the outcome of {0} is forgotten")]
    Forgotten(CommitId),
    /// An outcome is told to those who take part.
    #[error("{0} was begun by an initiator of another name; only that one may ask for it")]
    NotOurs(CommitId),
    /// This initiator has stopped before commit was asked for.
    #[error("the initiator has stopped; commit of {0} was not asked for")]
    Stopped(TxnId),
}
