//! A whole cluster in this process: a PostgreSQL server and an embedded store take part.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{AbortReason, Initiator, Outcome};
use paxos_commit::participant::Participant;
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::embedded::{self, Embedded};
use paxos_commit::resource::postgres::{Options, Postgres, RequestError, Work};

use super::support::{Base, until_done};

/// A cluster of three, a bank in PostgreSQL and one in an embedded store.
struct Stage {
    cluster: LocalCluster,
    initiator: Initiator,
    base: Base,
    postgres: Postgres,
    ledger: Participant,
    store: Embedded,
    _stock: Participant,
    _folder: tempfile::TempDir,
}

async fn book(work: Work, request: Request) -> Result<(), RequestError> {
    let sum: i64 = std::str::from_utf8(&request.0)?.parse()?;
    let sql = "UPDATE account SET balance = balance + $1 WHERE name = 'alice' RETURNING balance";
    let row = work.client().query_one(sql, &[&sum]).await?;
    if row.get::<_, i64>(0) < 0 {
        return Err("not enough money".into());
    }
    Ok(())
}

fn book_embedded(work: &embedded::Work, request: &Request) -> Result<(), embedded::RequestError> {
    let held = work.get("alice")?.unwrap_or_else(|| b"0".to_vec());
    let held: i64 = String::from_utf8(held)?.parse()?;
    let sum: i64 = std::str::from_utf8(&request.0)?.parse()?;
    work.put("alice", (held + sum).to_string())?;
    Ok(())
}

fn options() -> Options {
    Options::new("local", "ledger").requests(book)
}

impl Stage {
    async fn new(name: &str) -> Stage {
        let cluster = LocalCluster::start(3).await.unwrap();
        let base = Base::new(name).await;
        let postgres = base.open_with(options()).await;
        let ledger = connect(&cluster, "ledger", postgres.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let requests = embedded::Options::new().requests(book_embedded);
        let store = Embedded::open(folder.path().join("stock"), requests).unwrap();
        let builder = Participant::builder(cluster.participant("stock").unwrap());
        let stock = builder.connect(store.clone()).await.unwrap();
        let builder = Initiator::builder(cluster.initiator("teller").unwrap());
        let initiator = builder.connect().await.unwrap();
        Stage {
            cluster,
            initiator,
            base,
            postgres,
            ledger,
            store,
            _stock: stock,
            _folder: folder,
        }
    }

    /// The balances once nothing is in doubt.
    async fn balances(&self) -> (i64, i64) {
        let none = "SELECT count(*) = 0 FROM pg_prepared_xacts WHERE database = current_database()";
        self.base.until(none).await;
        let held = until_done(|| self.store.local(|work| work.get("alice"))).await;
        let held = held.map_or(0, |held| String::from_utf8(held).unwrap().parse().unwrap());
        (self.base.balance("alice").await, held)
    }
}

async fn connect(cluster: &LocalCluster, name: &str, postgres: Postgres) -> Participant {
    let builder = Participant::builder(cluster.participant(name).unwrap());
    let builder = builder.scan_interval(Duration::from_millis(200));
    builder.connect(postgres).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_move_money_between_postgres_and_an_embedded_store_or_not_at_all() {
    let stage = Stage::new("cluster_requests").await;
    for (sum, expected, moved) in [
        (30, Outcome::Committed, 30),
        (80, Outcome::Aborted(AbortReason::Vote), 30),
        (70, Outcome::Committed, 100),
    ] {
        let mut txn = stage.initiator.begin().await.unwrap();
        txn.request("ledger", format!("{}", -sum)).await.unwrap();
        txn.request("stock", format!("{sum}")).await.unwrap();
        assert_eq!(txn.commit().await.unwrap(), expected, "{sum}");
        // The embedded store lets nobody wait for a lock, so the next one comes when it is free.
        assert_eq!(stage.balances().await, (100 - moved, moved), "{sum}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_under_a_branch_commits_in_both_or_in_none() {
    let stage = Stage::new("cluster_work").await;
    for (n, fails, moved) in [(1_i64, false, 1), (2, true, 1), (3, false, 4)] {
        let mut txn = stage.initiator.begin().await.unwrap();
        let branch = stage.ledger.branch(txn.id()).await.unwrap();
        let db = stage.postgres.work(branch.txn()).await.unwrap();
        let sql = "UPDATE account SET balance = balance - $1 WHERE name = 'alice'";
        db.client().execute(sql, &[&n]).await.unwrap();
        if fails {
            db.client().batch_execute("SELECT 1/0").await.unwrap_err();
        }
        drop(db);
        txn.enlist(branch.ticket()).unwrap();
        txn.request("stock", n.to_string()).await.unwrap();
        let outcome = txn.commit().await.unwrap();
        assert_eq!(outcome == Outcome::Committed, !fails, "{outcome:?}");
        assert_eq!(stage.balances().await, (100 - moved, moved));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_that_died_has_prepared_comes_to_its_outcome_in_the_next() {
    let mut stage = Stage::new("cluster_restart").await;
    let mut expected = 100;
    for round in 1..=6 {
        let mut txn = stage.initiator.begin().await.unwrap();
        txn.request("ledger", "-1").await.unwrap();
        txn.request("stock", "1").await.unwrap();
        let committing = tokio::spawn(txn.commit());
        // The process dies as soon as its branch stands prepared, or a little later.
        let sql = format!(
            "SELECT balance < {expected} OR EXISTS (SELECT FROM pg_prepared_xacts \
             WHERE database = current_database()) FROM account WHERE name = 'alice'"
        );
        stage.base.until(&sql).await;
        if round % 2 == 0 {
            stage.cluster.kill(1 + round as u32 % 3).await;
        }
        stage.postgres.close();
        stage.postgres = stage.base.open_with(options()).await;
        stage.ledger = connect(&stage.cluster, "ledger", stage.postgres.clone()).await;
        let outcome = committing.await.unwrap().unwrap();
        if outcome == Outcome::Committed {
            expected -= 1;
        }
        stage.cluster.start_all().await.unwrap();
        assert_eq!(stage.balances().await, (expected, 100 - expected));
    }
}
