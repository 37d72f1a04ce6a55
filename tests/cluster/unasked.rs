//! Work that no process asks to commit or to roll back.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::Outcome;
use paxos_commit::participant::Participant;
use paxos_commit::resource::embedded::{Embedded, Options};

use crate::counters::Counters;
use crate::support::{Service, eventually, initiator};

const UNASKED: &str = "paxos_commit_work_unasked_total";

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_branch_that_is_not_enlisted_ends_and_is_counted() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let enlisted = Service::start(&cluster, "a").await;
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), Options::new()).unwrap();
    let builder = Participant::builder(cluster.participant("b").unwrap());
    let builder = builder.work_max(Duration::from_millis(500));
    let forgotten = builder.connect(store.clone()).await.unwrap();
    let initiator = initiator(&cluster).await;
    let before = Counters::of(UNASKED, "");

    let mut txn = initiator.begin().await.unwrap();
    enlisted.put(&mut txn, "k", "v").await;
    // The caller drops the ticket of this branch.
    let branch = forgotten.branch(txn.id()).await.unwrap();
    store.work(&branch).put("k", "v").unwrap();
    drop(branch.ticket());
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));

    eventually("the lock of the forgotten branch is released", async || {
        store.locks() == 0
    })
    .await;
    eventually("the work is counted", async || {
        Counters::of(UNASKED, "") > before
    })
    .await;
    assert_eq!(store.read("k").unwrap(), None);
    enlisted.wait_for("k", "v").await;
}
