//! `paxos-commit bench`: commit latency under coordinator failures, measured.

mod channel;
mod counting;
mod environment;
mod fault;
mod floor;
mod load;
mod null;
mod participant;
mod plan;
mod regions;
mod report;
mod results;
mod run;
mod scene;
mod service;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use paxos_commit::cluster::ClusterFiles;

use plan::{Fault, Kind, Lists, Load, Prepare, Protocol, Spec};
use results::{Results, Run};
use scene::Setting;

pub(super) use floor::{EchoArguments, echo};
pub(super) use participant::{ParticipantArguments, run as run_participant};

/// More participants than a transaction may have make no sense, more replicas no cluster.
const PARTICIPANTS_MAX: i64 = 64;
const F_MAX: i64 = 4;

/// How long a run takes, and the least.
const DURATION: Duration = Duration::from_secs(10);
const DURATION_MIN: Duration = Duration::from_secs(1);

/// Measure commit latency under coordinator failures.
///
/// Starts a cluster of child processes for each run: 2F+1 coordinator replicas, participants, and in
/// this process the initiator with its load; or drives a cluster that runs already. Runs every
/// combination of the comma-separated lists. Without any list it runs a usual set: idle latency,
/// throughput, and what each fault does to 1,000 transactions a second, for two-phase commit (the same
/// code with one coordinator) and Paxos Commit.
///
/// Latency counts from when a transaction should have begun, so that a stall cannot hide. Whether
/// everything that was committed is there afterwards, `paxos-commit demo` audits.
#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// Who decides: one coordinator, or 2F+1 replicas.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    protocol: Vec<Protocol>,
    /// How many replicas of paxos-commit may crash.
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u32).range(1..=F_MAX))]
    f: Vec<u32>,
    /// How many participants each transaction has.
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u32).range(1..=PARTICIPANTS_MAX))]
    participants: Vec<u32>,
    /// How branches come to prepare.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    prepare: Vec<Prepare>,
    /// What is done to the cluster meanwhile.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    fault: Vec<Fault>,
    /// What takes part.
    #[arg(long, default_value = "null", value_name = "KIND")]
    participant_kind: Kind,
    /// Open loop: so many transactions come each second. Usually 1000.
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Vec<u64>,
    /// Closed loop: so many transactions are under way at a time.
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    concurrency: Vec<u64>,
    /// Find the highest rate whose 99th percentile keeps below this, such as 5ms.
    #[arg(long, value_name = "DURATION")]
    search_p99: Option<humantime::Duration>,
    /// How long each run takes, usually 10s; before it comes a second to warm up.
    #[arg(long, value_name = "DURATION")]
    duration: Option<humantime::Duration>,
    /// Run everything so often, one round after the other; comparisons are of medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// A taste of the usual set, in about a minute.
    #[arg(long)]
    quick: bool,
    /// Drive the cluster with this cluster.toml, as `cluster new` makes it with everything beside it.
    /// It must run, and nothing is done to it: no faults.
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Below which data directories are made. It should be on the disk that counts. Usually the
    /// system's temporary folder.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the results into this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with pictures into this folder.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

pub(super) async fn run(arguments: BenchArguments) -> anyhow::Result<()> {
    let specs = arguments.specs()?;
    // Everything that runs is dropped, and with that ended, whichever of the two comes first.
    let stop = super::signals::shutdown(false)?;
    tokio::select! {
        result = measure(&arguments, &specs) => result,
        () = stop => bail!("interrupted; every process was ended"),
    }
}

impl BenchArguments {
    /// What is to be run.
    fn specs(&self) -> anyhow::Result<Vec<Spec>> {
        let specs = match self.asks_for_nothing() {
            true if self.quick => plan::quick(self.participant_kind),
            true => plan::usual(self.participant_kind),
            false if self.quick => bail!(
                "--quick runs a set of its own: leave it out to run what the other arguments say"
            ),
            false => self.lists()?.product(),
        };
        let mut all = Vec::new();
        for _ in 0..self.repeat {
            all.extend(specs.iter().cloned());
        }
        if let Some(duration) = self.duration {
            if *duration < DURATION_MIN {
                bail!("expected a --duration of at least 1s, got {duration}");
            }
            for spec in &mut all {
                spec.duration = *duration;
            }
        }
        let pauses = all.iter().filter(|spec| spec.fault == Fault::Pause);
        if pauses
            .min_by_key(|spec| spec.duration)
            .is_some_and(|spec| spec.duration.as_secs() < 4)
        {
            bail!(
                "a replica is stopped for 2 s after a third of the time: give a --duration of at least 4s"
            );
        }
        for spec in all.iter().filter(|spec| spec.fault == Fault::RollingFast) {
            let least = (spec.replicas() * 3).div_ceil(2);
            if spec.duration.as_secs() < u64::from(least) {
                bail!(
                    "{} replicas are restarted one second apart after a third of the time: give a \
                     --duration of at least {least}s",
                    spec.replicas()
                );
            }
        }
        Ok(all)
    }

    fn asks_for_nothing(&self) -> bool {
        let BenchArguments {
            protocol,
            f,
            participants,
            prepare,
            fault,
            rate,
            concurrency,
            search_p99,
            cluster,
            ..
        } = self;
        protocol.is_empty()
            && f.is_empty()
            && participants.is_empty()
            && prepare.is_empty()
            && fault.is_empty()
            && rate.is_empty()
            && concurrency.is_empty()
            && search_p99.is_none()
            && cluster.is_none()
    }

    fn lists(&self) -> anyhow::Result<Lists> {
        let or = |list: &[u32], usual| match list {
            [] => vec![usual],
            list => list.to_vec(),
        };
        let mut loads: Vec<Load> = self.rate.iter().copied().map(Load::Rate).collect();
        loads.extend(self.concurrency.iter().copied().map(Load::Concurrency));
        loads.extend(self.search_p99.map(|bound| Load::SearchP99(bound.into())));
        if loads.is_empty() {
            loads.push(Load::Rate(1_000));
        }
        let mut lists = Lists {
            protocols: self.protocol.clone(),
            f: or(&self.f, 1),
            participants: or(&self.participants, 2),
            kind: self.participant_kind,
            prepares: self.prepare.clone(),
            faults: self.fault.clone(),
            loads,
            duration: DURATION,
        };
        if lists.prepares.is_empty() {
            lists.prepares.push(Prepare::Relay);
        }
        if lists.faults.is_empty() {
            lists.faults.push(Fault::None);
        }
        match &self.cluster {
            Some(file) => self.fit(file, &mut lists)?,
            None if lists.protocols.is_empty() => {
                lists.protocols = vec![Protocol::TwoPhase, Protocol::PaxosCommit];
            }
            None => {}
        }
        Ok(lists)
    }

    /// A cluster that is there says itself how many replicas it has; and nothing is done to it.
    fn fit(&self, file: &Path, lists: &mut Lists) -> anyhow::Result<()> {
        if !self.protocol.is_empty() || !self.f.is_empty() {
            bail!(
                "with --cluster the number of replicas is that cluster's: leave out --protocol and --f"
            );
        }
        if lists.faults != [Fault::None] {
            bail!("with --cluster nothing is killed, stopped or cut off: leave out --fault");
        }
        if file.file_name() != Some("cluster.toml".as_ref()) || !file.is_file() {
            bail!(
                "expected the cluster.toml that `paxos-commit cluster new` made, with everything that \
                 it made beside it; got {}",
                file.display()
            );
        }
        let replicas = ClusterFiles::open(folder_of(file))?.members().len() as u32;
        lists.f = vec![replicas / 2];
        lists.protocols = vec![match replicas {
            1 => Protocol::TwoPhase,
            _ => Protocol::PaxosCommit,
        }];
        Ok(())
    }
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

async fn measure(arguments: &BenchArguments, specs: &[Spec]) -> anyhow::Result<()> {
    let setting = Setting {
        program: std::env::current_exe().context("cannot find this program")?,
        data: arguments.data.clone().unwrap_or_else(std::env::temp_dir),
        cluster: arguments
            .cluster
            .as_deref()
            .map(|file| folder_of(file).to_owned()),
    };
    // Found out now, not after ten minutes.
    if let Some(folder) = &arguments.report {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let json = arguments.json.as_deref().map(|path| {
        std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))
    });
    let json = json.transpose()?;
    let environment = environment::look(&setting.data);
    if environment.file_system == "tmpfs" {
        super::show::complain(format_args!(
            "{} is in memory, where a forced write costs nothing: give a folder on a disk with --data",
            setting.data.display()
        ));
    }
    std::fs::read_dir(&setting.data)
        .with_context(|| format!("cannot write below {}", setting.data.display()))?;
    say!("Measuring what the machine takes for hops and forced writes ...");
    let floor = floor::measure(&setting.program, &setting.data).await?;
    let runs = run_all(&setting, specs).await?;
    let results = Results {
        environment,
        floor,
        runs,
    };
    table::print(&results);
    if let Some(file) = json {
        serde_json::to_writer_pretty(file, &results.to_json())?;
    }
    if let Some(folder) = &arguments.report {
        report::write(folder, &results)?;
        say!("\nThe report: {}", folder.join("report.html").display());
    }
    Ok(())
}

async fn run_all(setting: &Setting, specs: &[Spec]) -> anyhow::Result<Vec<Run>> {
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} s  {msg}")?;
    let bar = ProgressBar::new(1).with_style(style);
    let mut delays: Vec<(Spec, u32)> = Vec::new();
    let mut runs = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let prefix = format!("[{}/{}] {spec}", index + 1, specs.len());
        bar.set_prefix(prefix);
        bar.reset();
        let delays = message_delays(setting, spec, &mut delays).await?;
        let run = run::run(setting, spec, &bar).await;
        let mut run = run.with_context(|| format!("while running {spec}"))?;
        run.message_delays = delays;
        runs.push(run);
    }
    bar.finish_and_clear();
    Ok(runs)
}

/// Of what decides them (protocol, replicas, participants, prepare), once.
async fn message_delays(
    setting: &Setting,
    spec: &Spec,
    known: &mut Vec<(Spec, u32)>,
) -> anyhow::Result<Option<u32>> {
    if setting.cluster.is_some() {
        return Ok(None);
    }
    let is_like = |other: &Spec| other.contender() == spec.contender();
    if let Some((_, delays)) = known.iter().find(|(other, _)| is_like(other)) {
        return Ok(Some(*delays));
    }
    let delays = run::message_delays(setting, spec).await?;
    known.push((spec.clone(), delays));
    Ok(Some(delays))
}
