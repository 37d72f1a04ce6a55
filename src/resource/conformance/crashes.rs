//! What is durable: rules 1 to 4 and 7, and calls that are cut short (20).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::participant::{BranchId, ResourceManager};
use crate::protocol::types::{Outcome, ReadOnly, Vote};

use super::Checks;
use super::process::{Process, Scene, Verdict, broken};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "a prepared branch survives the end of its process and commits in the next one";
    let check = async |scene: &Scene<'_, S>| prepared(scene, Outcome::Commit).await;
    checks.run(Rule::PreparedIsDurable, name, check).await;
    let name = "a prepared branch survives the end of its process and rolls back in the next one";
    let check = async |scene: &Scene<'_, S>| prepared(scene, Outcome::Abort).await;
    checks.run(Rule::PreparedIsDurable, name, check).await;
    let name = "prepared branches survive a crash of the store";
    checks
        .run(Rule::PreparedIsDurable, name, store_crashes::<S>)
        .await;
    let name = "prepared branches survive a crash of the store and the end of their process";
    checks
        .run(Rule::PreparedIsDurable, name, all_crashes::<S>)
        .await;
    let name = "what is prepared shows only after its commit";
    checks
        .run(Rule::PreparedIsNotCommitted, name, shows_late::<S>)
        .await;
    let name = "what a prepared branch changed cannot be overwritten";
    let check = async |scene: &Scene<'_, S>| locked(scene, Restart::No).await;
    checks.run(Rule::PreparedKeepsItsLocks, name, check).await;
    let name = "what a prepared branch changed cannot be overwritten after a restart";
    let check = async |scene: &Scene<'_, S>| locked(scene, Restart::Yes).await;
    checks.run(Rule::PreparedKeepsItsLocks, name, check).await;
    let name = "a commit survives the end of its process";
    checks
        .run(Rule::CommittedIsDurable, name, committed::<S>)
        .await;
    let name = "a commit survives a crash of the store";
    let check = async |scene: &Scene<'_, S>| finished_in_crash(scene, Outcome::Commit).await;
    checks.run(Rule::CommittedIsDurable, name, check).await;
    let name = "a rollback survives the end of its process, and may come again";
    checks
        .run(Rule::RolledBackIsDurable, name, rolled_back::<S>)
        .await;
    let name = "a rollback survives a crash of the store";
    let check = async |scene: &Scene<'_, S>| finished_in_crash(scene, Outcome::Abort).await;
    checks.run(Rule::RolledBackIsDurable, name, check).await;
    let name = "a prepare cut short leaves the branch prepared, whole, or nothing";
    checks.run(Rule::CutShort, name, cut_prepare::<S>).await;
    let name = "a commit cut short ends when it comes again";
    let check = async |scene: &Scene<'_, S>| cut_finish(scene, Outcome::Commit).await;
    checks.run(Rule::CutShort, name, check).await;
    let name = "a rollback cut short ends when it comes again";
    let check = async |scene: &Scene<'_, S>| cut_finish(scene, Outcome::Abort).await;
    checks.run(Rule::CutShort, name, check).await;
}

/// Whether a process ends in between.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restart {
    No,
    Yes,
}

/// What an outcome leaves of a branch that added so much.
fn left(outcome: Outcome, amount: i64) -> i64 {
    match outcome {
        Outcome::Commit => amount,
        Outcome::Abort => 0,
    }
}

async fn prepared<S: Subject>(scene: &Scene<'_, S>, outcome: Outcome) -> Result<(), Verdict> {
    let (one, two) = (scene.counter("one"), scene.counter("two"));
    let process = scene.open().await?;
    let branch = process.work(&one, 1).await?;
    process.add(&branch, &two, 2).await?;
    process.prepare(&branch).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[&branch]).await?;
    process.finish(&branch, outcome).await?;
    process.expect_in_doubt(&[]).await?;
    let when = format!("after the {outcome}");
    process.expect_value(&one, left(outcome, 1), &when).await?;
    process.expect_value(&two, left(outcome, 2), &when).await
}

async fn store_crashes<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let (kept, gone) = (scene.counter("kept"), scene.counter("gone"));
    let process = scene.open().await?;
    let commits = process.prepared(&kept, 1).await?;
    let rolls_back = process.prepared(&gone, 1).await?;
    scene.crash_store().await?;
    process.expect_in_doubt(&[&commits, &rolls_back]).await?;
    process.commit(&commits).await?;
    process.rollback(&rolls_back).await?;
    process.expect_in_doubt(&[]).await?;
    process.expect_value(&kept, 1, "after the commit").await?;
    process.expect_value(&gone, 0, "after the rollback").await
}

async fn all_crashes<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let (kept, gone) = (scene.counter("kept"), scene.counter("gone"));
    let process = scene.open().await?;
    let commits = process.prepared(&kept, 1).await?;
    let rolls_back = process.prepared(&gone, 1).await?;
    scene.crash_store().await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[&commits, &rolls_back]).await?;
    process.commit(&commits).await?;
    process.rollback(&rolls_back).await?;
    process.expect_value(&kept, 1, "after the commit").await?;
    process.expect_value(&gone, 0, "after the rollback").await
}

async fn shows_late<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("late");
    let process = scene.open().await?;
    let branch = process.work(&counter, 1).await?;
    let value = process.look(&branch, &counter).await?;
    if value != 1 {
        return broken("1, which the transaction itself has added", value);
    }
    let when = "before the commit";
    process.expect_value(&counter, 0, when).await?;
    process.prepare(&branch).await?;
    process.expect_value(&counter, 0, when).await?;
    let process = process.restart().await?;
    process.expect_value(&counter, 0, when).await?;
    process.commit(&branch).await?;
    process
        .expect_value(&counter, 1, "once commit has answered")
        .await
}

/// Another branch adds to the same counter. It waits, fails or goes on; but the sum is right.
async fn locked<S: Subject>(scene: &Scene<'_, S>, restart: Restart) -> Result<(), Verdict> {
    let counter = scene.counter("locked");
    let mut process = scene.open().await?;
    let first = process.prepared(&counter, 1).await?;
    if restart == Restart::Yes {
        process = process.restart().await?;
    }
    let second = process.branch();
    let added = process.try_add(&second, &counter, 10).await;
    let voted = match added {
        Some(Ok(())) => process.vote(&second, None, ReadOnly::Forbidden).await?,
        Some(Err(_)) | None => Ok(Vote::Aborted),
    };
    process.commit(&first).await?;
    let mut sum = 1;
    if voted == Ok(Vote::Prepared) {
        process.commit(&second).await?;
        sum += 10;
    } else {
        process.rollback(&second).await?;
    }
    let when = "when both branches have ended";
    process.expect_value(&counter, sum, when).await?;
    // And it is let go.
    process.committed(&counter, 100).await?;
    let when = "after the next commit";
    process.expect_value(&counter, sum + 100, when).await
}

async fn committed<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("committed");
    let process = scene.open().await?;
    process.committed(&counter, 1).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[]).await?;
    process.expect_value(&counter, 1, "after a restart").await
}

async fn rolled_back<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("rolled-back");
    let process = scene.open().await?;
    let branch = process.prepared(&counter, 1).await?;
    process.rollback(&branch).await?;
    process.rollback(&branch).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[]).await?;
    process.rollback(&branch).await?;
    process.expect_value(&counter, 0, "after a rollback").await
}

async fn finished_in_crash<S: Subject>(
    scene: &Scene<'_, S>,
    outcome: Outcome,
) -> Result<(), Verdict> {
    let counter = scene.counter("finished");
    let process = scene.open().await?;
    let branch = process.prepared(&counter, 1).await?;
    process.finish(&branch, outcome).await?;
    scene.crash_store().await?;
    process.expect_in_doubt(&[]).await?;
    let (left, when) = (left(outcome, 1), "after the crash");
    process.expect_value(&counter, left, when).await?;
    process.finish(&branch, outcome).await?;
    process.expect_value(&counter, left, when).await
}

/// How often a call is polled before it is cut short; each number is tried.
const POLLS_MAX: usize = 8;

/// Polls a future so many times, and then drops it.
async fn cut_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn cut_prepare<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let (one, two) = (scene.counter("one"), scene.counter("two"));
    let mut sum = 0;
    for polls in 0..POLLS_MAX {
        let process = scene.open().await?;
        let branch = process.work(&one, 1).await?;
        process.add(&branch, &two, 1).await?;
        let prepare = process.manager.prepare(&branch, None, ReadOnly::Forbidden);
        let voted = cut_after(polls, prepare).await;
        let answered = matches!(voted, Some(Ok(Vote::Prepared)));
        let process = process.restart().await?;
        let found = process.in_doubt().await?;
        let is_found = found.iter().any(|(id, _, _)| *id == branch.id);
        if answered && !is_found {
            return broken(format_args!("{branch} in doubt after its vote"), "nothing");
        }
        if is_found && polls % 2 == 0 {
            process.commit(&branch).await?;
            sum += 1;
        } else {
            process.rollback(&branch).await?;
        }
        let when = "after a prepare that was cut short";
        process.expect_value(&one, sum, when).await?;
        process.expect_value(&two, sum, when).await?;
        surfaced_late(&process).await?;
        process.kill().await?;
    }
    Ok(())
}

/// A slow prepare may surface after any scan: then the next one finds it.
async fn surfaced_late<S: Subject>(process: &Process<'_, S>) -> Result<(), Verdict> {
    for (id, session, _) in process.in_doubt().await? {
        let mut branch = process.me().clone();
        branch.session = session;
        process.rollback(&BranchId { id, branch }).await?;
    }
    Ok(())
}

async fn cut_finish<S: Subject>(scene: &Scene<'_, S>, outcome: Outcome) -> Result<(), Verdict> {
    let counter = scene.counter("cut");
    let mut sum = 0;
    for polls in 0..POLLS_MAX {
        for restart in [Restart::No, Restart::Yes] {
            let process = scene.open().await?;
            let branch = process.prepared(&counter, 1).await?;
            let manager = &process.manager;
            let answered = match outcome {
                Outcome::Commit => cut_after(polls, manager.commit(&branch)).await.is_some(),
                Outcome::Abort => cut_after(polls, manager.rollback(&branch)).await.is_some(),
            };
            // A process may go on as well, if only the task was cancelled.
            let process = match restart {
                Restart::No => process,
                Restart::Yes => process.restart().await?,
            };
            process.finish(&branch, outcome).await?;
            sum += left(outcome, 1);
            let when = match answered {
                true => "when the call has come twice",
                false => "when the call was cut short and came again",
            };
            process.expect_value(&counter, sum, when).await?;
            process.expect_in_doubt(&[]).await?;
            process.kill().await?;
        }
    }
    Ok(())
}
