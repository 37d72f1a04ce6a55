//! `paxos-commit demo`: real processes, a real kill, an audit.

mod audit;
mod initiator;
mod ledger;
mod load;
mod measure;
mod picture;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use paxos_commit::cluster::{ChildProcess, ProcessCluster};
use paxos_commit::initiator::Initiator;
use paxos_commit::operator::Operator;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::transport::Role;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Exit;
use super::show::print_json;
use load::Load;
use measure::{Event, Measured};

pub(super) use initiator::{InitiatorArguments, run as run_initiator};
pub(super) use ledger::{LedgerArguments, run as run_ledger};

/// The two services.
const LEDGERS: [&str; 2] = ["ledger-a", "ledger-b"];

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// When what happens, as shares of the duration.
const KILL_AT: f64 = 1.0 / 3.0;
const RESTART_AT: f64 = 2.0 / 3.0;
const LEDGER_KILL_AT: f64 = 5.0 / 6.0;

/// See it with your own eyes: three coordinator processes, two services, one killed with SIGKILL.
///
/// Money moves between two ledgers, each with a store of its own, at a fixed rate. At one third of
/// the time a coordinator replica is killed with SIGKILL, at two thirds it is started again; at five
/// sixths one of the ledgers is killed and started again. Then everything is audited: the total is
/// conserved, every transfer stands in both ledgers or in none, every acknowledged commit is there,
/// nothing is in doubt.
#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// How long money moves, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=3600))]
    duration: u64,
    /// Transfers per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    /// What is drawn at random (who pays whom, which replica is killed) follows from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep everything (certificates, stores, logs, the picture) in this new or empty folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Where to write the picture, latency over time. Usually demo.svg in the folder of --keep, or
    /// paxos-commit-demo.svg in the system's temporary folder.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: DemoArguments) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = arguments.keep.as_deref().unwrap_or(temporary.path());
    let picture = match (&arguments.picture, &arguments.keep) {
        (Some(path), _) => path.clone(),
        (None, Some(folder)) => folder.join("demo.svg"),
        (None, None) => std::env::temp_dir().join("paxos-commit-demo.svg"),
    };
    // Everything that runs is dropped, and with that ended, whichever of the two comes first.
    let stop = super::signals::shutdown(false)?;
    tokio::select! {
        result = demonstrate(&arguments, folder, &picture) => result,
        () = stop => bail!("interrupted; every process was ended"),
    }
}

async fn demonstrate(
    arguments: &DemoArguments,
    folder: &Path,
    picture: &Path,
) -> anyhow::Result<()> {
    let say = |text: &str| {
        if !arguments.json {
            say!("{text}");
        }
    };
    let mut rng = Rng::with_seed(arguments.seed);
    let program = std::env::current_exe().context("cannot find this program")?;
    say("Making a certificate authority and starting three coordinator replicas ...");
    let name = "demo".parse()?;
    let mut cluster = ProcessCluster::create(program.clone(), &folder.join("cluster"), name, 3)?;
    cluster.start_all()?;
    say("Starting two ledgers, each with its own store ...");
    let mut ledgers = Vec::new();
    for name in LEDGERS {
        ledgers.push(ledger::Ledger::start(&program, folder, &cluster, name)?);
    }
    let (_, access) = cluster.issue(Role::Initiator("demo".parse()?))?;
    let initiator = Initiator::builder(access)
        .connect_timeout(PATIENCE)
        .vote_timeout(Duration::from_secs(1))
        .connect()
        .await
        .map_err(|error| with_fallen(error.into(), &mut cluster))?;
    let mut load = Load::new(initiator, arguments.rate, arguments.seed);
    timeout(PATIENCE, load.wait_for_ledgers())
        .await
        .context("the ledgers did not connect")?;

    say(&format!(
        "Moving money: {} transfers per second for {} seconds.",
        arguments.rate, arguments.duration
    ));
    let victim = ReplicaId(rng.u32(1..=3));
    let measured = load_with_kills(arguments, &mut load, &mut cluster, &mut ledgers[1], victim);
    let measured = measured.await?;

    say("Waiting until nothing is undecided, and everything is applied ...");
    let (_, access) = cluster.issue(Role::Operator("demo".parse()?))?;
    let settled = timeout(PATIENCE, wait_until_quiet(access)).await;
    let quiet = settled.context("transactions were still under way")?;
    quiet?;
    let fallen = cluster.fallen();
    if !fallen.is_empty() {
        bail!("a replica has fallen: {fallen:?}");
    }
    load.shutdown().await;
    let mut stores = Vec::new();
    for ledger in ledgers {
        stores.push(ledger.stop().await?);
    }
    cluster.stop().await?;

    let audit = audit::audit(&stores, &measured).await?;
    measured.picture(picture)?;
    if arguments.json {
        print_json(&measured.to_json(&audit, picture));
    } else {
        measured.print(&audit);
        say!("\nLatency over time: {}", picture.display());
    }
    if !audit.is_clean() {
        return Err(Exit {
            code: 4,
            text: format!(
                "the audit found something wrong: {}",
                audit.complaints.join("; ")
            ),
        }
        .into());
    }
    Ok(())
}

/// The load, and meanwhile what is done to the cluster.
async fn load_with_kills(
    arguments: &DemoArguments,
    load: &mut Load,
    cluster: &mut ProcessCluster,
    ledger: &mut ledger::Ledger,
    victim: ReplicaId,
) -> anyhow::Result<Measured> {
    let duration = Duration::from_secs(arguments.duration);
    let start = Instant::now();
    let at = |share: f64| start + duration.mul_f64(share);
    let bar = progress_bar(arguments, duration);
    let mut events = vec![];
    let running = load.run(start, duration, &bar);
    let harming = async {
        sleep_until(at(KILL_AT)).await;
        bar.println(format!("kill -9: replica {victim}"));
        cluster.kill(victim).await?;
        events.push(Event::new("replica killed", start));
        sleep_until(at(RESTART_AT)).await;
        bar.println(format!("starting replica {victim} again"));
        cluster.start(victim)?;
        events.push(Event::new("replica restarted", start));
        sleep_until(at(LEDGER_KILL_AT)).await;
        bar.println(format!("kill -9: {}; starting it again", ledger.name()));
        events.push(Event::new("ledger killed", start));
        ledger.kill_and_restart().await?;
        events.push(Event::new("ledger restarted", start));
        anyhow::Ok(())
    };
    let (transfers, harmed) = tokio::join!(running, harming);
    bar.finish_and_clear();
    harmed?;
    Ok(Measured::new(transfers, events, duration))
}

fn progress_bar(arguments: &DemoArguments, duration: Duration) -> ProgressBar {
    if arguments.json {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {pos}/{len} s  {msg}";
    let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(duration.as_secs()).with_style(style)
}

async fn wait_until_quiet(access: paxos_commit::transport::Access) -> anyhow::Result<()> {
    let mut operator = Operator::connect(access, PATIENCE).await?;
    loop {
        let status = operator.status().await;
        let is_quiet = status.values().all(|said| {
            let quiet = |report: &paxos_commit::wire::Report| {
                report.undecided == 0 && report.unapplied == 0
            };
            said.as_ref().is_ok_and(quiet)
        });
        if is_quiet {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn with_fallen(error: anyhow::Error, cluster: &mut ProcessCluster) -> anyhow::Error {
    match cluster.fallen().first() {
        Some((id, words)) => error.context(format!("replica {id} has fallen: {words}")),
        None => error,
    }
}

/// A process that was started from this program.
pub(super) fn start_child(
    program: &Path,
    arguments: &[&str],
    log: &Path,
) -> anyhow::Result<ChildProcess> {
    ChildProcess::start(program, arguments, log)
        .with_context(|| format!("cannot start {}", program.display()))
}
