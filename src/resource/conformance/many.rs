//! Calls at the same time. Rule 19.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::Checks;
use super::process::{Process, Scene, Verdict};
use super::report::Rule;
use super::subject::Subject;

/// How many branches work at the same time.
const BRANCHES: i64 = 12;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "many branches at the same time: some commit, some roll back";
    checks.run(Rule::CallsAtTheSameTime, name, many::<S>).await;
    let name = "many branches stand prepared while others work and finish";
    checks
        .run(Rule::CallsAtTheSameTime, name, standing::<S>)
        .await;
    let name = "two processes commit the same branch at the same time";
    checks
        .run(Rule::CallsAtTheSameTime, name, two_commit::<S>)
        .await;
    let name = "two processes roll the same branch back at the same time";
    checks
        .run(Rule::CallsAtTheSameTime, name, two_roll_back::<S>)
        .await;
}

type Work<'w> = Pin<Box<dyn Future<Output = Result<(), Verdict>> + Send + 'w>>;

/// Polls all until all have ended; the first failure, if there is one.
async fn all_of(work: impl IntoIterator<Item = Work<'_>>) -> Result<(), Verdict> {
    let mut under_way: Vec<Work<'_>> = work.into_iter().collect();
    let mut result = Ok(());
    poll_fn(|context| {
        under_way.retain_mut(|work| match work.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                if result.is_ok() {
                    result = ended;
                }
                false
            }
        });
        match under_way.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    result
}

async fn many<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let process = scene.open().await?;
    let one = |number: i64| -> Work<'_> { Box::pin(one_of_many(&process, number)) };
    all_of((0..BRANCHES).map(one)).await?;
    process.expect_in_doubt(&[]).await?;
    for number in 0..BRANCHES {
        let expected = if number % 3 == 0 { 0 } else { number };
        let when = "when all have come to their end";
        process
            .expect_value(&counter_of(scene, number), expected, when)
            .await?;
    }
    Ok(())
}

fn counter_of<S: Subject>(scene: &Scene<'_, S>, number: i64) -> String {
    scene.counter(&format!("many-{number}"))
}

async fn one_of_many<S: Subject>(process: &Process<'_, S>, number: i64) -> Result<(), Verdict> {
    let counter = counter_of(process.scene, number);
    let branch = process.prepared(&counter, number).await?;
    if number % 3 == 0 {
        process.rollback(&branch).await
    } else {
        process.commit(&branch).await
    }
}

/// Outcomes may take long. Whoever waits for one must not hold up the others.
async fn standing<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let process = scene.open().await?;
    let mut waiting = Vec::new();
    for number in 0..BRANCHES {
        let counter = counter_of(scene, number);
        waiting.push(process.prepared(&counter, 1).await?);
    }
    let hot = scene.counter("hot");
    for _ in 0..3 {
        process.committed(&hot, 1).await?;
    }
    for branch in &waiting {
        process.commit(branch).await?;
    }
    process.expect_in_doubt(&[]).await?;
    process.expect_value(&hot, 3, "after three commits").await?;
    for number in 0..BRANCHES {
        let counter = counter_of(scene, number);
        process
            .expect_value(&counter, 1, "after its commit")
            .await?;
    }
    Ok(())
}

async fn two_commit<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    scene.needs_many()?;
    let counter = scene.counter("both");
    let (here, there) = (scene.open().await?, scene.open().await?);
    for round in 1..=4 {
        let branch = here.prepared(&counter, 1).await?;
        all_of([
            Box::pin(here.commit(&branch)) as Work<'_>,
            Box::pin(there.commit(&branch)),
        ])
        .await?;
        let when = "when both have committed";
        here.expect_value(&counter, round, when).await?;
        there.expect_value(&counter, round, when).await?;
    }
    Ok(())
}

async fn two_roll_back<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    scene.needs_many()?;
    let counter = scene.counter("both");
    let (here, there) = (scene.open().await?, scene.open().await?);
    for _ in 0..4 {
        let branch = here.prepared(&counter, 1).await?;
        all_of([
            Box::pin(here.rollback(&branch)) as Work<'_>,
            Box::pin(there.rollback(&branch)),
        ])
        .await?;
        here.expect_value(&counter, 0, "when both have rolled back")
            .await?;
        there.expect_in_doubt(&[]).await?;
    }
    Ok(())
}
