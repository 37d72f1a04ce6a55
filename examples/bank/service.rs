//! A service that takes part in transactions with its database.
//!
//! What it has to do comes inside the prepare, as a request; it runs just before the service votes.
//! (A service that works before commit is asked for, for example at an HTTP request, calls
//! `postgres.work(txn)` itself: the docs of `resource::postgres` show it.)

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use paxos_commit::cluster::{ChildProcess, ProcessCluster};
use paxos_commit::config::load_access;
use paxos_commit::participant::{Participant, ResourceManager};
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::mariadb::{self, Mariadb};
use paxos_commit::resource::postgres::tokio_postgres::NoTls;
use paxos_commit::resource::postgres::{self, Postgres};
use paxos_commit::transport::Role;

use super::databases::Kind;
use super::teller::Booking;
use super::{CLUSTER, PATIENCE, parent_gone};

/// How long to wait before a server that is away is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How often a branch that surfaced late is looked for.
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// What happens to an account, and that it happened. `0 rows` of the first would be an account that
/// has too little, or is not there.
const BOOK: &str = "UPDATE bank_account SET balance = balance + $1 \
                    WHERE id = $2 AND balance + $1 >= 0";
const NOTE: &str = "INSERT INTO bank_transfer (number, account, amount) VALUES ($1, $2, $3)";

/// A service of the example (started by it).
#[derive(Args)]
pub(crate) struct ServiceArguments {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    access: PathBuf,
    #[arg(long)]
    url: String,
}

/// Runs a service until the parent process ends or says so.
pub(crate) async fn run(arguments: ServiceArguments) -> Result<()> {
    match arguments.kind {
        Kind::Postgres => {
            let connect = || async {
                let options = postgres::Options::new(CLUSTER, arguments.kind.to_string());
                let server = arguments.url.parse()?;
                anyhow::Ok(Postgres::connect(server, NoTls, options.requests(in_postgres)).await?)
            };
            serve(&arguments, connect).await
        }
        Kind::Mariadb => {
            let connect = || async {
                let options = mariadb::Options::new(CLUSTER, arguments.kind.to_string());
                let server = mariadb::mysql_async::Opts::from_url(&arguments.url)?;
                anyhow::Ok(Mariadb::connect(server, options.requests(in_mariadb)).await?)
            };
            serve(&arguments, connect).await
        }
    }
}

/// Connects to the database, then to the coordinators, and is theirs from then on.
async fn serve<R: ResourceManager, F: Future<Output = Result<R>>>(
    arguments: &ServiceArguments,
    connect: impl Fn() -> F,
) -> Result<()> {
    let database = loop {
        match connect().await {
            Ok(database) => break database,
            // Its server may have been killed just now.
            Err(error) => eprintln!("{error:#}; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let access = load_access(&arguments.access)?;
    let builder = Participant::builder(access).scan_interval(SCAN_EVERY);
    let participant = builder.connect_timeout(PATIENCE).connect(database).await?;
    parent_gone().await;
    participant.shutdown(PATIENCE).await;
    Ok(())
}

/// The request of a prepare, in PostgreSQL. An error makes the branch vote to abort.
async fn in_postgres(work: postgres::Work, request: Request) -> Result<(), postgres::RequestError> {
    let booking = Booking::parse(&request)?;
    let (number, account, amount) = (booking.number, booking.account, booking.amount);
    let db = work.client();
    if db.execute(BOOK, &[&amount, &account]).await? != 1 {
        return Err("not enough money".into());
    }
    db.execute(NOTE, &[&number, &account, &amount]).await?;
    Ok(())
}

/// The same in MariaDB, whose parameters have no numbers.
async fn in_mariadb(mut db: mariadb::Work, request: Request) -> Result<(), mariadb::RequestError> {
    let booking = Booking::parse(&request)?;
    let (number, account, amount) = (booking.number, booking.account, booking.amount);
    let book = BOOK.replace("$1", "?").replace("$2", "?");
    if db.execute(&book, (amount, account, amount)).await? != 1 {
        return Err("not enough money".into());
    }
    let note = NOTE.replace("$1, $2, $3", "?, ?, ?");
    db.execute(&note, (number, account, amount)).await?;
    Ok(())
}

/// The process of a service.
pub(crate) struct ServiceProcess {
    pub(crate) kind: Kind,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<ChildProcess>,
}

impl ServiceProcess {
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        cluster: &ProcessCluster,
        kind: Kind,
        url: &str,
    ) -> Result<Self> {
        let (access, _) = cluster.issue(Role::Participant(kind.to_string().parse()?))?;
        let mut service = ServiceProcess {
            kind,
            program: program.to_owned(),
            arguments: vec![
                "service".into(),
                format!("--kind={kind}"),
                format!("--access={}", access.display()),
                format!("--url={url}"),
            ],
            log: folder.join(format!("{kind}.log")),
            child: None,
        };
        service.restart()?;
        Ok(service)
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.child = Some(ChildProcess::start(&self.program, &arguments, &self.log)?);
        Ok(())
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// In order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(child) = self.child.take() {
            child.stop().await?;
        }
        Ok(())
    }
}
