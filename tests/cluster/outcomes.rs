//! Every way in which a transaction can end while nobody fails.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{AbortReason, CommitError, EnlistError, Outcome};
use paxos_commit::protocol::initiator::CommitError as Refused;
use paxos_commit::resource::embedded::WorkError;

use crate::support::{Point, Service, all_quiet, initiator, within};

const COMMITTED: Result<Outcome, CommitError> = Ok(Outcome::Committed);

fn aborted(reason: AbortReason) -> Result<Outcome, CommitError> {
    Ok(Outcome::Aborted(reason))
}

/// A cluster of three, and services `a` and `b`.
async fn two_services() -> (LocalCluster, Service, Service) {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    (cluster, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_commit_together() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    for round in 0..20 {
        let (key, value) = (format!("k{round}"), format!("v{round}"));
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, &key, &value).await;
        b.put(&mut txn, &key, &value).await;
        assert_eq!(txn.commit().await, COMMITTED);
        a.wait_for(&key, &value).await;
        b.wait_for(&key, &value).await;
    }
    all_quiet(&cluster).await;
    assert_eq!((a.store.locks(), b.store.locks()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_replica_it_is_two_phase_commit() {
    let cluster = LocalCluster::start(1).await.unwrap();
    let (a, b) = (
        Service::start(&cluster, "a").await,
        Service::start(&cluster, "b").await,
    );
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, COMMITTED);
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_branch_commits_alone() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, COMMITTED);
    a.wait_for("k", "v").await;
    all_quiet(&cluster).await;
    assert_eq!(b.read("k"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_branches_commit_together_or_not_at_all() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let mut services = Vec::new();
    for name in 0..8 {
        services.push(Service::start(&cluster, &format!("s{name}")).await);
    }
    let initiator = initiator(&cluster).await;

    let mut txn = initiator.begin().await.unwrap();
    for service in &services {
        service.put(&mut txn, "k", "v").await;
    }
    assert_eq!(txn.commit().await, COMMITTED);
    for service in &services {
        service.wait_for("k", "v").await;
        service.unlocked().await;
    }

    let mut txn = initiator.begin().await.unwrap();
    for service in &services {
        service.put(&mut txn, "k", "w").await;
    }
    let branch = services[5].participant.branch(txn.id()).await.unwrap();
    branch.poison().await;
    assert_eq!(txn.commit().await, aborted(AbortReason::Vote));
    for service in &services {
        service.unlocked().await;
        assert_eq!(service.read("k").as_deref(), Some("v"));
    }
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_vote_aborts_everywhere() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    b.participant
        .branch(txn.id())
        .await
        .unwrap()
        .rollback()
        .await;
    assert_eq!(txn.commit().await, aborted(AbortReason::Vote));
    a.unlocked().await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_does_not_vote_in_time_aborts_everywhere() {
    let (cluster, a, b) = two_services().await;
    b.hold(Point::BeforePrepare);
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    txn.vote_timeout(Duration::from_millis(1));
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, aborted(AbortReason::Ballot));
    // One that has prepared learns it too; and the late one, when it comes.
    a.unlocked().await;
    b.release();
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_lets_the_branches_go() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.id();
    assert_eq!((a.store.locks(), b.store.locks()), (1, 1));
    let outcome = txn.rollback().await;
    assert_eq!(outcome, aborted(AbortReason::Rollback));
    a.unlocked().await;
    b.unlocked().await;
    // And no work begins under it any more.
    a.participant.branch(id).await.unwrap_err();
    assert_eq!((a.read("k"), b.read("k")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_dropped_lets_its_branches_go() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    drop(txn);
    a.unlocked().await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_work_end_after_work_max_and_a_late_handle_takes_none() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = paxos_commit::resource::embedded::Options::new();
    let store = paxos_commit::resource::embedded::Embedded::open(folder.path(), options).unwrap();
    let builder =
        paxos_commit::participant::Participant::builder(cluster.participant("a").unwrap());
    let builder = builder.work_max(Duration::from_millis(200));
    let participant = builder.connect(store.clone()).await.unwrap();
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    let branch = participant.branch(txn.id()).await.unwrap();
    store.work(&branch).put("k", "v").unwrap();
    txn.enlist(branch.ticket()).unwrap();
    let unused = initiator.begin().await.unwrap();
    let late = participant.branch(unused.id()).await.unwrap();
    crate::support::eventually("the work is released", async || store.locks() == 0).await;
    // The handles are still there, and no session would release what they lock now.
    crate::support::eventually("a branch without work ends, too", async || {
        matches!(store.work(&late).get("late"), Err(WorkError::Ended))
    })
    .await;
    for branch in [&branch, &late] {
        let put = store.work(branch).put("k", "w");
        assert!(matches!(put, Err(WorkError::Ended)), "{put:?}");
    }
    // A branch of this participant is no branch of another store.
    let other = tempfile::tempdir().unwrap();
    let options = paxos_commit::resource::embedded::Options::new();
    let other = paxos_commit::resource::embedded::Embedded::open(other.path(), options).unwrap();
    let third = initiator.begin().await.unwrap();
    let third = participant.branch(third.id()).await.unwrap();
    let put = other.work(&third).put("k", "w");
    assert!(matches!(put, Err(WorkError::OtherStore { .. })), "{put:?}");
    assert_eq!(other.locks(), 0);
    // Commit is refused all the same.
    assert_eq!(txn.commit().await, aborted(AbortReason::Vote));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_a_service_ignores_aborts_the_transaction() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut one = initiator.begin().await.unwrap();
    a.put(&mut one, "k", "v").await;
    let mut two = initiator.begin().await.unwrap();
    b.put(&mut two, "half", "v").await;
    a.work(&mut two, |work| drop(work.put("k", "other half")))
        .await;
    assert_eq!(two.commit().await, aborted(AbortReason::Vote));
    one.rollback().await.unwrap();
    a.unlocked().await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("half")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_one_participant_refuses_another() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = paxos_commit::resource::embedded::Options::new();
    let store = paxos_commit::resource::embedded::Embedded::open(folder.path(), options).unwrap();
    let connect = async |name| {
        let access = cluster.participant(name).unwrap();
        let builder = paxos_commit::participant::Participant::builder(access);
        builder.connect(store.clone()).await
    };
    let a = connect("a").await.unwrap();
    let refused = connect("b").await.unwrap_err().to_string();
    assert!(
        refused.contains("keeps the branches of participant a"),
        "{refused}"
    );
    a.shutdown(Duration::from_secs(5)).await;
    connect("a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_only_read_lets_go_and_others_commit() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    for (key, reader) in [("one", false), ("two", true)] {
        let mut txn = initiator.begin().await.unwrap();
        a.work(&mut txn, |work| assert_eq!(work.get("k").unwrap(), None))
            .await;
        if reader {
            b.work(&mut txn, |work| assert_eq!(work.get("k").unwrap(), None))
                .await;
        } else {
            b.put(&mut txn, key, "v").await;
        }
        assert_eq!(txn.commit().await, COMMITTED, "{key}");
        a.unlocked().await;
        b.unlocked().await;
    }
    b.wait_for("one", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_travels_with_the_commit() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    // One branch has worked already, the other only gets a request.
    a.put(&mut txn, "early", "v").await;
    txn.request("a", "late=w").await.unwrap();
    txn.request("b", "late=w").await.unwrap();
    assert_eq!(txn.commit().await, COMMITTED);
    a.wait_for("early", "v").await;
    a.wait_for("late", "w").await;
    b.wait_for("late", "w").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_aborts_everywhere() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    txn.request("a", "k=v").await.unwrap();
    txn.request("b", "no such request").await.unwrap();
    assert_eq!(txn.commit().await, aborted(AbortReason::Vote));
    a.unlocked().await;
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_enlisted_is_said_at_once() {
    let (cluster, a, _b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    let other = initiator.begin().await.unwrap();
    let ticket = a.participant.branch(other.id()).await.unwrap().ticket();
    assert_eq!(
        txn.enlist(ticket).unwrap_err(),
        EnlistError::OtherTransaction {
            expected: txn.id(),
            got: other.id(),
        }
    );
    let long = txn.request("a", vec![0; 64 * 1024 + 1]).await.unwrap_err();
    assert_eq!(long, EnlistError::RequestTooLong { got: 64 * 1024 + 1 });
    let nobody = txn.request("nobody", "k=v").await.unwrap_err();
    assert_eq!(nobody, EnlistError::NotConnected("nobody".parse().unwrap()));
    assert!(matches!(
        txn.request("no name", "k=v").await.unwrap_err(),
        EnlistError::Name(_)
    ));
    txn.request("a", "k=v").await.unwrap();
    assert!(matches!(
        txn.request("a", "k=w").await.unwrap_err(),
        EnlistError::SecondRequest(_)
    ));
    // What was right among it holds.
    assert_eq!(txn.commit().await, COMMITTED);
    a.wait_for("k", "v").await;
    // And without a branch there is nothing to commit.
    assert!(matches!(
        other.commit().await,
        Err(CommitError::Refused(Refused::Roster(_)))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_know_the_plan_prepare_by_themselves() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    for (value, spoiled) in [("v", false), ("w", true)] {
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, "k", value).await;
        b.put(&mut txn, "k", value).await;
        // Through text, as between processes.
        let plan = txn.plan().await.unwrap().to_string();
        let mut preparing = Vec::new();
        for service in [&a, &b] {
            let branch = service.participant.branch(txn.id()).await.unwrap();
            if spoiled {
                branch.poison().await;
            }
            preparing.push(tokio::spawn(branch.prepare(plan.parse().unwrap())));
        }
        let expected = if spoiled {
            aborted(AbortReason::Vote)
        } else {
            COMMITTED
        };
        assert_eq!(txn.commit_prepared().await, expected);
        for prepared in preparing {
            use paxos_commit::protocol::types::Outcome::{Abort, Commit};
            let outcome = within("a branch learns the outcome", prepared).await;
            let expected = if spoiled { Abort } else { Commit };
            assert_eq!(outcome.unwrap(), Ok(expected));
        }
        a.unlocked().await;
        b.unlocked().await;
    }
    a.wait_for("k", "v").await;
    b.wait_for("k", "v").await;
    a.unlocked().await;
    b.unlocked().await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_another_transaction_is_refused() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    let (mut one, mut two) = (
        initiator.begin().await.unwrap(),
        initiator.begin().await.unwrap(),
    );
    a.put(&mut one, "k", "v").await;
    b.put(&mut two, "k", "v").await;
    let plan = one.plan().await.unwrap();
    let branch = b.participant.branch(two.id()).await.unwrap();
    branch.prepare(plan.clone()).await.unwrap_err();
    // Nor is the plan of a transaction for a branch that it does not hold.
    let branch = b.participant.branch(one.id()).await.unwrap();
    branch.prepare(plan).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_transaction_under_way_are_locked_for_others() {
    let (cluster, a, b) = two_services().await;
    let initiator = initiator(&cluster).await;
    a.hold(Point::BeforeCommit);
    let mut one = initiator.begin().await.unwrap();
    a.put(&mut one, "k", "v").await;
    b.put(&mut one, "k", "v").await;
    assert_eq!(one.commit().await, COMMITTED);
    a.stands().await;
    let mut two = initiator.begin().await.unwrap();
    a.work(&mut two, |work| {
        let conflict = work.put("k", "w").unwrap_err();
        assert!(
            matches!(conflict, WorkError::Conflict { .. }),
            "{conflict:?}"
        );
    })
    .await;
    two.rollback().await.unwrap();
    a.release();
    a.wait_for("k", "v").await;
    a.unlocked().await;
    let mut three = initiator.begin().await.unwrap();
    a.put(&mut three, "k", "w").await;
    assert_eq!(three.commit().await, COMMITTED);
    a.wait_for("k", "w").await;
}
