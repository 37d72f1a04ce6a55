//! Markers and the list of commits that still wait. Rule 16.

use super::Checks;
use super::process::{Process, Scene, Verdict, broken};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let rule = Rule::MarkersGoWithTheList;
    let name = "markers of listed branches stay below the horizon, in later processes too";
    checks.run(rule, name, listed::<S>).await;
    let name = "markers of all other branches below the horizon are deleted";
    checks.run(rule, name, deleted::<S>).await;
    let name = "markers above the horizon stay";
    checks.run(rule, name, above::<S>).await;
    let name = "an older list deletes no marker of a later id";
    checks.run(rule, name, older::<S>).await;
    let name = "what stands prepared below the horizon stays prepared";
    checks.run(rule, name, prepared::<S>).await;
}

async fn listed<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("listed");
    let process = scene.open().await?;
    let first = process.committed(&counter, 1).await?;
    process.committed(&counter, 1).await?;
    let last = process.committed(&counter, 1).await?;
    let both = [first.clone(), last.clone()];
    process.settled(last.id, &both).await?;
    process.commit(&first).await?;
    process.commit(&last).await?;
    let process = process.restart().await?;
    process.commit(&first).await?;
    process.settled(last.id, &both[1..]).await?;
    process.commit(&last).await?;
    let process = process.restart().await?;
    process.commit(&last).await?;
    process
        .expect_value(&counter, 3, "after three commits")
        .await
}

async fn deleted<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("deleted");
    let process = scene.open().await?;
    let first = process.committed(&counter, 1).await?;
    let listed = process.committed(&counter, 1).await?;
    let last = process.committed(&counter, 1).await?;
    process
        .settled(last.id, std::slice::from_ref(&listed))
        .await?;
    let what = "which is settled and off the list: its marker is to be deleted";
    process.expect_no_proof(&first, what).await?;
    process.expect_no_proof(&last, what).await?;
    process.settled(last.id, &[]).await?;
    process.expect_no_proof(&listed, what).await?;
    no_marker_is_left(&process).await?;
    let process = process.restart().await?;
    process.expect_no_proof(&first, what).await?;
    let when = "after three commits whose markers are deleted";
    process.expect_value(&counter, 3, when).await
}

/// Only where markers can be counted; what was deleted is shown by commits, too.
async fn no_marker_is_left<S: Subject>(process: &Process<'_, S>) -> Result<(), Verdict> {
    match process.scene.subject.markers(&process.manager).await {
        Ok(Some(0) | None) => Ok(()),
        Ok(Some(left)) => broken(
            "no marker left once all is settled and the list is empty",
            format_args!("{left} of them"),
        ),
        Err(error) => broken("the subject to count markers", error),
    }
}

async fn above<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("above");
    let process = scene.open().await?;
    let below = process.committed(&counter, 1).await?;
    let above = process.committed(&counter, 1).await?;
    process.settled(below.id, &[]).await?;
    process.commit(&above).await?;
    let process = process.restart().await?;
    process.commit(&above).await?;
    process.expect_value(&counter, 2, "after two commits").await
}

/// A list says something about the ids up to its own horizon, and nothing about later ones.
async fn older<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("older");
    let process = scene.open().await?;
    let first = process.committed(&counter, 1).await?;
    let second = process.committed(&counter, 1).await?;
    process
        .settled(second.id, std::slice::from_ref(&second))
        .await?;
    process.settled(first.id, &[]).await?;
    process.commit(&second).await?;
    let process = process.restart().await?;
    process.settled(first.id, &[]).await?;
    process.commit(&second).await?;
    process.expect_value(&counter, 2, "after two commits").await
}

async fn prepared<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = |name| scene.counter(name);
    let process = scene.open().await?;
    let commits = process.prepared(&counter("commits"), 1).await?;
    let rolls_back = process.prepared(&counter("rolls-back"), 1).await?;
    process
        .settled(rolls_back.id, std::slice::from_ref(&commits))
        .await?;
    process.expect_in_doubt(&[&commits, &rolls_back]).await?;
    let process = process.restart().await?;
    process.expect_in_doubt(&[&commits, &rolls_back]).await?;
    process.commit(&commits).await?;
    process.commit(&commits).await?;
    process.rollback(&rolls_back).await?;
    let when = "below the horizon";
    process.expect_value(&counter("commits"), 1, when).await?;
    process.expect_value(&counter("rolls-back"), 0, when).await
}
