//! What can go wrong, one enum per operation.

use std::error::Error as StdError;

use mysql_async::{Error, FromRowError};
use thiserror::Error;

use crate::participant::BranchId;
use crate::protocol::types::{NameError, ParticipantName, StoreId, TxnId};
use crate::resource::identity::found;

/// Why a request was refused: whatever its handler says.
pub type RequestError = Box<dyn StdError + Send + Sync>;

/// The server's errors that the adapter knows, by their codes; texts change.
pub(super) mod code {
    /// `XAER_NOTA`: there is no such branch, **or another session has it**.
    pub(crate) const UNKNOWN_XID: u16 = 1397;
    /// `XA_RBROLLBACK`: the server has rolled the branch back.
    pub(crate) const ROLLED_BACK: u16 = 1402;
    /// `XAER_DUPID`: somebody has the branch, in whatever state.
    pub(crate) const DUPLICATE_XID: u16 = 1440;
    /// `XA_RBTIMEOUT`.
    pub(crate) const ROLLED_BACK_BY_TIMEOUT: u16 = 1613;
    /// `XA_RBDEADLOCK`.
    pub(crate) const ROLLED_BACK_BY_DEADLOCK: u16 = 1614;
    /// There is no such connection.
    pub(crate) const NO_SUCH_THREAD: u16 = 1094;
    /// There is no such table.
    pub(crate) const NO_SUCH_TABLE: u16 = 1146;
}

/// The code of a server's error.
pub(super) fn code_of(error: &Error) -> Option<u16> {
    match error {
        Error::Server(error) => Some(error.code),
        Error::Driver(_) | Error::Io(_) | Error::Other(_) | Error::Url(_) => None,
    }
}

/// Why a server cannot take part.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of the cluster or of the participant, as given in the options.
    #[error("the cluster and the participant need names as in their certificates: {0}")]
    Name(#[from] NameError),
    /// No connection.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The server failed at something.
    #[error("the server did not {what}: {source}")]
    Server {
        /// What it was to do.
        what: &'static str,
        /// Its error.
        source: Error,
    },
    /// No database in the options.
    #[error("expected the name of a database in the server's URL, got none: add it")]
    NoDatabase,
    /// Something else, or old.
    #[error(
        "expected MariaDB {expected} or later, got {got} (MySQL knows another XA, and was never tried)"
    )]
    Version {
        /// The first version that will do.
        expected: &'static str,
        /// What it says.
        got: String,
    },
    /// It replicates statements, which the adapter's isolation level does not allow.
    #[error("the server has binlog_format = STATEMENT: set it to MIXED or ROW")]
    Statements,
    /// It writes nothing.
    #[error("the server is read_only: connect to the primary")]
    ReadOnly,
    /// The user may not do what it must, or the tables are not what they should be.
    #[error(
        "the adapter cannot {what}: {source}; as an administrator, run: {sql}; and GRANT SELECT, \
         INSERT, UPDATE, DELETE on it"
    )]
    Rights {
        /// What it cannot do.
        what: &'static str,
        /// What will help.
        sql: String,
        /// The server's error.
        source: Error,
    },
    /// A table of the adapter is kept by an engine without transactions.
    #[error(
        "expected the table {table} to be InnoDB, got {got}: ALTER TABLE {table} ENGINE=InnoDB"
    )]
    Engine {
        /// Which.
        table: String,
        /// Its engine.
        got: String,
    },
    /// The row of this participant holds no identity.
    #[error(
        "expected an identity of 32 hexadecimal digits and a key of 32 bytes in this participant's \
         row of {table}, got something else: restore the row from a backup"
    )]
    Damaged {
        /// The table.
        table: String,
    },
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// All are in use.
    #[error(
        "all {max} connections for {what} are in use, and none came back within {seconds} s: commit \
         or abort sooner, or allow more of them in the options"
    )]
    Exhausted {
        /// What they are for.
        what: &'static str,
        /// How many there are.
        max: usize,
        /// How long it was waited for one.
        seconds: f32,
    },
    /// The server does not answer.
    #[error("the server did not answer within {seconds} s: is it there, and reachable?")]
    Silent {
        /// How long it was waited for.
        seconds: f32,
    },
    /// No connection can be made.
    #[error("cannot connect to the server: {source}")]
    Refused {
        /// Why not.
        source: Error,
    },
    /// A new connection leads to another store than the adapter was opened on.
    #[error(
        "the adapter was opened on the store {expected}, and a new connection leads to {}: does the \
         server's address lead to another server now, or were the data created anew? Correct the \
         address, or bring the right data back. If the other store is meant: `paxos-commit participant \
         list` shows which one the replicas let in, `participant gone` gives it up, and the service \
         starts again",
        found(.got.as_ref())
    )]
    OtherStore {
        /// The identity at [`Mariadb::connect`](super::Mariadb::connect).
        expected: StoreId,
        /// The identity now; none if the database has none for this participant.
        got: Option<StoreId>,
    },
    /// This adapter was closed.
    #[error("the adapter is closed")]
    Closed,
}

/// Why a service cannot work under a transaction.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The transaction is being prepared, or over.
    #[error("{0} is being prepared here, or over: begin another transaction")]
    Ended(TxnId),
    /// Somebody else holds its connection.
    #[error(
        "the connection of {txn} was held by somebody else for more than {seconds} s: drop each \
         `Work` as soon as its statements are done"
    )]
    Busy {
        /// The transaction.
        txn: TxnId,
        /// How long it was waited for.
        seconds: f32,
    },
    /// Its connection broke, or a statement on it was dropped before it had ended. The work is gone.
    #[error("the connection of {0} is lost, and its work with it: it can only abort")]
    Lost(TxnId),
    /// No connection for it.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// A session of the server has the lock of its branch, without which none begins.
    #[error(
        "expected to get the lock of {txn} in this process, and a session of the server has had it \
         for more than {seconds} s: one that began the same here and is about to end (then try \
         again), or somebody who took it by hand"
    )]
    Locked {
        /// The transaction.
        txn: TxnId,
        /// How long it was waited for.
        seconds: u32,
    },
    /// The branch did not begin.
    #[error("the server did not begin a branch: {source}")]
    Begin {
        /// Its error.
        source: Error,
    },
    /// A row of an answer is not of the type that the service has asked for.
    #[error(
        "expected rows of {expected}, got one that is not: ask for the types of its columns, and for an \
         Option of what may be NULL"
    )]
    Row {
        /// The type.
        expected: &'static str,
        /// Holds the row.
        source: FromRowError,
    },
    /// The server refused a statement. After a deadlock (1213) the branch can only abort; after
    /// anything else, a timeout of a lock (1205) too, only this statement was undone.
    #[error("the statement failed: {source}")]
    Statement {
        /// Its error.
        source: Error,
    },
}

impl WorkError {
    /// The code of the server's error, if it is one: 1205 for the timeout of a lock, 1213 for a
    /// deadlock.
    pub fn code(&self) -> Option<u16> {
        match self {
            WorkError::Begin { source } | WorkError::Statement { source } => code_of(source),
            WorkError::Ended(_)
            | WorkError::Busy { .. }
            | WorkError::Lost(_)
            | WorkError::Locked { .. }
            | WorkError::Row { .. }
            | WorkError::Acquire(_) => None,
        }
    }
}

/// Why a branch was not prepared or finished. Whatever it is, it may be tried again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BranchError {
    /// The adapter was opened under other names than the certificate has.
    #[error(
        "this adapter was opened as {got} (cluster/participant), and the certificate is one of \
         {expected}: give its options the names that are in the certificate"
    )]
    OtherNames {
        /// The certificate's.
        expected: String,
        /// The options'.
        got: String,
    },
    /// A branch of somebody else.
    #[error(
        "this adapter was opened for the participant {expected}, and is asked about {got}: give \
         its options the name that is in the participant's certificate"
    )]
    NotOurs {
        /// Whose branches it prepares.
        expected: ParticipantName,
        /// The branch.
        got: BranchId,
    },
    /// The branch is being prepared by an earlier call.
    #[error("{0} is being prepared already: wait for that")]
    Preparing(BranchId),
    /// It has not begun, or its connection is held.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// No connection.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The server refused.
    #[error("the server did not {what}: {source}")]
    Server {
        /// What it was to do.
        what: &'static str,
        /// Its error.
        source: Error,
    },
    /// The server did not answer, so nobody knows what it did.
    #[error("the server did not {what} within {seconds} s; it may do so yet")]
    Silent {
        /// What it was to do.
        what: &'static str,
        /// How long it was waited for.
        seconds: f32,
    },
    /// A session that lives has the branch; only that one can finish it.
    #[error(
        "{0} belongs to a session of the server that lives: its process finishes it, or lets go"
    )]
    Held(BranchId),
    /// A connection of the server that works for the branch has not ended yet.
    #[error("connection {connection} of the server has been told to end, and works on")]
    Stays {
        /// Its id.
        connection: u32,
    },
    /// The server said that it has ended the branch, and has not.
    #[error(
        "the server has answered that {branch} has ended, and it has not: nobody can finish it now, \
         and it keeps its locks, until the server is restarted; restart it"
    )]
    NotEnded {
        /// The branch.
        branch: BranchId,
    },
    /// The server rolled back what it had prepared.
    #[error(
        "{0} is to be committed, and the server has rolled it back after it was prepared: by hand, or \
         because of a bug. Part of a committed transaction is lost"
    )]
    RolledBack(BranchId),
}

impl BranchError {
    /// Whether a connection of the server turned out to be lost.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, BranchError::Server { source, .. } if source.is_fatal())
    }
}

/// Why a branch votes to abort although the server did all that it was told.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("a request came, and the adapter was opened without a handler")]
    NoHandler,
    #[error("its request was refused: {0}")]
    Request(RequestError),
    #[error("its connection is lost, and its work with it")]
    Lost,
    #[error("the server did not prepare it: {0}")]
    Server(Error),
    #[error(
        "its work ended the branch by itself, or gave up the locks of its session: expected no \
         RELEASE_LOCK of what it did not lock itself, and no RELEASE_ALL_LOCKS"
    )]
    EndedByItself,
}
