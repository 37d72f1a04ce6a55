//! Who plays: one transaction, its branches, the replicas, and how each host starts.

use std::time::Duration;

use paxos_commit::protocol::initiator::{
    Initiator, InitiatorCommand, InitiatorConfig, InitiatorNotice, PrepareBy,
};
use paxos_commit::protocol::message::{BeginCommit, Message, Prepare};
use paxos_commit::protocol::participant::{
    InDoubt, Owner, Participant, ParticipantCommand, ParticipantConfig,
};
use paxos_commit::protocol::paxos::log::LogConfig;
use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};
use paxos_commit::protocol::replica::{Record, Replica, ReplicaConfig};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Peer, ReadOnly, Request, Roster, Session, StoreId, TxnId,
};
use paxos_commit::protocol::{Effects, Host, Input};

/// One tick is enough to make anything due, so that no state differs by a countdown alone.
const TICK: Duration = Duration::from_secs(1);

const INITIATOR: InitiatorId = InitiatorId::from_u128(7);

/// The places to which a message can go, each with a number of its own in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Replica(usize),
    /// A branch's participant: its first session, or the one after a restart.
    Session {
        branch: usize,
        run: usize,
    },
    /// All who only learn: the initiator, operators, and sessions that are leaves. What a replica
    /// reports to one of them it might as well have reported to all, so they share one place.
    Learners,
}

/// How many places there are.
pub(crate) const PLACES: usize = 8;

impl Place {
    pub(crate) fn number(self) -> usize {
        match self {
            Place::Replica(index) => index,
            Place::Session { branch, run } => 3 + 2 * run + branch,
            Place::Learners => 7,
        }
    }
}

/// One transaction among `replicas` replicas.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) acceptors: Acceptors,
    pub(crate) roster: Roster,
    pub(crate) id: CommitId,
}

impl Cast {
    pub(crate) fn new(replicas: usize, branches: usize) -> Self {
        let ids = (1..=replicas as u32).map(ReplicaId);
        let roster = (0..branches).map(|index| branch(index, 0));
        let roster = Roster::new(roster).expect("one or two branches");
        let txn = TxnId {
            generation: 1,
            initiator: INITIATOR,
            sequence: 0,
            nonce: 9,
        };
        Cast {
            acceptors: Acceptors::new(ids).expect("one or three replicas"),
            id: CommitId::new(txn, &roster),
            roster,
        }
    }

    pub(crate) fn replica_peer(&self, index: usize) -> Peer {
        Peer::Replica(replica_id(index))
    }

    pub(crate) fn session_peer(&self, index: usize, run: usize) -> Peer {
        Peer::Session(branch(index, run))
    }

    pub(crate) fn initiator_peer(&self) -> Peer {
        Peer::Initiator(INITIATOR)
    }

    pub(crate) fn place(&self, peer: &Peer) -> Place {
        match peer {
            Peer::Replica(id) => Place::Replica(id.0 as usize - 1),
            Peer::Session(branch) => Place::Session {
                branch: usize::from(branch.participant.as_str() == "q"),
                run: branch.session.0 as usize - 1,
            },
            Peer::Initiator(_) | Peer::Operator(_) => Place::Learners,
        }
    }

    /// A replica that starts with these records.
    pub(crate) fn replica(&self, index: usize, saved: Vec<Record>) -> Replica {
        let config = ReplicaConfig {
            tick: TICK,
            vote_timeout_min: TICK,
            vote_timeout_max: TICK,
            stagger_ticks: 0,
            retry_ticks: 1,
            retry_ticks_max: 1,
            push_ticks: 1,
            push_ticks_max: 1,
            // The control log rests.
            announce_ticks: u32::MAX,
            log: LogConfig {
                silence_ticks: u32::MAX,
                ..LogConfig::default()
            },
            ..ReplicaConfig::new(replica_id(index), self.acceptors.clone())
        };
        let mut replica = Replica::recover(config, saved, &mut Effects::default());
        // A connection sets nothing going in a replica: it only learns where to push outcomes.
        for branch in self.roster.iter() {
            let connected = Input::Connected(Peer::Session(branch.clone()));
            replica.step(connected, &mut Effects::default());
        }
        replica
    }

    /// A session that nobody has told anything.
    pub(crate) fn session(&self, index: usize, run: usize) -> Participant {
        let config = ParticipantConfig {
            tick: TICK,
            retry_ticks: 1,
            retry_ticks_max: 1,
            ..ParticipantConfig::new(branch(index, run), self.acceptors.clone())
        };
        Participant::entered(config)
    }

    /// The initiator, whose application has asked for commit; and what it sends for that.
    pub(crate) fn initiator(
        &self,
        prepare: PrepareBy,
        request: Option<Request>,
    ) -> (Initiator, Vec<(Peer, Message)>) {
        let config = InitiatorConfig::new(INITIATOR, self.acceptors.clone());
        let mut initiator = Initiator::recover(config, [], &mut Effects::default());
        let mut out = Effects::default();
        initiator.step(
            Input::Command(InitiatorCommand::Begin { nonce: 9 }),
            &mut out,
        );
        assert_eq!(out.notify, [InitiatorNotice::Begun(self.id.txn)]);
        out.clear();
        let branches = self.roster.iter().cloned();
        let commit = InitiatorCommand::Commit {
            txn: self.id.txn,
            branches: branches.map(|branch| (branch, request.clone())).collect(),
            prepare,
            vote_timeout: TICK,
        };
        initiator.step(Input::Command(commit), &mut out);
        assert_eq!(out.notify, [InitiatorNotice::Asked(self.id)]);
        (initiator, out.send)
    }

    /// What a service says to its session when it prepares by itself.
    pub(crate) fn prepare_by_itself(&self) -> [ParticipantCommand; 2] {
        let prepare = Prepare {
            id: self.id,
            roster: self.roster.clone(),
            request: None,
            read_only: ReadOnly::Allowed,
            floor: 0,
            vote_timeout: TICK,
        };
        let begin = ParticipantCommand::Begin(self.id.txn);
        [begin, ParticipantCommand::Prepare(prepare)]
    }

    /// What a restarted session is told of a branch that its predecessor had prepared.
    pub(crate) fn in_doubt(&self) -> ParticipantCommand {
        ParticipantCommand::InDoubt(vec![InDoubt {
            id: self.id,
            session: session(0),
            owner: Owner::Gone,
        }])
    }

    pub(crate) fn branch(&self, index: usize) -> Branch {
        branch(index, 0)
    }

    /// A second relay is asked with the very same message as the first.
    pub(crate) fn is_begin(&self, message: &Message) -> bool {
        matches!(message, Message::BeginCommit(BeginCommit { id, .. }) if *id == self.id)
    }
}

pub(crate) fn replica_id(index: usize) -> ReplicaId {
    ReplicaId(index as u32 + 1)
}

fn session(run: usize) -> Session {
    Session(run as u64 + 1)
}

fn branch(index: usize, run: usize) -> Branch {
    let name = ["p", "q"][index];
    Branch {
        participant: name.parse().expect("a short name"),
        session: session(run),
        store: StoreId::from_u128(1),
    }
}
