//! Services that can be made to wait, to die and to come back; and patience.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{Initiator, Transaction};
use paxos_commit::participant::{Branch, BranchId, Expiry, Participant, Proof, ResourceManager};
use paxos_commit::protocol::participant::InDoubt;
use paxos_commit::protocol::types::{CommitId, Opening, ReadOnly, Request, StoreId, TxnId, Vote};
use paxos_commit::resource::embedded::{
    BranchError, Embedded, Options, RequestError, Work, WorkError,
};
use tokio::sync::watch;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits for something that must come.
pub(crate) async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let come = tokio::time::timeout(PATIENCE, coming).await;
    come.unwrap_or_else(|_| panic!("{what}: did not come within {PATIENCE:?}"))
}

/// Looks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within(what, looking).await;
}

/// An initiator of the name `shop`.
pub(crate) async fn initiator(cluster: &LocalCluster) -> Initiator {
    let access = cluster.initiator("shop").unwrap();
    Initiator::builder(access).connect().await.unwrap()
}

/// What replica `id` knows of a transaction, or of all that are under way.
pub(crate) async fn undecided(cluster: &LocalCluster, id: u32) -> Vec<CommitId> {
    let replica = cluster.replica(id).expect("it runs");
    let undecided = replica.inspect(|core| core.undecided().copied().collect());
    undecided.await.expect("it runs")
}

/// How many transactions replica `id` waits for: undecided, or committed and not applied.
pub(crate) async fn under_way(cluster: &LocalCluster, id: u32) -> usize {
    let replica = cluster.replica(id).expect("it runs");
    let under_way = replica.inspect(|core| core.undecided().count() + core.unapplied().count());
    under_way.await.expect("it runs")
}

/// Waits until no replica that runs waits for anything.
pub(crate) async fn all_quiet(cluster: &LocalCluster) {
    for member in cluster.members() {
        if cluster.replica(member.id.0).is_some() {
            let what = format!("nothing under way at replica {}", member.id);
            eventually(&what, async || under_way(cluster, member.id.0).await == 0).await;
        }
    }
}

/// Where a service can be made to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// It was asked to prepare.
    BeforePrepare,
    /// It is prepared, durably, and has not voted.
    AfterPrepare,
    /// It was told to commit.
    BeforeCommit,
}

/// One service: a store, a gate before it, and a session.
pub(crate) struct Service {
    pub(crate) store: Embedded,
    pub(crate) participant: Participant,
    folder: tempfile::TempDir,
    gate: Arc<Gate>,
}

/// What is left of a service that died: its disk.
pub(crate) struct Disk(tempfile::TempDir);

/// Runs a request: `KEY=VALUE`; anything else fails.
fn put(work: &Work, request: &Request) -> Result<(), RequestError> {
    let text = String::from_utf8_lossy(&request.0);
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    work.put(key, value)?;
    Ok(())
}

/// Hands a branch's ticket over, through text, as between processes.
fn enlist(txn: &mut Transaction, branch: &Branch) {
    let ticket = branch.ticket().to_string();
    txn.enlist(ticket.parse().unwrap()).unwrap();
}

impl Service {
    pub(crate) async fn start(cluster: &LocalCluster, name: &str) -> Service {
        let disk = Disk(tempfile::tempdir().unwrap());
        Service::come_back(cluster, name, disk).await
    }

    /// Starts with the disk of one that died.
    pub(crate) async fn come_back(cluster: &LocalCluster, name: &str, disk: Disk) -> Service {
        let mut opened = None;
        // What the one before it was writing when it died is finished first.
        eventually("the store is free", async || {
            let options = Options::new().requests(put);
            opened = Embedded::open(disk.0.path(), options).ok();
            opened.is_some()
        })
        .await;
        let store = opened.expect("it was opened");
        Service::with(cluster, name, store, disk.0).await
    }

    /// Another session of the same participant, on the same store.
    pub(crate) async fn beside(&self, cluster: &LocalCluster, name: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        Service::with(cluster, name, self.store.clone(), folder).await
    }

    async fn with(
        cluster: &LocalCluster,
        name: &str,
        store: Embedded,
        folder: tempfile::TempDir,
    ) -> Service {
        let gate = Arc::new(Gate {
            identity: store.store(),
            openings: store.openings(),
            store: Mutex::new(Some(store.clone())),
            held: watch::Sender::new(None),
            standing: watch::Sender::new(0),
        });
        let access = cluster.participant(name).unwrap();
        let builder = Participant::builder(access).scan_interval(Duration::from_millis(500));
        let connecting = builder.connect(Gated(gate.clone()));
        let participant = within("a participant connects", connecting).await;
        Service {
            store,
            participant: participant.unwrap(),
            folder,
            gate,
        }
    }

    /// The process ends without warning. (What it had begun to save is saved.)
    pub(crate) fn die(self) -> Disk {
        let Service { folder, gate, .. } = self;
        gate.store.lock().unwrap().take();
        Disk(folder)
    }

    /// The participant is dropped, and its process and its store live on.
    pub(crate) fn leave(self) -> Embedded {
        self.store
    }

    /// Whoever comes to this point waits there.
    pub(crate) fn hold(&self, point: Point) {
        self.gate.standing.send_replace(0);
        self.gate.held.send_replace(Some(point));
    }

    /// Waits until somebody waits at the point that is held.
    pub(crate) async fn stands(&self) {
        let mut standing = self.gate.standing.subscribe();
        let waiting = standing.wait_for(|count| *count > 0);
        within("a branch stands at the gate", waiting)
            .await
            .unwrap();
    }

    pub(crate) fn release(&self) {
        self.gate.held.send_replace(None);
    }

    /// Puts a row under a transaction and enlists the branch.
    pub(crate) async fn put(&self, txn: &mut Transaction, key: &str, value: &str) {
        let branch = self.participant.branch(txn.id()).await.unwrap();
        // The one who had the row may have been told its outcome before this store was.
        eventually("the row is free", async || {
            let work = self.store.work(&branch);
            match work.attempt(|work| work.put(key, value)) {
                Ok(()) => true,
                Err(WorkError::Conflict { .. }) => false,
                Err(error) => panic!("cannot put {key}: {error}"),
            }
        })
        .await;
        enlist(txn, &branch);
    }

    /// Works under a transaction and enlists the branch.
    pub(crate) async fn work(&self, txn: &mut Transaction, work: impl FnOnce(&Work)) {
        let branch = self.participant.branch(txn.id()).await.unwrap();
        work(&self.store.work(&branch));
        enlist(txn, &branch);
    }

    pub(crate) fn read(&self, key: &str) -> Option<String> {
        let value = self.store.read(key).unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    }

    /// Waits until a row is committed here.
    pub(crate) async fn wait_for(&self, key: &str, value: &str) {
        let what = format!("{key} becomes {value}");
        eventually(&what, async || self.read(key).as_deref() == Some(value)).await;
    }

    /// Waits until no row is locked: every branch was committed or let go.
    pub(crate) async fn unlocked(&self) {
        eventually("no row is locked", async || self.store.locks() == 0).await;
    }
}

/// Stands before a store.
struct Gate {
    identity: StoreId,
    openings: Vec<Opening>,
    /// None when the process has died.
    store: Mutex<Option<Embedded>>,
    held: watch::Sender<Option<Point>>,
    /// How many wait.
    standing: watch::Sender<usize>,
}

impl Gate {
    async fn pass(&self, point: Point) {
        let mut held = self.held.subscribe();
        if *held.borrow() == Some(point) {
            self.standing.send_modify(|count| *count += 1);
        }
        let passed = held.wait_for(|held| *held != Some(point)).await;
        passed.expect("the gate is here");
    }

    /// The store. In a process that has died nothing goes on.
    async fn store(&self) -> Embedded {
        let store = self.store.lock().unwrap().clone();
        match store {
            Some(store) => store,
            None => std::future::pending().await,
        }
    }
}

/// A store behind a gate.
struct Gated(Arc<Gate>);

impl ResourceManager for Gated {
    type Error = BranchError;

    fn store(&self) -> StoreId {
        self.0.identity
    }

    fn openings(&self) -> Vec<Opening> {
        self.0.openings.clone()
    }

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, BranchError> {
        self.0.pass(Point::BeforePrepare).await;
        let store = self.0.store().await;
        let vote = store.prepare(branch, request, read_only).await;
        drop(store);
        self.0.pass(Point::AfterPrepare).await;
        vote
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, BranchError> {
        self.0.pass(Point::BeforeCommit).await;
        self.0.store().await.commit(branch).await
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), BranchError> {
        self.0.store().await.rollback(branch).await
    }

    async fn let_go(&self, txn: TxnId) {
        self.0.store().await.let_go(txn).await;
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, BranchError> {
        self.0.store().await.in_doubt().await
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, BranchError> {
        self.0.store().await.expire(branch).await
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), BranchError> {
        self.0.store().await.settled(through, listed).await
    }
}
