//! What can go wrong, one enum per operation.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::protocol::types::{StoreId, TxnId};

use super::footprint::{RecordError, VERSION};
use super::meta::Served;
use super::work::{
    KEY_BYTES_MAX, READS_MAX, SCAN_ROWS_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITES_MAX,
};

/// Why a store did not open.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open, or this one has.
    #[error(
        "the store in {dir} is open already, here or in another process; expected to be the only \
         one: end the other, or open another directory"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the store in {dir} has format {got}, and this program knows formats up to {known}: use \
         the newer program"
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        got: u32,
        /// The latest that this program knows.
        known: u32,
    },
    /// There is something else in the directory.
    #[error(
        "expected a store, an empty directory or none at {dir}, found {found}: give the store a \
         directory of its own"
    )]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What was found there.
        found: String,
    },
    /// A part is missing or contradicts another. What was acknowledged may be lost.
    #[error(
        "the store in {dir} is damaged: {what}; nothing was changed: find out what happened to \
         its disk, and treat the branches of this participant as lost if it cannot be repaired"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A prepared branch cannot be read.
    #[error(
        "the store in {dir} holds, under {key:?}, what cannot be read: find out what happened to \
         its disk, and treat the branches of this participant as lost if it cannot be repaired"
    )]
    Record {
        /// The directory.
        dir: PathBuf,
        /// The name of the branch.
        key: String,
        /// What is wrong.
        source: RecordError,
    },
    /// Another version of the program wrote a prepared branch.
    #[error(
        "the store in {dir} holds, under {key:?}, a prepared branch of version {got}, and this program \
         knows version {VERSION}: run the version of the program that wrote it. Nothing is damaged"
    )]
    RecordVersion {
        /// The directory.
        dir: PathBuf,
        /// The name of the branch.
        key: String,
        /// Its version.
        got: u8,
    },
    /// The database below refused.
    #[error(
        "the database of the store in {dir} did not open; if that is damage and not a passing error \
         of the system, find out what happened to its disk, and treat the branches of this \
         participant as lost if it cannot be repaired"
    )]
    Database {
        /// The directory.
        dir: PathBuf,
        /// Its error.
        source: fjall::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// A distributed transaction.
    Transaction(TxnId),
    /// A [local](super::Embedded::local) one.
    Local,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Transaction(txn) => write!(f, "transaction {txn}"),
            Holder::Local => f.write_str("a local transaction"),
        }
    }
}

/// Why work was refused.
///
/// **An operation that fails poisons its transaction, as in SQL**: from then on the branch can only
/// vote `Aborted`, even if the caller ignores the error. (Counter-example: a transfer ignores the
/// conflict of one account, and the other account's half is committed.) An operation whose failure
/// is part of the plan belongs into [`Work::attempt`](super::Work::attempt).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkError {
    /// Another transaction reads or writes this. Abort, and begin again a little later.
    #[error("{held_by} has locked {:?}: abort and try again", key.escape_ascii().to_string())]
    Conflict {
        /// The row on which two met.
        key: Vec<u8>,
        /// Who holds it.
        held_by: Holder,
    },
    /// The length of a key. A prefix may be empty.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes, got {bytes}")]
    Key {
        /// How long it is.
        bytes: usize,
    },
    /// The length of a value.
    #[error("a value has at most {VALUE_BYTES_MAX} bytes, got {bytes}")]
    Value {
        /// How long it is.
        bytes: usize,
    },
    /// The transaction writes too much.
    #[error(
        "one transaction writes at most {WRITES_MAX} rows and {WRITE_BYTES_MAX} bytes: split it"
    )]
    TooManyWrites,
    /// The transaction reads too much.
    #[error("one transaction reads at most {READS_MAX} rows and prefixes: scan a prefix instead")]
    TooManyReads,
    /// Too many rows start with the prefix.
    #[error(
        "a scan returns at most {SCAN_ROWS_MAX} rows: scan a longer prefix, or read a snapshot"
    )]
    TooManyRows,
    /// The transaction is being prepared, or is over.
    #[error("the transaction is being prepared, or is over: work belongs before its commit")]
    Ended,
    /// An earlier operation failed, so the transaction can only abort.
    #[error("an earlier operation of the transaction failed, so it can only abort")]
    Poisoned,
    /// The branch belongs to a session that is connected with another store: no session would
    /// prepare the work, or release its locks.
    #[error(
        "expected a branch of the store {expected}, got one of the store {got}: work in the store \
         with which the participant was connected"
    )]
    OtherStore {
        /// The identity of this store.
        expected: StoreId,
        /// The store of the branch.
        got: StoreId,
    },
    /// The disk could not be read. The transaction can only abort from now on, an
    /// [attempt](super::Work::attempt) or not.
    #[error("the store could not be read, so the transaction can only abort")]
    Read(#[source] fjall::Error),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why committed data could not be read.
#[derive(Debug, Error)]
#[error("the store could not be read")]
pub struct ReadError(#[from] fjall::Error);

/// Why a local transaction did not commit. It left nothing behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LocalError<E> {
    /// The work was given up by the caller's own code.
    #[error(transparent)]
    Work(E),
    /// An operation failed, and the caller's code ignored its error.
    #[error("an operation of the local transaction failed, so it was not committed")]
    Poisoned,
    /// The store was closed. If that happened while the transaction was being saved, it may stand.
    #[error("the store is closed")]
    Closed,
}

/// Why a branch was not prepared or finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BranchError {
    /// A participant connects to the store of another one.
    #[error(
        "this store keeps the branches of {expected}, and the certificate is one of {got}: open the \
         store in a directory of its own, or connect with a certificate of {expected}"
    )]
    OtherParticipant {
        /// Whose branches the store keeps.
        expected: Served,
        /// The participant that connects.
        got: Served,
    },
    /// The disk could not be read.
    #[error("the store could not be read")]
    Read(#[from] fjall::Error),
    /// The store was closed. What it was asked for may have been done.
    #[error("the store is closed")]
    Closed,
}

/// Why a request was refused: the branch votes `Aborted`.
///
/// Any error, and any text, becomes one: `Err("not enough money".into())`, or `work.get(key)?`.
pub struct RequestError(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for RequestError {
    fn from(error: E) -> Self {
        RequestError(error.into())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
