//! What it takes to reach a cluster.

use crate::protocol::participant::NotEntered;
use crate::protocol::types::Member;

use super::credentials::Credentials;
use super::resolver::Resolver;

/// What it takes to reach a cluster: credentials, and where replicas are. Not all replicas need be
/// named: whoever answers tells the others.
#[derive(Clone, Debug)]
pub struct Access {
    /// What this process proves itself with.
    pub credentials: Credentials,
    /// Replicas, to begin with.
    pub replicas: Vec<Member>,
    /// Finds the addresses behind the names of replicas.
    pub resolver: Resolver,
}

/// Why a cluster cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The credentials are for another part.
    #[error("expected credentials of {expected}, got those of {got}")]
    WrongRole {
        /// The part that they should be for.
        expected: &'static str,
        /// What they are for.
        got: String,
    },
    /// The endpoint cannot be opened.
    #[error(transparent)]
    Listen(#[from] super::ListenError),
    /// No replica has let this process in.
    #[error("no replica of the cluster let us in within {waited:?}: {problems}")]
    NobodyAnswers {
        /// For how long was tried.
        waited: std::time::Duration,
        /// Of each replica, why not.
        problems: String,
    },
    /// A replica let this process in, and too few of the others were reached.
    #[error("too few replicas of the cluster were reached within {waited:?}: {problems}")]
    TooFewReached {
        /// For how long was tried.
        waited: std::time::Duration,
        /// Of each replica that was not reached, why not.
        problems: String,
    },
    /// The resource manager cannot tell what is in doubt.
    #[error("the resource manager cannot tell which branches are in doubt: {0}")]
    ResourceManager(String),
    /// The store keeps the branches of another participant.
    #[error("{0}")]
    NotItsStore(String),
    /// The participant's name stands for another store, or a majority of the replicas did not say.
    #[error(transparent)]
    NotEntered(#[from] NotEntered),
}
