//! Transfers between an account in PostgreSQL and one in MariaDB, while everything is killed in turn.
//!
//! ```text
//! cargo run --example bank --features postgres,mariadb
//! ```
//!
//! Three coordinator replicas, a service in front of each database and the two database servers are
//! processes of their own. While transfers go on, one after the other is killed with SIGKILL and
//! started again. Then both databases are audited: no money was lost or made, every transfer that was
//! acknowledged stands in both, none that was refused stands in either, and nothing is left prepared.
//! The last line gives the figures; the exit code is 0 if the audit found nothing.
//!
//! The servers are throw-away ones, made from the binaries that are installed, with their data in a
//! temporary folder. With `--postgres` or `--mariadb` a server that runs already is used instead, and
//! never killed: the user needs to be allowed to make tables.
//!
//! | file | what |
//! |---|---|
//! | `bank/service.rs` | **a service that takes part with its database**: read this one first |
//! | `bank/teller.rs` | the application: transfers, and what was acknowledged of them |
//! | `bank/databases.rs` | the two databases as the audit sees them, and their servers |
//! | `bank/havoc.rs` | who is killed, and when |
//! | `bank/audit.rs` | what must be true in the end |

#[path = "bank/audit.rs"]
mod audit;
#[path = "bank/databases.rs"]
mod databases;
#[path = "bank/havoc.rs"]
mod havoc;
#[path = "bank/service.rs"]
mod service;
#[path = "bank/teller.rs"]
mod teller;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use paxos_commit::cluster::ProcessCluster;
use paxos_commit::config::ReplicaSettings;
use paxos_commit::initiator::Initiator;
use paxos_commit::replica::Replica;
use paxos_commit::transport::Role;

use databases::{Databases, Kind};
use havoc::Havoc;
use service::{ServiceArguments, ServiceProcess};
use teller::Teller;

/// The cluster's name; the services' names are those of their databases.
const CLUSTER: &str = "bank";

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Transfers between PostgreSQL and MariaDB, while everything is killed in turn.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// A PostgreSQL server that runs already, such as postgresql://me@db.example/bank.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// A MariaDB server that runs already, such as mysql://me@db.example/bank.
    #[arg(long, value_name = "URL")]
    mariadb: Option<String>,
    /// How often each of them is killed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    rounds: u32,
    /// How many transfers are under way at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: u32,
    /// Keep certificates, stores and logs in this new or empty folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What the processes do that this program starts of itself.
#[derive(Subcommand)]
enum Part {
    /// A coordinator replica.
    #[command(hide = true)]
    Replica(ReplicaArguments),
    /// A service in front of a database.
    #[command(hide = true)]
    Service(ServiceArguments),
}

#[derive(Args)]
struct ReplicaArguments {
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    with_parent: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    // `ProcessCluster` starts replicas as it would start `paxos-commit`: with a log level first.
    let given = std::env::args().filter(|argument| !matches!(argument.as_str(), "--log" | "info"));
    let arguments = Arguments::parse_from(given);
    match arguments.part {
        Some(Part::Replica(replica)) => run_replica(replica).await,
        Some(Part::Service(service)) => service::run(service).await,
        None => return bank(arguments).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn bank(arguments: Arguments) -> Result<ExitCode> {
    let temporary = tempfile::tempdir()?;
    let folder = arguments.keep.as_deref().unwrap_or(temporary.path());
    println!("Starting two databases, three coordinator replicas and two services ...");
    let mut databases = Databases::open(arguments.postgres, arguments.mariadb).await?;
    databases.create_accounts().await?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut cluster = start_cluster(&program, folder)?;
    let mut services = Vec::new();
    for kind in Kind::BOTH {
        let url = databases.url(kind);
        services.push(ServiceProcess::start(
            &program, folder, &cluster, kind, url,
        )?);
    }
    let (_, access) = cluster.issue(Role::Initiator("teller".parse()?))?;
    let initiator = Initiator::builder(access).connect_timeout(PATIENCE);
    let teller = Teller::new(initiator.connect().await?);

    println!(
        "Moving money, {} transfers at a time.",
        arguments.concurrency
    );
    let moving = teller.start(arguments.concurrency);
    let mut havoc = Havoc {
        teller: &teller,
        cluster: &mut cluster,
        services: &mut services,
        databases: &mut databases,
        kills: 0,
    };
    havoc.wreak(arguments.rounds).await?;
    let kills = havoc.kills;
    let ledger = teller.stop(moving).await?;

    println!("Waiting until every branch has its outcome ...");
    databases.wait_until_nothing_is_prepared(PATIENCE).await?;
    let complaints = audit::audit(&mut databases, &ledger).await?;
    for service in services {
        service.stop().await?;
    }
    cluster.stop().await?;
    for complaint in &complaints {
        println!("WRONG: {complaint}");
    }
    let verdict = match complaints.len() {
        0 => "both databases agree with every outcome".to_owned(),
        count => format!("the audit found {count} things wrong"),
    };
    println!("{ledger}; {kills} processes killed; {verdict}");
    Ok(ExitCode::from(u8::from(!complaints.is_empty())))
}

fn start_cluster(program: &Path, folder: &Path) -> Result<ProcessCluster> {
    let folder = folder.join("cluster");
    let mut cluster = ProcessCluster::create(program.to_owned(), &folder, CLUSTER.parse()?, 3)?;
    cluster.start_all()?;
    Ok(cluster)
}

/// A coordinator replica, as `paxos-commit replica` runs it.
async fn run_replica(arguments: ReplicaArguments) -> Result<()> {
    let settings = ReplicaSettings::load(&arguments.config)?;
    let builder = Replica::builder(settings.data, settings.listen, settings.access);
    builder
        .tuning(settings.tuning)
        .run_until(parent_gone())
        .await?;
    Ok(())
}

/// Completes when the process that started this one closes its end of the standard input, or dies.
async fn parent_gone() {
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    // A thread of its own, which keeps nobody from ending.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = gone.send(());
    });
    let _ = is_gone.await;
}
