//! Money moves between two banks, each with a store of its own: both sides happen, or neither.
//!
//! ```text
//! cargo run --example transfer
//! ```
//!
//! Who takes part, all in this one process so that it can be read from top to bottom:
//!
//! - Three *coordinator replicas* decide what becomes of each transaction. Any one of them may
//!   crash at any instant. `LocalCluster` runs them, with real certificates, sockets and disks.
//! - Two *participants*, the banks `north` and `south`. Each owns an embedded store; its
//!   `Participant` prepares work in that store, votes to all replicas, and learns the outcome.
//! - One *initiator*, who wants something done in both banks, and asks for commit.
//!
//! What each bank has to do travels inside the commit, as a request of a few bytes that the bank
//! runs just before it votes. If it refuses, it votes to abort, and nothing happens anywhere. (To
//! work first and to commit later, as HTTP services do, see the example `shop`.)

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{AbortReason, Initiator, Outcome};
use paxos_commit::participant::Participant;
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::embedded::{
    Embedded, LocalError, Options, RequestError, Work, WorkError,
};

/// The one account that each bank has.
const ACCOUNT: &str = "account/alice";

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = LocalCluster::start(3).await?;
    let dir = tempfile::tempdir()?;
    let north = Bank::open(&cluster, dir.path(), "north", 100).await?;
    let south = Bank::open(&cluster, dir.path(), "south", 20).await?;
    let builder = Initiator::builder(cluster.initiator("teller")?);
    let initiator = builder.connect().await?;
    print_balances("At first", &north, &south).await?;

    let outcome = transfer(&initiator, 70).await?;
    println!("\n70 from north to south: {outcome:?}");
    print_balances("Now", &north, &south).await?;
    assert_eq!(outcome, Outcome::Committed);
    assert_eq!(south.balance().await?, 90);

    // South would gladly take the money. But north does not have it, so south gets nothing.
    let outcome = transfer(&initiator, 50).await?;
    println!("\n50 from north to south: {outcome:?}");
    print_balances("Now", &north, &south).await?;
    assert_eq!(outcome, Outcome::Aborted(AbortReason::Vote));
    assert_eq!(south.balance().await?, 90);

    // In order: what is under way comes to its end first.
    let grace = Duration::from_secs(5);
    initiator.shutdown(grace).await;
    north.participant.shutdown(grace).await;
    south.participant.shutdown(grace).await;
    Ok(())
}

/// The whole distributed transaction.
async fn transfer(initiator: &Initiator, sum: i64) -> Result<Outcome> {
    let mut txn = initiator.begin().await?;
    txn.request("north", format!("{}", -sum)).await?;
    txn.request("south", format!("{sum}")).await?;
    // An abort is an outcome and no error. An error would say that the outcome is not known yet.
    Ok(txn.commit().await?)
}

/// What a bank runs when commit is asked for, just before it votes: the request is what comes in,
/// or goes out if it is negative. An error makes the bank vote to abort.
fn book(work: &Work, request: &Request) -> Result<(), RequestError> {
    let balance = parse(work.get(ACCOUNT)?)? + parse(Some(request.0.to_vec()))?;
    if balance < 0 {
        return Err("not enough money".into());
    }
    work.put(ACCOUNT, balance.to_string())?;
    Ok(())
}

/// A service: a store, and the session that votes for it.
struct Bank {
    store: Embedded,
    participant: Participant,
}

impl Bank {
    async fn open(cluster: &LocalCluster, dir: &Path, name: &str, sum: i64) -> Result<Bank> {
        let store = Embedded::open(dir.join(name), Options::new().requests(book))?;
        // This concerns nobody else, so it needs no coordinator.
        store
            .local(|work| work.put(ACCOUNT, sum.to_string()))
            .await?;
        let builder = Participant::builder(cluster.participant(name)?);
        let participant = builder.connect(store.clone()).await?;
        Ok(Bank { store, participant })
    }

    /// The balance after all transfers so far. A bank may learn of a commit a moment later than
    /// whoever asked for it; until it has applied it the row is locked, and to read it, a conflict.
    async fn balance(&self) -> Result<i64> {
        loop {
            match self.store.local(|work| work.get(ACCOUNT)).await {
                Ok(found) => return parse(found),
                Err(LocalError::Work(WorkError::Conflict { .. })) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn parse(found: Option<Vec<u8>>) -> Result<i64> {
    Ok(String::from_utf8(found.context("no such account")?)?.parse()?)
}

async fn print_balances(when: &str, north: &Bank, south: &Bank) -> Result<()> {
    let (north, south) = (north.balance().await?, south.balance().await?);
    let total = north + south;
    println!("{when}: north has {north}, south has {south}; together {total}");
    assert_eq!(total, 120, "money was made or lost");
    Ok(())
}
