//! An application that moves money: a process of its own, which writes down what it was told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use fastrand::Rng;
use paxos_commit::config::load_access;
use paxos_commit::initiator::{CommitError, Initiator, Known, Outcome};
use paxos_commit::protocol::types::CommitId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::signals::shutdown;
use super::ledger::{ACCOUNTS, Transfer};

/// The most transfers under way at a time. When so many hang, the next ones are left out.
const UNDER_WAY_MAX: usize = 256;

/// The most that one branch of a transfer moves.
const AMOUNT_MAX: i64 = 20;

/// The pause before a question that was not answered is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long anything may take that waits for the cluster. Faults end sooner.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the answers may take at the end.
const GRACE: Duration = Duration::from_secs(90);

/// Moves money between ledgers until the parent process ends or says so (started by tests).
///
/// Writes a journal of JSON lines: a transfer before commit is asked for, and whatever is heard of
/// its outcome. Started again, it asks for the outcome of each that it has not heard of.
#[derive(Debug, Args)]
pub(crate) struct InitiatorArguments {
    #[arg(long)]
    access: PathBuf,
    #[arg(long)]
    journal: PathBuf,
    #[arg(long, value_delimiter = ',')]
    ledgers: Vec<String>,
    /// Transfers per second.
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seed: u64,
    /// Of the first transfer.
    #[arg(long)]
    first_number: u64,
    #[arg(long)]
    vote_timeout_ms: u64,
    #[arg(long)]
    deadline_ms: u64,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// Commit will be asked for.
    Asking {
        number: u64,
        id: String,
        branches: Vec<Branch>,
    },
    /// An answer about the outcome.
    Heard { number: u64, outcome: Heard },
    /// The answer did not come in time.
    Unknown { number: u64, error: String },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Heard {
    Committed,
    Aborted,
    Forgotten,
    /// Commit was not asked for, says the initiator: nothing happened.
    Refused,
}

/// What one ledger does in a transfer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Branch {
    ledger: String,
    account: u32,
    amount: i64,
}

/// The journal, to write to. What was written survives this process.
struct Journal(Mutex<File>);

impl Journal {
    async fn write(&self, line: &Line) {
        let mut text = serde_json::to_string(line).expect("plain data");
        text.push('\n');
        let mut file = self.0.lock().await;
        let written = file.write_all(text.as_bytes());
        written.expect("the journal can be written");
    }
}

/// What an earlier process has left.
struct Left {
    /// Of those that were asked for and not heard of.
    open: BTreeMap<u64, CommitId>,
    next_number: u64,
}

fn read(text: &str, first_number: u64) -> anyhow::Result<Left> {
    let mut left = Left {
        open: BTreeMap::new(),
        next_number: first_number,
    };
    for line in text.lines() {
        // A kill may have left half a line, at the end or before what came after.
        let Ok(line) = serde_json::from_str(line) else {
            continue;
        };
        match line {
            Line::Asking { number, id, .. } => {
                left.open.insert(number, id.parse()?);
                left.next_number = left.next_number.max(number + 1);
            }
            Line::Heard { number, .. } => {
                left.open.remove(&number);
            }
            Line::Unknown { .. } => {}
        }
    }
    Ok(left)
}

pub(crate) async fn run(arguments: InitiatorArguments) -> anyhow::Result<()> {
    let stop = shutdown(true)?;
    let stopped = watch::Sender::new(false);
    let mut stopping = stopped.subscribe();
    tokio::spawn(async move {
        stop.await;
        stopped.send_replace(true);
    });
    let path = &arguments.journal;
    let text = fs::read_to_string(path).unwrap_or_default();
    let left = read(&text, arguments.first_number)?;
    let file = File::options().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    if !text.is_empty() && !text.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    let journal = Arc::new(Journal(Mutex::new(file)));

    let builder = Initiator::builder(load_access(&arguments.access)?)
        .connect_timeout(PATIENCE)
        .vote_timeout(Duration::from_millis(arguments.vote_timeout_ms))
        .deadline(Duration::from_millis(arguments.deadline_ms));
    let initiator = tokio::select! {
        connected = builder.connect() => connected?,
        _ = stopping.wait_for(|stopped| *stopped) => return Ok(()),
    };
    let mut asking = JoinSet::new();
    for (number, id) in left.open {
        let (initiator, journal) = (initiator.clone(), journal.clone());
        asking.spawn(async move { ask(&initiator, &journal, number, id).await });
    }
    tokio::select! {
        () = transfers(&arguments, left.next_number, &initiator, &journal, &mut asking) => {}
        _ = stopping.wait_for(|stopped| *stopped) => {}
    }
    // Every question that is open is answered first.
    let answered = async { while asking.join_next().await.is_some() {} };
    if timeout(GRACE, answered).await.is_err() {
        bail!("{} questions were not answered", asking.len());
    }
    initiator.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Begins transfers, for ever.
async fn transfers(
    arguments: &InitiatorArguments,
    mut number: u64,
    initiator: &Initiator,
    journal: &Arc<Journal>,
    asking: &mut JoinSet<()>,
) {
    let mut rng = Rng::with_seed(arguments.seed ^ number);
    let interval = Duration::from_secs(1) / arguments.rate;
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        // After a pause nothing is made up for.
        next = (next + interval).max(Instant::now());
        while asking.try_join_next().is_some() {}
        let Ok(permit) = under_way.clone().try_acquire_owned() else {
            continue;
        };
        let branches = draw(&mut rng, &arguments.ledgers);
        let (initiator, journal) = (initiator.clone(), journal.clone());
        asking.spawn(async move {
            transfer(&initiator, &journal, number, branches).await;
            drop(permit);
        });
        number += 1;
    }
}

/// Between which accounts of which ledgers: two or more, whose amounts come to nothing.
fn draw(rng: &mut Rng, ledgers: &[String]) -> Vec<Branch> {
    let count = rng.usize(2..=ledgers.len());
    let mut chosen: Vec<&String> = ledgers.iter().collect();
    rng.shuffle(&mut chosen);
    let mut rest = 0;
    let branches = chosen.iter().take(count).enumerate();
    let branches = branches.map(|(index, ledger)| {
        let amount = match index + 1 == count {
            true => -rest,
            false => rng.i64(-AMOUNT_MAX..=AMOUNT_MAX),
        };
        rest += amount;
        Branch {
            ledger: (*ledger).clone(),
            account: rng.u32(0..ACCOUNTS),
            amount,
        }
    });
    branches.collect()
}

async fn transfer(initiator: &Initiator, journal: &Journal, number: u64, branches: Vec<Branch>) {
    let Ok(mut txn) = initiator.begin().await else {
        return;
    };
    for branch in &branches {
        let transfer = Transfer {
            number,
            account: branch.account,
            amount: branch.amount,
        };
        let request = serde_json::to_vec(&transfer).expect("plain data");
        // Dropped, when a ledger is not connected: nothing has begun.
        if txn.request(&branch.ledger, request).await.is_err() {
            return;
        }
    }
    let Ok(id) = txn.commit_id() else {
        return;
    };
    let line = Line::Asking {
        number,
        id: id.to_string(),
        branches,
    };
    journal.write(&line).await;
    let outcome = match txn.commit().await {
        Ok(Outcome::Committed) => Heard::Committed,
        Ok(Outcome::Aborted(_)) => Heard::Aborted,
        Err(CommitError::Refused(_) | CommitError::Stopped(_)) => Heard::Refused,
        Err(error) => {
            let error = error.to_string();
            journal.write(&Line::Unknown { number, error }).await;
            return ask(initiator, journal, number, id).await;
        }
    };
    journal.write(&Line::Heard { number, outcome }).await;
}

/// Asks until it is known.
async fn ask(initiator: &Initiator, journal: &Journal, number: u64, id: CommitId) {
    loop {
        let outcome = match initiator.outcome(id).await {
            Ok(Known::Committed) => Heard::Committed,
            Ok(Known::Aborted) => Heard::Aborted,
            Ok(Known::Forgotten) => Heard::Forgotten,
            Err(_) => {
                sleep(ASK_AGAIN).await;
                continue;
            }
        };
        return journal.write(&Line::Heard { number, outcome }).await;
    }
}
