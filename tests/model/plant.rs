//! Planted mistakes: what they do to messages on delivery and to records on load.

use paxos_commit::protocol::message::{Decision, Message};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::Outcome;

use crate::bounds::Plant;
use crate::cast::{Cast, Place};

/// What the receiver gets in place of `message`.
pub(crate) fn on_delivery(
    plant: Option<Plant>,
    cast: &Cast,
    to: Place,
    message: Message,
) -> Message {
    match (plant, message) {
        (
            Some(Plant::BallotsCountedTogether),
            Message::Phase2b {
                id,
                ballot,
                outcome,
            },
        ) if !ballot.is_zero() => Message::Phase2b {
            id,
            ballot: Ballot {
                round: 1,
                replica: ReplicaId(1),
            },
            outcome,
        },
        (
            Some(Plant::AbortBelievedAlone),
            Message::Phase2b {
                id,
                outcome: Outcome::Abort,
                ..
            },
        ) => aborted(
            cast,
            to,
            Decision {
                id,
                outcome: Outcome::Abort,
                unapplied: None,
            },
        ),
        (_, message) => message,
    }
}

fn aborted(cast: &Cast, to: Place, decision: Decision) -> Message {
    match to {
        Place::Session { branch, .. } => Message::Finish {
            id: decision.id,
            branch: cast.branch(branch),
            outcome: decision.outcome,
        },
        Place::Replica(_) | Place::Learners => Message::Decided(decision),
    }
}

/// What a replica that restarts gets in place of `records`.
pub(crate) fn on_load(plant: Option<Plant>, mut records: Vec<Record>) -> Vec<Record> {
    let promised = |record: &Record| matches!(record, Record::Promise { .. });
    match plant {
        Some(Plant::Amnesia) => records.clear(),
        Some(Plant::PromiseHidesVotes) if records.iter().any(promised) => {
            records.retain(|record| !matches!(record, Record::Vote { .. }));
        }
        Some(Plant::RoundsForgotten) => {
            records.retain(|record| !matches!(record, Record::Round { .. }));
        }
        Some(_) | None => {}
    }
    records
}
