//! What a replica says in its log of the control log: once each, at info.

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Configuration, Generations};

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Said {
    leader: Option<ReplicaId>,
}

impl Said {
    /// Who leads the control log, when it is another replica than before.
    pub(super) fn leader(&mut self, leader: Option<ReplicaId>) {
        if leader != self.leader {
            self.leader = leader;
            if let Some(leader) = leader {
                tracing::info!(%leader, "a replica leads the control log");
            }
        }
    }
}

/// What is new in the generations that this replica knows.
pub(super) fn say_generations(before: &Generations, now: &Generations) {
    if before.latest() < now.latest() {
        tracing::info!(generation = now.latest(), "generation opened");
    }
    if before.oldest() < now.oldest() {
        tracing::info!(
            through = now.oldest().saturating_sub(1),
            "generations settled"
        );
    }
    let configuration = now.in_force().filter(|now| before.in_force() != Some(now));
    if let Some(configuration) = configuration {
        tracing::info!(replicas = members(configuration), "the replicas are");
    }
}

fn members(configuration: &Configuration) -> String {
    let members = configuration.members();
    let members = members.map(|member| format!("{} at {}", member.id, member.address));
    members.collect::<Vec<_>>().join(", ")
}
