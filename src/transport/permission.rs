//! What an identity may say to a replica.
//!
//! The core checks what can be told from its own state (is this the transaction's initiator, does
//! this session stand in the roster, is this ballot the sender's). Here stands what can be told
//! from the message and the sender alone; whoever says something else loses its connection, since
//! no correct program does.

use crate::protocol::message::Message;
use crate::protocol::types::Peer;

use super::identity::are_of_one_name;

/// Whether `from` may send `message` to a replica.
pub(super) fn may_say(from: &Peer, message: &Message) -> bool {
    match message {
        // Only the initiator that owns an id commits it or rolls it back.
        Message::BeginCommit(begin) => owns(from, begin.id.txn),
        Message::Rollback { txn, .. } => owns(from, *txn),
        // An outcome is told to those who take part: an initiator to whose name the id is bound (a
        // later run of it asks for the ids that its application kept), or a session that asks for
        // a branch of its own participant.
        Message::Ask(question) => match from {
            Peer::Operator(_) => true,
            Peer::Initiator(id) => are_of_one_name(*id, question.id.txn.initiator),
            Peer::Session(branch) => {
                let asked = question.branch.as_ref();
                asked.is_some_and(|asked| asked.participant == branch.participant)
            }
            Peer::Replica(_) => false,
        },
        Message::Inquire { txn } => match from {
            Peer::Operator(_) => true,
            Peer::Initiator(id) => are_of_one_name(*id, txn.initiator),
            Peer::Session(_) | Peer::Replica(_) => false,
        },
        Message::Resolve { .. } => matches!(from, Peer::Initiator(_) | Peer::Operator(_)),
        Message::ForceAbort { .. } | Message::Reconfigure { .. } | Message::Release { .. } => {
            matches!(from, Peer::Operator(_))
        }
        // A session votes for its own branch only: the roster must hold it.
        Message::Vote(vote) => match from {
            Peer::Session(branch) => vote.roster.index_of(branch).is_some(),
            Peer::Replica(_) | Peer::Initiator(_) | Peer::Operator(_) => false,
        },
        Message::Applied { branch, .. } => match from {
            Peer::Session(own) => own.participant == branch.participant,
            Peer::Replica(_) | Peer::Initiator(_) | Peer::Operator(_) => false,
        },
        Message::Fetch { .. } => matches!(from, Peer::Replica(_) | Peer::Operator(_)),
        // Ballots above 0 and the control log are the replicas' own affair.
        Message::Phase1a { .. }
        | Message::Phase1b { .. }
        | Message::Phase2a { .. }
        | Message::Phase2b { .. }
        | Message::Nack { .. }
        | Message::Decided(_)
        | Message::Expired { .. }
        | Message::NotOpen { .. }
        | Message::Announce(_)
        | Message::Log(_)
        | Message::Freeze { .. }
        | Message::Frozen { .. }
        | Message::Collect { .. }
        | Message::Collected { .. }
        | Message::State { .. } => matches!(from, Peer::Replica(_)),
        // Only replicas say these, and never to each other.
        Message::Prepare(_)
        | Message::LetGo { .. }
        | Message::Finish { .. }
        | Message::Undecided(_)
        | Message::Status { .. }
        | Message::Resolved { .. }
        | Message::Busy { .. }
        | Message::Forgotten { .. }
        | Message::Declined(_) => false,
    }
}

fn owns(from: &Peer, txn: crate::protocol::types::TxnId) -> bool {
    *from == Peer::Initiator(txn.initiator)
}
