//! Replicas that die, are cut off, and come back.

use std::time::Duration;

use paxos_commit::cluster::{LocalCluster, Weather};
use paxos_commit::initiator::{CommitError, Known, Outcome};

use crate::support::{Point, Service, all_quiet, initiator, within};

/// A cluster of three, and services `a` and `b`.
async fn two_services() -> (LocalCluster, Service, Service) {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    (cluster, a, b)
}

/// When a replica dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BeforeBegin,
    AfterEnlist,
    CommitAsked,
    BeforeVote,
    BeforeApplied,
}

/// Each replica dies once at this moment; nobody notices.
async fn each_dies(moment: Moment) {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    for dies in 1..=3 {
        let value = format!("{dies}");
        if moment == Moment::BeforeBegin {
            cluster.kill(dies).await;
        }
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, "k", &value).await;
        b.put(&mut txn, "k", &value).await;
        if moment == Moment::AfterEnlist {
            cluster.kill(dies).await;
        }
        match moment {
            Moment::BeforeBegin | Moment::AfterEnlist => {}
            Moment::CommitAsked => b.hold(Point::BeforePrepare),
            Moment::BeforeVote => b.hold(Point::AfterPrepare),
            Moment::BeforeApplied => b.hold(Point::BeforeCommit),
        }
        let committing = tokio::spawn(txn.commit());
        match moment {
            Moment::BeforeBegin | Moment::AfterEnlist => {}
            Moment::CommitAsked | Moment::BeforeVote | Moment::BeforeApplied => {
                b.stands().await;
                cluster.kill(dies).await;
                b.release();
            }
        }
        let outcome = within("the outcome", committing).await.unwrap();
        assert_eq!(outcome, Ok(Outcome::Committed), "replica {dies}");
        a.wait_for("k", &value).await;
        b.wait_for("k", &value).await;
        a.unlocked().await;
        b.unlocked().await;
        // Without it the next one cannot die.
        cluster.restart(dies).await.unwrap();
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dies_before_a_transaction_begins() {
    each_dies(Moment::BeforeBegin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dies_after_the_branches_were_enlisted() {
    each_dies(Moment::AfterEnlist).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dies_right_after_commit_was_asked_for() {
    each_dies(Moment::CommitAsked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dies_between_two_votes() {
    each_dies(Moment::BeforeVote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_dies_before_a_branch_has_applied_the_commit() {
    each_dies(Moment::BeforeApplied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_die_in_turn_while_many_transactions_run() {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let working = async {
        for round in 0..60 {
            let (key, value) = (format!("k{round}"), format!("v{round}"));
            let mut txn = initiator.begin().await.unwrap();
            a.put(&mut txn, &key, &value).await;
            b.put(&mut txn, &key, &value).await;
            assert_eq!(txn.commit().await, Ok(Outcome::Committed), "{key}");
        }
    };
    let dying = async {
        for dies in [1, 2, 3, 1, 2, 3] {
            cluster.kill(dies).await;
            cluster.restart(dies).await.unwrap();
        }
    };
    tokio::join!(working, dying);
    for round in 0..60 {
        let (key, value) = (format!("k{round}"), format!("v{round}"));
        a.wait_for(&key, &value).await;
        b.wait_for(&key, &value).await;
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_transaction_is_decided_after_all_replicas_restarted() {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::AfterPrepare);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    for dies in 1..=3 {
        cluster.kill(dies).await;
    }
    cluster.start_all().await.unwrap();
    b.release();
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Committed));
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_in_doubt_learn_the_outcome_after_all_replicas_restarted() {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    a.wait_for("k", "v").await;
    for dies in 1..=3 {
        cluster.kill(dies).await;
    }
    // Everyone is down, the participant too; all that is left is on disks.
    let disk = b.die();
    cluster.start_all().await.unwrap();
    let b = Service::come_back(&cluster, "b", disk).await;
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
    assert_eq!(initiator.outcome(id).await, Ok(Known::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_at_a_time_is_cut_off_and_nobody_waits() {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    for cut in 1..=3 {
        let value = format!("{cut}");
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, "k", &value).await;
        b.put(&mut txn, "k", &value).await;
        cluster.partition(cut);
        assert_eq!(txn.commit().await, Ok(Outcome::Committed), "without {cut}");
        a.wait_for("k", &value).await;
        b.wait_for("k", &value).await;
        a.unlocked().await;
        b.unlocked().await;
        cluster.heal(cut);
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_cut_off_in_the_middle_learns_the_rest_when_it_is_back() {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::AfterPrepare);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    b.stands().await;
    // It holds one vote and will not hear the other.
    cluster.partition(2);
    b.release();
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Committed));
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    cluster.heal(2);
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_weather_changes_no_outcome() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    for id in 1..=3 {
        cluster.weather(
            id,
            Weather {
                loss: 0.05,
                duplication: 0.05,
                delay: Duration::from_millis(1),
                jitter: Duration::from_millis(3),
            },
        );
    }
    for round in 0..20 {
        let value = format!("{round}");
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, "k", &value).await;
        b.put(&mut txn, "k", &value).await;
        assert_eq!(txn.commit().await, Ok(Outcome::Committed));
        // The next one finds the row only when it is unlocked here.
        a.unlocked().await;
        b.unlocked().await;
        assert_eq!(
            (a.read("k"), b.read("k")),
            (Some(value.clone()), Some(value))
        );
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_a_commit_stays_open_and_is_told_later() {
    let (mut cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    txn.deadline(Duration::from_secs(1));
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let planned = txn.plan().await.unwrap().id();
    cluster.kill(1).await;
    cluster.kill(2).await;
    let id = match txn.commit().await {
        Err(CommitError::Unknown { id, why }) => {
            assert!(!why.is_empty());
            id
        }
        other => panic!("one replica of three decided: {other:?}"),
    };
    assert_eq!(id, planned);
    // Nobody has acted on a guess.
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    assert_eq!((a.store.locks(), b.store.locks()), (1, 1));

    cluster.start_all().await.unwrap();
    let outcome = initiator.outcome(id).await.unwrap();
    a.unlocked().await;
    b.unlocked().await;
    let expected = match outcome {
        Known::Committed => Some("v".to_owned()),
        Known::Aborted => None,
        Known::Forgotten => panic!("its generation is open"),
    };
    assert_eq!((a.read("k"), b.read("k")), (expected.clone(), expected));
    all_quiet(&cluster).await;
}
