//! What a replica shows of itself; nothing of it changes anything.

use std::collections::BTreeSet;
use std::ops::RangeBounds;

use crate::protocol::message::State;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Branch, CommitId, Generations, Outcome, ParticipantName, Stores};

use super::Replica;

impl Replica {
    /// The instances whose outcome is not known here, oldest first.
    pub fn undecided(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.commit.undecided()
    }

    /// The commits that some branch has not said that it applied, oldest first.
    pub fn unapplied(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.commit.unapplied()
    }

    /// The settled commits that wait for a branch, or for the entry that takes them off the list,
    /// oldest first. Those whose participant is gone for good stay until an operator releases them.
    pub fn listed(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.commit.listed(self.control.generations())
    }

    /// The outcome of `id`, if it is in memory and known.
    pub fn outcome(&self, id: &CommitId) -> Option<Outcome> {
        self.commit.outcome(id)
    }

    /// How many transactions are in memory, finished ones among them that were not evicted.
    pub fn remembered(&self) -> usize {
        self.commit.remembered()
    }

    /// What is known of `id`, as [`Inquire`](crate::protocol::message::Message::Inquire) is answered;
    /// nothing if it is not in memory. (Whoever wants to know of one that was evicted inquires, and
    /// [recalls](super::ReplicaCommand::Recall) it before.)
    pub fn state(&self, id: &CommitId) -> Option<State> {
        self.commit.state(id)
    }

    /// What is undecided, or committed and not applied by every branch, in a range of ids, each with
    /// what is known of it.
    pub fn under_way(
        &self,
        range: impl RangeBounds<CommitId>,
    ) -> impl Iterator<Item = (CommitId, State)> + '_ {
        self.commit.under_way(range)
    }

    /// The generations, as this replica knows them.
    pub fn generations(&self) -> &Generations {
        self.control.generations()
    }

    /// What the log says of stores, as far as it is known here.
    pub fn stores(&self) -> &Stores {
        self.control.stores()
    }

    /// Whether this replica leads the control log.
    pub fn is_leading(&self) -> bool {
        self.control.is_leading()
    }

    /// Who leads the control log, as far as is known here.
    pub fn log_leader(&self) -> Option<ReplicaId> {
        self.control.leader()
    }

    /// Whether this replica is needed no longer: no unsettled generation names it, and none ever will.
    /// To stop it earlier takes a replica from those that must decide what is under way.
    pub fn is_removed(&self) -> bool {
        self.control.is_removed(self.config.id)
    }

    /// The participants of which a session is connected here, and those sessions.
    pub fn directory(&self) -> impl Iterator<Item = (&ParticipantName, &BTreeSet<Branch>)> + '_ {
        self.front.directory()
    }
}
