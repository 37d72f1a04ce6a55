//! Replicas in processes of their own, and in this one what works with them.

use std::path::Path;

use paxos_commit::cluster::ProcessCluster;
use paxos_commit::initiator::{Initiator, InitiatorBuilder};
use paxos_commit::participant::Participant;
use paxos_commit::transport::Role;

use super::nothing::Nothing;

/// Makes the files of a cluster of three, named as the benchmark, in a folder below this one.
pub(crate) fn cluster(folder: &Path, name: &str) -> ProcessCluster {
    let program = env!("CARGO_BIN_EXE_paxos-commit").into();
    let name = name.parse().expect("a name");
    ProcessCluster::create(program, &folder.join("cluster"), name, 3).expect("a cluster")
}

/// Connects the services `a` and `b`, which keep nothing.
pub(crate) async fn participants(cluster: &ProcessCluster) -> Vec<Participant> {
    let mut participants = Vec::new();
    for name in ["a", "b"] {
        let role = Role::Participant(name.parse().expect("a name"));
        let (_, access) = cluster.issue(role).expect("an identity");
        let participant = Participant::builder(access).connect(Nothing).await;
        participants.push(participant.expect("a participant"));
    }
    participants
}

/// An application of this name.
pub(crate) fn initiator(cluster: &ProcessCluster, name: &str) -> InitiatorBuilder {
    let role = Role::Initiator(name.parse().expect("a name"));
    let (_, access) = cluster.issue(role).expect("an identity");
    Initiator::builder(access)
}
