//! The settings of a replica.

use std::time::Duration;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::paxos::log::LogConfig;
use crate::protocol::types::{Configuration, LIST_MAX};

/// What a replica is told at start. Ticks are multiples of `tick`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaConfig {
    /// The replica's name.
    pub id: ReplicaId,
    /// The configuration of the first generation, this replica in it; the same at every start. None
    /// for a replica that joined later: it learns from the others which generations there are.
    pub genesis: Option<Configuration>,
    /// The time between two ticks.
    pub tick: Duration,
    /// Vote timeouts shorter than this are lengthened, so that no initiator can make every
    /// transaction end in a ballot.
    pub vote_timeout_min: Duration,
    /// Vote timeouts longer than this are shortened, so that nothing waits for ever.
    pub vote_timeout_max: Duration,
    /// Ticks between the first ballots of replicas next to each other: the first one's will do.
    pub stagger_ticks: u32,
    /// Ticks until a replica that has accepted Commit at ballot 0 asks the others whether it is
    /// chosen, when no branch has said that it applied it.
    pub exchange_ticks: u32,
    /// Ticks until an unanswered ballot is tried again; doubled at each attempt.
    pub retry_ticks: u32,
    /// The most ticks between two ballots.
    pub retry_ticks_max: u32,
    /// Ticks until a commit that was not applied is pushed to its branches; doubled at each push.
    pub push_ticks: u32,
    /// The most ticks between two pushes.
    pub push_ticks_max: u32,
    /// Past so many undecided transactions, new ones are answered with `Busy`.
    pub undecided_max: usize,
    /// So many transactions of a generation that nobody vouched for may end on account of one name,
    /// and a sixteenth of it on account of a participant and one initiator's name; past that new ones
    /// are answered with `Busy`. Each is a record on disk until the generation is settled.
    pub unvouched_max: usize,
    /// The times of the control log.
    pub log: LogConfig,
    /// Ticks between two announcements of the generations to everyone who is connected.
    pub announce_ticks: u32,
    /// Ticks after which the leader of the log opens the next generation.
    pub generation_ticks: u32,
    /// Transactions of a generation that were vouched for, after which the leader opens the next.
    pub generation_transactions_max: u64,
    /// Ticks that a generation lasts at least, however many transactions it holds.
    pub generation_ticks_min: u32,
    /// Ticks that undecided transactions of a generation get to finish once it is closed; then it
    /// is frozen all the same.
    pub grace_ticks: u32,
    /// Ticks until an unanswered question about a frozen generation is asked again.
    pub collect_ticks: u32,
    /// The most commits that one `Settle` lists, and one page of a state: 1 to [`LIST_MAX`].
    pub list_max: usize,
}

impl ReplicaConfig {
    /// The length of lists: one of none would forget commits.
    pub(super) fn list_max(&self) -> usize {
        self.list_max.clamp(1, LIST_MAX)
    }
}

impl ReplicaConfig {
    /// The usual settings of one of the first replicas. With a tick of 50 ms a generation lasts ten
    /// minutes.
    pub fn new(id: ReplicaId, genesis: impl Into<Configuration>) -> Self {
        ReplicaConfig {
            genesis: Some(genesis.into()),
            ..ReplicaConfig::joining(id)
        }
    }

    /// The usual settings of a replica that joins a cluster.
    pub fn joining(id: ReplicaId) -> Self {
        ReplicaConfig {
            id,
            genesis: None,
            tick: Duration::from_millis(50),
            vote_timeout_min: Duration::from_secs(1),
            vote_timeout_max: Duration::from_secs(600),
            stagger_ticks: 2,
            exchange_ticks: 10,
            retry_ticks: 4,
            retry_ticks_max: 100,
            push_ticks: 10,
            push_ticks_max: 200,
            undecided_max: 100_000,
            unvouched_max: 40_000_000,
            log: LogConfig::default(),
            announce_ticks: 20,
            generation_ticks: 12_000,
            generation_transactions_max: 10_000_000,
            generation_ticks_min: 1_200,
            grace_ticks: 1_200,
            collect_ticks: 10,
            list_max: LIST_MAX,
        }
    }
}
