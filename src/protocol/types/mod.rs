//! The nouns of the protocol: ids, branches, rosters, votes, outcomes.

mod branch;
mod configuration;
mod entry;
mod generations;
mod id;
mod limited;
mod recent;
mod store;
mod stores;
mod wide;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use branch::{
    Branch, BranchSet, BranchTextError, NAME_BYTES_MAX, NameError, ParticipantName, ROSTER_MAX,
    Roster, RosterError, Session,
};
pub use configuration::{
    ADDRESS_BYTES_MAX, Address, AddressError, Configuration, ConfigurationDigest, Member,
};
pub use entry::{Entry, LIST_MAX, Listed, Open, Settle, Unapplied};
pub use generations::{Applies, Generations, Openness, UNSETTLED_MAX};
pub use id::{COMMIT_ID_BYTES, CommitId, IdError, InitiatorId, RosterDigest, TXN_ID_BYTES, TxnId};
pub(crate) use limited::limited;
pub use store::{Opening, StoreId, StoreIdError};
pub use stores::{Entered, Entering, STORES_MAX, Stores};

use super::paxos::ReplicaId;

/// The longest request, in bytes, that travels inside a `Prepare`.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What one branch says at ballot 0, once and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Vote {
    /// The branch's changes are durable, and it can commit or roll back whatever happens.
    Prepared,
    /// The branch changed nothing; it has let go and needs no outcome.
    ReadOnly,
    /// The branch cannot commit; it has rolled back.
    Aborted,
}

/// What a transaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Every branch voted [`Vote::Prepared`] or [`Vote::ReadOnly`], and that was chosen.
    Commit,
    /// No branch may commit.
    Abort,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Commit => "commit",
            Outcome::Abort => "abort",
        })
    }
}

/// Work that travels inside a `Prepare` and is run by the branch just before it prepares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Request(pub Arc<[u8]>);

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} bytes)", self.0.len())
    }
}

/// Whether the branches of a transaction may vote [`Vote::ReadOnly`].
///
/// Forbidden as soon as one request travels inside a `Prepare`: a lock that is let go early while
/// another branch still works breaks isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReadOnly {
    /// All work was done before the first `Prepare`.
    Allowed,
    /// Work travels inside a `Prepare`.
    Forbidden,
}

/// One end of a connection. A socket address is never an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// A coordinator replica.
    Replica(ReplicaId),
    /// One run of one participant process.
    Session(Branch),
    /// An application that begins transactions.
    Initiator(InitiatorId),
    /// A person with a tool.
    Operator(u64),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Replica(id) => write!(f, "replica/{id}"),
            Peer::Session(branch) => write!(f, "participant/{branch}"),
            Peer::Initiator(id) => write!(f, "initiator/{id}"),
            Peer::Operator(id) => write!(f, "operator/{id}"),
        }
    }
}
