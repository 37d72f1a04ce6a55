//! What a replica is told by its driver, and what it tells its user.

use crate::protocol::types::{Branch, CommitId, Member, Peer};

use crate::protocol::effects::Effects;

use super::Replica;
use super::front::Stored;
use super::record::Record;

/// What follows from the steps of a replica.
pub(super) type Out = Effects<Replica>;

/// The timers of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaTimer {
    /// Every [`ReplicaConfig::tick`](super::ReplicaConfig::tick).
    Tick,
}

/// What its driver tells a replica of its store. Nothing is saved or sent because of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaCommand {
    /// The store holds these finished transactions, of which the replica has recovered no record.
    /// Before anything else: a message about one of them must not find it unknown.
    Stored(Stored),
    /// These are durable: drop them from memory. Those that are not finished stay.
    Evict(Vec<CommitId>),
    /// All records that the store holds of instances that are [unknown](super::Replica::unknown) in memory.
    /// Those of any other are ignored.
    Recall(Vec<Record>),
}

/// What a replica tells its user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaNotice {
    /// A message was dropped because its sender may not say that, or because it makes no sense.
    Rejected {
        /// Who sent it.
        from: Peer,
        /// Why.
        reason: Rejection,
    },
    /// Outcomes contradict each other: a generation was settled with this commit, which is aborted
    /// here. A client said different things to different replicas. The commit stands.
    Contradiction {
        /// The transaction.
        id: CommitId,
        /// The branch that voted `Aborted` here, if this replica knows.
        against: Option<Branch>,
    },
    /// These replicas are to be dialed too, from now on and instead of those named before: they are
    /// none of the cluster's yet.
    Dial(Vec<Member>),
    /// This replica was removed, or will never be added; and the last generation that it decided is
    /// settled: it is needed no longer.
    Removed,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// Its kind is never sent to a replica, or not by such a peer.
    NotFromSuchAPeer,
    /// The roster is not the one that the commit id names.
    WrongRoster,
    /// The sender does not stand in the roster.
    NotInRoster,
    /// The branch has voted, and said something else: at most one of the two can be meant.
    VotesOtherwise,
    /// The transaction belongs to another initiator.
    NotItsInitiator,
    /// The ballot belongs to another replica, or is ballot 0, which belongs to the votes.
    NotItsBallot,
    /// A replica proposed two values at one ballot.
    BallotUsedTwice,
    /// A batch or a list is longer than its limit.
    TooLong,
    /// Sender or receiver is none of the generation's replicas.
    NotItsGeneration,
    /// An entry of the control log does not follow from those before it.
    DoesNotFollow,
    /// The name of the branch stands for another store.
    OtherStore,
}
