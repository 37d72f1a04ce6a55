//! The nouns of the examples.

use std::time::Duration;

use crate::protocol::message::{Decision, Report as Promised, State, Unapplied};
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{
    Branch, BranchSet, CommitId, Configuration, Generations, InitiatorId, Listed, Member, Outcome,
    Roster, Session, StoreId, TxnId,
};

/// Two seconds and a nanosecond: both parts of a duration show.
pub(super) const TIME: Duration = Duration::new(2, 1);

pub(super) fn branch(name: &str, session: u64) -> Branch {
    Branch {
        participant: name.parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    }
}

pub(super) fn roster() -> Roster {
    Roster::new([branch("a", 1), branch("b", 0x1234)]).unwrap()
}

pub(super) fn txn() -> TxnId {
    TxnId {
        generation: 3,
        initiator: InitiatorId::from_u128(0x00c0_ffee_00c0_ffee),
        sequence: 300,
        nonce: 9,
    }
}

pub(super) fn id() -> CommitId {
    CommitId::new(txn(), &roster())
}

pub(super) fn ballot() -> Ballot {
    Ballot {
        round: 2,
        replica: ReplicaId(1),
    }
}

pub(super) fn configuration() -> Configuration {
    let member = |id: u32| Member {
        id: ReplicaId(id),
        address: format!("h{id}:1").parse().unwrap(),
    };
    Configuration::new([1, 2, 3].map(member)).unwrap()
}

pub(super) fn generations() -> Generations {
    Generations::genesis(configuration())
}

pub(super) fn unapplied() -> Unapplied {
    Unapplied {
        roster: roster(),
        read_only: BranchSet::of(1),
    }
}

pub(super) fn listed() -> Listed {
    Listed {
        id: id(),
        unapplied: unapplied(),
    }
}

pub(super) fn promised() -> Promised {
    Promised {
        id: id(),
        accepted: Some((ballot(), Outcome::Commit)),
        held: BranchSet::of(0),
        read_only: BranchSet::default(),
        roster: Some(roster()),
    }
}

pub(super) fn decision(outcome: Outcome) -> Decision {
    Decision {
        id: id(),
        outcome,
        unapplied: (outcome == Outcome::Commit).then(unapplied),
    }
}

pub(super) fn undecided() -> State {
    State::Undecided {
        missing: vec![branch("b", 0x1234)],
        silent: vec![ReplicaId(3)],
    }
}
