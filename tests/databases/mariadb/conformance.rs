//! The adapter keeps every rule of the checklist.

use std::sync::atomic::{AtomicU32, Ordering};

use paxos_commit::protocol::types::{ParticipantName, Request, TxnId};
use paxos_commit::resource::conformance::{Applied, Failure, Processes, Status, Subject, check};
use paxos_commit::resource::mariadb::mysql_async::Opts;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::{Mariadb, RequestError, Work};
use tokio::sync::Mutex;

use super::support::{ADD, Server, options};

/// A server, and how many other databases were made on it.
struct Database(Mutex<Server>, AtomicU32);

async fn run(mut work: Work, request: Request) -> Result<(), RequestError> {
    let text = std::str::from_utf8(&request.0)?;
    let (counter, amount) = text
        .split_once(' ')
        .ok_or("expected a counter and an amount")?;
    let amount: i64 = amount.parse()?;
    work.execute(ADD, (counter, amount)).await?;
    Ok(())
}

impl Subject for Database {
    type Manager = Mariadb;

    async fn open(&self) -> Result<Mariadb, Failure> {
        let opts = self.0.lock().await.opts();
        Ok(Mariadb::connect(opts, options().requests(run)).await?)
    }

    async fn open_another(&self) -> Result<Option<Mariadb>, Failure> {
        let server = self.0.lock().await;
        let name = format!("another{}", self.1.fetch_add(1, Ordering::Relaxed));
        let mut plain = server.plain().await;
        plain.query_drop(format!("CREATE DATABASE {name}")).await?;
        let same = format!("CREATE TABLE {name}.counter LIKE counter");
        plain.query_drop(same).await?;
        let opts = Opts::from_url(&server.server.url(&name))?;
        let another = Mariadb::connect(opts, options().requests(run)).await?;
        Ok(Some(another))
    }

    async fn kill(&self, manager: Mariadb) -> Result<(), Failure> {
        drop(manager);
        Ok(())
    }

    async fn crash_store(&self) -> Result<Applied, Failure> {
        self.0.lock().await.crash().await;
        Ok(Applied::Done)
    }

    fn processes(&self) -> Processes {
        Processes::Many
    }

    async fn add(&self, to: &Mariadb, txn: TxnId, name: &str, amount: i64) -> Result<(), Failure> {
        let mut work = to.work(txn).await?;
        work.execute(ADD, (name, amount)).await?;
        Ok(())
    }

    async fn look(&self, at: &Mariadb, txn: TxnId, name: &str) -> Result<i64, Failure> {
        let mut work = at.work(txn).await?;
        let sql = "SELECT value FROM counter WHERE name = ?";
        Ok(work.first(sql, (name,)).await?.unwrap_or(0))
    }

    async fn read(&self, _: &Mariadb, name: &str) -> Result<i64, Failure> {
        Ok(self.0.lock().await.value(name).await)
    }

    async fn lose_connection(&self, of: &Mariadb, txn: TxnId) -> Result<Applied, Failure> {
        let sql = "SELECT CONNECTION_ID()";
        let id: Option<u64> = of.work(txn).await?.first(sql, ()).await?;
        let kill = format!("KILL CONNECTION {}", id.ok_or("no id")?);
        let mut plain = self.0.lock().await.plain().await;
        plain.query_drop(kill).await?;
        Ok(Applied::Done)
    }

    fn request(&self, counter: &str, amount: i64) -> Option<Request> {
        Some(Request(format!("{counter} {amount}").into_bytes().into()))
    }

    async fn markers(&self, _: &Mariadb) -> Result<Option<u64>, Failure> {
        let server = self.0.lock().await;
        let sql = "SELECT COUNT(*) FROM paxos_commit_branch";
        Ok(Some(u64::try_from(server.scalar(sql).await)?))
    }

    fn participant(&self) -> ParticipantName {
        "ledger".parse().unwrap()
    }
}

/// The one check that does not apply.
const COPY: &str = "a copy of a store has its identity, and no later opening in common with it";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adapter_keeps_every_rule() {
    let database = Database(Mutex::new(Server::start().await), AtomicU32::new(0));
    let report = check(&database).await;
    println!("{report}");
    assert!(report.is_passed(), "{report}");
    // A database counts no openings: its copy is the same store to it, and the docs say what that means.
    let skipped = report.findings.iter();
    let skipped = skipped.filter(|finding| finding.status != Status::Passed);
    let skipped: Vec<_> = skipped.map(|finding| finding.name).collect();
    assert_eq!(skipped, [COPY], "{report}");
    // And nothing of it is left.
    assert_eq!(database.0.lock().await.prepared().await, 0);
}
