//! What the tests of the adapter share: a server, adapters, branches, and a look behind their back.

use std::time::{Duration, Instant};

use paxos_commit::cluster::servers::ThrowawayMariadb;
use paxos_commit::participant::{BranchId, ResourceManager};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, ReadOnly, Roster, Session, StoreId, TxnId, Vote,
};
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Conn, Opts};
use paxos_commit::resource::mariadb::{Mariadb, Options};

/// How long anything is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn txn(sequence: u32) -> TxnId {
    TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    }
}

/// The branch of session 1 in a transaction of its own.
pub(super) fn branch(sequence: u32) -> BranchId {
    branch_of(1, sequence)
}

pub(super) fn branch_of(session: u64, sequence: u32) -> BranchId {
    let branch = Branch {
        participant: "ledger".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    };
    let roster = Roster::new([branch.clone()]).unwrap();
    BranchId {
        id: CommitId::new(txn(sequence), &roster),
        branch,
    }
}

/// A server with a table of counters.
pub(super) struct Server {
    pub(super) server: ThrowawayMariadb,
}

impl Server {
    pub(super) async fn start() -> Self {
        Server::start_with(&[]).await
    }

    pub(super) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let server = ThrowawayMariadb::start(settings).await.unwrap();
        let server = Server { server };
        let sql = "CREATE TABLE counter (name VARCHAR(64) PRIMARY KEY, value BIGINT NOT NULL) \
                   ENGINE=InnoDB";
        server.plain().await.query_drop(sql).await.unwrap();
        server
    }

    pub(super) fn opts(&self) -> Opts {
        let url = self.server.url(ThrowawayMariadb::DATABASE);
        Opts::from_url(&url).unwrap()
    }

    /// A connection beside the adapter.
    pub(super) async fn plain(&self) -> Conn {
        Conn::new(self.opts()).await.unwrap()
    }

    pub(super) async fn open(&self) -> Mariadb {
        self.open_with(options()).await
    }

    pub(super) async fn open_with(&self, options: Options) -> Mariadb {
        Mariadb::connect(self.opts(), options).await.unwrap()
    }

    pub(super) async fn crash(&mut self) {
        self.server.kill();
        self.server.restart().await.unwrap();
    }

    /// The committed value of a counter.
    pub(super) async fn value(&self, name: &str) -> i64 {
        let sql = "SELECT value FROM counter WHERE name = ?";
        let value = self.plain().await.exec_first(sql, (name,)).await.unwrap();
        value.unwrap_or(0)
    }

    pub(super) async fn scalar(&self, sql: &str) -> i64 {
        self.plain().await.query_first(sql).await.unwrap().unwrap()
    }

    /// How many branches stand prepared on the server, whosever they are.
    pub(super) async fn prepared(&self) -> usize {
        let rows: Vec<(i64, u64, u64, Vec<u8>)> =
            self.plain().await.query("XA RECOVER").await.unwrap();
        rows.len()
    }
}

pub(super) fn options() -> Options {
    Options::new("local", "ledger")
        .lock_max(Duration::from_secs(2))
        .acquire_max(Duration::from_secs(20))
}

pub(super) async fn add(mariadb: &Mariadb, sequence: u32, name: &str, amount: i64) {
    let mut work = mariadb.work(txn(sequence)).await.unwrap();
    work.execute(ADD, (name, amount)).await.unwrap();
}

pub(super) const ADD: &str =
    "INSERT INTO counter VALUES (?, ?) ON DUPLICATE KEY UPDATE value = value + VALUES(value)";

pub(super) async fn prepared(mariadb: &Mariadb, sequence: u32, name: &str) -> BranchId {
    add(mariadb, sequence, name, 1).await;
    let branch = branch(sequence);
    assert_eq!(vote(mariadb, &branch).await, Vote::Prepared);
    branch
}

pub(super) async fn vote(mariadb: &Mariadb, branch: &BranchId) -> Vote {
    let vote = mariadb.prepare(branch, None, ReadOnly::Forbidden).await;
    vote.unwrap()
}

/// Tries again what fails, as a participant does.
pub(super) async fn until_ok<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    mut call: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn commit(mariadb: &Mariadb, branch: &BranchId) {
    until_ok(|| mariadb.commit(branch)).await;
}

pub(super) async fn rollback(mariadb: &Mariadb, branch: &BranchId) {
    until_ok(|| mariadb.rollback(branch)).await;
}
