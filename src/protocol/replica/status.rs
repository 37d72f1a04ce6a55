//! What a replica shows of itself; nothing of it changes anything.

use std::collections::BTreeSet;
use std::ops::RangeBounds;

use crate::protocol::message::State;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Branch, CommitId, Outcome, ParticipantName};

use super::Replica;
use super::instance::{Instance, Phase};

impl Replica {
    /// The instances whose outcome is not known here, oldest first.
    pub fn undecided(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.in_phase(Phase::Undecided)
    }

    /// The commits that some branch has not said that it applied, oldest first.
    pub fn unapplied(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.in_phase(Phase::Committed)
    }

    /// The outcome of `id`, if it is in memory and known.
    pub fn outcome(&self, id: &CommitId) -> Option<Outcome> {
        // What is under way first: it is what most messages are about, and there is little of it.
        self.outcome_of(id, self.instances.get(id))
    }

    /// The same, by whoever has looked up already what is under way.
    pub(super) fn outcome_of(&self, id: &CommitId, known: Option<&Instance>) -> Option<Outcome> {
        match known.map(|instance| instance.phase) {
            Some(Phase::Undecided) => None,
            Some(Phase::Committed) => Some(Outcome::Commit),
            None => self.finished.get(id).map(|end| end.outcome),
        }
    }

    /// How many transactions are in memory, finished ones among them that were not evicted.
    pub fn remembered(&self) -> usize {
        self.instances.len() + self.finished.len()
    }

    /// What is known of `id`, as [`Inquire`](crate::protocol::message::Message::Inquire) is answered;
    /// nothing if it is not in memory. (Whoever wants to know of one that was evicted inquires, and
    /// [recalls](super::ReplicaCommand::Recall) it before.)
    pub fn state(&self, id: &CommitId) -> Option<State> {
        match self.instances.get(id) {
            Some(instance) => Some(self.state_of(id, instance)),
            None => self.finished.get(id).map(|end| finished(end.outcome)),
        }
    }

    /// What is undecided, or committed and not applied by every branch, in a range of ids, each with
    /// what is known of it.
    pub fn under_way(
        &self,
        range: impl RangeBounds<CommitId>,
    ) -> impl Iterator<Item = (CommitId, State)> + '_ {
        let instances = self.instances.range(range);
        instances.map(|(id, instance)| (*id, self.state_of(id, instance)))
    }

    /// Who leads the control log, as far as is known here.
    pub fn log_leader(&self) -> Option<ReplicaId> {
        self.log.as_ref()?.leader()
    }

    /// The participants of which a session is connected here, and those sessions.
    pub fn directory(&self) -> impl Iterator<Item = (&ParticipantName, &BTreeSet<Branch>)> + '_ {
        self.directory.iter()
    }

    fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &CommitId> + '_ {
        let instances = self.instances.iter();
        instances
            .filter(move |(_, instance)| instance.phase == phase)
            .map(|(id, _)| id)
    }
}

/// The state of a transaction that nobody waits for.
pub(super) fn finished(outcome: Outcome) -> State {
    let unapplied = Vec::new();
    State::Decided { outcome, unapplied }
}
