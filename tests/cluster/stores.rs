//! Two stores under one name, older copies, and stores that are lost: accidents that must not cost a
//! commit.

use std::path::Path;
use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::Outcome;
use paxos_commit::operator::OperatorError;
use paxos_commit::participant::{Participant, ResourceManager};
use paxos_commit::protocol::message::Declined;
use paxos_commit::protocol::participant::Standing;
use paxos_commit::protocol::types::{ParticipantName, StoreId};
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::transport::ConnectError;

use crate::support::{Point, Service, all_quiet, eventually, initiator, within};

fn name() -> ParticipantName {
    "a".parse().unwrap()
}

/// A service of participant a whose store is in this directory.
async fn connect(cluster: &LocalCluster, directory: &Path) -> Result<Participant, ConnectError> {
    let mut store = None;
    eventually("the store is free", async || {
        store = Embedded::open(directory, Options::new()).ok();
        store.is_some()
    })
    .await;
    let builder = Participant::builder(cluster.participant("a").unwrap());
    let connecting = builder.connect(store.expect("it was opened"));
    within("an answer to a participant", connecting).await
}

/// Why it is not let in, and what it is told to do.
async fn refusal(cluster: &LocalCluster, directory: &Path) -> (Standing, String) {
    match connect(cluster, directory).await {
        Err(ConnectError::NotEntered(refused)) => (refused.standing, refused.to_string()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// What a crash would leave of a store.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_an_unmounted_volume_is_refused_and_no_commit_is_lost() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    a.hold(Point::BeforeCommit);
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    a.stands().await;
    let own = a.store.store();
    let disk = a.die();

    let empty = tempfile::tempdir().unwrap();
    let (standing, text) = refusal(&cluster, empty.path()).await;
    assert_eq!(standing, Standing::OtherStore { entered: own });
    for expected in [
        format!("participant a works on store {own}, and this is store "),
        "is its volume mounted?".into(),
        format!("paxos-commit participant gone a {own}"),
    ] {
        assert!(text.contains(&expected), "{text}");
    }

    let a = Service::come_back(&cluster, "a", disk).await;
    a.wait_for("k", "v").await;
    all_quiet(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_stores_under_one_name_only_the_first_takes_part() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = connect(&cluster, first.path()).await.unwrap();
    let initiator = initiator(&cluster).await;
    let (standing, _) = refusal(&cluster, second.path()).await;
    let entered = a.me().store;
    assert_eq!(standing, Standing::OtherStore { entered });
    // The first goes on.
    let mut txn = initiator.begin().await.unwrap();
    let branch = a.branch(txn.id()).await.unwrap();
    txn.enlist(branch.ticket()).unwrap();
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_turned_away_until_an_operator_says_that_it_was_restored() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let (own, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(connect(&cluster, own.path()).await.unwrap());
    copy(own.path(), older.path());
    let a = connect(&cluster, own.path()).await.unwrap();
    // The copy is of the first opening. However often it is opened, it does not remember the second.
    let store = a.me().store;
    for _ in 0..3 {
        let (standing, text) = refusal(&cluster, older.path()).await;
        let Standing::OldOpening { seen } = standing else {
            panic!("{text}");
        };
        assert_eq!(seen.number, 2);
        assert!(text.contains("an older copy of the store"), "{text}");
        let command = format!("paxos-commit participant restored a {store}");
        assert!(text.contains(&command), "{text}");
    }
    let mut operator = cluster.operator().await.unwrap();
    let declined = operator.restored(name(), store).await.unwrap_err();
    let participant = name();
    let why = Declined::StoreConnected { participant, store };
    assert_eq!(declined, OperatorError::Declined(why));
    drop(a);

    eventually("the store is restored", async || {
        operator.restored(name(), store).await.is_ok()
    })
    .await;
    let a = connect(&cluster, older.path()).await.unwrap();
    let stores = operator.participants().await.unwrap();
    assert_eq!(stores.get(&name()).unwrap().store, a.me().store);
    // Now it is the store itself that is refused.
    let (standing, text) = refusal(&cluster, own.path()).await;
    assert!(matches!(standing, Standing::OldOpening { .. }), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_runs_beside_the_store_ends_one_of_the_two() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let (own, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = connect(&cluster, own.path()).await.unwrap();
    copy(own.path(), later.path());
    let b = connect(&cluster, later.path()).await.unwrap();
    let initiator = initiator(&cluster).await;
    // The one that was opened first is told; it works no more.
    eventually("the store stops working", async || {
        let txn = initiator.begin().await.unwrap();
        a.branch(txn.id()).await.is_err()
    })
    .await;
    let txn = initiator.begin().await.unwrap();
    b.branch(txn.id()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_given_up_and_the_next_one_takes_its_place() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let (lost, next) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = connect(&cluster, lost.path()).await.unwrap();
    let store = a.me().store;
    let mut operator = cluster.operator().await.unwrap();
    let declined = operator.gone(name(), store).await.unwrap_err();
    let participant = name();
    let why = Declined::StoreConnected { participant, store };
    assert_eq!(declined, OperatorError::Declined(why));
    let other = StoreId::from_u128(7);
    let declined = operator.gone(name(), other).await.unwrap_err();
    let text = format!("declined: participant a stands for store {store}, not for store {other}");
    assert_eq!(declined.to_string(), text);
    a.shutdown(Duration::from_secs(1)).await;
    drop(a);
    eventually("the store is given up", async || {
        operator.gone(name(), store).await.is_ok()
    })
    .await;
    let a = connect(&cluster, next.path()).await.unwrap();
    let stores = operator.participants().await.unwrap();
    assert_eq!(stores.get(&name()).unwrap().store, a.me().store);
    assert_ne!(a.me().store, store);
    // The lost one is not let in any more, should it be found.
    let (standing, _) = refusal(&cluster, lost.path()).await;
    let entered = a.me().store;
    assert_eq!(standing, Standing::OtherStore { entered });
}
