//! A service dies after it has voted, and comes back: it asks what became of its branch, and does it.
//!
//! ```text
//! cargo run --example recovery
//! ```
//!
//! Once a branch is prepared its service may neither commit nor roll back on its own: the decision
//! is with the replicas. A service that dies at this point leaves a branch *in doubt* on its disk,
//! with its locks. Nobody waits for it: the others get their outcome from the replicas at once.
//! When it comes back, the store tells the participant what stands in doubt; the participant asks
//! the replicas, who remember until everyone has applied the outcome; and the store applies it.
//!
//! To die at just the right moment the two services here prepare by themselves, one after the
//! other, instead of being asked to: each is given the *plan*, the whole roster of the transaction.
//! (Real services do so to save a message delay.)

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{Initiator, Outcome, Transaction};
use paxos_commit::operator::Operator;
use paxos_commit::participant::{Branch, Participant, ResourceManager};
use paxos_commit::protocol::message::State;
use paxos_commit::protocol::types::{Branch as BranchName, CommitId};
use paxos_commit::resource::embedded::{Embedded, OpenError, Options};
use tokio::time::sleep;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = LocalCluster::start(3).await?;
    let mut operator = cluster.operator().await?;
    let dir = tempfile::tempdir()?;
    let (hotel_dir, flight_dir) = (dir.path().join("hotel"), dir.path().join("flight"));
    let hotel = Service::start(&cluster, "hotel", &hotel_dir).await?;
    let flight = Service::start(&cluster, "flight", &flight_dir).await?;
    let initiator = Initiator::builder(cluster.initiator("agency")?);
    let initiator = initiator.connect().await?;

    let mut txn = initiator.begin().await?;
    let in_hotel = hotel.book(&mut txn).await?;
    let in_flight = flight.book(&mut txn).await?;
    let plan = txn.plan().await?;
    let voter = in_hotel.ticket().branch;

    let voting = tokio::spawn(in_hotel.prepare(plan.clone()));
    wait_for_vote(&mut operator, plan.id(), &voter).await;
    voting.abort();
    drop(hotel);
    // Its disk can be opened: so nothing of it runs any more.
    let store = reopen(&hotel_dir).await?;
    println!("The hotel has voted, and its process has died.");

    let in_flight = in_flight.prepare(plan);
    let (outcome, _) = tokio::join!(txn.commit_prepared(), in_flight);
    let outcome = outcome?;
    println!("The flight has voted, too. The outcome: {outcome:?}.");
    assert_eq!(outcome, Outcome::Committed);

    println!("\nThe hotel's disk: {}.", describe(&store).await?);
    assert_eq!(store.in_doubt().await?.len(), 1);
    assert_eq!(store.read("booking")?, None);

    println!("The hotel starts again, and connects.");
    let hotel = Service::connect(&cluster, "hotel", store).await?;
    // The last lock goes when the outcome is durable.
    while hotel.store.locks() > 0 {
        sleep(LOOK_EVERY).await;
    }
    println!("The hotel's disk: {}.", describe(&hotel.store).await?);
    assert!(hotel.store.in_doubt().await?.is_empty());
    assert_eq!(
        hotel.store.read("booking")?.as_deref(),
        Some(&b"confirmed"[..])
    );
    Ok(())
}

async fn describe(store: &Embedded) -> Result<String> {
    let (in_doubt, locks) = (store.in_doubt().await?.len(), store.locks());
    let booking = store.read("booking")?.unwrap_or("not there".into());
    let booking = String::from_utf8(booking)?;
    Ok(format!(
        "branches in doubt: {in_doubt}, locks: {locks}, the booking is {booking}"
    ))
}

/// A store, and the session that votes for it.
struct Service {
    store: Embedded,
    participant: Participant,
}

impl Service {
    async fn start(cluster: &LocalCluster, name: &str, dir: &Path) -> Result<Service> {
        Service::connect(cluster, name, Embedded::open(dir, Options::new())?).await
    }

    async fn connect(cluster: &LocalCluster, name: &str, store: Embedded) -> Result<Service> {
        let builder = Participant::builder(cluster.participant(name)?);
        let participant = builder.connect(store.clone()).await?;
        Ok(Service { store, participant })
    }

    /// Works under the transaction.
    async fn book(&self, txn: &mut Transaction) -> Result<Branch> {
        let branch = self.participant.branch(txn.id()).await?;
        self.store.work(&branch).put("booking", "confirmed")?;
        txn.enlist(branch.ticket())?;
        Ok(branch)
    }
}

/// Until every replica holds the vote, durably.
async fn wait_for_vote(operator: &mut Operator, id: CommitId, voter: &BranchName) {
    let holds = |state: &State| matches!(state, State::Undecided { missing, .. } if !missing.contains(voter));
    loop {
        let said = operator.show(id.txn).await;
        let mut known = said
            .values()
            .map(|known| known.as_deref().unwrap_or_default());
        if known.all(|known| known.iter().any(|(_, state)| holds(state))) {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What runs in this process ends a moment after it was dropped; until then its store is in use.
async fn reopen(dir: &Path) -> Result<Embedded> {
    loop {
        match Embedded::open(dir, Options::new()) {
            Err(OpenError::InUse { .. }) => sleep(LOOK_EVERY).await,
            opened => return Ok(opened?),
        }
    }
}
