//! Branches that change nothing (rule 14), and branches that lost part of their work (18).

use crate::participant::BranchId;
use crate::protocol::types::{ReadOnly, Vote};

use super::Checks;
use super::process::{Process, Scene, Verdict, broken};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "a branch that changed something does not vote ReadOnly";
    checks.run(Rule::ReadOnlyIsTrue, name, changed::<S>).await;
    let name = "where ReadOnly is forbidden a reader is prepared, and stays so across a restart";
    checks.run(Rule::ReadOnlyIsTrue, name, forbidden::<S>).await;
    let name = "a reader that votes ReadOnly has let go of everything";
    checks.run(Rule::ReadOnlyIsTrue, name, let_go::<S>).await;
    let name = "a branch without any work does not vote ReadOnly where that is forbidden";
    checks.run(Rule::ReadOnlyIsTrue, name, no_work::<S>).await;
    let name = "a branch whose connection was lost does not prepare what came after";
    checks
        .run(Rule::LostConnectionPoisons, name, lost_connection::<S>)
        .await;
}

async fn changed<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("changed");
    let process = scene.open().await?;
    for looks in [false, true] {
        let branch = process.branch();
        if looks {
            process.look(&branch, &counter).await?;
        }
        process.add(&branch, &counter, 1).await?;
        if looks {
            process.look(&branch, &counter).await?;
        }
        process
            .expect_prepared(&branch, None, ReadOnly::Allowed)
            .await?;
        process.commit(&branch).await?;
    }
    process.expect_value(&counter, 2, "after two commits").await
}

async fn forbidden<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("read");
    let process = scene.open().await?;
    process.committed(&counter, 1).await?;
    let commits = reader(&process, &counter).await?;
    let rolls_back = reader(&process, &counter).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[&commits, &rolls_back]).await?;
    process.commit(&commits).await?;
    process.commit(&commits).await?;
    process.rollback(&rolls_back).await?;
    process.expect_in_doubt(&[]).await?;
    // Their locks are gone.
    process.committed(&counter, 10).await?;
    process
        .expect_value(&counter, 11, "after two commits")
        .await
}

/// A branch that has only read, prepared.
async fn reader<S: Subject>(process: &Process<'_, S>, counter: &str) -> Result<BranchId, Verdict> {
    let branch = process.branch();
    process.look(&branch, counter).await?;
    process.prepare(&branch).await?;
    Ok(branch)
}

async fn let_go<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("read");
    let process = scene.open().await?;
    let branch = process.branch();
    process.look(&branch, &counter).await?;
    match process.vote(&branch, None, ReadOnly::Allowed).await? {
        Ok(Vote::ReadOnly) => {
            process.expect_in_doubt(&[]).await?;
            process.committed(&counter, 1).await?;
        }
        Ok(Vote::Prepared) => {
            // It never says ReadOnly, which is right, too.
            process.expect_in_doubt(&[&branch]).await?;
            process.commit(&branch).await?;
            process.committed(&counter, 1).await?;
        }
        Ok(Vote::Aborted) => {
            return broken(
                "ReadOnly or Prepared of a branch that has only read",
                "Aborted",
            );
        }
        Err(error) => {
            return broken("ReadOnly or Prepared of a branch that has only read", error);
        }
    }
    let process = process.restart().await?;
    process.expect_in_doubt(&[]).await?;
    process.expect_value(&counter, 1, "after one commit").await
}

async fn no_work<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let process = scene.open().await?;
    let branch = process.branch();
    match process.vote(&branch, None, ReadOnly::Forbidden).await? {
        Ok(Vote::Prepared) => {
            let process = process.restart().await?;
            process.expect_in_doubt(&[&branch]).await?;
            process.commit(&branch).await?;
            process.commit(&branch).await?;
            process.expect_in_doubt(&[]).await
        }
        Ok(Vote::Aborted) | Err(_) => process.expect_in_doubt(&[]).await,
        Ok(Vote::ReadOnly) => broken(
            "Prepared or Aborted, for ReadOnly was forbidden",
            "ReadOnly",
        ),
    }
}

async fn lost_connection<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let (before, after) = (scene.counter("before"), scene.counter("after"));
    let process = scene.open().await?;
    for works_on in [true, false] {
        let branch = process.work(&before, 1).await?;
        let lost = scene
            .subject
            .lose_connection(&process.manager, branch.id.txn);
        match lost.await {
            Ok(applied) => scene.applied(applied)?,
            Err(error) => return broken("the subject to break a connection", error),
        }
        if works_on {
            // Refused, or too late to count: either is right.
            let _ = process.try_add(&branch, &after, 1).await;
        }
        let why = "the connection was lost on which part of its work was done";
        process.expect_no_vote(&branch, why).await?;
        process.rollback(&branch).await?;
        process.expect_in_doubt(&[]).await?;
    }
    // Whoever comes next is not harmed.
    process.committed(&before, 10).await?;
    let when = "when the branch was poisoned";
    process.expect_value(&before, 10, when).await?;
    process.expect_value(&after, 0, when).await
}
