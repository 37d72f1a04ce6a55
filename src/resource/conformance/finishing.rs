//! Commit and rollback: once, again, without proof, of the unknown. Rules 5, 6, 8, 9, 10 and 15.

use crate::participant::{BranchId, Expiry};
use crate::protocol::types::{CommitId, RosterDigest};

use super::Checks;
use super::process::{Scene, Verdict};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "a commit comes again, in the same process and in later ones";
    checks
        .run(Rule::CommitMayComeAgain, name, commit_again::<S>)
        .await;
    let name = "a commit of what never was is Missing, and stays Missing when the horizon passes";
    checks
        .run(Rule::NoCommitWithoutProof, name, commit_unknown::<S>)
        .await;
    let name =
        "a commit of what was rolled back is Missing, and stays Missing when the horizon passes";
    checks
        .run(Rule::NoCommitWithoutProof, name, commit_rolled_back::<S>)
        .await;
    let name = "a commit under another name is no proof";
    checks
        .run(Rule::NoCommitWithoutProof, name, commit_other::<S>)
        .await;
    let name = "a rollback of what never was is done";
    checks
        .run(Rule::RollbackOfTheUnknown, name, rollback_unknown::<S>)
        .await;
    let name = "a rollback lets go of work that was not prepared";
    checks
        .run(Rule::RollbackOfTheUnknown, name, rollback_work::<S>)
        .await;
    let name = "a prepare after the rollback does not prepare";
    checks
        .run(Rule::LatePrepareAborts, name, prepare_after_rollback::<S>)
        .await;
    let name = "a prepare after letting go does not prepare";
    checks
        .run(Rule::LatePrepareAborts, name, prepare_after_let_go::<S>)
        .await;
    let name = "a rollback or an expire of what is committed changes nothing";
    checks
        .run(Rule::CommittedStays, name, committed_stays::<S>)
        .await;
    let name = "an expire rolls back what stands prepared, durably";
    checks
        .run(Rule::ExpireRollsBack, name, expire_prepared::<S>)
        .await;
    let name = "an expire of anything else says NotPrepared";
    checks
        .run(Rule::ExpireRollsBack, name, expire_other::<S>)
        .await;
}

async fn commit_again<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("again");
    let process = scene.open().await?;
    let branch = process.committed(&counter, 1).await?;
    process.commit(&branch).await?;
    process
        .expect_value(&counter, 1, "after two commits")
        .await?;
    // What came after it stays, too.
    process.committed(&counter, 10).await?;
    process.commit(&branch).await?;
    let when = "after another branch's commit, and the first one's again";
    process.expect_value(&counter, 11, when).await?;
    let process = process.restart().await?;
    process.commit(&branch).await?;
    process.expect_value(&counter, 11, when).await?;
    process.commit(&branch).await?;
    process.expect_in_doubt(&[]).await
}

async fn commit_unknown<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("unknown");
    let process = scene.open().await?;
    let unknown = process.branch();
    let what = "of which nothing was ever heard";
    process.expect_no_proof(&unknown, what).await?;
    let worked = process.work(&counter, 1).await?;
    let what = "which has worked and was not prepared";
    process.expect_no_proof(&worked, what).await?;
    process.rollback(&worked).await?;
    process
        .expect_value(&counter, 0, "without a commit")
        .await?;
    process.settled(process.branch().id, &[]).await?;
    let what = "of which there is no proof, though the horizon has passed it";
    process.expect_no_proof(&unknown, what).await?;
    process.expect_no_proof(&worked, what).await?;
    let process = process.restart().await?;
    process.expect_no_proof(&unknown, what).await?;
    process.settled(process.branch().id, &[]).await?;
    process.expect_no_proof(&worked, what).await?;
    process.expect_value(&counter, 0, "without a commit").await
}

async fn commit_rolled_back<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("rolled-back");
    let process = scene.open().await?;
    let branch = process.prepared(&counter, 1).await?;
    process.rollback(&branch).await?;
    let what = "which was rolled back";
    process.expect_no_proof(&branch, what).await?;
    process.settled(branch.id, &[]).await?;
    process.expect_no_proof(&branch, what).await?;
    let process = process.restart().await?;
    process.expect_no_proof(&branch, what).await?;
    process.expect_value(&counter, 0, "after a rollback").await
}

async fn commit_other<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("other");
    let process = scene.open().await?;
    let branch = process.committed(&counter, 1).await?;
    let other_roster = BranchId {
        id: CommitId {
            txn: branch.id.txn,
            roster: RosterDigest::MIN,
        },
        branch: branch.branch.clone(),
    };
    let what = "of whose transaction another instance was committed";
    process.expect_no_proof(&other_roster, what).await?;
    let mut other_session = branch.clone();
    other_session.branch.session.0 += 1_000;
    let what = "of whose transaction another session's branch was committed";
    process.expect_no_proof(&other_session, what).await?;
    process.expect_value(&counter, 1, "after one commit").await
}

async fn rollback_unknown<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("unknown");
    let process = scene.open().await?;
    let unknown = process.branch();
    process.rollback(&unknown).await?;
    process.rollback(&unknown).await?;
    let worked = process.work(&counter, 1).await?;
    let process = process.restart().await?;
    process.rollback(&worked).await?;
    process.rollback(&unknown).await?;
    process.expect_value(&counter, 0, "after a rollback").await
}

async fn rollback_work<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("work");
    let process = scene.open().await?;
    let branch = process.work(&counter, 1).await?;
    process.rollback(&branch).await?;
    process.committed(&counter, 10).await?;
    let when = "when the other branch was rolled back";
    process.expect_value(&counter, 10, when).await
}

async fn prepare_after_rollback<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("late");
    let process = scene.open().await?;
    let unknown = process.branch();
    process.rollback(&unknown).await?;
    let why = "its rollback came first";
    process.expect_no_vote(&unknown, why).await?;
    let worked = process.work(&counter, 1).await?;
    process.rollback(&worked).await?;
    process.expect_no_vote(&worked, why).await?;
    let prepared = process.prepared(&counter, 1).await?;
    process.rollback(&prepared).await?;
    process.expect_no_vote(&prepared, why).await?;
    process.expect_in_doubt(&[]).await?;
    process.expect_value(&counter, 0, "after rollbacks").await
}

async fn prepare_after_let_go<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("let-go");
    let process = scene.open().await?;
    let branch = process.work(&counter, 1).await?;
    process.let_go(&branch).await?;
    let why = "its work was let go";
    process.expect_no_vote(&branch, why).await?;
    process.expect_in_doubt(&[]).await?;
    // The locks, too.
    process.committed(&counter, 10).await?;
    let when = "when the other branch was let go";
    process.expect_value(&counter, 10, when).await
}

async fn committed_stays<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("stays");
    let mut process = scene.open().await?;
    let branch = process.committed(&counter, 1).await?;
    for _ in 0..2 {
        process.rollback(&branch).await?;
        let when = "after its commit and a rollback";
        process.expect_value(&counter, 1, when).await?;
        process.expire(&branch, Expiry::NotPrepared).await?;
        let when = "after its commit and an expire";
        process.expect_value(&counter, 1, when).await?;
        process.commit(&branch).await?;
        process = process.restart().await?;
    }
    Ok(())
}

async fn expire_prepared<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("expired");
    let process = scene.open().await?;
    let branch = process.prepared(&counter, 1).await?;
    process.expire(&branch, Expiry::RolledBack).await?;
    process.expect_in_doubt(&[]).await?;
    process.expire(&branch, Expiry::NotPrepared).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[]).await?;
    process.expire(&branch, Expiry::NotPrepared).await?;
    process.expect_value(&counter, 0, "after an expire").await?;
    // Of an earlier process, too.
    let branch = process.prepared(&counter, 1).await?;
    let process = process.restart().await?;
    process.expire(&branch, Expiry::RolledBack).await?;
    process.expect_in_doubt(&[]).await?;
    process.expect_value(&counter, 0, "after an expire").await
}

async fn expire_other<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("other");
    let process = scene.open().await?;
    let unknown = process.branch();
    process.expire(&unknown, Expiry::NotPrepared).await?;
    let committed = process.committed(&counter, 1).await?;
    process.expire(&committed, Expiry::NotPrepared).await?;
    let rolled_back = process.prepared(&counter, 10).await?;
    process.rollback(&rolled_back).await?;
    process.expire(&rolled_back, Expiry::NotPrepared).await?;
    process.expect_value(&counter, 1, "after one commit").await
}
