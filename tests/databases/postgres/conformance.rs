//! PostgreSQL keeps every rule of a resource manager.

use std::sync::atomic::{AtomicU32, Ordering};

use paxos_commit::cluster::servers::ThrowawayPostgres;
use paxos_commit::participant::{BranchId, Expiry, Proof, ResourceManager};
use paxos_commit::protocol::participant::InDoubt;
use paxos_commit::protocol::types::{CommitId, ReadOnly, Request, StoreId, TxnId, Vote};
use paxos_commit::resource::conformance::{Applied, Failure, Processes, Status, Subject, check};
use paxos_commit::resource::postgres::{BranchError, Options, Postgres, RequestError, Work};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

use super::support::{connect, until, until_done};

/// Counters in a table, on a server of their own.
struct Counters {
    server: Mutex<ThrowawayPostgres>,
    url: String,
    opened: AtomicU32,
}

/// An adapter, and the name under which the server knows its connections.
struct Process {
    postgres: Postgres,
    name: String,
}

impl ResourceManager for Process {
    type Error = BranchError;

    fn store(&self) -> StoreId {
        self.postgres.store()
    }

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, BranchError> {
        self.postgres.prepare(branch, request, read_only).await
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, BranchError> {
        self.postgres.commit(branch).await
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), BranchError> {
        self.postgres.rollback(branch).await
    }

    async fn let_go(&self, txn: TxnId) {
        self.postgres.let_go(txn).await;
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, BranchError> {
        self.postgres.in_doubt().await
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, BranchError> {
        self.postgres.expire(branch).await
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), BranchError> {
        self.postgres.settled(through, listed).await
    }
}

/// The one check that does not apply.
const COPY: &str = "a copy of a store has its identity, and no later opening in common with it";

const TABLE: &str = "CREATE TABLE counter (name text PRIMARY KEY, value int8 NOT NULL)";

const ADD: &str = "INSERT INTO counter AS held VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = held.value + excluded.value";

async fn run(work: Work, request: Request) -> Result<(), RequestError> {
    let text = std::str::from_utf8(&request.0)?;
    let (counter, amount) = text.split_once(' ').ok_or("expected two words")?;
    let amount: i64 = amount.parse()?;
    work.client().execute(ADD, &[&counter, &amount]).await?;
    Ok(())
}

async fn value(client: &Client, counter: &str) -> Result<i64, Failure> {
    let sql = "SELECT value FROM counter WHERE name = $1";
    let row = client.query_opt(sql, &[&counter]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}

impl Counters {
    async fn admin(&self) -> Client {
        connect(&self.url).await
    }
}

impl Subject for Counters {
    type Manager = Process;

    async fn open(&self) -> Result<Process, Failure> {
        let options = Options::new("local", "conformance").requests(run);
        let mut config: Config = self.url.parse()?;
        let name = format!("process {}", self.opened.fetch_add(1, Ordering::Relaxed));
        config.application_name(name.as_str());
        let postgres = Postgres::connect(config, NoTls, options).await?;
        Ok(Process { postgres, name })
    }

    async fn open_another(&self) -> Result<Option<Process>, Failure> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let database = format!("another{number}");
        let sql = format!("CREATE DATABASE {database}");
        self.admin().await.batch_execute(&sql).await?;
        let options = Options::new("local", "conformance").requests(run);
        let mut config: Config = self.url.parse()?;
        config.dbname(database.as_str());
        let name = format!("process {number}");
        config.application_name(name.as_str());
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(TABLE).await?;
        drop(client);
        let postgres = Postgres::connect(config, NoTls, options).await?;
        Ok(Some(Process { postgres, name }))
    }

    async fn kill(&self, manager: Process) -> Result<(), Failure> {
        // All its sockets are closed; nothing more is said.
        manager.postgres.close();
        // What the server still does for it is done before the kit goes on: what surfaces later than
        // that has a test of its own.
        let sql = format!(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '{}'",
            manager.name
        );
        until(&self.admin().await, &sql).await;
        Ok(())
    }

    async fn crash_store(&self) -> Result<Applied, Failure> {
        let mut server = self.server.lock().await;
        server.kill();
        server.restart().await?;
        Ok(Applied::Done)
    }

    fn processes(&self) -> Processes {
        Processes::Many
    }

    async fn add(
        &self,
        manager: &Process,
        txn: TxnId,
        counter: &str,
        amount: i64,
    ) -> Result<(), Failure> {
        let work = manager.postgres.work(txn).await?;
        work.client().execute(ADD, &[&counter, &amount]).await?;
        Ok(())
    }

    async fn look(&self, manager: &Process, txn: TxnId, counter: &str) -> Result<i64, Failure> {
        value(manager.postgres.work(txn).await?.client(), counter).await
    }

    async fn read(&self, _: &Process, counter: &str) -> Result<i64, Failure> {
        value(&self.admin().await, counter).await
    }

    async fn lose_connection(&self, manager: &Process, txn: TxnId) -> Result<Applied, Failure> {
        let work = manager.postgres.work(txn).await?;
        let process = work.client().query_one("SELECT pg_backend_pid()", &[]);
        let process: i32 = process.await?.get(0);
        let sql = "SELECT pg_terminate_backend($1, 60000)";
        self.admin().await.query_one(sql, &[&process]).await?;
        Ok(Applied::Done)
    }

    fn request(&self, counter: &str, amount: i64) -> Option<Request> {
        Some(Request(format!("{counter} {amount}").into_bytes().into()))
    }

    async fn markers(&self, _: &Process) -> Result<Option<u64>, Failure> {
        let sql = "SELECT count(*) FROM paxos_commit.committed";
        let row = self.admin().await.query_one(sql, &[]).await?;
        Ok(Some(row.get::<_, i64>(0) as u64))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_every_rule() {
    let settings = [
        ("max_prepared_transactions", "100"),
        ("max_connections", "300"),
    ];
    let server = ThrowawayPostgres::start(&settings).await.unwrap();
    let url = server.url("postgres");
    let counters = Counters {
        server: Mutex::new(server),
        url,
        opened: AtomicU32::new(0),
    };
    let admin = counters.admin().await;
    until_done(|| admin.batch_execute(TABLE)).await;
    let report = check(&counters).await;
    println!("{report}");
    assert!(report.is_passed(), "{report}");
    // A database counts no openings: its copy is the same store to it, and the docs say what that means.
    let skipped = report.findings.iter();
    let skipped = skipped.filter(|finding| matches!(finding.status, Status::NotApplicable(_)));
    let skipped: Vec<_> = skipped.map(|finding| finding.name).collect();
    assert_eq!(skipped, [COPY], "{report}");
}
