//! Names: what is in doubt, whose it is, and prepares that come again. Rules 11, 12, 13 and 17.

use crate::participant::BranchId;
use crate::protocol::participant::Owner;
use crate::protocol::types::{Outcome, ReadOnly, Vote};

use super::Checks;
use super::process::{Process, Scene, Verdict, broken};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "in doubt is what stands prepared, of this and of earlier sessions, and no other";
    checks
        .run(Rule::InDoubtIsComplete, name, in_doubt::<S>)
        .await;
    let name = "in doubt is what another process has prepared that lives";
    checks
        .run(Rule::InDoubtIsComplete, name, in_doubt_elsewhere::<S>)
        .await;
    let name = "the owner of a process's own branch is not Gone";
    checks.run(Rule::GoneMeansGone, name, own_owner::<S>).await;
    let name = "the owner of a living process's branch is not Gone";
    checks
        .run(Rule::GoneMeansGone, name, others_owner::<S>)
        .await;
    let name = "two sessions in one transaction are two branches";
    checks
        .run(Rule::OneSessionsBranch, name, two_sessions::<S>)
        .await;
    let name = "a prepare comes again, and answers as before";
    checks
        .run(Rule::PrepareMayComeAgain, name, prepare_again::<S>)
        .await;
    let name = "a request that is prepared runs once";
    checks
        .run(Rule::PrepareMayComeAgain, name, request_once::<S>)
        .await;
}

async fn in_doubt<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = |name| scene.counter(name);
    let process = scene.open().await?;
    let first = process.prepared(&counter("first"), 1).await?;
    let process = process.restart().await?;
    let second = process.prepared(&counter("second"), 1).await?;
    process.expect_in_doubt(&[&first, &second]).await?;
    let working = process.work(&counter("working"), 1).await?;
    process.committed(&counter("committed"), 1).await?;
    let rolled_back = process.prepared(&counter("rolled-back"), 1).await?;
    process.rollback(&rolled_back).await?;
    process.expect_in_doubt(&[&first, &second]).await?;
    process.rollback(&working).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[&first, &second]).await?;
    process.commit(&first).await?;
    process.expect_in_doubt(&[&second]).await?;
    process.rollback(&second).await?;
    process.expect_in_doubt(&[]).await
}

async fn in_doubt_elsewhere<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    scene.needs_many()?;
    let here = scene.open().await?;
    let there = scene.open().await?;
    let mine = here.prepared(&scene.counter("here"), 1).await?;
    let theirs = there.prepared(&scene.counter("there"), 1).await?;
    here.expect_in_doubt(&[&mine, &theirs]).await?;
    there.expect_in_doubt(&[&mine, &theirs]).await?;
    here.commit(&mine).await?;
    there.rollback(&theirs).await?;
    here.expect_in_doubt(&[]).await?;
    there.expect_in_doubt(&[]).await
}

async fn own_owner<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let process = scene.open().await?;
    let branch = process.prepared(&scene.counter("own"), 1).await?;
    expect_alive(&process, &branch, "this very process").await?;
    process.rollback(&branch).await
}

async fn others_owner<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    scene.needs_many()?;
    let here = scene.open().await?;
    let there = scene.open().await?;
    let branch = there.prepared(&scene.counter("there"), 1).await?;
    expect_alive(&here, &branch, "a process that lives").await?;
    // One that comes up later knows no better.
    let later = scene.open().await?;
    expect_alive(&later, &branch, "a process that lives").await?;
    there.rollback(&branch).await
}

async fn expect_alive<S: Subject>(
    process: &Process<'_, S>,
    branch: &BranchId,
    whose: &str,
) -> Result<(), Verdict> {
    let found = process.in_doubt().await?;
    let owner = found.iter().find(|(id, _, _)| *id == branch.id);
    match owner.map(|(_, _, owner)| *owner) {
        Some(Owner::Unknown) => Ok(()),
        Some(Owner::Gone) => broken(
            format_args!("the owner of {branch}, {whose}, to be Unknown"),
            "Gone",
        ),
        None => broken(format_args!("{branch} in doubt"), "nothing"),
    }
}

async fn two_sessions<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counters = (scene.counter("earlier"), scene.counter("later"));
    let mut sum = 0;
    for outcome in [Outcome::Commit, Outcome::Abort] {
        for ends_first in [First::Earlier, First::Later] {
            two_branches(scene, (&counters.0, &counters.1), sum, ends_first, outcome).await?;
            sum += i64::from(outcome == Outcome::Commit);
        }
    }
    Ok(())
}

/// Which of two branches comes to its end first.
#[derive(Clone, Copy)]
enum First {
    Earlier,
    Later,
}

/// The roster holds both, so both have the same commit id; only the session tells them apart.
async fn two_branches<S: Subject>(
    scene: &Scene<'_, S>,
    (one, two): (&str, &str),
    before: i64,
    ends_first: First,
    outcome: Outcome,
) -> Result<(), Verdict> {
    let process = scene.open().await?;
    let mut later_name = process.me().clone();
    later_name.session.0 += 1;
    let earlier = process.branch_in(scene.txn(), &[later_name]);
    process.add(&earlier, one, 1).await?;
    process.prepare(&earlier).await?;
    let process = process.restart().await?;
    let later = BranchId {
        id: earlier.id,
        branch: process.me().clone(),
    };
    process.add(&later, two, 1).await?;
    process.prepare(&later).await?;
    process.expect_in_doubt(&[&earlier, &later]).await?;
    let (first, second, rest) = match ends_first {
        First::Earlier => (&earlier, &later, two),
        First::Later => (&later, &earlier, one),
    };
    process.finish(first, outcome).await?;
    process.expect_in_doubt(&[second]).await?;
    let when = "when only the other session's branch has ended";
    process.expect_value(rest, before, when).await?;
    process.finish(second, outcome).await?;
    process.expect_in_doubt(&[]).await?;
    let after = before + i64::from(outcome == Outcome::Commit);
    let when = format!("after the {outcome} of both branches");
    process.expect_value(one, after, &when).await?;
    process.expect_value(two, after, &when).await?;
    process.kill().await
}

async fn prepare_again<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("again");
    let process = scene.open().await?;
    let branch = process.prepared(&counter, 1).await?;
    for read_only in [ReadOnly::Forbidden, ReadOnly::Allowed] {
        process.expect_prepared(&branch, None, read_only).await?;
    }
    process.expect_in_doubt(&[&branch]).await?;
    process.commit(&branch).await?;
    process.expect_value(&counter, 1, "after one commit").await
}

async fn request_once<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("request");
    let Some(request) = scene.subject.request(&counter, 1) else {
        return Err(Verdict::NotApplicable("this store runs no requests"));
    };
    let process = scene.open().await?;
    let branch = process.branch();
    for _ in 0..2 {
        let request = Some(request.clone());
        process
            .expect_prepared(&branch, request, ReadOnly::Forbidden)
            .await?;
    }
    process
        .expect_value(&counter, 0, "before the commit")
        .await?;
    process.commit(&branch).await?;
    let when = "after a prepare that came twice, and a commit";
    process.expect_value(&counter, 1, when).await?;
    // With work before it, in one branch.
    let branch = process.work(&counter, 10).await?;
    process
        .expect_prepared(&branch, Some(request.clone()), ReadOnly::Forbidden)
        .await?;
    process.commit(&branch).await?;
    process
        .expect_value(&counter, 12, "after two commits")
        .await?;
    // What is over runs no request.
    let over = process.branch();
    process.rollback(&over).await?;
    match process
        .vote(&over, Some(request), ReadOnly::Forbidden)
        .await?
    {
        Ok(Vote::Prepared | Vote::ReadOnly) => broken(
            "a request whose branch was rolled back before to be refused",
            "a vote for the commit",
        ),
        Ok(Vote::Aborted) | Err(_) => {
            process
                .expect_value(&counter, 12, "after two commits")
                .await
        }
    }
}
