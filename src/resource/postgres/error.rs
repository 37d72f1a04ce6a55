//! What can go wrong, one enum per operation.

use std::error::Error;

use thiserror::Error;

use crate::participant::BranchId;
use crate::protocol::types::{NameError, ParticipantName, StoreId, TxnId};
use crate::resource::identity::found;

/// Why a request was refused: whatever its handler says.
pub type RequestError = Box<dyn Error + Send + Sync>;

/// Why a server cannot take part.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name of the cluster or of the participant, as given in the options.
    #[error("the cluster and the participant need names as in their certificates: {0}")]
    Name(#[from] NameError),
    /// The schema's name, as given in the options.
    #[error(
        "expected a schema's name of 1 to 63 a-z 0-9 _, not beginning with a digit, got {got:?}"
    )]
    Schema {
        /// The name.
        got: String,
    },
    /// No connection.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The server failed at something.
    #[error("the server did not {what}: {}", told(source))]
    Server {
        /// What it was to do.
        what: &'static str,
        /// Its error.
        source: tokio_postgres::Error,
    },
    /// The server's default: it prepares nothing.
    #[error(
        "the server has max_prepared_transactions = 0 and prepares nothing: set it, in \
         postgresql.conf, to at least {expected} (every branch that works or is in doubt at a time, \
         of all participants of this server), and restart the server"
    )]
    Disabled {
        /// At least so many; this adapter alone can have them.
        expected: usize,
    },
    /// An old server.
    #[error("expected PostgreSQL {expected} or later, got {got}: upgrade the server")]
    TooOld {
        /// The first version that will do.
        expected: u32,
        /// Its version.
        got: String,
    },
    /// A standby.
    #[error("the server is a standby and writes nothing: connect to the primary")]
    Standby,
    /// The role may not do what it must.
    #[error(
        "the role {role} may not {what}; as an administrator of this database, run: {sql}\n({})",
        told_or_nothing(source)
    )]
    Rights {
        /// As whom the adapter is connected.
        role: String,
        /// What it may not do.
        what: &'static str,
        /// What will help.
        sql: String,
        /// The server's error, if it gave one.
        source: Option<tokio_postgres::Error>,
    },
    /// Every role of the server may read the adapter's tables, the key of the names included.
    #[error(
        "every role may read the adapter's tables, which hold the key of the names of prepared \
         transactions: as the owner of the tables, run: {sql}"
    )]
    Public {
        /// What will help.
        sql: String,
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
    #[error("cannot connect to the server: {}", told(source))]
    Refused {
        /// Why not.
        source: tokio_postgres::Error,
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
        /// The identity at [`Postgres::connect`](super::Postgres::connect).
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
    /// Its connection broke, and its work is gone.
    #[error("the connection of {0} is lost, and its work with it: it can only abort")]
    Lost(TxnId),
    /// No connection for it.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The local transaction did not begin.
    #[error("the server did not begin a transaction: {}", told(source))]
    Begin {
        /// Its error.
        source: tokio_postgres::Error,
    },
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
    #[error("the server did not {what}: {}", told(source))]
    Server {
        /// What it was to do.
        what: &'static str,
        /// Its error.
        source: tokio_postgres::Error,
    },
    /// The server prepares no more at a time.
    #[error(
        "the server has no room for one more prepared transaction [53200]: finish those that stand \
         prepared (see pg_prepared_xacts), or raise max_prepared_transactions and restart it; if \
         there are fewer than that, it has run out of memory"
    )]
    Full,
    /// The server did not answer, so nobody knows what it did.
    #[error("the server did not {what} within {seconds} s; it may do so yet")]
    Silent {
        /// What it was to do.
        what: &'static str,
        /// How long it was waited for.
        seconds: f32,
    },
    /// The server took the marker without an error, and has not written it.
    #[error(
        "the server has not written the marker of {0}: the adapter's table `committed` must have no \
         trigger and no rule"
    )]
    NotMarked(BranchId),
    /// The wait for a standby was cut short.
    #[error(
        "the server has written it, and does not know whether a standby has it: its wait for \
         synchronous_standby_names was canceled. Leave sessions that wait for SyncRep alone (no \
         pg_cancel_backend); this is tried again"
    )]
    Unconfirmed,
    /// Another session finishes the same branch.
    #[error("another session is finishing {0}")]
    Busy(BranchId),
    /// A process of the server that works for the branch has not ended yet.
    #[error("process {process} of the server has been told to end, and works on")]
    Stays {
        /// Its id.
        process: i32,
    },
}

/// Why a branch votes to abort although the server did all that it was told.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("a request came, and the adapter was opened without a handler")]
    NoHandler,
    #[error("its request was refused: {0}")]
    Request(RequestError),
    #[error("a statement of its work failed")]
    Failed,
    #[error("its connection is lost, and its work with it")]
    Lost,
    #[error(
        "its work ended the transaction by itself (COMMIT, ROLLBACK or the like); whatever it has \
         committed stands"
    )]
    EndedByItself,
    #[error("its work runs as the role {got}, not as {expected}: reset it when it is done")]
    Role { expected: String, got: String },
}

/// What the server says, and not only that it says something.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let (code, message) = (db.code().code(), db.message());
            let hint = db.hint().map(|hint| format!(" ({hint})"));
            format!("{message} [{code}]{}", hint.unwrap_or_default())
        }
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

fn told_or_nothing(error: &Option<tokio_postgres::Error>) -> String {
    error.as_ref().map(told).unwrap_or_default()
}
