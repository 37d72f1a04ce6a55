//! Participants and initiators that die and come back.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{AbortReason, CommitError, Initiator, Known, Outcome};

use crate::support::{Point, Service, all_quiet, eventually, initiator, within};

/// Longer than any test waits: whoever waits for it has waited in vain.
const NEVER: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_comes_back_in_doubt_learns_of_the_commit() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    let disk = b.die();

    let b = Service::come_back(&cluster, "b", disk).await;
    b.wait_for("k", "v").await;
    a.wait_for("k", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_comes_back_without_having_voted_has_it_aborted_at_once() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::AfterPrepare);
    let mut txn = initiator.begin().await.unwrap();
    // What ends it is that the session is known to be gone, not that time has passed.
    txn.vote_timeout(NEVER);
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    let disk = b.die();

    let b = Service::come_back(&cluster, "b", disk).await;
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Aborted(AbortReason::Ballot)));
    a.unlocked().await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_is_dropped_lets_go_of_its_work() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    let store = a.leave();
    // The next session of this process would find a row that it has not written.
    eventually("no row is locked", async || store.locks() == 0).await;
    assert_eq!(store.read("k").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_dies_at_work_votes_for_nothing_when_it_is_back() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    txn.vote_timeout(Duration::from_millis(1));
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let disk = b.die();
    let b = Service::come_back(&cluster, "b", disk).await;
    // Its session stands in the roster, and will never vote.
    let outcome = txn.commit().await;
    assert_eq!(outcome, Ok(Outcome::Aborted(AbortReason::Ballot)));
    a.unlocked().await;
    assert_eq!((a.read("k"), b.read("k"), b.store.locks()), (None, None, 0));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_participant_dies_and_the_other_works_on() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let one = Service::start(&cluster, "a").await;
    let two = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    one.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    one.put(&mut txn, "k", "1").await;
    two.put(&mut txn, "k", "2").await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    one.stands().await;
    let disk = one.die();
    two.wait_for("k", "2").await;
    two.unlocked().await;

    for round in 0..10 {
        let value = round.to_string();
        let mut txn = initiator.begin().await.unwrap();
        two.put(&mut txn, "k", &value).await;
        assert_eq!(txn.commit().await, Ok(Outcome::Committed));
        two.wait_for("k", &value).await;
        two.unlocked().await;
    }

    // What the dead one had prepared is committed by its successor, and by nobody else.
    let one = Service::come_back(&cluster, "a", disk).await;
    one.wait_for("k", "1").await;
    assert_eq!(two.read("k").as_deref(), Some("9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_dies_after_asking_for_commit_leaves_nothing_open() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let first = initiator(&cluster).await;
    b.hold(Point::BeforePrepare);
    let mut txn = first.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    // What an application writes down before it asks.
    let id = txn.plan().await.unwrap().id();
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    committing.abort();
    assert!(committing.await.unwrap_err().is_cancelled());
    drop(first);

    b.release();
    let second = initiator(&cluster).await;
    assert_eq!(second.outcome(id).await, Ok(Known::Committed));
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_dies_with_a_vote_missing_has_it_aborted() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let first = initiator(&cluster).await;
    b.hold(Point::BeforePrepare);
    let mut txn = first.begin().await.unwrap();
    txn.vote_timeout(Duration::from_millis(1));
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    committing.abort();
    drop(first);

    // Nobody need ask for the branches to be let go; whoever asks is told.
    a.unlocked().await;
    let second = initiator(&cluster).await;
    assert_eq!(second.outcome(id).await, Ok(Known::Aborted));
    b.release();
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_not_told_to_an_initiator_of_another_name() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let shop = initiator(&cluster).await;
    let mut txn = shop.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));

    let access = cluster.initiator("bank").unwrap();
    let bank = Initiator::builder(access).deadline(Duration::from_secs(1));
    let bank = bank.connect().await.unwrap();
    // It does not even ask: replicas would give its connections up (see `identities`).
    assert_eq!(bank.outcome(id).await, Err(CommitError::NotOurs(id)));
    // Its own it may still begin, and of the other's nothing has changed.
    let mut txn = bank.begin().await.unwrap();
    a.put(&mut txn, "k", "w").await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    assert_eq!(shop.outcome(id).await, Ok(Known::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_ever_asked_for_is_aborted_by_the_question() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let shop = initiator(&cluster).await;
    let mut txn = shop.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(shop.outcome(id).await, Ok(Known::Aborted));
    // So it is too late now.
    let outcome = txn.commit().await;
    assert!(matches!(outcome, Ok(Outcome::Aborted(_))), "{outcome:?}");
    assert_eq!(a.read("k"), None);
}
