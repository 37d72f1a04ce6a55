//! Replicas that join, leave and move, under load.

use std::time::Duration;

use paxos_commit::cluster::{LocalCluster, Relay, Weather};
use paxos_commit::initiator::Outcome;
use paxos_commit::protocol::message::Declined;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Configuration;
use paxos_commit::replica::{End, Tuning};

use crate::load::{Load, impatient, next_generation, oldest, put, services, settled_up_to};
use crate::support::{Point, Service, all_quiet, initiator, within};

/// The members of these ids.
fn members(cluster: &LocalCluster, ids: &[u32]) -> Configuration {
    let all = cluster.members().into_iter();
    let members = all.filter(|member| ids.contains(&member.id.0));
    Configuration::new(members).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_is_replaced_under_load() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let load = Load::start(&initiator, &services);
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    // Its own generation is not settled: it is needed.
    let removed = cluster.replica(3).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(500), removed.ended());
    ended.await.unwrap_err();
    next_generation(&mut operator).await;
    let ended = within("replica 3 is not needed any more", removed.ended());
    assert_eq!(ended.await.unwrap(), End::Removed);
    assert!(oldest(&cluster, 1).await > 1);
    cluster.stop(3).await;
    load.stop().await;
    // The new one counts: without another of the old ones there is still a majority.
    cluster.kill(1).await;
    put(&initiator, &services, "with it").await;
    for service in &services {
        service.wait_for("with it", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_stays_until_the_last_transaction_that_it_decides_has_ended() {
    // Under way is what has so long to end.
    let mut tuning = Tuning::default();
    tuning.grace = Duration::from_secs(600);
    let mut cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    b.hold(Point::BeforePrepare);
    let mut txn = initiator.begin().await.unwrap();
    txn.vote_timeout(Duration::from_secs(600));
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    next_generation(&mut operator).await;
    // Without one of the others it takes the removed one to decide.
    cluster.kill(1).await;
    let removed = cluster.replica(3).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(500), removed.ended());
    ended.await.unwrap_err();
    b.release();
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Committed));
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    let ended = within("replica 3 is not needed any more", removed.ended());
    assert_eq!(ended.await.unwrap(), End::Removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_and_shrinks_under_load() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let load = Load::start(&initiator, &services);
    cluster.join(4).await.unwrap();
    cluster.join(5).await.unwrap();
    let five = members(&cluster, &[1, 2, 3, 4, 5]);
    operator.reconfigure(five).await.unwrap();
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // Two may be down now.
    cluster.kill(1).await;
    cluster.kill(2).await;
    put(&initiator, &services, "three of five").await;
    cluster.start_all().await.unwrap();

    let three = members(&cluster, &[3, 4, 5]);
    operator.reconfigure(three).await.unwrap();
    next_generation(&mut operator).await;
    for removed in [1, 2] {
        let replica = cluster.replica(removed).unwrap();
        let ended = within("a removed replica ends", replica.ended()).await;
        assert_eq!(ended.unwrap(), End::Removed);
        cluster.stop(removed).await;
    }
    put(&initiator, &services, "three").await;
    load.stop().await;
    for service in &services {
        service.wait_for("three of five", "v").await;
        service.wait_for("three", "v").await;
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_moves_to_another_address() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    put(&initiator, &services, "before").await;
    let target = cluster.replica(2).unwrap().address();
    let relay = Relay::start(target).await.unwrap();
    let mut moved = cluster.members();
    moved[1].address = relay.address().to_string().parse().unwrap();
    let configuration = Configuration::new(moved).unwrap();
    operator.reconfigure(configuration).await.unwrap();
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // At the old address nobody is any more, and without a third one it is needed.
    let nothing = Weather {
        loss: 1.0,
        ..Default::default()
    };
    cluster.weather(2, nothing);
    cluster.kill(1).await;
    put(&initiator, &services, "after").await;
    for service in &services {
        service.wait_for("before", "v").await;
        service.wait_for("after", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_to_join_may_be_restarted_and_joins_later() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    // It comes when there is some history already.
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    cluster.join(4).await.unwrap();
    put(&initiator, &services, "k").await;
    cluster.kill(4).await;
    cluster.restart(4).await.unwrap();
    let waiting = cluster.replica(4).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(200), waiting.ended());
    ended.await.unwrap_err();
    operator
        .reconfigure(members(&cluster, &[1, 2, 4]))
        .await
        .unwrap();
    cluster.kill(1).await;
    put(&initiator, &services, "with it").await;
    for service in &services {
        service.wait_for("with it", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_is_declined() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let mut operator = cluster.operator().await.unwrap();
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    // An id that was removed never comes back.
    let used = operator.reconfigure(members(&cluster, &[1, 2, 3])).await;
    assert_eq!(used, Err(Declined::UsedId(ReplicaId(3)).into()));
    // That somebody has opened a generation on the same replicas is no change,
    cluster.join(5).await.unwrap();
    let mut other = cluster.operator().await.unwrap();
    assert_eq!(next_generation(&mut other).await, 3);
    let next = operator.reconfigure(members(&cluster, &[1, 2, 5])).await;
    assert_eq!(next, Ok(4));
    // but who has not seen the last change makes no other.
    let late = other.reconfigure(members(&cluster, &[1, 4, 5])).await;
    assert_eq!(late, Err(Declined::Changed { latest: 4 }.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_down_while_it_was_removed_is_told_when_it_is_back() {
    let mut cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    put(&initiator, &services, "k").await;
    cluster.kill(3).await;
    cluster.join(4).await.unwrap();
    let next = operator.reconfigure(members(&cluster, &[1, 2, 4])).await;
    assert_eq!(next, Ok(2));
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    cluster.restart(3).await.unwrap();
    let removed = cluster.replica(3).unwrap();
    let ended = within("it is told", removed.ended()).await;
    assert_eq!(ended.unwrap(), End::Removed);
    // And again, if somebody starts it once more.
    cluster.stop(3).await;
    cluster.restart(3).await.unwrap();
    let removed = cluster.replica(3).unwrap();
    let ended = within("it is told", removed.ended()).await;
    assert_eq!(ended.unwrap(), End::Removed);
}
