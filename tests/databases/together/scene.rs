//! Both databases, a service before each, three coordinators and an application.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use paxos_commit::cluster::ProcessCluster;
use paxos_commit::cluster::servers::{ThrowawayMariadb, ThrowawayPostgres};
use paxos_commit::initiator::{CommitError, Initiator, Known, Outcome};
use paxos_commit::operator::Operator;
use paxos_commit::participant::{Participant, ResourceManager};
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Conn, Opts, Row};
use paxos_commit::resource::mariadb::{self, Mariadb};
use paxos_commit::resource::postgres::tokio_postgres::{self, Client, NoTls};
use paxos_commit::resource::postgres::{self, Postgres};
use paxos_commit::transport::{Access, Role};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::tap::Tap;

/// Whatever takes longer hangs.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// How long replicas wait for the vote of a service that will not vote any more.
const VOTE_TIMEOUT: Duration = Duration::from_millis(500);

/// How often branches in doubt are looked for.
const SCAN_EVERY: Duration = Duration::from_millis(500);

pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Postgres,
    Mariadb,
}

impl Kind {
    pub(crate) const BOTH: [Kind; 2] = [Kind::Postgres, Kind::Mariadb];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Postgres => "postgres",
            Kind::Mariadb => "mariadb",
        })
    }
}

/// All of them. Transactions are numbered; each writes its number into both databases.
pub(crate) struct Scene {
    services: BTreeMap<Kind, Service>,
    accesses: BTreeMap<Kind, Access>,
    taps: BTreeMap<Kind, Tap>,
    postgres: ThrowawayPostgres,
    mariadb: ThrowawayMariadb,
    pub(crate) initiator: Initiator,
    operator: Operator,
    pub(crate) cluster: ProcessCluster,
    _folder: TempDir,
    next: i64,
    committed: Vec<i64>,
}

impl Scene {
    pub(crate) async fn open() -> Scene {
        let settings = [("max_prepared_transactions", "50")];
        let postgres = ThrowawayPostgres::start(&settings).await.unwrap();
        let mariadb = ThrowawayMariadb::start(&[]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_paxos-commit").into();
        let files = folder.path().join("cluster");
        let name = "bank".parse().unwrap();
        let mut cluster = ProcessCluster::create(program, &files, name, 3).unwrap();
        cluster.start_all().unwrap();
        let access = |role| cluster.issue(role).unwrap().1;
        let of = |kind: Kind| access(Role::Participant(kind.to_string().parse().unwrap()));
        let accesses = Kind::BOTH.map(|kind| (kind, of(kind)));
        let taps = [
            (
                Kind::Postgres,
                Tap::open(&postgres.folder().join(".s.PGSQL.5432")),
            ),
            (Kind::Mariadb, Tap::open(&mariadb.folder().join("socket"))),
        ];
        let initiator = Initiator::builder(access(Role::Initiator("bank".parse().unwrap())));
        let initiator = initiator
            .vote_timeout(VOTE_TIMEOUT)
            .connect()
            .await
            .unwrap();
        let access = access(Role::Operator("admin".parse().unwrap()));
        let mut scene = Scene {
            operator: Operator::connect(access, LONG).await.unwrap(),
            services: BTreeMap::new(),
            accesses: accesses.into(),
            taps: taps.into(),
            postgres,
            mariadb,
            initiator,
            cluster,
            _folder: folder,
            next: 1,
            committed: Vec::new(),
        };
        let sql = "CREATE TABLE done (number BIGINT PRIMARY KEY)";
        scene.client().await.batch_execute(sql).await.unwrap();
        scene.conn().await.query_drop(sql).await.unwrap();
        for kind in Kind::BOTH {
            scene.start(kind).await;
        }
        scene
    }

    pub(crate) fn tap(&self, kind: Kind) -> &Tap {
        &self.taps[&kind]
    }

    /// Starts a service.
    pub(crate) async fn start(&mut self, kind: Kind) {
        let tap = self.tap(kind);
        let url = match kind {
            Kind::Postgres => format!(
                "postgresql:///postgres?user={}&host={}",
                ThrowawayPostgres::USER,
                tap.folder().display()
            ),
            Kind::Mariadb => format!(
                "mysql://{}@localhost/{}?socket={}",
                ThrowawayMariadb::USER,
                ThrowawayMariadb::DATABASE,
                tap.socket().display().to_string().replace('/', "%2F")
            ),
        };
        let service = Service::start(kind, url, self.accesses[&kind].clone()).await;
        self.services.insert(kind, service);
    }

    /// Waits until every replica knows one session of each service: those that were killed have no name
    /// left under which anybody could ask them for a vote.
    pub(crate) async fn only_the_living(&mut self) {
        let one_of_each = async {
            loop {
                let said = self.operator.status().await;
                let is_so = said.values().all(|report| {
                    let participants = report.iter().flat_map(|report| &report.participants);
                    participants.map(|(_, sessions)| *sessions).eq([1, 1])
                });
                if is_so {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(LONG, one_of_each).await;
        waited.expect("one session of each service");
    }

    /// It is gone, with all that it had in memory, and its connections with it.
    pub(crate) fn kill_service(&mut self, kind: Kind) {
        self.tap(kind).cut();
        self.services.remove(&kind);
    }

    pub(crate) fn kill_server(&mut self, kind: Kind) {
        match kind {
            Kind::Postgres => self.postgres.kill(),
            Kind::Mariadb => self.mariadb.kill(),
        }
    }

    pub(crate) async fn restart_server(&mut self, kind: Kind) {
        match kind {
            Kind::Postgres => self.postgres.restart().await.unwrap(),
            Kind::Mariadb => self.mariadb.restart().await.unwrap(),
        }
    }

    /// The number of the next transaction.
    pub(crate) fn number(&mut self) -> i64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Waits until this database alone holds the number, and removes it.
    pub(crate) async fn take_back(&self, kind: Kind, number: i64) {
        let sql = format!("DELETE FROM done WHERE number = {number}");
        let removing = async {
            let mut removed = 0;
            while removed == 0 {
                tokio::time::sleep(LOOK_EVERY).await;
                removed = match kind {
                    Kind::Postgres => self.client().await.execute(&sql, &[]).await.unwrap(),
                    Kind::Mariadb => {
                        let mut conn = self.conn().await;
                        conn.query_drop(&sql).await.unwrap();
                        conn.affected_rows()
                    }
                };
            }
        };
        let removed = tokio::time::timeout(LONG, removing).await;
        removed.unwrap_or_else(|_| panic!("{kind} never held {number}"));
    }

    /// Every branch comes to its end, and both databases hold what was committed, and nothing else.
    pub(crate) async fn audit(&mut self, number: i64, outcome: Known, what: &str) {
        match outcome {
            Known::Committed => self.committed.push(number),
            Known::Aborted => {}
            Known::Forgotten => panic!("{what}: nothing is forgotten so soon"),
        }
        let begun = Instant::now();
        loop {
            let prepared = self.prepared().await;
            let done = [self.done_in_postgres().await, self.done_in_mariadb().await];
            if prepared.is_empty() && done.iter().all(|done| *done == self.committed) {
                return;
            }
            assert!(
                begun.elapsed() < LONG,
                "{what}: {outcome:?}, still prepared: {prepared:?}; the last that are done: {:?}",
                done.map(|done| done.last().copied())
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The transaction has come to its end, and its branches to theirs.
    pub(crate) async fn is_over(&self, transaction: &JoinHandle<Known>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A branch stands prepared from before the outcome until it is applied.
            if transaction.is_finished() && self.prepared().await.is_empty() {
                // The server's last answer may still be on its way.
                tokio::time::sleep(20 * LOOK_EVERY).await;
                return;
            }
        }
    }

    /// What stands prepared in both servers.
    pub(crate) async fn prepared(&self) -> Vec<String> {
        let sql = "SELECT gid FROM pg_prepared_xacts";
        let rows = self.client().await.query(sql, &[]).await.unwrap();
        let mut names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let rows: Vec<Row> = self.conn().await.query("XA RECOVER").await.unwrap();
        names.extend(rows.iter().map(|row| format!("{row:?}")));
        names
    }

    async fn done_in_postgres(&self) -> Vec<i64> {
        let sql = "SELECT number FROM done ORDER BY number";
        let rows = self.client().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn done_in_mariadb(&self) -> Vec<i64> {
        // A prepared branch keeps its row locked, but nobody who only reads waits for it.
        let sql = "SELECT number FROM done ORDER BY number";
        self.conn().await.query(sql).await.unwrap()
    }

    /// Past the tap.
    pub(crate) async fn client(&self) -> Client {
        let url = self.postgres.url("postgres");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Past the tap.
    pub(crate) async fn conn(&self) -> Conn {
        let url = self.mariadb.url(ThrowawayMariadb::DATABASE);
        Conn::new(Opts::from_url(&url).unwrap()).await.unwrap()
    }
}

/// Asks for a transaction that writes its number into both databases. What comes of it, whoever dies
/// meanwhile.
pub(crate) async fn transact(initiator: Initiator, number: i64) -> Known {
    let mut txn = initiator.begin().await.unwrap();
    for kind in Kind::BOTH {
        let named = txn.request(&kind.to_string(), number.to_string()).await;
        if named.is_err() {
            // A service that was killed before it could be named.
            return Known::Aborted;
        }
    }
    match txn.commit().await {
        Ok(Outcome::Committed) => Known::Committed,
        Ok(Outcome::Aborted(_)) => Known::Aborted,
        Err(CommitError::Unknown { id, .. }) => initiator.outcome(id).await.unwrap(),
        Err(error) => panic!("{error}"),
    }
}

/// A service, with threads of its own: they can be gone from one instant to the next.
struct Service {
    runtime: Option<Runtime>,
    _participant: Participant,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Service {
    async fn start(kind: Kind, url: String, access: Access) -> Service {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).enable_all().build().unwrap();
        let connecting = async move {
            match kind {
                Kind::Postgres => {
                    let options = postgres::Options::new("bank", "postgres");
                    let options = options.requests(in_postgres);
                    let connecting = Postgres::connect(url.parse().unwrap(), NoTls, options);
                    connect(access, connecting.await.unwrap()).await
                }
                Kind::Mariadb => {
                    let options = mariadb::Options::new("bank", "mariadb");
                    let options = options.requests(in_mariadb);
                    let connecting = Mariadb::connect(Opts::from_url(&url).unwrap(), options);
                    connect(access, connecting.await.unwrap()).await
                }
            }
        };
        let participant = runtime.spawn(connecting).await.unwrap();
        Service {
            runtime: Some(runtime),
            _participant: participant,
        }
    }
}

async fn connect(access: Access, manager: impl ResourceManager) -> Participant {
    let builder = Participant::builder(access).scan_interval(SCAN_EVERY);
    builder.connect(manager).await.unwrap()
}

fn number_in(request: &Request) -> i64 {
    std::str::from_utf8(&request.0).unwrap().parse().unwrap()
}

async fn in_postgres(work: postgres::Work, request: Request) -> Result<(), postgres::RequestError> {
    let sql = "INSERT INTO done VALUES ($1)";
    work.client().execute(sql, &[&number_in(&request)]).await?;
    Ok(())
}

async fn in_mariadb(
    mut work: mariadb::Work,
    request: Request,
) -> Result<(), mariadb::RequestError> {
    work.execute("INSERT INTO done VALUES (?)", (number_in(&request),))
        .await?;
    Ok(())
}
