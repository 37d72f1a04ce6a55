//! Counter-examples that a review found.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use paxos_commit::cluster::{LocalCluster, Weather};
use paxos_commit::initiator::{AbortReason, CommitError, Initiator, Outcome};
use paxos_commit::participant::{BranchId, Expiry, Participant, Proof, ResourceManager};
use paxos_commit::protocol::participant::InDoubt;
use paxos_commit::protocol::types::{
    CommitId, Outcome as Chosen, ReadOnly, Request, StoreId, TxnId, Vote,
};
use paxos_commit::resource::embedded::{BranchError, Embedded, Options};

use crate::support::{Point, Service, initiator, within};

/// Commit was asked for, and happens; the application is told that it was not asked for.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_while_committing_is_not_not_asked_for() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    a.hold(Point::AfterPrepare);
    let committing = tokio::spawn(txn.commit());
    a.stands().await;
    initiator.shutdown(Duration::from_millis(10)).await;
    let answer = within("commit answers", committing).await.unwrap();
    a.release();
    a.wait_for("k", "v").await;
    assert!(
        !matches!(answer, Err(CommitError::Stopped(_))),
        "it was committed, and commit said: {}",
        answer.unwrap_err()
    );
}

/// Commit and giving up meet in one turn of a driver that is busy.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_over_at_once_is_not_not_asked_for() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    let mut transactions = Vec::new();
    for number in 0..500 {
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, &format!("k{number}"), "v").await;
        txn.deadline(Duration::ZERO);
        transactions.push(txn);
    }
    let tasks = transactions
        .into_iter()
        .map(|txn| tokio::spawn(txn.commit()));
    let tasks: Vec<_> = tasks.collect();
    let mut stopped = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        if let Err(CommitError::Stopped(_)) = task.await.unwrap() {
            stopped.push(format!("k{number}"));
        }
    }
    a.unlocked().await;
    let committed = stopped.iter().filter(|key| a.read(key).is_some()).count();
    assert_eq!(
        committed,
        0,
        "of {} that were \"not asked for\"",
        stopped.len()
    );
}

/// The resource manager panics once, when it is told to commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_resource_manager_does_not_hang_the_branch() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), Options::new()).unwrap();
    let manager = PanicsOnce(store.clone(), AtomicBool::new(true));
    let builder = Participant::builder(cluster.participant("a").unwrap());
    let builder = builder.scan_interval(Duration::from_millis(500));
    let participant = builder.connect(manager).await.unwrap();
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    let branch = participant.branch(txn.id()).await.unwrap();
    store.work(&branch).put("k", "v").unwrap();
    txn.enlist(branch.ticket()).unwrap();
    assert!(txn.commit().await.is_ok());
    let applied = tokio::time::timeout(Duration::from_secs(20), async {
        while store.read("k").unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(
        applied.await.is_ok(),
        "committed, and never applied: its locks are held for ever"
    );
}

struct PanicsOnce(Embedded, AtomicBool);

impl ResourceManager for PanicsOnce {
    type Error = BranchError;

    fn store(&self) -> StoreId {
        self.0.store()
    }

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, BranchError> {
        self.0.prepare(branch, request, read_only).await
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, BranchError> {
        assert!(!self.1.swap(false, Ordering::Relaxed), "once");
        self.0.commit(branch).await
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), BranchError> {
        self.0.rollback(branch).await
    }

    async fn let_go(&self, txn: TxnId) {
        self.0.let_go(txn).await;
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, BranchError> {
        self.0.in_doubt().await
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, BranchError> {
        self.0.expire(branch).await
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), BranchError> {
        self.0.settled(through, listed).await
    }
}

/// It panics before it has returned a future.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_before_there_is_a_future_is_a_vote_to_abort() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let builder = Participant::builder(cluster.participant("a").unwrap());
    let participant = builder.connect(PanicsAtOnce).await.unwrap();
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    let branch = participant.branch(txn.id()).await.unwrap();
    txn.enlist(branch.ticket()).unwrap();
    txn.vote_timeout(Duration::from_secs(600));
    let committing = within("the branch votes", txn.commit());
    assert_eq!(
        committing.await,
        Ok(Outcome::Aborted(AbortReason::Vote)),
        "nobody waited for the vote timeout"
    );
    assert!(participant.shutdown(Duration::from_secs(20)).await);
}

struct PanicsAtOnce;

impl ResourceManager for PanicsAtOnce {
    type Error = BranchError;

    fn store(&self) -> StoreId {
        StoreId::from_u128(1)
    }

    fn prepare(
        &self,
        _: &BranchId,
        request: Option<Request>,
        _: ReadOnly,
    ) -> impl Future<Output = Result<Vote, BranchError>> + Send {
        assert!(request.is_some(), "no request");
        async { Ok(Vote::Prepared) }
    }

    async fn commit(&self, _: &BranchId) -> Result<Proof, BranchError> {
        Ok(Proof::Found)
    }

    async fn rollback(&self, _: &BranchId) -> Result<(), BranchError> {
        Ok(())
    }

    async fn let_go(&self, _: TxnId) {}

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, BranchError> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: &BranchId) -> Result<Expiry, BranchError> {
        Ok(Expiry::NotPrepared)
    }

    async fn settled(&self, _: CommitId, _: &[BranchId]) -> Result<(), BranchError> {
        Ok(())
    }
}

/// Somebody else asks for the outcome, and gives up.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_does_not_speak_for_others() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let access = cluster.initiator("shop").unwrap();
    let builder = Initiator::builder(access).deadline(Duration::from_millis(300));
    let initiator = builder.connect().await.unwrap();
    let mut txn = initiator.begin().await.unwrap();
    txn.deadline(Duration::from_secs(30));
    a.put(&mut txn, "k", "v").await;
    let id = txn.plan().await.unwrap().id();
    a.hold(Point::AfterPrepare);
    let committing = tokio::spawn(txn.commit());
    a.stands().await;
    let asked = initiator.outcome(id).await;
    assert!(
        matches!(asked, Err(CommitError::Unknown { .. })),
        "{asked:?}"
    );
    a.release();
    a.wait_for("k", "v").await;
    let answer = within("commit answers", committing).await.unwrap();
    assert!(
        answer.is_ok(),
        "it was committed, and commit said: {}",
        answer.unwrap_err()
    );
}

/// The transaction was aborted before this service came to prepare.
#[tokio::test(flavor = "multi_thread")]
async fn prepare_after_the_abort_answers() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let b = Service::start(&cluster, "b").await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    b.put(&mut txn, "k", "v").await;
    let (at_a, at_b) = (
        a.participant.branch(txn.id()).await.unwrap(),
        b.participant.branch(txn.id()).await.unwrap(),
    );
    let plan = txn.plan().await.unwrap();
    at_a.poison().await;
    let answer = within("a's prepare", at_a.prepare(plan.clone())).await;
    assert_eq!(answer, Ok(Chosen::Abort));
    b.unlocked().await;
    let answer = tokio::time::timeout(Duration::from_secs(20), at_b.prepare(plan)).await;
    assert!(
        answer.is_ok(),
        "b's prepare hangs, although b knows that it is aborted"
    );
}

/// Commit is refused: "nothing happened, and the branches let go".
#[tokio::test(flavor = "multi_thread")]
async fn refused_lets_go() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    txn.request("a", b"k=w".to_vec()).await.unwrap();
    let answer = txn.commit_prepared().await;
    assert!(matches!(answer, Err(CommitError::Refused(_))), "{answer:?}");
    let unlocked = tokio::time::timeout(Duration::from_secs(20), a.unlocked()).await;
    assert!(unlocked.is_ok(), "the branch keeps its locks");
}

/// 1 has come to further saves while 3 was down. When it reaches 3 before 3 reaches it, 3 repeats
/// what it was just told, and 1 takes that for the memory of an earlier run.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_nothing_goes_on() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    cluster.kill(3).await;
    cluster.stop(1).await;
    cluster.restart(1).await.unwrap();
    for round in 0..5 {
        let mut txn = initiator.begin().await.unwrap();
        a.put(&mut txn, &format!("k{round}"), "v").await;
        assert!(txn.commit().await.is_ok());
    }
    // From 3 to 1 it is far; from 1 to 3 it is not.
    let weather = Weather {
        delay: Duration::from_millis(1_500),
        ..Weather::default()
    };
    cluster.weather(1, weather);
    cluster.restart(3).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(15), cluster.replica(1).unwrap().ended());
    let ended = ended.await;
    assert!(
        ended.is_err(),
        "a replica that has lost nothing ends: {}",
        ended.unwrap().unwrap_err()
    );
}
