//! A participant of the benchmark: a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use paxos_commit::config::load_access;
use paxos_commit::participant::{Participant, Plan, ResourceManager};
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::embedded::{Embedded, Options, RequestError, Work};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::super::signals::shutdown;
use super::channel::{FromParticipant, ToParticipant, read, write};
use super::null::NullManager;
use super::plan::Kind;

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// How long the cluster may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many rows a ledger has: more than transactions can be under way, so that they do not meet.
const ROWS: u64 = 1_000_000;

/// A participant of the benchmark (started by it).
#[derive(Debug, Args)]
pub(crate) struct ParticipantArguments {
    #[arg(long)]
    access: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    kind: Kind,
    /// Where the load listens.
    #[arg(long)]
    load: SocketAddr,
}

/// Takes part until the parent process ends or says so.
pub(crate) async fn run(arguments: ParticipantArguments) -> anyhow::Result<()> {
    match arguments.kind {
        Kind::Null => {
            let manager = NullManager::open(&arguments.data)
                .with_context(|| format!("cannot write {}", arguments.data.display()))?;
            let forced = manager.forced();
            take_part(&arguments, manager, None, move || {
                forced.load(Ordering::Relaxed)
            })
            .await
        }
        Kind::Ledger => {
            let store = Embedded::open(&arguments.data, Options::new().requests(execute))?;
            let counted = store.clone();
            let forced = move || counted.stats().saves;
            take_part(&arguments, store.clone(), Some(store.clone()), forced).await?;
            Ok(tokio::task::spawn_blocking(move || store.close()).await?)
        }
    }
}

/// Writes the row that the request numbers.
fn execute(work: &Work, request: &Request) -> Result<(), RequestError> {
    let number: [u8; 8] = request.0.as_ref().try_into()?;
    put(work, u64::from_le_bytes(number))
}

fn put(work: &Work, number: u64) -> Result<(), RequestError> {
    let row = format!("row/{:07}", number % ROWS);
    Ok(work.put(row, number.to_le_bytes())?)
}

async fn take_part<R: ResourceManager>(
    arguments: &ParticipantArguments,
    manager: R,
    store: Option<Embedded>,
    forced: impl Fn() -> u64,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(shutdown(true)?);
    let connecting = Participant::builder(load_access(&arguments.access)?);
    let connecting = connecting.connect_timeout(PATIENCE).connect(manager);
    let participant = tokio::select! {
        connected = connecting => connected?,
        () = &mut stop => return Ok(()),
    };
    let stream = TcpStream::connect(arguments.load).await;
    let stream = stream.context("cannot reach the load")?;
    stream.set_nodelay(true)?;
    let (mut reading, mut writing) = stream.into_split();
    let here = FromParticipant::Here {
        branch: participant.me().clone(),
        port: participant.local_address()?.port(),
    };
    write(&mut writing, &here).await?;
    let listening = async {
        while let Some(told) = read_next(&mut reading).await? {
            match told {
                ToParticipant::Work { number, plan } => {
                    let (participant, store) = (participant.clone(), store.clone());
                    tokio::spawn(work(participant, store, number, plan));
                }
                ToParticipant::Count => {
                    let counted = FromParticipant::Counted {
                        sent: participant.sent(),
                        forced: forced(),
                    };
                    write(&mut writing, &counted).await?;
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = listening => ended?,
        () = &mut stop => {}
    }
    participant.shutdown(GRACE).await;
    Ok(())
}

async fn read_next(reading: &mut OwnedReadHalf) -> anyhow::Result<Option<ToParticipant>> {
    read(reading).await
}

/// Does the work of a branch, and prepares it. What comes of it the initiator hears.
async fn work(participant: Participant, store: Option<Embedded>, number: u64, plan: Plan) {
    let txn = plan.id().txn;
    let Ok(branch) = participant.branch(txn).await else {
        return;
    };
    if let Some(store) = store
        && let Err(error) = put(&store.work(&branch), number)
    {
        tracing::warn!(%txn, ?error, "the work failed");
        return branch.rollback().await;
    }
    let _ = branch.prepare(plan).await;
}
