//! The ways to change a row in each of two databases.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paxos_commit::cluster::ProcessCluster;
use paxos_commit::cluster::servers::{ThrowawayMariadb, ThrowawayPostgres};
use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::participant::Participant;
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Conn, Opts};
use paxos_commit::resource::mariadb::{self, Mariadb};
use paxos_commit::resource::postgres::tokio_postgres::{self, Client, NoTls};
use paxos_commit::resource::postgres::{self, Postgres};
use paxos_commit::transport::Role;
use tokio::sync::Mutex;

use super::applied::{Telling, Waiting};

const IN_POSTGRES: &str = "UPDATE account SET balance = balance + 1 WHERE id = $1";
const IN_MARIADB: &str = "UPDATE account SET balance = balance + 1 WHERE id = ?";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    LocalPostgres,
    LocalMariadb,
    ByHand(Hand),
    Planned(Until),
    Requested(Until),
}

/// How somebody goes about it who has both databases commit by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hand {
    /// Both prepare at the same time, then both commit at the same time.
    AtOnce,
    /// The same, with the decision forced to disk in between.
    Written,
    /// Four statements, one after the other.
    InTurn,
}

/// When a transaction of Paxos Commit counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The outcome is known.
    Outcome,
    /// Both databases have applied it.
    Applied,
}

impl Way {
    pub(crate) const ALL: [Way; 9] = [
        Way::LocalPostgres,
        Way::LocalMariadb,
        Way::ByHand(Hand::AtOnce),
        Way::ByHand(Hand::Written),
        Way::ByHand(Hand::InTurn),
        Way::Planned(Until::Outcome),
        Way::Planned(Until::Applied),
        Way::Requested(Until::Outcome),
        Way::Requested(Until::Applied),
    ];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::LocalPostgres => "local, PostgreSQL",
            Way::LocalMariadb => "local, MariaDB",
            Way::ByHand(Hand::AtOnce) => "by hand, both at once",
            Way::ByHand(Hand::Written) => "by hand, the decision forced to disk",
            Way::ByHand(Hand::InTurn) => "by hand, one after the other",
            Way::Planned(Until::Outcome) => "planned, until the outcome",
            Way::Planned(Until::Applied) => "planned, until both applied it",
            Way::Requested(Until::Outcome) => "requested, until the outcome",
            Way::Requested(Until::Applied) => "requested, until both applied it",
        })
    }
}

/// Databases with what uses them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ways {
    inner: Arc<Inner>,
}

struct Inner {
    lanes: Vec<Mutex<Lane>>,
    /// How many transactions each lane has begun.
    begun: Vec<AtomicU64>,
    initiator: Initiator,
    applied: Arc<Waiting>,
    services: Services,
    /// What whoever drives both by hand decides.
    decisions: File,
    cluster: Mutex<Option<ProcessCluster>>,
    // Last: whoever uses them goes first.
    _servers: (ThrowawayPostgres, ThrowawayMariadb),
}

/// The participants, each with its database, as a service has them.
struct Services {
    postgres: (Participant, Postgres),
    mariadb: (Participant, Mariadb),
}

/// How many rows a lane goes through in turn. What is committed is applied a moment later, and until
/// then its row is locked: as with customers, the next transaction is about another one.
const ROWS: u64 = 64;

/// What one of many has for itself: connections, and [`ROWS`] rows in each database.
struct Lane {
    postgres: Client,
    mariadb: Conn,
    /// Counts what was done by hand, for names.
    number: AtomicU64,
}

impl Ways {
    /// Starts servers, replicas and services.
    pub(crate) async fn open(folder: &Path, lanes: u32) -> Ways {
        let settings = [("max_prepared_transactions", "100")];
        let postgres = ThrowawayPostgres::start(&settings)
            .await
            .expect("PostgreSQL");
        let mariadb = ThrowawayMariadb::start(&[]).await.expect("MariaDB");
        let urls = [
            postgres.url("postgres"),
            mariadb.url(ThrowawayMariadb::DATABASE),
        ];
        let mut open = Vec::new();
        for _ in 0..lanes {
            open.push(Mutex::new(Lane::open(&urls).await));
        }
        let rows = u64::from(lanes) * ROWS;
        open[0].lock().await.create(rows).await;

        let decisions = File::create(folder.join("decisions")).expect("a file");
        let program = env!("CARGO_BIN_EXE_paxos-commit").into();
        let name = "bench".parse().expect("a name");
        let folder = folder.join("cluster");
        let mut cluster = ProcessCluster::create(program, &folder, name, 3).expect("a cluster");
        cluster.start_all().expect("replicas");
        let access = |role| cluster.issue(role).expect("an identity").1;
        let applied = Arc::new(Waiting::default());
        // A branch of MariaDB keeps its connection until it is applied, which the next does not wait
        // for.
        let connections = 3 * lanes as usize;
        let options = postgres::Options::new("bench", "postgres").requests(in_postgres);
        let server = urls[0].parse().expect("an address");
        let manager = Postgres::connect(server, NoTls, options.work_connections(connections));
        let in_postgres = manager.await.expect("PostgreSQL");
        let manager = Telling::new(in_postgres.clone(), &applied);
        let role = Role::Participant("postgres".parse().expect("a name"));
        let first = Participant::builder(access(role)).connect(manager).await;
        let options = mariadb::Options::new("bench", "mariadb").requests(in_mariadb);
        let server = Opts::from_url(&urls[1]).expect("an address");
        let manager = Mariadb::connect(server, options.work_connections(connections));
        let in_mariadb = manager.await.expect("MariaDB");
        let manager = Telling::new(in_mariadb.clone(), &applied);
        let role = Role::Participant("mariadb".parse().expect("a name"));
        let second = Participant::builder(access(role)).connect(manager).await;
        let role = Role::Initiator("bench".parse().expect("a name"));
        let initiator = Initiator::builder(access(role)).connect().await;
        Ways {
            inner: Arc::new(Inner {
                lanes: open,
                begun: (0..lanes).map(|_| AtomicU64::new(0)).collect(),
                initiator: initiator.expect("an initiator"),
                applied,
                decisions,
                services: Services {
                    postgres: (first.expect("a service"), in_postgres),
                    mariadb: (second.expect("a service"), in_mariadb),
                },
                cluster: Mutex::new(Some(cluster)),
                _servers: (postgres, mariadb),
            }),
        }
    }

    /// Changes the next row of a lane in each database.
    pub(crate) async fn go(&self, way: Way, lane: u32) {
        let begun = self.inner.begun[lane as usize].fetch_add(1, Ordering::Relaxed);
        let id = (u64::from(lane) * ROWS + begun % ROWS) as i64;
        match way {
            Way::LocalPostgres => self.lane(lane).lock().await.in_postgres(id).await,
            Way::LocalMariadb => self.lane(lane).lock().await.in_mariadb(id).await,
            Way::ByHand(hand) => {
                let decisions = &self.inner.decisions;
                self.lane(lane)
                    .lock()
                    .await
                    .by_hand(id, hand, decisions)
                    .await;
            }
            Way::Planned(until) => self.planned(until, id).await,
            Way::Requested(until) => self.requested(until, id).await,
        }
    }

    fn lane(&self, lane: u32) -> &Mutex<Lane> {
        &self.inner.lanes[lane as usize]
    }

    /// The services work, hand tickets back, and prepare by themselves when all have worked.
    async fn planned(&self, until: Until, id: i64) {
        let mut txn = self.inner.initiator.begin().await.expect("begun");
        let Services { postgres, mariadb } = &self.inner.services;
        let first = async {
            let branch = postgres.0.branch(txn.id()).await.expect("begun");
            let work = postgres.1.work(txn.id()).await.expect("a connection");
            let changed = work.client().execute(IN_POSTGRES, &[&id]).await;
            assert_eq!(changed.expect("a row"), 1);
            branch
        };
        let second = async {
            let branch = mariadb.0.branch(txn.id()).await.expect("begun");
            let mut work = mariadb.1.work(txn.id()).await.expect("a connection");
            let changed = work.execute(IN_MARIADB, (id,)).await.expect("a row");
            assert_eq!(changed, 1);
            branch
        };
        let (first, second) = tokio::join!(first, second);
        for branch in [&first, &second] {
            txn.enlist(branch.ticket()).expect("of this transaction");
        }
        let plan = txn.plan().await.expect("a roster");
        let applied = self.inner.applied.wait_for(txn.id());
        // They hear of the outcome by themselves, and nobody here waits for that.
        tokio::spawn(first.prepare(plan.clone()));
        tokio::spawn(second.prepare(plan));
        assert_eq!(txn.commit_prepared().await, Ok(Outcome::Committed));
        if until == Until::Applied {
            applied.both().await;
        }
    }

    /// The work travels with the commit.
    async fn requested(&self, until: Until, id: i64) {
        let mut txn = self.inner.initiator.begin().await.expect("begun");
        for name in ["postgres", "mariadb"] {
            let named = txn.request(name, id.to_le_bytes()).await;
            named.expect("connected");
        }
        let applied = self.inner.applied.wait_for(txn.id());
        assert_eq!(txn.commit().await, Ok(Outcome::Committed));
        if until == Until::Applied {
            applied.both().await;
        }
    }

    /// Ends the replicas in order.
    pub(crate) async fn close(&self) {
        let cluster = self.inner.cluster.lock().await.take();
        cluster
            .expect("closed once")
            .stop()
            .await
            .expect("stopped in order");
    }
}

impl Lane {
    async fn open([postgres, mariadb]: &[String; 2]) -> Lane {
        let connecting = tokio_postgres::connect(postgres, NoTls).await;
        let (client, connection) = connecting.expect("PostgreSQL");
        tokio::spawn(connection);
        let opts = Opts::from_url(mariadb).expect("an address");
        Lane {
            postgres: client,
            mariadb: Conn::new(opts).await.expect("MariaDB"),
            number: AtomicU64::new(0),
        }
    }

    async fn create(&mut self, rows: u64) {
        let row = |id| format!("({id}, 0)");
        let rows: Vec<String> = (0..rows).map(row).collect();
        let table = "CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)";
        let fill = format!("INSERT INTO account VALUES {}", rows.join(", "));
        for sql in [table, &fill] {
            self.postgres.batch_execute(sql).await.expect("a table");
            self.mariadb.query_drop(sql).await.expect("a table");
        }
    }

    async fn in_postgres(&mut self, id: i64) {
        let db = &self.postgres;
        db.batch_execute("BEGIN").await.expect("begun");
        db.execute(IN_POSTGRES, &[&id]).await.expect("a row");
        db.batch_execute("COMMIT").await.expect("committed");
    }

    async fn in_mariadb(&mut self, id: i64) {
        let db = &mut self.mariadb;
        db.query_drop("BEGIN").await.expect("begun");
        db.exec_drop(IN_MARIADB, (id,)).await.expect("a row");
        db.query_drop("COMMIT").await.expect("committed");
    }

    /// The work is done in both at the same time, as with the participants.
    async fn by_hand(&mut self, id: i64, hand: Hand, mut decisions: &File) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let name = &format!("hand-{id}-{number}");
        let (postgres, mariadb) = (&mut self.postgres, &mut self.mariadb);
        if hand == Hand::InTurn {
            tokio::join!(
                postgres.work_by_hand(id, name),
                mariadb.work_by_hand(id, name)
            );
            postgres.prepare_by_hand(name).await;
            mariadb.prepare_by_hand(name).await;
            postgres.commit_by_hand(name).await;
            mariadb.commit_by_hand(name).await;
            return;
        }
        let first = async {
            postgres.work_by_hand(id, name).await;
            postgres.prepare_by_hand(name).await;
        };
        let second = async {
            mariadb.work_by_hand(id, name).await;
            mariadb.prepare_by_hand(name).await;
        };
        tokio::join!(first, second);
        if hand == Hand::Written {
            writeln!(decisions, "commit {name}").expect("written");
            // It keeps this thread for as long; a task of another thread would take longer.
            decisions.sync_data().expect("forced");
        }
        tokio::join!(postgres.commit_by_hand(name), mariadb.commit_by_hand(name));
    }
}

/// A database that somebody drives who has no participant for it.
trait ByHand {
    async fn work_by_hand(&mut self, id: i64, name: &str);
    async fn prepare_by_hand(&mut self, name: &str);
    async fn commit_by_hand(&mut self, name: &str);
}

impl ByHand for Client {
    async fn work_by_hand(&mut self, id: i64, _: &str) {
        self.batch_execute("BEGIN").await.expect("begun");
        self.execute(IN_POSTGRES, &[&id]).await.expect("a row");
    }

    async fn prepare_by_hand(&mut self, name: &str) {
        let sql = format!("PREPARE TRANSACTION '{name}'");
        self.batch_execute(&sql).await.expect("prepared");
    }

    async fn commit_by_hand(&mut self, name: &str) {
        let sql = format!("COMMIT PREPARED '{name}'");
        self.batch_execute(&sql).await.expect("committed");
    }
}

impl ByHand for Conn {
    async fn work_by_hand(&mut self, id: i64, name: &str) {
        let sql = format!("XA START '{name}'");
        self.query_drop(sql).await.expect("begun");
        self.exec_drop(IN_MARIADB, (id,)).await.expect("a row");
    }

    async fn prepare_by_hand(&mut self, name: &str) {
        for sql in [format!("XA END '{name}'"), format!("XA PREPARE '{name}'")] {
            self.query_drop(sql).await.expect("prepared");
        }
    }

    async fn commit_by_hand(&mut self, name: &str) {
        let sql = format!("XA COMMIT '{name}'");
        self.query_drop(sql).await.expect("committed");
    }
}

fn row(request: &Request) -> i64 {
    let bytes = request.0.as_ref().try_into();
    i64::from_le_bytes(bytes.expect("eight bytes"))
}

async fn in_postgres(work: postgres::Work, request: Request) -> Result<(), postgres::RequestError> {
    work.client()
        .execute(IN_POSTGRES, &[&row(&request)])
        .await?;
    Ok(())
}

async fn in_mariadb(
    mut work: mariadb::Work,
    request: Request,
) -> Result<(), mariadb::RequestError> {
    work.execute(IN_MARIADB, (row(&request),)).await?;
    Ok(())
}
