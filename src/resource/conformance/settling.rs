//! The settled horizon. Rule 16.

use super::Checks;
use super::process::{Scene, Verdict, broken};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "below the horizon a commit comes again, in later processes too";
    checks.run(Rule::SettledHorizon, name, proof::<S>).await;
    let name = "above the horizon markers stay, and a commit without proof is an error";
    checks.run(Rule::SettledHorizon, name, above::<S>).await;
    let name = "the horizon does not go back";
    checks.run(Rule::SettledHorizon, name, forward::<S>).await;
    let name = "what stands prepared below the horizon stays prepared";
    checks.run(Rule::SettledHorizon, name, prepared::<S>).await;
    let name = "markers below the horizon are dropped";
    checks.run(Rule::SettledHorizon, name, dropped::<S>).await;
}

async fn proof<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("settled");
    let process = scene.open().await?;
    let first = process.committed(&counter, 1).await?;
    let last = process.committed(&counter, 1).await?;
    process.settled(last.id).await?;
    process.commit(&first).await?;
    process.commit(&last).await?;
    let process = process.restart().await?;
    process.commit(&first).await?;
    process.commit(&last).await?;
    process.expect_value(&counter, 2, "after two commits").await
}

async fn above<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("above");
    let process = scene.open().await?;
    let below = process.committed(&counter, 1).await?;
    let above = process.committed(&counter, 1).await?;
    let unknown = process.branch();
    process.settled(below.id).await?;
    process.commit(&above).await?;
    let what = "above the horizon, of which nothing was ever heard";
    process.expect_no_proof(&unknown, what).await?;
    let process = process.restart().await?;
    process.commit(&above).await?;
    process.expect_no_proof(&unknown, what).await?;
    process.expect_value(&counter, 2, "after two commits").await
}

async fn forward<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("forward");
    let process = scene.open().await?;
    let first = process.committed(&counter, 1).await?;
    let second = process.committed(&counter, 1).await?;
    process.settled(second.id).await?;
    process.settled(first.id).await?;
    process.commit(&second).await?;
    let process = process.restart().await?;
    process.commit(&second).await?;
    process.settled(first.id).await?;
    process.commit(&second).await?;
    process.expect_value(&counter, 2, "after two commits").await
}

async fn prepared<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = |name| scene.counter(name);
    let process = scene.open().await?;
    let commits = process.prepared(&counter("commits"), 1).await?;
    let rolls_back = process.prepared(&counter("rolls-back"), 1).await?;
    process.settled(rolls_back.id).await?;
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

async fn dropped<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let counter = scene.counter("markers");
    let process = scene.open().await?;
    let mut last = None;
    for _ in 0..3 {
        last = Some(process.committed(&counter, 1).await?);
    }
    let markers = scene.subject.markers(&process.manager);
    match markers.await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Verdict::NotApplicable("markers cannot be counted here")),
        Err(error) => return broken("the subject to count markers", error),
    }
    if let Some(last) = last {
        process.settled(last.id).await?;
    }
    match scene.subject.markers(&process.manager).await {
        Ok(Some(0)) => Ok(()),
        Ok(left) => broken(
            "no marker left once all is settled",
            format_args!("{} of them", left.unwrap_or_default()),
        ),
        Err(error) => broken("the subject to count markers", error),
    }
}
