//! What operators see and do; orderly ends; mistakes in setting up.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{AbortReason, BeginError, Initiator, Outcome};
use paxos_commit::operator::{Ended, Operator, OperatorError};
use paxos_commit::participant::{BranchError, Participant, ResourceManager};
use paxos_commit::protocol::message::State;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Configuration, Member, Outcome as Chosen};
use paxos_commit::replica::{End, Replica, ReplicaError, init};
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::store::OpenError;
use paxos_commit::transport::{Access, Authority, ConnectError, Resolver, Role};

use crate::support::{
    PATIENCE, Point, Service, all_quiet, eventually, initiator, undecided, within,
};

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(600);

const SOON: Duration = Duration::from_secs(1);

fn anna() -> Role {
    Role::Operator("anna".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_tells_how_each_replica_is() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let _also = a.beside(&cluster, "a").await;
    let mut operator = cluster.operator().await.unwrap();
    // Who has just connected is seen by each replica for itself.
    eventually(
        "every replica sees every other and both sessions",
        async || {
            let said = operator.status().await;
            said.len() == 3
                && said.into_iter().all(|(id, report)| {
                    let report = report.unwrap();
                    assert_eq!((report.replica, report.undecided), (id, 0));
                    assert_eq!(report.generations.latest(), 1);
                    assert!(report.disk_bytes > 0 && !report.program.is_empty());
                    let sessions = [("a".parse().unwrap(), 2)];
                    report.connected.len() == 2 && report.participants == sessions
                })
        },
    )
    .await;

    cluster.kill(2).await;
    eventually("the one that is down is told as down", async || {
        let said = operator.status().await;
        let down = said[&ReplicaId(2)].is_err();
        assert!(said[&ReplicaId(1)].is_ok() && said[&ReplicaId(3)].is_ok());
        down
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_transaction_is_listed_with_the_votes_that_are_missing_and_can_be_aborted() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    assert!(operator.list().await.unwrap().found.is_empty());
    b.hold(Point::BeforePrepare);
    let mut txn = initiator.begin().await.unwrap();
    txn.vote_timeout(NEVER);
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    let committing = tokio::spawn(txn.commit());
    b.stands().await;

    let missing_b = State::Undecided {
        missing: vec![b.participant.me().clone()],
        silent: Vec::new(),
    };
    eventually(
        "every replica lists it, without the vote of b",
        async || {
            let listed = operator.list().await.unwrap();
            let states = listed.found.get(&id);
            states.is_some_and(|states| {
                states.len() == 3 && states.values().all(|state| *state == missing_b)
            })
        },
    )
    .await;
    let shown = operator.show(id.txn).await;
    for (replica, instances) in shown {
        assert_eq!(instances, Ok(vec![(id, missing_b.clone())]), "{replica}");
    }
    let status = operator.status().await;
    for report in status.into_values() {
        let report = report.unwrap();
        assert_eq!(report.undecided, 1);
        assert_eq!(report.oldest.map(|(oldest, _)| oldest), Some(id));
    }

    let ended = operator.force_abort(id).await;
    assert_eq!(ended, Ok(Ended::Chosen(Chosen::Abort)));
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Aborted(AbortReason::Ballot)));
    a.unlocked().await;
    b.release();
    b.unlocked().await;
    assert_eq!((a.read("k"), b.read("k")), (None, None));
    all_quiet(&cluster).await;
    assert!(operator.list().await.unwrap().found.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_abort_of_what_is_committed_tells_so() {
    let cluster = LocalCluster::start(3).await.unwrap();
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
    let commit = Ok(Ended::Chosen(Chosen::Commit));
    // While a branch has not applied it,
    assert_eq!(operator.force_abort(id).await, commit);
    b.release();
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
    // and when all have.
    assert_eq!(operator.force_abort(id).await, commit);
    assert_eq!(a.read("k").as_deref(), Some("v"));
    let shown = operator.show(id.txn).await;
    for instances in shown.into_values() {
        let instances = instances.unwrap();
        let finished = State::Decided {
            outcome: Chosen::Commit,
            unapplied: Vec::new(),
        };
        assert_eq!(instances, [(id, finished)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_heard_of_is_aborted_too() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    let mut operator = cluster.operator().await.unwrap();
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    let mut id = txn.plan().await.unwrap().id();
    let ended = operator.force_abort(id).await;
    assert_eq!(ended, Ok(Ended::Chosen(Chosen::Abort)));
    let outcome = txn.commit().await;
    assert_eq!(outcome, Ok(Outcome::Aborted(AbortReason::Ballot)));
    assert_eq!(a.read("k"), None);
    // Of a generation that is to come nobody can tell anything.
    id.txn.generation = 99;
    let ended = operator.force_abort(id).await;
    assert_eq!(ended, Err(OperatorError::NobodyKnows(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_connects_to_a_cluster_that_is_down_is_told_why_not() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    for dies in 1..=3 {
        cluster.kill(dies).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), Options::new()).unwrap();
    let participant = Participant::builder(cluster.participant("a").unwrap());
    let shop = Initiator::builder(cluster.initiator("shop").unwrap());
    // Longer than one attempt.
    let wait = Duration::from_secs(3);
    let (participant, shop, operator) = tokio::join!(
        participant.connect_timeout(wait).connect(store),
        shop.connect_timeout(wait).connect(),
        Operator::connect(cluster.access(anna()).unwrap(), wait),
    );
    for error in [participant.err(), shop.err(), operator.err()] {
        let error = error.expect("nobody is there");
        assert!(matches!(error, ConnectError::NobodyAnswers { waited, .. } if waited == wait));
        let text = error.to_string();
        for id in 1..=3 {
            let who = format!("replica {id}: no connection to 127.0.0.1:");
            assert!(text.contains(&who), "{text}");
        }
    }
}

/// The counter-example: `Applied` waits for something that is urgent, and the process ends before. The
/// replicas wait for a branch that has done all it had to do, until somebody starts it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_participant_says_last_arrives_before_it_is_gone() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let initiator = initiator(&cluster).await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        let service = Service::start(&cluster, name).await;
        let mut txn = initiator.begin().await.unwrap();
        service.put(&mut txn, "k", "v").await;
        assert_eq!(txn.commit().await, Ok(Outcome::Committed));
        service.wait_for("k", "v").await;
        let stopping = service.participant.shutdown(PATIENCE);
        assert!(within("it stops", stopping).await);
        all_quiet(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_stops_finishes_what_is_under_way() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::BeforePrepare);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let mut late = initiator.begin().await.unwrap();
    let branch = b.participant.branch(late.id()).await.unwrap();
    b.store.work(&branch).put("late", "v").unwrap();
    late.enlist(branch.ticket()).unwrap();
    let committing = tokio::spawn(txn.commit());
    b.stands().await;

    let stopping = {
        let participant = b.participant.clone();
        tokio::spawn(async move { participant.shutdown(Duration::from_secs(40)).await })
    };
    // Nothing begins any more.
    eventually("it stops", async || {
        let other = initiator.begin().await.unwrap();
        let begun = b.participant.branch(other.id()).await;
        matches!(begun, Err(BranchError::Stopping))
    })
    .await;
    b.release();
    // What had begun may still be committed.
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Committed));
    assert_eq!(late.commit().await, Ok(Outcome::Committed));
    assert!(within("it stops", stopping).await.unwrap());
    assert_eq!(b.store.in_doubt().await.unwrap(), []);
    assert_eq!(b.store.locks(), 0);
    assert_eq!(b.read("k").as_deref(), Some("v"));
    assert_eq!(b.read("late").as_deref(), Some("v"));
    a.wait_for("k", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_stops_lets_go_of_what_nobody_commits() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    assert!(a.participant.shutdown(Duration::from_secs(10)).await);
    a.unlocked().await;
    assert_eq!(a.store.in_doubt().await.unwrap(), []);
    // It is gone, so its vote never comes.
    txn.vote_timeout(Duration::from_millis(1));
    let outcome = txn.commit().await;
    assert_eq!(outcome, Ok(Outcome::Aborted(AbortReason::Ballot)));
    let error = a.participant.branch(initiator.begin().await.unwrap().id());
    assert_eq!(error.await.unwrap_err(), BranchError::Stopping);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_cannot_finish_says_so() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::BeforePrepare);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    eventually("a is in doubt", async || {
        !a.store.in_doubt().await.unwrap().is_empty()
    })
    .await;
    // Whatever was chosen, nobody can tell it any more.
    cluster.kill(1).await;
    cluster.kill(2).await;
    assert!(!a.participant.shutdown(SOON).await);
    assert_eq!(a.store.in_doubt().await.unwrap().len(), 1);

    // Its next session learns it.
    cluster.start_all().await.unwrap();
    b.release();
    let disk = a.die();
    let a = Service::come_back(&cluster, "a", disk).await;
    let outcome = within("the outcome", committing).await.unwrap().unwrap();
    a.unlocked().await;
    b.unlocked().await;
    let expected = (outcome == Outcome::Committed).then(|| "v".to_owned());
    assert_eq!((a.read("k"), b.read("k")), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_stops_waits_for_its_commits() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let shop = initiator(&cluster).await;
    a.hold(Point::BeforePrepare);
    let mut txn = shop.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    let committing = tokio::spawn(txn.commit());
    a.stands().await;
    let stopping = {
        let shop = shop.clone();
        tokio::spawn(async move { shop.shutdown(Duration::from_secs(40)).await })
    };
    a.release();
    let outcome = within("the outcome", committing).await.unwrap();
    assert_eq!(outcome, Ok(Outcome::Committed));
    assert!(within("it stops", stopping).await.unwrap());
    let error = shop.begin().await.unwrap_err();
    assert!(matches!(error, BeginError::Stopped));
    a.wait_for("k", "v").await;

    // One whose commit is never answered is not waited for longer than the grace.
    let shop = initiator(&cluster).await;
    a.unlocked().await;
    a.hold(Point::BeforePrepare);
    let mut txn = shop.begin().await.unwrap();
    a.put(&mut txn, "k", "w").await;
    let committing = tokio::spawn(txn.commit());
    a.stands().await;
    assert!(!shop.shutdown(Duration::from_millis(100)).await);
    within("the commit fails", committing)
        .await
        .unwrap()
        .unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_stop_in_order_come_back_with_everything() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    b.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    b.stands().await;
    for stops in 1..=3 {
        cluster.stop(stops).await;
    }
    cluster.start_all().await.unwrap();
    b.release();
    b.wait_for("k", "v").await;
    all_quiet(&cluster).await;
    // One after the other they can be restarted under load.
    for stops in 1..=3 {
        a.unlocked().await;
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, "k", &format!("{stops}")).await;
        cluster.stop(stops).await;
        assert_eq!(txn.commit().await, Ok(Outcome::Committed));
        cluster.restart(stops).await.unwrap();
    }
    all_quiet(&cluster).await;
    assert_eq!(undecided(&cluster, 1).await, []);
}

/// A cluster of one replica, made by hand.
fn one_replica(folder: &Path) -> (Authority, Access) {
    let authority = Authority::new("one".parse().unwrap()).unwrap();
    let member = Member {
        id: ReplicaId(1),
        address: "127.0.0.1:9".parse().unwrap(),
    };
    let genesis = Configuration::new([member.clone()]).unwrap();
    init(folder, authority.cluster(), ReplicaId(1), Some(genesis)).unwrap();
    let access = Access {
        credentials: authority.credentials(Role::Replica(ReplicaId(1))).unwrap(),
        replicas: vec![member],
        resolver: Resolver::default(),
    };
    (authority, access)
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_serves_one_replica_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_, access) = one_replica(&data);
    let first = Replica::builder(data.clone(), anywhere(), access.clone());
    let first = first.start().await.unwrap();
    let second = Replica::builder(data.clone(), anywhere(), access.clone());
    let error = second.start().await.unwrap_err();
    assert!(matches!(
        error,
        ReplicaError::Store(OpenError::InUse { .. })
    ));
    assert!(error.to_string().contains("in use"), "{error}");
    // Nor is there a second one on its address.
    let other = folder.path().join("other");
    let (_, other_access) = one_replica(&other);
    let error = Replica::builder(other, first.address(), other_access).start();
    let error = error.await.unwrap_err();
    assert!(matches!(error, ReplicaError::Listen(_)), "{error}");
    first.shutdown().await;
    let third = Replica::builder(data, anywhere(), access).start().await;
    third.unwrap().kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_needs_its_own_certificate_and_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (authority, access) = one_replica(&data);
    let elsewhere = Authority::new("two".parse().unwrap()).unwrap();
    let of = |authority: &Authority, role| Access {
        credentials: authority.credentials(role).unwrap(),
        replicas: access.replicas.clone(),
        resolver: Resolver::default(),
    };
    for wrong in [
        of(&authority, Role::Replica(ReplicaId(2))),
        of(&authority, anna()),
        of(&elsewhere, Role::Replica(ReplicaId(1))),
    ] {
        let shown = wrong.credentials.identity().to_string();
        let error = Replica::builder(data.clone(), anywhere(), wrong).start();
        match error.await {
            Err(ReplicaError::WrongIdentity { expected, got, .. }) => {
                assert_eq!((expected, got), (ReplicaId(1), shown));
            }
            other => panic!("it started, or said {other:?}"),
        }
    }
    // A start never makes a directory.
    let missing = folder.path().join("missing");
    let error = Replica::builder(missing.clone(), anywhere(), access).start();
    let error = error.await.unwrap_err();
    assert!(error.to_string().contains("cluster new"), "{error}");
    assert!(!missing.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_runs_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_, access) = one_replica(&data);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = Replica::builder(data, anywhere(), access).run_until(async {
        let _ = stopped.await;
    });
    let running = tokio::spawn(running);
    drop(stop);
    let end = within("it stops", running).await.unwrap();
    assert_eq!(end.unwrap(), End::Shutdown);
}
