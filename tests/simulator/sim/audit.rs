//! The end: within a bounded time after the faults have stopped, every transaction is decided and
//! applied, every branch released, nothing in doubt; and what was told is what was done.

use paxos_commit::protocol::Participant;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Outcome;

use super::world::{At, World};

impl World {
    /// What is not finished yet, if anything.
    pub fn unfinished(&self) -> Option<String> {
        for (index, app) in self.apps.iter().enumerate() {
            if let Some(id) = app.open.keys().next() {
                let count = app.open.len();
                return Some(format!(
                    "application {index} waits for {id} ({count} in all)"
                ));
            }
            if !app.working.is_empty() {
                return Some(format!("application {index} still works"));
            }
        }
        if self.wanted.is_some() {
            return Some("an operator waits for a change of the membership".into());
        }
        for (index, node) in self.replicas.iter().enumerate() {
            // One that was removed and does not know it can do no harm, and no good.
            let needed = self
                .facts
                .generations()
                .contains(ReplicaId(index as u32 + 1));
            if self.gone.contains(&At::Replica(index)) || !needed {
                continue;
            }
            let Some(host) = &node.host else {
                return Some(format!("replica {} is down", index + 1));
            };
            if let Some(id) = host.undecided().next() {
                return Some(format!("replica {}: {id} is undecided", index + 1));
            }
            let mut unapplied = host.unapplied();
            if let Some(id) = unapplied.find(|id| !self.waits_for_hostile_only(host, id)) {
                let state = host.state(id);
                return Some(format!(
                    "replica {}: {id} is not applied: {state:?}",
                    index + 1
                ));
            }
        }
        for (index, node) in self.sessions.iter().enumerate() {
            if self.gone.contains(&At::Session(index)) {
                continue;
            }
            if !node.host.as_ref().is_some_and(Participant::is_idle) {
                return Some(format!("{} is not idle", node.me));
            }
        }
        for (index, resource) in self.resources.iter().enumerate() {
            if self.is_dead(index) {
                continue;
            }
            if let Some((id, session)) = resource.prepared.iter().next() {
                let session = session.0;
                return Some(format!("p{index}: {id} of session {session} is prepared"));
            }
        }
        if self.plan.generation_ticks > 0 {
            return self.unforgotten();
        }
        None
    }

    /// What is finished and not forgotten, if anything.
    fn unforgotten(&self) -> Option<String> {
        for (index, node) in self.replicas.iter().enumerate() {
            let needed = self
                .facts
                .generations()
                .contains(ReplicaId(index as u32 + 1));
            let Some(host) = node.host.as_ref().filter(|_| needed) else {
                continue;
            };
            let kept = host
                .unapplied()
                .filter(|id| self.waits_for_hostile_only(host, id));
            let kept = kept.count();
            let memory = host.remembered() - kept;
            let disk = self.disks[index].transactions().saturating_sub(kept);
            let marks = host.stored().len();
            if memory + disk + marks > 0 {
                let what = format!("{memory} transactions, {disk} records and {marks} marks");
                return Some(format!("replica {} remembers {what}", index + 1));
            }
        }
        for node in &self.sessions {
            let Some(host) = &node.host else { continue };
            let (branches, floors) = (host.remembered(), host.initiators_remembered());
            if branches + floors > 0 {
                let what = format!("{branches} branches and {floors} floors");
                return Some(format!("{} remembers {what}", node.me));
            }
        }
        None
    }

    /// Holds what was done against what was told.
    pub fn audit(&mut self) -> Result<(), String> {
        for (index, resource) in self.resources.iter().enumerate() {
            for (id, _) in &resource.committed {
                if !self.is_judged(id) {
                    continue;
                }
                if self.facts.told(id) != Some(Outcome::Commit) {
                    return Err(format!("p{index} committed {id}, which nobody was told"));
                }
                if self.rolled_back.contains(id) {
                    return Err(format!("{id} was committed and rolled back"));
                }
            }
        }
        // Every replica that knows an outcome knows the same one.
        let ids: Vec<_> = self.facts.instances().copied().collect();
        let replicas = (0..self.replicas.len()).map(|index| self.with_everything(index));
        let replicas: Vec<_> = replicas.collect();
        for id in ids {
            let told = self.facts.told(&id);
            for (node, host) in self.replicas.iter().zip(&replicas) {
                let known = host.as_ref().and_then(|host| host.outcome(&id));
                if known.is_some() && told.is_some() && known != told {
                    return Err(format!("{} knows another outcome of {id}", node.me));
                }
            }
            if let Some(what) = self.not_committed_everywhere(&id) {
                return Err(what);
            }
        }
        Ok(())
    }

    /// A commit is in every branch that prepared it.
    fn not_committed_everywhere(
        &self,
        id: &paxos_commit::protocol::types::CommitId,
    ) -> Option<String> {
        if self.facts.told(id) != Some(Outcome::Commit) {
            return None;
        }
        let prepared = self.facts.prepared(id);
        for branch in prepared {
            let name = branch.participant.as_str();
            let index: usize = name[1..].parse().expect("p and a number");
            if self.is_dead(index) {
                continue;
            }
            let entry = (*id, branch.session);
            if !self.resources[index].committed.contains(&entry) {
                return Some(format!("{id} is committed, but not in {branch}"));
            }
        }
        None
    }
}
