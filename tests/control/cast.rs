//! Who plays: one or two transactions of generation 1, their branches, and four replicas of which
//! the first three decide generation 1.

use std::time::Duration;

use paxos_commit::protocol::message::{BeginCommit, CastVote, Message};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::paxos::log::LogConfig;
use paxos_commit::protocol::replica::{Record, Replica, ReplicaConfig};
use paxos_commit::protocol::types::{
    Branch, CommitId, Configuration, Entry, InitiatorId, Member, Open, Peer, Roster, Session,
    StoreId, TxnId, Vote,
};
use paxos_commit::protocol::{Effects, Host};

/// How many replicas have a place; the fourth stands in the second configuration only.
pub(crate) const REPLICAS: usize = 4;

/// No vote is waited for in vain: only ballots that an operator asks for are started.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// The name of the replica in place `index`.
pub(crate) fn replica_id(index: usize) -> ReplicaId {
    ReplicaId(index as u32 + 1)
}

/// The replica in place `index`, as others address it.
pub(crate) fn replica_peer(index: usize) -> Peer {
    Peer::Replica(replica_id(index))
}

/// The place of a replica.
pub(crate) fn index_of(id: ReplicaId) -> usize {
    id.0 as usize - 1
}

/// The replicas with these names.
pub(crate) fn configuration(ids: [u32; 3]) -> Configuration {
    let members = ids.map(|id| Member {
        id: ReplicaId(id),
        address: Default::default(),
    });
    Configuration::new(members).expect("three names")
}

/// The configuration of generation 1.
pub(crate) fn first() -> Configuration {
    configuration([1, 2, 3])
}

/// What replica 1 is no longer a member of.
pub(crate) fn second() -> Configuration {
    configuration([2, 3, 4])
}

/// The branch at position `index` of a roster.
pub(crate) fn branch(index: usize) -> Branch {
    Branch {
        participant: ["p", "q"][index].parse().expect("a name"),
        session: Session(1),
        store: StoreId::from_u128(1),
    }
}

/// A session, as others address it.
pub(crate) fn session_peer(index: usize) -> Peer {
    Peer::Session(branch(index))
}

/// Whoever insists on an end.
pub(crate) const OPERATOR: Peer = Peer::Operator(1);

/// One transaction of generation 1.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) roster: Roster,
    pub(crate) id: CommitId,
}

impl Cast {
    pub(crate) fn new(sequence: u32, branches: usize) -> Self {
        let roster = Roster::new((0..branches).map(branch)).expect("one or two branches");
        let txn = TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(7),
            sequence,
            nonce: 9,
        };
        Cast {
            id: CommitId::new(txn, &roster),
            roster,
        }
    }

    /// The Prepared of a branch, on its way.
    pub(crate) fn vote(&self) -> Message {
        Message::Vote(CastVote {
            id: self.id,
            roster: self.roster.clone(),
            vote: Vote::Prepared,
            vote_timeout: PATIENCE,
        })
    }

    /// Commit is asked for, at a relay.
    pub(crate) fn begin(&self) -> (Peer, Message) {
        let begin = BeginCommit {
            id: self.id,
            roster: self.roster.clone(),
            requests: Vec::new(),
            floor: 0,
            vote_timeout: PATIENCE,
        };
        let initiator = Peer::Initiator(self.id.txn.initiator);
        (initiator, Message::BeginCommit(begin))
    }

    /// The Prepared of these branches, on disk.
    pub(crate) fn votes(&self, held: [bool; 2]) -> Vec<Record> {
        let indices = (0..self.roster.len()).filter(|index| held[*index]);
        let votes = indices.enumerate().map(|(position, index)| Record::Vote {
            id: self.id,
            index: index as u8,
            vote: Vote::Prepared,
            roster: (position == 0).then(|| self.roster.clone()),
        });
        votes.collect()
    }
}

/// The opening of a generation, as it stands on disk once it is chosen.
pub(crate) fn opened(generation: u32, configuration: Configuration) -> Record {
    Record::Chosen {
        slot: u64::from(generation) - 2,
        entry: open(generation, configuration),
    }
}

/// The opening of a generation.
pub(crate) fn open(generation: u32, configuration: Configuration) -> Entry {
    Entry::Open(Open {
        generation,
        configuration,
    })
}

/// The settings of the replica in place `index`. What is due by time is due after more ticks than a
/// model hears, and after fewer than a run to the end does.
pub(crate) fn config(index: usize, list_max: usize) -> ReplicaConfig {
    let id = replica_id(index);
    let base = if index < 3 {
        ReplicaConfig::new(id, first())
    } else {
        ReplicaConfig::joining(id)
    };
    ReplicaConfig {
        vote_timeout_min: PATIENCE,
        vote_timeout_max: PATIENCE,
        generation_ticks: u32::MAX,
        announce_ticks: u32::MAX,
        grace_ticks: 0,
        exchange_ticks: 40,
        retry_ticks: 40,
        list_max,
        log: LogConfig {
            heartbeat_ticks: 3,
            silence_ticks: 10,
            stagger_ticks: 5,
            silence_ticks_max: 80,
        },
        ..base
    }
}

/// A replica that starts from these records.
pub(crate) fn replica(index: usize, list_max: usize, saved: Vec<Record>) -> Replica {
    Replica::recover(config(index, list_max), saved, &mut Effects::default())
}
