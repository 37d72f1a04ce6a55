//! The processes of a [`Cluster`](super::cluster::Cluster), and what outlives them.

use std::collections::VecDeque;

use paxos_commit::protocol::effects::{Effects, Host};
use paxos_commit::protocol::participant::{Participant, ParticipantConfig};
use paxos_commit::protocol::paxos::Acceptors;
use paxos_commit::protocol::replica::{Record, Rejection, Replica, ReplicaConfig};
use paxos_commit::protocol::types::{Branch, Outcome, Vote};

use super::wire::{Cost, Envelope};

/// A replica and its disk.
pub(super) struct ReplicaNode {
    pub(super) config: ReplicaConfig,
    pub(super) host: Option<Replica>,
    pub(super) disk: Vec<Record>,
    pub(super) unsaved: VecDeque<Step>,
    pub(super) speed: Disk,
    pub(super) rejected: Vec<Rejection>,
}

/// One step whose effects wait for the disk.
pub(super) struct Step {
    pub(super) save: Vec<Record>,
    pub(super) send: Vec<Envelope>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Every save is durable at once.
    Fast,
    /// Nothing is durable before [`sync`](super::cluster::Cluster::sync).
    Slow,
}

/// A resource manager and the session in front of it.
pub(super) struct Rm {
    pub(super) me: Branch,
    pub(super) host: Option<Participant>,
    pub(super) will: Will,
    /// What it learned, and at what cost.
    pub(super) heard: Option<(Outcome, Cost)>,
    /// What was applied to its branch, in order.
    pub(super) applied: Vec<Outcome>,
    pub(super) has_let_go: bool,
}

/// What a resource manager answers when it is asked to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Will {
    Say(Vote),
    /// Nothing, for now.
    Wait,
}

impl ReplicaNode {
    pub(super) fn new(config: ReplicaConfig) -> Self {
        ReplicaNode {
            host: Some(Replica::recover(
                config.clone(),
                [],
                &mut Effects::default(),
            )),
            config,
            disk: Vec::new(),
            unsaved: VecDeque::new(),
            speed: Disk::Fast,
            rejected: Vec::new(),
        }
    }
}

impl Rm {
    pub(super) fn new(me: Branch, will: Will, acceptors: &Acceptors) -> Self {
        let config = ParticipantConfig::new(me.clone(), acceptors.clone());
        Rm {
            host: Some(Participant::entered(config)),
            me,
            will,
            heard: None,
            applied: Vec::new(),
            has_let_go: false,
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        let host = self.host.as_ref().expect("the session lives");
        host.in_doubt().next().is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.host.as_ref().is_some_and(Participant::is_idle)
    }
}
