//! One server for most tests, with a database for each; and what all of them do.

use std::time::{Duration, Instant};

use paxos_commit::cluster::servers::ThrowawayPostgres;
use paxos_commit::participant::{BranchId, ResourceManager};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Roster, Session, StoreId, TxnId, Vote,
};
use paxos_commit::protocol::types::{ReadOnly, Request};
use paxos_commit::resource::postgres::{BranchError, Options, Postgres};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Whatever takes longer than this hangs.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// It ends with this process: nobody drops what is static, but its watch notices.
static SERVER: OnceCell<ThrowawayPostgres> = OnceCell::const_new();

/// A database of its own.
pub(super) struct Base {
    pub(super) url: String,
    pub(super) admin: Client,
    name: String,
}

impl Base {
    /// On the shared server.
    pub(super) async fn new(name: &str) -> Base {
        let start = || async {
            let settings = [("max_prepared_transactions", "200")];
            ThrowawayPostgres::start(&settings).await.unwrap()
        };
        Base::on(SERVER.get_or_init(start).await, name).await
    }

    pub(super) async fn on(server: &ThrowawayPostgres, name: &str) -> Base {
        let root = connect(&server.url("postgres")).await;
        let sql = format!("CREATE DATABASE {name}");
        root.batch_execute(&sql).await.unwrap();
        let url = server.url(name);
        let admin = connect(&url).await;
        let sql = "CREATE TABLE account (name text PRIMARY KEY, balance int8 NOT NULL);
                   INSERT INTO account VALUES ('alice', 100), ('bob', 100)";
        admin.batch_execute(sql).await.unwrap();
        let name = name.to_owned();
        Base { url, admin, name }
    }

    pub(super) async fn open(&self) -> Postgres {
        self.open_with(self.options()).await
    }

    /// Of a cluster with the name of the database: a prepared transaction has the same name as no
    /// other one of the whole server, so no two tests may use the same.
    pub(super) fn options(&self) -> Options {
        options(&self.name)
    }

    pub(super) async fn open_with(&self, options: Options) -> Postgres {
        let config = self.url.parse().unwrap();
        Postgres::connect(config, NoTls, options).await.unwrap()
    }

    pub(super) async fn balance(&self, name: &str) -> i64 {
        balance(&self.admin, name).await
    }

    /// The names that stand prepared in this database.
    pub(super) async fn names(&self) -> Vec<String> {
        let sql =
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1";
        let rows = self.admin.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Waits until a query answers yes.
    pub(super) async fn until(&self, sql: &str) {
        until(&self.admin, sql).await;
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        self.admin.query_one(sql, &[]).await.unwrap().get(0)
    }
}

pub(super) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(super) async fn balance(client: &Client, name: &str) -> i64 {
    let sql = "SELECT balance FROM account WHERE name = $1";
    client.query_one(sql, &[&name]).await.unwrap().get(0)
}

pub(super) async fn until(client: &Client, sql: &str) {
    let begun = Instant::now();
    while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(begun.elapsed() < LONG, "it never came to: {sql}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The digits of the store in the name of a prepared transaction.
pub(super) fn store_in(name: &str) -> &str {
    name.split('/').nth(4).unwrap()
}

/// base32hex in lower case, as in the names of prepared transactions.
pub(super) fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digit = |start: usize| {
        let value = (start..start + 5).fold(0, |value, at| value << 1 | bit(at));
        char::from_digit(value.into(), 32).unwrap()
    };
    (0..bytes.len() * 8).step_by(5).map(digit).collect()
}

/// Of this cluster the participant `ledger`.
pub(super) fn options(cluster: &str) -> Options {
    // Long, so that what is slow here is no failure.
    Options::new(cluster, "ledger")
        .acquire_max(LONG)
        .lock_max(LONG)
        .answer_max(LONG)
}

pub(super) fn txn(n: u32) -> TxnId {
    TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence: n,
        nonce: 9,
    }
}

/// The branch of a session in transaction `n`.
pub(super) fn branch_of(session: u64, n: u32) -> BranchId {
    let branch = Branch {
        participant: "ledger".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    };
    let roster = Roster::new([branch.clone()]).unwrap();
    BranchId {
        id: CommitId::new(txn(n), &roster),
        branch,
    }
}

pub(super) fn branch(n: u32) -> BranchId {
    branch_of(1, n)
}

/// Moves some money under transaction `n`.
pub(super) async fn pay(postgres: &Postgres, n: u32, name: &str, sum: i64) {
    let work = postgres.work(txn(n)).await.unwrap();
    let sql = "UPDATE account SET balance = balance + $1 WHERE name = $2";
    let changed = work.client().execute(sql, &[&sum, &name]).await.unwrap();
    assert_eq!(changed, 1);
}

pub(super) async fn prepare(postgres: &Postgres, n: u32) -> Vote {
    let of = branch(n);
    let prepared = postgres.prepare(&of, None, ReadOnly::Forbidden);
    prepared.await.unwrap()
}

/// What the participant does: an error votes to abort, and rolls back.
pub(super) async fn vote(postgres: &Postgres, of: &BranchId, request: Option<Request>) -> Vote {
    match postgres.prepare(of, request, ReadOnly::Forbidden).await {
        Ok(vote) => vote,
        Err(error) => {
            println!("{of}: {error}");
            if let Err(error) = postgres.rollback(of).await {
                println!("{of}: {error}");
            }
            Vote::Aborted
        }
    }
}

pub(super) async fn ids_in_doubt(postgres: &Postgres) -> Vec<CommitId> {
    let found = postgres.in_doubt().await.unwrap();
    let mut ids: Vec<CommitId> = found.iter().map(|found| found.id).collect();
    ids.sort();
    ids
}

/// Tries until it fails with an error that is no lost connection's.
pub(super) async fn until_refused<T: std::fmt::Debug>(
    mut again: impl AsyncFnMut() -> Result<T, BranchError>,
) -> BranchError {
    let begun = Instant::now();
    loop {
        match again().await.unwrap_err() {
            BranchError::Server { .. } => assert!(begun.elapsed() < LONG),
            refused => return refused,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tries until it is done, as the participant does.
pub(super) async fn until_done<T, E: std::fmt::Display, F>(mut again: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let begun = Instant::now();
    loop {
        match again().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
