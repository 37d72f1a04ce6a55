//! A state of the model, and what can happen in it.

use paxos_commit::protocol::types::Vote;

use crate::bounds::Victim;
use crate::disk::Disk;
use crate::network::Network;

/// Every host with its disk and what it has not let go yet, the network, and what may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) replicas: [ReplicaNode; 3],
    pub(crate) sessions: [SessionNode; 2],
    /// The initiator, by number.
    pub(crate) initiator: u32,
    pub(crate) hedges: u8,
    pub(crate) network: Network,
    /// What PaxosCommit.tla would remember of ballots, by number.
    pub(crate) ghost: u32,
    /// Who crashes once.
    pub(crate) victim: Option<Victim>,
}

/// A replica, its disk and its queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReplicaNode {
    pub(crate) up: bool,
    /// Its memory, by number; none while it is down.
    pub(crate) host: u32,
    pub(crate) disk: Disk,
    /// What the steps taken so far have saved and is not durable. A save that is under way takes
    /// the whole queue with it: one that takes only the front of it is one that took place before
    /// the last of these steps, which do not depend on it.
    pub(crate) unsaved: Disk,
    /// What those steps send, as the number of a set.
    pub(crate) waiting: u32,
    /// What is durable and has not left, as the number of a set.
    pub(crate) outbox: u32,
    /// How many ballots it may still start, and how many ticks it may still hear.
    pub(crate) ballots: u8,
    pub(crate) ticks: u8,
    /// It saved something behind a promise.
    pub(crate) went_back: bool,
    /// It said what was not on its disk.
    pub(crate) untrue: bool,
    /// It refused a message, although only correct hosts send any.
    pub(crate) refused: bool,
}

/// A session and its resource manager.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionNode {
    pub(crate) up: bool,
    /// The first session, or the one after the restart.
    pub(crate) run: u8,
    /// Its memory, by number.
    pub(crate) host: u32,
    /// The resource manager was asked to prepare and has not answered.
    pub(crate) asked: bool,
    /// How often it was asked to run a request.
    pub(crate) requests: u8,
    /// The branch stands prepared, durably.
    pub(crate) prepared: bool,
    /// The resource manager was asked to apply these outcomes and has not answered.
    pub(crate) finishing: u8,
    /// Which outcomes it was ever told.
    pub(crate) told: u8,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A replica gets the message with this bit.
    Deliver {
        replica: usize,
        bit: u8,
    },
    /// An operator asks the replica for a ballot.
    ForceAbort(usize),
    /// The replica's timer runs out.
    Timeout(usize),
    /// What the replica has not saved becomes durable.
    Save(usize),
    /// What the replica has saved and not sent leaves.
    Release(usize),
    /// A branch's session gets the message with this bit.
    DeliverToSession {
        branch: usize,
        bit: u8,
    },
    /// The resource manager has made the branch durable, and has not said so yet.
    Prepare(usize),
    /// The resource manager answers, and the session votes.
    Answer(usize, Vote),
    /// The resource manager has applied the outcome durably, and says so.
    Finish(usize),
    /// The relay has not been heard of: the initiator asks the next one.
    Hedge,
    Crash(Victim),
    Restart(Victim),
}

impl ReplicaNode {
    /// Whether nothing waits for a save.
    pub(crate) fn is_saved(&self) -> bool {
        self.unsaved.is_empty() && self.waiting == NOTHING
    }
}

/// The number of the empty set of messages.
pub(crate) const NOTHING: u32 = 0;

/// The number of no host.
pub(crate) const NOBODY: u32 = u32::MAX;
