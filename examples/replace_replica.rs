//! A replica loses its disk and is replaced by another, while transactions go on.
//!
//! ```text
//! cargo run --example replace_replica
//! ```
//!
//! A replica that has lost what it promised must never vote again under its name. So it is replaced
//! by one with a new id, in three steps that cost no transaction anything:
//!
//! 1. The new replica is made and started. It takes no part yet.
//! 2. An operator opens the next *generation* on the new configuration. Transactions that begin from
//!    now on are decided by it; those that had begun finish with the majority of the old one.
//! 3. Generations are opened one after another anyway (usually every ten minutes, here every second),
//!    and each is *settled* some time after it was closed: nothing of it is under way any more. When
//!    the last generation in which the old replica had a seat is settled, nobody needs it any more.
//!
//! With real processes: `paxos-commit cluster replace`, later `paxos-commit cluster retire`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::operator::Operator;
use paxos_commit::participant::Participant;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Configuration, Member};
use paxos_commit::replica::Tuning;
use paxos_commit::resource::embedded::{Embedded, Options};
use tokio::time::sleep;

const OLD: u32 = 1;
const NEW: u32 = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let mut tuning = Tuning::default();
    tuning.generation_period = Duration::from_secs(1);
    tuning.grace = Duration::from_millis(200);
    let mut cluster = LocalCluster::start_with(3, tuning).await?;
    let mut operator = cluster.operator().await?;

    let dir = tempfile::tempdir()?;
    let options = Options::new().requests(|work, request| Ok(work.put(&*request.0, "")?));
    let store = Embedded::open(dir.path(), options)?;
    let _service = Participant::builder(cluster.participant("counter")?)
        .connect(store)
        .await?;
    let initiator = Initiator::builder(cluster.initiator("client")?)
        .connect()
        .await?;
    let load = Load::default();
    let running = tokio::spawn(run(initiator, load.clone()));

    load.watch("With replicas 1, 2 and 3").await;

    cluster.kill(OLD).await;
    load.watch("Replica 1 has lost its disk").await;

    let joining = cluster.join(NEW).await?;
    load.watch("Replica 4 is started").await;

    let generation = operator.reconfigure(replaced(&operator, joining)?).await?;
    load.watch(&format!("From generation {generation} on with 2, 3 and 4"))
        .await;

    while operator.generations().contains(ReplicaId(OLD)) {
        // What the operator knows of generations comes along with any answer.
        operator.status().await;
        sleep(Duration::from_millis(100)).await;
    }
    let oldest = operator.generations().oldest();
    load.watch(&format!("All before generation {oldest} is settled"))
        .await;
    println!("\nNobody needs replica 1 any more: its machine and its certificate may go.");

    // One of the new three may fail now.
    cluster.kill(2).await;
    load.watch("Replica 2 is down, too").await;

    running.abort();
    println!(
        "In all: {} committed, {} aborted.",
        load.committed.load(Relaxed),
        load.aborted.load(Relaxed)
    );
    assert_eq!(load.aborted.load(Relaxed), 0);
    Ok(())
}

/// The configuration in force, with the new replica in the place of the old one.
fn replaced(operator: &Operator, joining: Member) -> Result<Configuration> {
    let in_force = operator
        .generations()
        .in_force()
        .context("no replica has answered")?;
    let staying = in_force
        .members()
        .filter(|member| member.id != ReplicaId(OLD));
    Ok(Configuration::new(staying.chain([joining]))?)
}

/// Counts what becomes of transactions.
#[derive(Clone, Default)]
struct Load {
    committed: Arc<AtomicU64>,
    aborted: Arc<AtomicU64>,
}

/// One transaction after another, for ever.
async fn run(initiator: Initiator, load: Load) -> Result<()> {
    loop {
        let mut txn = initiator.begin().await?;
        txn.request("counter", load.committed.load(Relaxed).to_string())
            .await?;
        match txn.commit().await? {
            Outcome::Committed => load.committed.fetch_add(1, Relaxed),
            Outcome::Aborted(_) => load.aborted.fetch_add(1, Relaxed),
        };
    }
}

impl Load {
    /// Tells how many transactions commit within a second. One at least.
    async fn watch(&self, when: &str) {
        let before = self.committed.load(Relaxed);
        sleep(Duration::from_secs(1)).await;
        let committed = self.committed.load(Relaxed) - before;
        println!("{when:44} {committed:5} commits in a second");
        assert!(committed > 0, "transactions do not go on");
    }
}
