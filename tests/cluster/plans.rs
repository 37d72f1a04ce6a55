//! Plans: once a plan is handed out, only an outcome ends the transaction.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{
    AbortReason, CommitError, EnlistError, Initiator, Known, Outcome, Transaction,
};
use paxos_commit::participant::Plan;
use paxos_commit::protocol::initiator::CommitError as Refused;
use paxos_commit::protocol::types::{CommitId, Outcome as Chosen};

use crate::load::{impatient, next_generation, settled_up_to};
use crate::support::{Point, Service, all_quiet, initiator, within};

/// A cluster, its services `a` and `b`, and an initiator.
struct Scene {
    cluster: LocalCluster,
    a: Service,
    b: Service,
    initiator: Initiator,
}

impl Scene {
    async fn new() -> Scene {
        let cluster = LocalCluster::start_with(3, impatient()).await.unwrap();
        let a = Service::start(&cluster, "a").await;
        let b = Service::start(&cluster, "b").await;
        let initiator = initiator(&cluster).await;
        Scene {
            cluster,
            a,
            b,
            initiator,
        }
    }

    /// A transaction that put a row into each service, and its plan.
    async fn planned(&self) -> (Transaction, Plan) {
        let mut txn = self.initiator.begin().await.unwrap();
        self.a.put(&mut txn, "k", "v").await;
        self.b.put(&mut txn, "k", "v").await;
        let plan = txn.plan().await.unwrap();
        (txn, plan)
    }

    /// A planned transaction that its services have committed by themselves, durably.
    async fn committed(&self) -> (Transaction, CommitId) {
        let (txn, plan) = self.planned().await;
        let mut preparing = Vec::new();
        for service in [&self.a, &self.b] {
            let branch = service.participant.branch(txn.id()).await.unwrap();
            preparing.push(tokio::spawn(branch.prepare(plan.clone())));
        }
        for prepared in preparing {
            let outcome = within("a branch learns the outcome", prepared).await;
            assert_eq!(outcome.unwrap(), Ok(Chosen::Commit));
        }
        for service in [&self.a, &self.b] {
            service.wait_for("k", "v").await;
            service.unlocked().await;
        }
        (txn, plan.id())
    }

    /// Two generations open, and the one of the transactions so far is settled.
    async fn settle(&self) {
        let mut operator = self.cluster.operator().await.unwrap();
        next_generation(&mut operator).await;
        next_generation(&mut operator).await;
        settled_up_to(&self.cluster, 1).await;
        // The initiator hears of it.
        loop {
            let txn = self.initiator.begin().await.unwrap();
            if txn.id().generation == 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The services committed, so the answer is that, or that it is not known.
fn tells_the_truth(answer: &Result<Outcome, CommitError>, id: CommitId) {
    let is_true = match answer {
        Ok(outcome) => *outcome == Outcome::Committed,
        Err(CommitError::Unknown { id: of, .. }) => *of == id,
        Err(_) => false,
    };
    assert!(is_true, "the services committed, and it said: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_prepared_of_a_settled_commit_is_not_refused() {
    let scene = Scene::new().await;
    let (txn, id) = scene.committed().await;
    scene.settle().await;
    tells_the_truth(&txn.commit_prepared().await, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_of_a_settled_plan_is_not_refused() {
    let scene = Scene::new().await;
    let (txn, id) = scene.committed().await;
    scene.settle().await;
    tells_the_truth(&txn.commit().await, id);
}

/// A question about the transaction ends, unanswered, while its plan is with the services.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_ends_without_an_answer_leaves_the_plan_open() {
    let scene = Scene::new().await;
    let access = scene.cluster.initiator("shop").unwrap();
    let impatient = Initiator::builder(access).deadline(Duration::from_millis(50));
    let scene = Scene {
        initiator: impatient.connect().await.unwrap(),
        ..scene
    };
    scene.b.hold(Point::BeforePrepare);
    let (mut txn, plan) = scene.planned().await;
    txn.deadline(Duration::from_secs(30));
    let id = plan.id();
    let mut preparing = Vec::new();
    for service in [&scene.a, &scene.b] {
        let branch = service.participant.branch(txn.id()).await.unwrap();
        preparing.push(tokio::spawn(branch.prepare(plan.clone())));
    }
    scene.b.stands().await;
    let unanswered = scene.initiator.outcome(id).await;
    assert!(
        matches!(unanswered, Err(CommitError::Unknown { .. })),
        "{unanswered:?}"
    );
    scene.b.release();
    for prepared in preparing {
        let outcome = within("a branch learns the outcome", prepared).await;
        assert_eq!(outcome.unwrap(), Ok(Chosen::Commit));
    }
    assert_eq!(txn.commit_prepared().await, Ok(Outcome::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_of_a_settled_commit_tells_the_truth() {
    let scene = Scene::new().await;
    let (txn, id) = scene.committed().await;
    scene.settle().await;
    tells_the_truth(&txn.rollback().await, id);
    assert_eq!(scene.a.read("k").as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_of_a_commit_tells_that_it_is_one() {
    let scene = Scene::new().await;
    let (txn, _) = scene.committed().await;
    assert_eq!(txn.rollback().await, Ok(Outcome::Committed));
    all_quiet(&scene.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_plan_that_its_services_committed_stays_a_commit() {
    let scene = Scene::new().await;
    let (txn, id) = scene.committed().await;
    drop(txn);
    assert_eq!(scene.initiator.outcome(id).await, Ok(Known::Committed));
    scene.settle().await;
    let known = scene.initiator.outcome(id).await;
    assert_eq!(known, Ok(Known::Forgotten));
    // One that asks when it is forgotten is not told that nothing happened.
    assert_eq!(scene.initiator.rollback(id).await, Ok(Known::Forgotten));
    for service in [&scene.a, &scene.b] {
        assert_eq!(service.read("k").as_deref(), Some("v"));
    }
}

/// One branch has voted; the other holds the plan and never prepares.
async fn half_prepared(scene: &Scene) -> (Transaction, Plan) {
    let (txn, plan) = scene.planned().await;
    let branch = scene.a.participant.branch(txn.id()).await.unwrap();
    scene.a.hold(Point::AfterPrepare);
    tokio::spawn(branch.prepare(plan.clone()));
    scene.a.stands().await;
    scene.a.release();
    (txn, plan)
}

async fn nothing_is_there(scene: &Scene) {
    for service in [&scene.a, &scene.b] {
        service.unlocked().await;
        assert_eq!(service.read("k"), None);
    }
    all_quiet(&scene.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_of_a_plan_aborts_it_by_a_ballot_and_releases_all_branches() {
    let scene = Scene::new().await;
    let (txn, plan) = half_prepared(&scene).await;
    let branch = scene.b.participant.branch(txn.id()).await.unwrap();
    let outcome = txn.rollback().await.unwrap();
    assert_eq!(outcome, Outcome::Aborted(AbortReason::Ballot));
    nothing_is_there(&scene).await;
    // The service that comes too late with its plan commits nothing.
    let late = within("an answer", branch.prepare(plan.clone())).await;
    assert_ne!(late, Ok(Chosen::Commit));
    let known = scene.initiator.outcome(plan.id()).await;
    assert_eq!(known, Ok(Known::Aborted));
    nothing_is_there(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_plan_is_rolled_back_by_a_ballot_in_the_background() {
    let scene = Scene::new().await;
    let (txn, plan) = half_prepared(&scene).await;
    drop(txn);
    // The vote timeout is 10 s; the ballot does not wait for it.
    nothing_is_there(&scene).await;
    let known = scene.initiator.outcome(plan.id()).await;
    assert_eq!(known, Ok(Known::Aborted));
    assert!(scene.initiator.shutdown(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_of_the_same_name_rolls_a_plan_back() {
    let scene = Scene::new().await;
    let (txn, plan) = half_prepared(&scene).await;
    let second = initiator(&scene.cluster).await;
    assert_eq!(second.rollback(plan.id()).await, Ok(Known::Aborted));
    let bank = scene.cluster.initiator("bank").unwrap();
    let bank = Initiator::builder(bank).connect().await.unwrap();
    let refused = bank.rollback(plan.id()).await;
    assert_eq!(refused, Err(CommitError::NotOurs(plan.id())));
    // The run that holds it is told the same.
    let outcome = txn.commit_prepared().await;
    assert!(matches!(outcome, Ok(Outcome::Aborted(_))), "{outcome:?}");
    scene.a.unlocked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_made_once_and_fixes_the_roster() {
    let scene = Scene::new().await;
    let (mut txn, plan) = scene.planned().await;
    assert_eq!(txn.plan().await, Ok(plan.clone()));
    assert_eq!(txn.commit_id(), Ok(plan.id()));
    let fixed = EnlistError::Planned(plan.id());
    assert_eq!(txn.request("a", "k=w").await.unwrap_err(), fixed);
    let ticket = format!(
        "{}@c/00000000deadbeef/00112233445566778899aabbccddeeff",
        txn.id()
    );
    assert_eq!(txn.enlist(ticket.parse().unwrap()).unwrap_err(), fixed);
    // A relay gets them to prepare.
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));

    let mut txn = scene.initiator.begin().await.unwrap();
    txn.request("a", "k=w").await.unwrap();
    let refused = CommitError::Refused(Refused::RequestWithoutRelay);
    assert_eq!(txn.plan().await, Err(refused));
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_is_refused_without_an_expected_participant() {
    let scene = Scene::new().await;
    let mut txn = scene.initiator.begin().await.unwrap();
    txn.expect(["a", "b", "c"]);
    scene.a.put(&mut txn, "k", "v").await;
    let error = CommitError::Missing {
        txn: txn.id(),
        missing: vec!["b".into(), "c".into()],
    };
    assert_eq!(
        error.to_string(),
        format!(
            "commit of {} was not asked for: expected a branch of b, c, and none is enlisted; \
             enlist the ticket that the service returned",
            txn.id()
        )
    );
    assert_eq!(txn.plan().await, Err(error.clone()));
    assert_eq!(txn.commit().await, Err(error));
    scene.a.unlocked().await;
    assert_eq!(scene.a.read("k"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_participant_is_enlisted_and_the_transaction_goes_on() {
    let scene = Scene::new().await;
    let mut txn = scene.initiator.begin().await.unwrap();
    txn.expect(["a"]).expect(vec![String::from("b")]);
    scene.a.put(&mut txn, "k", "v").await;
    assert_eq!(txn.missing(), ["b"]);
    txn.plan().await.unwrap_err();
    scene.b.put(&mut txn, "k", "v").await;
    assert!(txn.missing().is_empty());
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    scene.a.wait_for("k", "v").await;
    scene.b.wait_for("k", "v").await;
}
