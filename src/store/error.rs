//! Why a store was not made, not opened, or not read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::identity::FORMAT;
use super::layout::{VALUE_VERSION, Wrong};

/// Why no store was made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InitError {
    /// Something is there already.
    #[error(
        "{dir} is not empty: a replica is made in a directory of its own. If a replica served from \
         it, start that one; if an earlier attempt was cut short, remove the directory and make it again"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process uses the directory.
    #[error("{dir} is in use by another process; one replica has one process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The system said no.
    #[error("cannot make a store in {dir}: {source}; remove what is there and make it again")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The database said no.
    #[error("cannot make a store in {dir}: {source}; remove what is there and make it again")]
    Database {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: fjall::Error,
    },
}

/// Why a store was not opened. Except for [`OpenError::InUse`], [`OpenError::NewerFormat`],
/// [`OpenError::RecordVersion`] and errors of the system, the replica cannot come back: it may have lost what it promised, and a
/// Paxos acceptor that forgot a promise makes others lose commits.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no identity.
    #[error(
        "{dir} holds no replica: there is no identity file. `paxos-commit cluster new`, `add` and \
         `replace` make a replica's folder: copy it whole. If this replica has served, its disk was \
         lost, or is not mounted. A replica that lost its disk must not come back under its id: \
         replace it by a new one (`paxos-commit cluster replace`)"
    )]
    NoIdentity {
        /// The directory.
        dir: PathBuf,
    },
    /// The identity cannot be read.
    #[error(
        "the identity file of {dir} is damaged; what else is damaged nobody can know. Replace \
         this replica by one with a new id; never restore it from a backup"
    )]
    DamagedIdentity {
        /// The directory.
        dir: PathBuf,
    },
    /// A newer program wrote the directory.
    #[error(
        "{dir} has format {format}, and this program knows formats up to {FORMAT}: run the newer \
         version of the program with it"
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Another process uses the directory.
    #[error("{dir} is in use by another process; one replica has one process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A part of the store is gone.
    #[error(
        "{dir} has an identity and no {what}: this replica has lost what it promised, and must not \
         vote again. Replace it by one with a new id; never restore it from a backup"
    )]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// What is not there.
        what: &'static str,
    },
    /// The store has less than it once had.
    #[error(
        "{dir} holds the saves up to {lsn}, and save {complete} was durable once: this replica has \
         lost what it promised, and must not vote again. Replace it by one with a new id; never \
         restore it from a backup"
    )]
    Amnesia {
        /// The directory.
        dir: PathBuf,
        /// The last save that is there.
        lsn: u64,
        /// The last save that is known to have been durable.
        complete: u64,
    },
    /// The database is in a state in which it cannot even say what is wrong.
    #[error(
        "the database in {dir} cannot be read, and panicked (its message is above): it is damaged. \
         This replica may have lost what it promised, and must not vote again. Replace it by one \
         with a new id; never restore it from a backup"
    )]
    Unreadable {
        /// The directory.
        dir: PathBuf,
    },
    /// The database's files are not what was written.
    #[error(
        "the database in {dir} is damaged: {what}. This replica may have lost what it promised, and \
         must not vote again. Replace it by one with a new id; never restore it from a backup"
    )]
    Rotten {
        /// The directory.
        dir: PathBuf,
        /// Which file, and what is wrong with it.
        what: String,
    },
    /// A save is missing, and later ones are there.
    #[error(
        "{dir} has later saves than {missing}, and not that one: this replica has lost what it \
         promised, and must not vote again. Replace it by one with a new id; never restore it from \
         a backup"
    )]
    Hole {
        /// The directory.
        dir: PathBuf,
        /// The last save that is missing.
        missing: u64,
    },
    /// A record cannot be read.
    #[error("{dir}: {record}")]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// Which.
        record: DamagedRecord,
    },
    /// Another version of the program wrote a record.
    #[error(
        "{dir}: the record under key {key} has version {got}, and this program knows version {known}: \
         run the version of the program that wrote it. Nothing is damaged"
    )]
    RecordVersion {
        /// The directory.
        dir: PathBuf,
        /// The key of the record, in hexadecimal.
        key: String,
        /// Its version.
        got: u8,
        /// The version that this program knows.
        known: u8,
    },
    /// The system said no.
    #[error("cannot open the store in {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The database said no.
    #[error(
        "cannot open the database in {dir}: {source}. If that is damage and not a passing error of \
         the system, replace this replica by one with a new id; never restore it from a backup"
    )]
    Database {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: fjall::Error,
    },
}

/// A record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the record under key {key} is damaged: {reason}. This replica may have lost what it promised, \
     and must not vote again. Replace it by one with a new id; never restore it from a backup"
)]
pub struct DamagedRecord {
    /// Its key, in hexadecimal.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl DamagedRecord {
    fn new(key: &[u8], reason: Wrong) -> Self {
        DamagedRecord {
            key: hex(key),
            reason: reason.to_string(),
        }
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl OpenError {
    /// Whether the replica has lost what it promised, or may have: it can never serve again, and must be
    /// replaced by one with a new id. To start it again is of no use.
    pub fn must_be_replaced(&self) -> bool {
        match self {
            OpenError::DamagedIdentity { .. }
            | OpenError::Missing { .. }
            | OpenError::Amnesia { .. }
            | OpenError::Unreadable { .. }
            | OpenError::Rotten { .. }
            | OpenError::Hole { .. }
            | OpenError::Damaged { .. } => true,
            // A disk that is not mounted, another version of the program, or a passing error.
            OpenError::NoIdentity { .. }
            | OpenError::NewerFormat { .. }
            | OpenError::RecordVersion { .. }
            | OpenError::InUse { .. }
            | OpenError::Io { .. }
            | OpenError::Database { .. } => false,
        }
    }
}

/// Why records could not be looked up. The replica must stop: see [`OpenError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecallError {
    /// The database said no.
    #[error("cannot read the store: {0}; restart is the only repair")]
    Database(#[from] fjall::Error),
    /// A record is damaged.
    #[error("{0}")]
    Damaged(#[from] DamagedRecord),
    /// Another version of the program wrote a record.
    #[error(
        "the record under key {key} has version {got}, and this program knows version {known}: run the \
         version of the program that wrote it"
    )]
    Version {
        /// The key of the record, in hexadecimal.
        key: String,
        /// Its version.
        got: u8,
        /// The version that this program knows.
        known: u8,
    },
}

impl RecallError {
    /// What is wrong with what stands under `key`.
    pub(super) fn new(key: &[u8], wrong: Wrong) -> Self {
        match wrong {
            Wrong::Version(got) => RecallError::Version {
                key: hex(key),
                got,
                known: VALUE_VERSION,
            },
            wrong => DamagedRecord::new(key, wrong).into(),
        }
    }
}
