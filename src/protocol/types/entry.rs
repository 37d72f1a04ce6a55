//! What the control log orders.

use serde::{Deserialize, Serialize};

use crate::protocol::paxos::Acceptors;
use crate::protocol::paxos::log::LogEntry;

use super::branch::{BranchSet, ParticipantName, Roster};
use super::configuration::Configuration;
use super::id::CommitId;
use super::limited::limited;
use super::store::StoreId;
use super::stores::Entering;

/// The most commits that one [`Settle`] lists, and one page of a state brings.
pub const LIST_MAX: usize = 256;

/// An entry of the control log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Entry {
    /// A new generation.
    Open(Open),
    /// The end of an old one, or of part of it. (Rare and large: it would make every message as
    /// large as itself.)
    Settle(Box<Settle>),
    /// An operator lets a settled commit go that some branch will never apply.
    Release {
        /// The commit.
        id: CommitId,
    },
    /// These settled commits are applied by all their branches: they leave the list.
    ///
    /// Only an entry of the log shortens the list, so the list after each slot is the same
    /// everywhere. (Counter-example to a list that each replica shortens by itself: replica 1 hears
    /// that the last branch has applied a commit, and does not list it any more. On its word the
    /// branch deletes its marker. Replica 1 crashes; the others did not hear the branch, and tell it
    /// to commit for ever, and it has no proof any more.)
    Unlist {
        /// At most [`LIST_MAX`].
        #[serde(deserialize_with = "limited::<_, _, LIST_MAX>")]
        ids: Vec<CommitId>,
    },
    /// Stores that have presented themselves, and openings of them: from now on each name stands for
    /// that, as far as it stands for nothing else ([`Stores::admits`](super::Stores::admits)).
    Enter {
        /// At most [`LIST_MAX`].
        #[serde(deserialize_with = "limited::<_, _, LIST_MAX>")]
        stores: Vec<Entering>,
    },
    /// An operator says that this store is gone for good: the name stands for the next store that
    /// presents itself.
    Gone {
        /// The name.
        participant: ParticipantName,
        /// The store; another one that the name stands for by now is not meant.
        store: StoreId,
    },
    /// An operator says that this participant's store was restored from a copy: its openings count
    /// anew.
    Restored {
        /// The name.
        participant: ParticipantName,
        /// The store.
        store: StoreId,
    },
}

/// From now on transactions begin in this generation and run on this configuration; so does the
/// log itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Open {
    /// One more than the latest.
    pub generation: u32,
    /// Its replicas.
    pub configuration: Configuration,
}

/// Every transaction after `after` and up to `through` has come to its end: it is committed if it
/// is listed; else it was aborted, or committed and applied by all its branches.
///
/// The chosen Settle is the last ballot of every instance in its range: freezing was the promise,
/// the slot is the accept. A generation with many unfinished commits is settled in several parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Settle {
    /// The horizon that it moves. After another Settle it changes nothing: a list that was made for
    /// what is settled already must not be heard a second time.
    pub after: Option<CommitId>,
    /// The last id of the range.
    pub through: CommitId,
    /// The commits in the range that are not known to be applied by all, at most [`LIST_MAX`], in
    /// order.
    pub unfinished: Vec<Listed>,
}

/// A commit that some branch may not have applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// The commit.
    pub id: CommitId,
    /// Whom to tell.
    pub unapplied: Unapplied,
}

/// Whom a commit must be told: the roster, less the branches that voted `ReadOnly`.
///
/// It travels with every Commit that is proposed above ballot 0, because whoever accepts it may
/// have seen no vote at all. Without the roster it could tell nobody; and to push a commit to a
/// branch that voted `ReadOnly` would ask a resource manager for something it never had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unapplied {
    /// The roster, of which the commit id holds the digest.
    pub roster: Roster,
    /// The branches that voted `ReadOnly`; all others voted `Prepared`.
    pub read_only: BranchSet,
}

impl LogEntry for Entry {
    fn acceptors(&self) -> Option<&Acceptors> {
        match self {
            Entry::Open(open) => Some(open.configuration.acceptors()),
            Entry::Settle(_)
            | Entry::Release { .. }
            | Entry::Unlist { .. }
            | Entry::Enter { .. }
            | Entry::Gone { .. }
            | Entry::Restored { .. } => None,
        }
    }
}
