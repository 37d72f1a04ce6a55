//! Generations that are settled under load, and what is settled too late for somebody.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{CommitError, Known, Outcome};
use paxos_commit::operator::OperatorError;
use paxos_commit::protocol::message::Declined;

use crate::load::{Load, impatient, next_generation, put, services, settled_up_to};
use crate::support::{Point, Service, all_quiet, eventually, initiator, within};

#[tokio::test(flavor = "multi_thread")]
async fn generations_are_settled_under_load_and_nothing_is_lost() {
    let mut tuning = impatient();
    tuning.generation_transactions_max = 200;
    tuning.generation_min = Duration::ZERO;
    let cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let load = Load::start(&initiator, &services);
    settled_up_to(&cluster, 5).await;
    for (replica, report) in operator.status().await {
        let report = report.unwrap();
        let unsettled = report.generations.unsettled().count();
        assert!(unsettled <= 5, "{replica}: {unsettled} generations");
        // Of three generations, had they stayed in memory, it would be hundreds.
        assert!(report.remembered < 150, "{replica}: {}", report.remembered);
        assert!(report.disk_bytes < 100_000_000, "{}", report.disk_bytes);
    }
    let ids = load.stop().await;
    assert!(ids.len() > 500, "{} transactions", ids.len());
    all_quiet(&cluster).await;
    // What is settled is forgotten, and never told wrongly.
    let first = *ids.iter().min().unwrap();
    assert_eq!(initiator.outcome(first).await, Ok(Known::Forgotten));
    let last = *ids.iter().max().unwrap();
    assert_ne!(initiator.outcome(last).await, Ok(Known::Aborted));
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_pass_with_time_too() {
    let mut tuning = impatient();
    tuning.generation_period = Duration::from_millis(200);
    let cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    put(&initiator, &services, "before").await;
    settled_up_to(&cluster, 3).await;
    put(&initiator, &services, "after").await;
    for service in &services {
        service.wait_for("before", "v").await;
        service.wait_for("after", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_while_generations_passed_takes_over_what_they_came_to() {
    let mut tuning = impatient();
    tuning.generation_transactions_max = 50;
    tuning.generation_min = Duration::ZERO;
    let mut cluster = LocalCluster::start_with(3, tuning).await.unwrap();
    let services = services(&cluster).await;
    let initiator = initiator(&cluster).await;
    put(&initiator, &services, "before").await;
    cluster.kill(3).await;
    let load = Load::start(&initiator, &services);
    settled_up_to(&cluster, 3).await;
    cluster.restart(3).await.unwrap();
    settled_up_to(&cluster, 3).await;
    load.stop().await;
    all_quiet(&cluster).await;
    // It is as good as the others.
    cluster.kill(1).await;
    put(&initiator, &services, "with it").await;
    for service in &services {
        service.wait_for("with it", "v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_was_away_while_its_generation_was_settled_still_commits() {
    let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    a.wait_for("k", "v").await;
    let disk = b.die();
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // It waits for b, and so it is not forgotten.
    assert_eq!(initiator.outcome(id).await, Ok(Known::Committed));

    let b = Service::come_back(&cluster, "b", disk).await;
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
    assert_eq!(initiator.outcome(id).await, Ok(Known::Forgotten));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_was_away_while_its_generation_was_settled_still_aborts() {
    let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    b.hold(Point::AfterPrepare);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    let disk = b.die();
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;
    // The Settle has aborted it; by now no replica remembers that.
    let outcome = within("an end", committing).await.unwrap();
    let is_true = match &outcome {
        Ok(outcome) => matches!(outcome, Outcome::Aborted(_)),
        Err(CommitError::Unknown { id: of, .. }) => *of == id,
        Err(_) => false,
    };
    assert!(is_true, "{outcome:?}");
    a.unlocked().await;
    let b = Service::come_back(&cluster, "b", disk).await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_commit_waits_until_an_operator_lets_it_go() {
    let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    assert_eq!(operator.waiting().await.unwrap(), []);
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    let not_settled = operator.release(id).await;
    assert_eq!(not_settled, Err(Declined::NotListed(id).into()));
    next_generation(&mut operator).await;
    next_generation(&mut operator).await;
    settled_up_to(&cluster, 1).await;

    let waiting = operator.waiting().await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].id, id);
    let roster = &waiting[0].unapplied.roster;
    assert!(roster.index_of(b.participant.me()).is_some());
    let listed = operator.list().await.unwrap();
    assert!(listed.found.contains_key(&id));
    // As long as it is here, it will apply it.
    let connected = Declined::Connected("b".parse().unwrap());
    assert_eq!(operator.release(id).await, Err(connected.into()));
    drop(b.die());
    eventually(
        "b is gone everywhere, and released",
        async || match operator.release(id).await {
            Ok(()) => true,
            Err(OperatorError::Declined(Declined::Connected(_))) => false,
            Err(error) => panic!("{error}"),
        },
    )
    .await;
    assert_eq!(operator.waiting().await.unwrap(), []);
    all_quiet(&cluster).await;
    let again = operator.release(id).await;
    assert_eq!(again, Err(Declined::NotListed(id).into()));
}
