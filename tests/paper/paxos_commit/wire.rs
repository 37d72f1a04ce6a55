//! Messages on their way, and how they are told apart.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::types::{Outcome, Peer};

/// What lies behind a message: the longest chain of messages and of forced writes that led to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) delays: u32,
    pub(super) writes: u32,
}

impl Cost {
    pub(super) fn one_more_delay(self) -> Self {
        Cost {
            delays: self.delays + 1,
            ..self
        }
    }

    pub(super) fn one_more_write(self) -> Self {
        Cost {
            writes: self.writes + 1,
            ..self
        }
    }
}

/// A message that has left its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) from: Peer,
    pub(super) to: Peer,
    pub(super) message: Message,
    pub(super) cost: Cost,
}

impl Envelope {
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.kind() == kind
    }

    pub(super) fn is_from(&self, replica: u32) -> bool {
        self.from == Peer::Replica(ReplicaId(replica))
    }

    pub(super) fn is_to(&self, replica: u32) -> bool {
        self.to == Peer::Replica(ReplicaId(replica))
    }

    pub(super) fn is_between_replicas(&self) -> bool {
        matches!((&self.from, &self.to), (Peer::Replica(_), Peer::Replica(_)))
    }

    /// Whether it says that something was chosen.
    pub(super) fn tells_outcome(&self) -> bool {
        matches!(self.kind(), Kind::Decided | Kind::Finish)
    }

    /// What a phase 2b message reports.
    pub(super) fn reports(&self) -> Option<(Ballot, Outcome)> {
        if let Message::Phase2b {
            ballot, outcome, ..
        } = &self.message
        {
            return Some((*ballot, *outcome));
        }
        None
    }

    /// The ballot of a leader's own message, phase 1a or 2a.
    pub(super) fn leads(&self) -> Option<Ballot> {
        if let Message::Phase1a { ballot, .. } | Message::Phase2a { ballot, .. } = &self.message {
            return Some(*ballot);
        }
        None
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.message {
            Message::BeginCommit(_) => Kind::BeginCommit,
            Message::Prepare(_) => Kind::Prepare,
            Message::Vote(_) => Kind::Vote,
            Message::Applied { .. } => Kind::Applied,
            Message::Phase1a { .. } => Kind::Phase1a,
            Message::Phase1b { .. } => Kind::Phase1b,
            Message::Phase2a { .. } => Kind::Phase2a,
            Message::Phase2b { .. } => Kind::Phase2b,
            Message::Nack { .. } => Kind::Nack,
            Message::Decided(_) => Kind::Decided,
            Message::Finish { .. } => Kind::Finish,
            Message::Ask(_) | Message::ForceAbort { .. } | Message::Undecided(_) => Kind::Question,
            Message::Rollback { .. }
            | Message::LetGo { .. }
            | Message::Inquire { .. }
            | Message::Resolve { .. }
            | Message::Status { .. }
            | Message::Resolved { .. }
            | Message::Busy { .. } => Kind::Other,
            Message::Announce(_)
            | Message::NotOpen { .. }
            | Message::Expired { .. }
            | Message::Forgotten { .. }
            | Message::Log(_)
            | Message::Freeze { .. }
            | Message::Frozen { .. }
            | Message::Collect { .. }
            | Message::Collected { .. }
            | Message::Fetch { .. }
            | Message::State { .. }
            | Message::Reconfigure { .. }
            | Message::Release { .. }
            | Message::Disputed { .. }
            | Message::Contradicted { .. }
            | Message::Unproven { .. }
            | Message::List { .. }
            | Message::ListPage(_)
            | Message::Present { .. }
            | Message::Admission { .. }
            | Message::Enter { .. }
            | Message::Gone { .. }
            | Message::Restored { .. }
            | Message::Probe { .. }
            | Message::Probed { .. }
            | Message::Named { .. }
            | Message::Declined(_) => Kind::Control,
        }
    }
}

/// The kinds of messages that the paper knows, and those about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    BeginCommit,
    Prepare,
    Vote,
    Phase1a,
    Phase1b,
    Phase2a,
    Phase2b,
    Nack,
    Decided,
    Finish,
    Applied,
    Question,
    Other,
    /// The control log, which the paper does not have, and what goes with it.
    Control,
}

pub(super) fn replica(n: u32) -> Peer {
    Peer::Replica(ReplicaId(n))
}
