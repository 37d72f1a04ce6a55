//! Learners from whom nothing comes back.
//!
//! A host that only learns does not change what the others do. So it needs no place in the state:
//! what it can be told follows from what was sent to it, delivered in any order, any number of
//! times. All these orders are gone through here, in every state of the model, which is the same as
//! to deliver message by message, and saves a factor of the number of the learners' states. That
//! the host is such a leaf is asserted, not assumed.

use std::collections::BTreeSet;

use paxos_commit::protocol::initiator::InitiatorNotice;
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::Vote;
use paxos_commit::protocol::{Initiator, Input};

use crate::cast::Place;
use crate::network::bits;
use crate::tables::{self, Step, Tables, bit_of};

/// Which outcomes a session in the state `host` can be told, if `word` was sent to it.
///
/// A session that was told Abort before its resource manager has answered votes no more, whatever
/// the answer; so here such a session gets its answer too. (One that was told nothing gets it by an
/// action of the model.)
pub(crate) fn session(
    tables: &mut Tables,
    place: Place,
    host: u32,
    word: u128,
    votes: &[Vote],
) -> u8 {
    let id = tables.cast.id;
    let (mut told, mut seen, mut open) = (0, BTreeSet::from([host]), vec![host]);
    while let Some(at) = open.pop() {
        let mut visit = |send_nothing: bool, next: u32, bits: u8| {
            assert!(send_nothing, "a session that only learns sends nothing");
            told |= bits;
            if seen.insert(next) {
                open.push(next);
            }
        };
        for bit in bits(word) {
            let known = tables.session_steps.get(&(at, bit)).cloned();
            let step = known.unwrap_or_else(|| tables.deliver_to_session(place, at, bit));
            visit(step.send.is_empty(), step.host, tables::told(&step.notify));
        }
        for vote in votes.iter().filter(|_| at != host) {
            let answer = ParticipantCommand::Prepared { id, vote: *vote };
            let step = tables.step_session(place, at, Input::Command(answer));
            visit(step.send.is_empty(), step.host, tables::told(&step.notify));
        }
    }
    told
}

/// Which outcomes the initiator in the state `host` can be told, if `word` was sent to it.
pub(crate) fn initiator(tables: &mut Tables, host: u32, word: u128) -> u8 {
    let (mut told, mut seen, mut open) = (0, BTreeSet::from([host]), vec![host]);
    while let Some(at) = open.pop() {
        for bit in bits(word) {
            let step = tables.deliver_to_initiator(at, bit);
            assert!(
                step.send.is_empty(),
                "an initiator that only learns sends nothing"
            );
            told |= outcomes(&step);
            if seen.insert(step.host) {
                open.push(step.host);
            }
        }
    }
    told
}

fn outcomes(step: &Step<Initiator>) -> u8 {
    let bits = step.notify.iter().map(|notice| match notice {
        InitiatorNotice::Outcome { outcome, .. } => bit_of(*outcome),
        InitiatorNotice::Begun(_)
        | InitiatorNotice::SequenceExhausted
        | InitiatorNotice::Planned(_)
        | InitiatorNotice::Asked(_)
        | InitiatorNotice::Refused { .. }
        | InitiatorNotice::Undecided { .. }
        | InitiatorNotice::Status { .. }
        | InitiatorNotice::Expired { .. }
        | InitiatorNotice::Forgotten { .. }
        | InitiatorNotice::Resolved { .. } => 0,
    });
    bits.fold(0, |told, bit| told | bit)
}
