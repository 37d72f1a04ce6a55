//! Replicas that have lost what they promised do not serve.

use std::fs;
use std::path::Path;

use paxos_commit::cluster::{ClusterError, LocalCluster};
use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Peer;
use paxos_commit::replica::ReplicaError;
use paxos_commit::transport::Role;
use paxos_commit::wire::{Frame, Lsn};

use crate::stranger::{Papers, Stranger, address, hello};
use crate::support::{Service, eventually, initiator, within};

async fn commits(initiator: &Initiator, service: &Service, value: &str) {
    let mut txn = initiator.begin().await.unwrap();
    service.put(&mut txn, "k", value).await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    service.wait_for("k", value).await;
    service.unlocked().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How far replica `by` remembers the store of replica 3 to be, as it tells replica 3.
async fn remembered(cluster: &LocalCluster, by: u32, lsn: u64) -> u64 {
    let papers = Papers::right(cluster, Role::Replica(ReplicaId(3)));
    let dialed = Stranger::dial(address(cluster, by), by, &papers).await;
    let mut stranger = dialed.unwrap();
    let mut hello = hello(Peer::Replica(ReplicaId(3)), by);
    hello.lsn = Some(Lsn {
        run: 1,
        own: lsn,
        remembered: 0,
    });
    stranger.say(&Frame::Hello(hello)).await;
    match stranger.next().await {
        Ok(Frame::Welcome(welcome)) => welcome.lsn.unwrap().remembered,
        // It remembers more than that.
        Ok(Frame::Refused(_)) => u64::MAX,
        // The real replica 3 has dialed again, and took its place.
        Err(_) => 0,
        Ok(other) => panic!("expected a greeting, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_restored_from_a_backup_is_refused_by_the_others() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let service = Service::start(&cluster, "a").await;
    let shop = initiator(&cluster).await;
    commits(&shop, &service, "0").await;
    cluster.stop(3).await;
    let data = cluster.data(3).unwrap().to_owned();
    let backup = tempfile::tempdir().unwrap();
    copy(&data, backup.path());
    cluster.restart(3).await.unwrap();
    let mut operator = cluster.operator().await.unwrap();
    let before = operator.status().await[&ReplicaId(3)].clone().unwrap().lsn;
    for round in 1..10 {
        commits(&shop, &service, &round.to_string()).await;
    }
    // It has said how far it has come since. It will serve when it has heard one of them, so both
    // must know.
    for by in [1, 2] {
        let what = format!("replica {by} remembers more");
        eventually(&what, async || {
            remembered(&cluster, by, before).await > before
        })
        .await;
    }
    cluster.kill(3).await;

    fs::remove_dir_all(&data).unwrap();
    copy(backup.path(), &data);
    let started = within("it is refused", cluster.restart(3)).await;
    match started {
        Err(ClusterError::Replica(error @ ReplicaError::Amnesia { .. })) => {
            let text = error.to_string();
            assert!(
                text.contains("replica 3 has lost what it promised"),
                "{text}"
            );
            assert!(text.contains("never restore it"), "{text}");
        }
        other => panic!("it started, or said {other:?}"),
    }
    // The others go on without it.
    commits(&shop, &service, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_directory_does_not_start() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    cluster.kill(3).await;
    fs::remove_dir_all(cluster.data(3).unwrap()).unwrap();
    let error = cluster.restart(3).await.unwrap_err();
    assert!(error.to_string().contains("lost its disk"), "{error}");
}
