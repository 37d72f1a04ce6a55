//! What a replica shows of itself; nothing of it changes anything.

use crate::protocol::message::State;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, Outcome, ParticipantName};

use super::Replica;
use super::instance::Phase;

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
        match self.instances.get(id).map(|instance| instance.phase) {
            Some(Phase::Undecided) => None,
            Some(Phase::Committed) => Some(Outcome::Commit),
            None => self.finished.get(id).copied(),
        }
    }

    /// How many transactions are in memory, finished ones among them that were not evicted.
    pub fn remembered(&self) -> usize {
        self.instances.len() + self.finished.len()
    }

    /// What is undecided, or committed and not applied by every branch, from a range of ids, each with
    /// what is known of it.
    pub fn under_way(
        &self,
        range: impl std::ops::RangeBounds<CommitId>,
    ) -> impl Iterator<Item = (CommitId, State)> + '_ {
        let instances = self.instances.range(range);
        instances.map(|(id, instance)| (*id, self.state_of(id, instance)))
    }

    /// The participants that are connected, with the number of their sessions.
    pub fn participants(&self) -> impl Iterator<Item = (&ParticipantName, usize)> + '_ {
        let directory = self.directory.iter();
        directory.map(|(name, sessions)| (name, sessions.len()))
    }

    /// Who leads the control log, as far as this replica knows.
    pub fn log_leader(&self) -> Option<ReplicaId> {
        self.log.as_ref()?.leader()
    }

    fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &CommitId> + '_ {
        let instances = self.instances.iter();
        instances
            .filter(move |(_, instance)| instance.phase == phase)
            .map(|(id, _)| id)
    }
}
