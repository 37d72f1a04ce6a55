//! A service with accounts: a process of its own, with a store of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use paxos_commit::cluster::{ChildProcess, ProcessCluster};
use paxos_commit::config::load_access;
use paxos_commit::participant::Participant;
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::embedded::{Embedded, Options, RequestError, Work};
use paxos_commit::transport::Role;
use serde::{Deserialize, Serialize};

use super::super::signals::shutdown;
use super::start_child;

/// How many accounts each ledger has.
pub(super) const ACCOUNTS: u32 = 1_000;

/// What is in each at the beginning.
pub(super) const OPENING_BALANCE: i64 = 1_000;

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);

/// How long the cluster may be away when a ledger starts.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A ledger of the demonstration (started by it).
#[derive(Debug, Args)]
pub(crate) struct LedgerArguments {
    #[arg(long)]
    access: PathBuf,
    #[arg(long)]
    data: PathBuf,
}

/// What a ledger is asked to do, inside a Prepare.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    /// Counts transfers.
    pub(super) number: u64,
    /// Whose money.
    pub(super) account: u32,
    /// How much comes, or goes if it is negative.
    pub(super) amount: i64,
}

/// Runs a ledger until the parent process ends or says so.
pub(crate) async fn run(arguments: LedgerArguments) -> anyhow::Result<()> {
    let stop = shutdown(true)?;
    let store = open(&arguments.data)?;
    let access = load_access(&arguments.access)?;
    let mut stop = std::pin::pin!(stop);
    let connecting = Participant::builder(access).connect_timeout(PATIENCE);
    let participant = tokio::select! {
        connected = connecting.connect(store.clone()) => connected?,
        () = &mut stop => return Ok(()),
    };
    stop.await;
    participant.shutdown(GRACE).await;
    tokio::task::spawn_blocking(move || store.close()).await?;
    Ok(())
}

/// Opens a ledger's store. Accounts that were never touched hold the opening balance.
pub(super) fn open(data: &Path) -> anyhow::Result<Embedded> {
    Ok(Embedded::open(data, Options::new().requests(execute))?)
}

pub(super) fn account_key(account: u32) -> String {
    format!("account/{account:06}")
}

pub(super) fn transfer_key(number: u64) -> String {
    format!("transfer/{number:012}")
}

pub(super) fn amount(bytes: &[u8]) -> anyhow::Result<i64> {
    Ok(std::str::from_utf8(bytes)?.parse()?)
}

/// Moves money, and writes down that it did.
fn execute(work: &Work, request: &Request) -> Result<(), RequestError> {
    let transfer: Transfer = serde_json::from_slice(&request.0)?;
    let key = account_key(transfer.account);
    let before = match work.get(&key)? {
        Some(bytes) => amount(&bytes).map_err(|error| error.to_string())?,
        None => OPENING_BALANCE,
    };
    let after = before + transfer.amount;
    if after < 0 {
        return Err(format!("insufficient funds: {before}").into());
    }
    work.put(&key, after.to_string())?;
    work.put(transfer_key(transfer.number), transfer.amount.to_string())?;
    Ok(())
}

/// A ledger's process.
pub(super) struct Ledger {
    program: PathBuf,
    name: &'static str,
    access: PathBuf,
    data: PathBuf,
    log: PathBuf,
    child: Option<ChildProcess>,
}

impl Ledger {
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        cluster: &ProcessCluster,
        name: &'static str,
    ) -> anyhow::Result<Self> {
        let (access, _) = cluster.issue(Role::Participant(name.parse()?))?;
        let mut ledger = Ledger {
            program: program.to_owned(),
            name,
            access,
            data: folder.join(name),
            log: folder.join(format!("{name}.log")),
            child: None,
        };
        ledger.spawn()?;
        Ok(ledger)
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let (access, data) = (self.access.to_string_lossy(), self.data.to_string_lossy());
        let arguments = [
            "--log",
            "info",
            "demo-ledger",
            "--access",
            &access,
            "--data",
            &data,
        ];
        self.child = Some(start_child(&self.program, &arguments, &self.log)?);
        Ok(())
    }

    pub(super) async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        if let Some(child) = self.child.take() {
            child.kill().await?;
        }
        self.spawn()
    }

    /// Stops it in order, and opens its store.
    pub(super) async fn stop(mut self) -> anyhow::Result<Embedded> {
        if let Some(child) = self.child.take() {
            child.stop().await?;
        }
        open(&self.data)
    }
}
