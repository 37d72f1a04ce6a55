//! What the test runs are made of: messages, an acceptor's answers, its disk, its restart.

use paxos_commit::protocol::paxos::{Acceptor, Ballot, Nack, Refusal};

pub(super) type Value = u64;

/// What an acceptor writes down before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Record {
    Promised(Ballot),
    Accepted(Ballot, Value),
}

/// What a restarted acceptor reads back. All but the first are bugs, planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Everything,
    NoPromises,
    NoAccepted,
}

/// The messages of one instance. A promise tells what was accepted below its ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Prepare(Ballot),
    Promise(Ballot, Option<(Ballot, Value)>),
    Accept(Ballot, Value),
    Accepted(Ballot, Value),
    Nack { promised: Ballot },
}

/// Hands a request to an acceptor. Answers with what to write down, and what to send once it is
/// written.
pub(super) fn answer(
    acceptor: &mut Acceptor<Value>,
    request: Message,
) -> Option<(Option<Record>, Message)> {
    match request {
        Message::Prepare(ballot) => Some(match acceptor.promise(ballot) {
            Ok(accepted) => {
                let answer = Message::Promise(ballot, accepted.copied());
                (Some(Record::Promised(ballot)), answer)
            }
            Err(nack) => (None, nack_of(nack)),
        }),
        Message::Accept(ballot, value) => match acceptor.accept(ballot, value) {
            Ok(()) => {
                let answer = Message::Accepted(ballot, value);
                Some((Some(Record::Accepted(ballot, value)), answer))
            }
            Err(Refusal::Nack(nack)) => Some((None, nack_of(nack))),
            // Somebody used one number for two proposals. There is nothing to answer.
            Err(_) => None,
        },
        Message::Promise(..) | Message::Accepted(..) | Message::Nack { .. } => None,
    }
}

/// What a restarted acceptor is, when `memory` finds `records` on its disk, in any order.
pub(super) fn restarted(records: &[Record], memory: Memory) -> Acceptor<Value> {
    let mut acceptor = Acceptor::default();
    for record in records {
        match (*record, memory) {
            (Record::Promised(_), Memory::NoPromises)
            | (Record::Accepted(..), Memory::NoAccepted) => {}
            (Record::Promised(ballot), Memory::Everything | Memory::NoAccepted) => {
                acceptor.restore_promise(ballot);
            }
            (Record::Accepted(ballot, value), Memory::Everything | Memory::NoPromises) => {
                acceptor.restore_accept(ballot, value);
            }
        }
    }
    acceptor
}

fn nack_of(nack: Nack) -> Message {
    Message::Nack {
        promised: nack.promised,
    }
}
