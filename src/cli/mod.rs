//! The commands.

/// Prints a line to standard output, as `println!` does, and survives that its reader has gone.
macro_rules! say {
    () => { $crate::cli::show::print_line(format_args!("")) };
    ($($text:tt)+) => { $crate::cli::show::print_line(format_args!($($text)+)) };
}

mod bench;
mod cluster;
mod demo;
#[cfg(feature = "http")]
mod http;
mod log;
mod participant;
mod replica;
mod show;
mod signals;
mod status;
mod txn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use paxos_commit::config::load_access;
use paxos_commit::operator::Operator;
use paxos_commit::replica::ReplicaError;
use paxos_commit::transport::ConnectError;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, or declined by the cluster; 2 wrong usage; \
                          3 the cluster could not be reached; 4 an audit found something wrong; \
                          5 the answer is partial: too few replicas answered; \
                          6 this replica has lost what it promised: replace it, and do not start it \
                          again.";

/// A partial answer.
const EXIT_PARTIAL: u8 = 5;

/// How long to wait for the first replica.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Atomic commit across services that does not block when a coordinator crashes.
///
/// Gray & Lamport's Paxos Commit: participants vote to 2F+1 coordinator replicas; any F of them may
/// crash at any instant, and no transaction waits or goes wrong because of it.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    log: log::LogArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArguments),
    Bench(bench::BenchArguments),
    Replica(replica::ReplicaArguments),
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    #[command(subcommand)]
    Certs(cluster::CertsCommand),
    Status(status::StatusArguments),
    #[command(subcommand)]
    Txn(txn::TxnCommand),
    #[command(subcommand)]
    Participant(participant::ParticipantCommand),
    #[command(hide = true)]
    BenchParticipant(bench::ParticipantArguments),
    #[command(hide = true)]
    BenchEcho(bench::EchoArguments),
    #[command(hide = true)]
    DemoLedger(demo::LedgerArguments),
    #[command(hide = true)]
    DemoInitiator(demo::InitiatorArguments),
}

/// How an operator reaches the cluster.
#[derive(Debug, Args)]
struct AccessArguments {
    /// The operator's access.toml, as `cluster new` and `certs issue operator` make it.
    #[arg(long, env = "PAXOS_COMMIT_ACCESS", value_name = "FILE")]
    access: PathBuf,
}

impl AccessArguments {
    async fn connect(&self) -> anyhow::Result<Operator> {
        let access = load_access(&self.access)?;
        Ok(Operator::connect(access, CONNECT_MAX).await?)
    }
}

/// Something was wrong that is no failure of the program.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Exit {
    code: u8,
    text: String,
}

impl Cli {
    pub(crate) fn run(self) -> ExitCode {
        self.log.start(match &self.command {
            Command::Replica(_) => tracing::Level::INFO,
            _ => tracing::Level::WARN,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers())
            .enable_all()
            .build();
        let result = runtime
            .context("cannot start the runtime")
            .and_then(|runtime| {
                // On a worker, like all that it waits for: from this thread each message would wake
                // another one.
                let running = runtime.spawn(self.command.run());
                let result = match runtime.block_on(running) {
                    Ok(result) => result,
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                };
                // What still blocks a thread must not hold the process.
                runtime.shutdown_timeout(Duration::from_millis(200));
                result
            });
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                show::complain(format_args!("{}", show::error_text(&error)));
                ExitCode::from(code_of(&error))
            }
        }
    }
}

/// Half the processors: a replica's store has a thread of its own, and the kernel's share of the
/// network is as large as the program's. More workers than that wake each other for every packet.
fn workers() -> usize {
    let processors = std::thread::available_parallelism();
    processors.map_or(1, |processors| processors.get().div_ceil(2))
}

fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.code;
    }
    let lost = error.downcast_ref::<ReplicaError>();
    if lost.is_some_and(ReplicaError::must_be_replaced) {
        return 6;
    }
    match error.downcast_ref::<ConnectError>() {
        Some(ConnectError::NobodyAnswers { .. } | ConnectError::TooFewReached { .. }) => 3,
        Some(_) | None => 1,
    }
}

impl Command {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::BenchParticipant(arguments) => bench::run_participant(arguments).await,
            Command::BenchEcho(arguments) => bench::echo(arguments).await,
            Command::Replica(arguments) => replica::run(arguments).await,
            Command::Cluster(command) => command.run().await,
            Command::Certs(command) => command.run(),
            Command::Status(arguments) => status::run(arguments).await,
            Command::Txn(command) => command.run().await,
            Command::Participant(command) => command.run().await,
            Command::DemoLedger(arguments) => demo::run_ledger(arguments).await,
            Command::DemoInitiator(arguments) => demo::run_initiator(arguments).await,
        }
    }
}
