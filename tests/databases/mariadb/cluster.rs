//! A database and an embedded store in one transaction, with a whole cluster.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::resource::embedded::{Embedded, Options as StoreOptions};
use paxos_commit::resource::mariadb::Mariadb;
use paxos_commit::{Initiator, Outcome, Participant};

use super::support::{ADD, Server, until_ok};

struct Scene {
    server: Server,
    mariadb: Mariadb,
    ledger: Participant,
    store: Embedded,
    stock: Participant,
    initiator: Initiator,
    cluster: LocalCluster,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let server = Server::start().await;
        let cluster = LocalCluster::start(3).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mariadb = server.open().await;
        let ledger = connect(&cluster, &mariadb).await;
        let store = Embedded::open(folder.path().join("stock"), StoreOptions::new()).unwrap();
        let stock = Participant::builder(cluster.participant("stock").unwrap());
        let stock = stock.connect(store.clone()).await.unwrap();
        let initiator = Initiator::builder(cluster.initiator("shop").unwrap());
        Scene {
            initiator: initiator.connect().await.unwrap(),
            server,
            mariadb,
            ledger,
            store,
            stock,
            cluster,
            _folder: folder,
        }
    }

    /// Works in both, and asks for commit.
    async fn transfer(&self, key: &str) -> Outcome {
        let mut txn = self.initiator.begin().await.unwrap();
        let branch = self.ledger.branch(txn.id()).await.unwrap();
        let mut work = self.mariadb.work(txn.id()).await.unwrap();
        work.execute(ADD, (key, 1)).await.unwrap();
        drop(work);
        txn.enlist(branch.ticket()).unwrap();
        let branch = self.stock.branch(txn.id()).await.unwrap();
        self.store.work(&branch).put(key, "1").unwrap();
        txn.enlist(branch.ticket()).unwrap();
        txn.commit().await.unwrap()
    }

    /// Waits until an outcome has been applied in both.
    async fn applied(&self, key: &str) {
        until_ok(|| async {
            let in_store = self.store.read(key).unwrap().is_some();
            match (self.server.value(key).await, in_store) {
                (1, true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until nothing stands prepared.
    async fn settled(&self) {
        until_ok(|| async {
            match self.server.prepared().await {
                0 => Ok(()),
                left => Err(format!("{left} prepared")),
            }
        })
        .await;
    }
}

async fn connect(cluster: &LocalCluster, mariadb: &Mariadb) -> Participant {
    let builder = Participant::builder(cluster.participant("ledger").unwrap());
    let builder = builder.scan_interval(Duration::from_millis(200));
    builder.connect(mariadb.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_and_a_store_commit_together_and_abort_together() {
    let scene = Scene::start().await;
    assert_eq!(scene.transfer("a").await, Outcome::Committed);
    scene.applied("a").await;
    // One branch loses its connection: the other is undone as well.
    let mut txn = scene.initiator.begin().await.unwrap();
    let branch = scene.ledger.branch(txn.id()).await.unwrap();
    let mut work = scene.mariadb.work(txn.id()).await.unwrap();
    work.execute(ADD, ("b", 1)).await.unwrap();
    let killed = work.execute("KILL CONNECTION CONNECTION_ID()", ()).await;
    assert!(killed.is_err());
    drop(work);
    txn.enlist(branch.ticket()).unwrap();
    let branch = scene.stock.branch(txn.id()).await.unwrap();
    scene.store.work(&branch).put("b", "1").unwrap();
    txn.enlist(branch.ticket()).unwrap();
    assert!(matches!(txn.commit().await.unwrap(), Outcome::Aborted(_)));
    scene.settled().await;
    assert_eq!(scene.server.value("b").await, 0);
    assert_eq!(scene.store.read("b").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_when_the_outcome_comes_commits_when_it_is_back() {
    let mut scene = Scene::start().await;
    // The coordinators are away: the branches vote, and hear nothing.
    let mut txn = scene.initiator.begin().await.unwrap();
    let branch = scene.ledger.branch(txn.id()).await.unwrap();
    let mut work = scene.mariadb.work(txn.id()).await.unwrap();
    work.execute(ADD, ("a", 1)).await.unwrap();
    drop(work);
    txn.enlist(branch.ticket()).unwrap();
    let other = scene.stock.branch(txn.id()).await.unwrap();
    scene.store.work(&other).put("a", "1").unwrap();
    txn.enlist(other.ticket()).unwrap();
    // The store holds its vote back until the database is gone.
    let plan = txn.plan().await.unwrap();
    let voting = tokio::spawn(branch.prepare(plan.clone()));
    until_ok(|| async {
        match scene.server.prepared().await {
            1 => Ok(()),
            _ => Err("not prepared so far"),
        }
    })
    .await;
    scene.server.server.kill();
    let committing = tokio::spawn(async move { txn.commit_prepared().await });
    assert_eq!(
        other.prepare(plan).await.unwrap(),
        paxos_commit::protocol::types::Outcome::Commit
    );
    assert_eq!(committing.await.unwrap().unwrap(), Outcome::Committed);
    scene.server.server.restart().await.unwrap();
    voting.await.unwrap().unwrap();
    scene.applied("a").await;
    scene.settled().await;
    assert_eq!(scene.transfer("b").await, Outcome::Committed);
    scene.applied("b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_left_in_doubt_the_next_one_finishes() {
    let mut scene = Scene::start().await;
    let mut txn = scene.initiator.begin().await.unwrap();
    let branch = scene.ledger.branch(txn.id()).await.unwrap();
    let mut work = scene.mariadb.work(txn.id()).await.unwrap();
    work.execute(ADD, ("a", 1)).await.unwrap();
    drop(work);
    txn.enlist(branch.ticket()).unwrap();
    let other = scene.stock.branch(txn.id()).await.unwrap();
    scene.store.work(&other).put("a", "1").unwrap();
    txn.enlist(other.ticket()).unwrap();
    let plan = txn.plan().await.unwrap();
    let voting = tokio::spawn(branch.prepare(plan.clone()));
    until_ok(|| async {
        match scene.server.prepared().await {
            1 => Ok(()),
            _ => Err("not prepared so far"),
        }
    })
    .await;
    // It dies after its vote, and the server with it.
    voting.abort();
    let _ = voting.await;
    let mariadb = scene.server.open().await;
    let old = std::mem::replace(&mut scene.mariadb, mariadb);
    old.close();
    let ledger = connect(&scene.cluster, &scene.mariadb).await;
    let old = std::mem::replace(&mut scene.ledger, ledger);
    drop(old);
    scene.server.crash().await;
    let committed = other.prepare(plan).await;
    let expected = match committed.unwrap() {
        paxos_commit::protocol::types::Outcome::Commit => 1,
        // The new process may have asked before the vote had come to all: then it is an abort.
        paxos_commit::protocol::types::Outcome::Abort => 0,
    };
    drop(txn);
    scene.settled().await;
    until_ok(|| async {
        let in_store = i64::from(scene.store.read("a").unwrap().is_some());
        match (scene.server.value("a").await, in_store) {
            both if both == (expected, expected) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
