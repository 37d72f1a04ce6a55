//! What a log says, saves, and asks of its caller.

use serde::{Deserialize, Serialize};

use crate::protocol::paxos::{Ballot, ReplicaId};

/// A message between two replicas of one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogMessage<E> {
    /// Phase 1a, for this slot and all later ones.
    Prepare {
        /// The first slot that the sender does not know.
        slot: u64,
        /// The ballot.
        ballot: Ballot,
    },
    /// Phase 1b.
    Promise {
        /// The slot.
        slot: u64,
        /// The ballot promised.
        ballot: Ballot,
        /// What was accepted in this slot at the highest ballot.
        accepted: Option<(Ballot, E)>,
    },
    /// Phase 2a.
    Accept {
        /// The slot.
        slot: u64,
        /// The ballot.
        ballot: Ballot,
        /// What is proposed.
        entry: E,
    },
    /// Phase 2b.
    Accepted {
        /// The slot.
        slot: u64,
        /// The ballot.
        ballot: Ballot,
    },
    /// Refused, a higher ballot was promised.
    Nack {
        /// The slot.
        slot: u64,
        /// The ballot refused.
        ballot: Ballot,
        /// The ballot promised.
        promised: Ballot,
    },
    /// This entry was chosen.
    Chosen {
        /// The slot.
        slot: u64,
        /// The entry.
        entry: E,
    },
    /// The leader lives.
    Lead {
        /// The first slot that it does not know.
        slot: u64,
        /// Its ballot.
        ballot: Ballot,
    },
    /// The answer to it.
    Following {
        /// The slot.
        slot: u64,
        /// The leader's ballot.
        ballot: Ballot,
    },
}

impl<E> LogMessage<E> {
    /// The slot that the message is about.
    pub fn slot(&self) -> u64 {
        match self {
            LogMessage::Prepare { slot, .. }
            | LogMessage::Promise { slot, .. }
            | LogMessage::Accept { slot, .. }
            | LogMessage::Accepted { slot, .. }
            | LogMessage::Nack { slot, .. }
            | LogMessage::Chosen { slot, .. }
            | LogMessage::Lead { slot, .. }
            | LogMessage::Following { slot, .. } => *slot,
        }
    }

    /// The entry that it proposes or tells.
    pub fn entry(&self) -> Option<&E> {
        match self {
            LogMessage::Accept { entry, .. }
            | LogMessage::Chosen { entry, .. }
            | LogMessage::Promise {
                accepted: Some((_, entry)),
                ..
            } => Some(entry),
            LogMessage::Prepare { .. }
            | LogMessage::Promise { accepted: None, .. }
            | LogMessage::Accepted { .. }
            | LogMessage::Nack { .. }
            | LogMessage::Lead { .. }
            | LogMessage::Following { .. } => None,
        }
    }

    /// Whether it says that its sender knows no more than the slots before this one.
    pub(super) fn is_request(&self) -> bool {
        match self {
            LogMessage::Prepare { .. } | LogMessage::Accept { .. } | LogMessage::Lead { .. } => {
                true
            }
            LogMessage::Promise { .. }
            | LogMessage::Accepted { .. }
            | LogMessage::Nack { .. }
            | LogMessage::Following { .. }
            | LogMessage::Chosen { .. } => false,
        }
    }
}

/// What a replica saves for the log. That a slot was chosen its caller saves, with what follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogRecord<E> {
    /// A round was used for a ballot.
    Round {
        /// The round.
        round: u64,
    },
    /// A promise, for the slot of that time and all later ones.
    Promise {
        /// The ballot.
        ballot: Ballot,
    },
    /// An entry accepted.
    Accept {
        /// The slot.
        slot: u64,
        /// The ballot.
        ballot: Ballot,
        /// The entry.
        entry: E,
    },
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Every replica, this one among them, and those that are no longer or not yet acceptors.
    All,
    /// One replica.
    One(ReplicaId),
}

/// What follows from an input to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEffects<E> {
    /// To be durable before anything leaves.
    pub save: Vec<LogRecord<E>>,
    /// To be sent then.
    pub send: Vec<(To, LogMessage<E>)>,
    /// The entries learned, in order. The caller saves them and applies them, in the same step.
    pub chosen: Vec<(u64, E)>,
    /// Replicas that have not learned what this one has: the caller sends them the state.
    pub behind: Vec<ReplicaId>,
    /// A replica that has learned what this one has not: the caller asks it for the state.
    pub ahead: Option<ReplicaId>,
}

impl<E> Default for LogEffects<E> {
    fn default() -> Self {
        LogEffects {
            save: Vec::new(),
            send: Vec::new(),
            chosen: Vec::new(),
            behind: Vec::new(),
            ahead: None,
        }
    }
}

impl<E> LogEffects<E> {
    pub(super) fn refuse(&mut self, to: ReplicaId, slot: u64, ballot: Ballot, promised: Ballot) {
        let nack = LogMessage::Nack {
            slot,
            ballot,
            promised,
        };
        self.send.push((To::One(to), nack));
    }
}
