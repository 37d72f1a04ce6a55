//! Stores: what one keeps and another does not have. Rule 21, and rule 6 between two stores.

use crate::participant::{Expiry, ResourceManager};

use super::Checks;
use super::process::{Scene, Verdict, broken};
use super::report::Rule;
use super::subject::Subject;

pub(super) async fn all<S: Subject>(checks: &mut Checks<'_, S>) {
    let name = "a store has the same identity in every process";
    checks.run(Rule::StoreIdentity, name, same::<S>).await;
    let name = "two stores have two identities";
    checks.run(Rule::StoreIdentity, name, two::<S>).await;
    let name = "a store that counts its openings remembers them";
    checks.run(Rule::StoreIdentity, name, openings::<S>).await;
    let name = "a copy of a store has its identity, and no later opening in common with it";
    checks.run(Rule::StoreIdentity, name, copied::<S>).await;
    let name = "another store of the same name proves no commit, and harms none";
    checks
        .run(Rule::NoCommitWithoutProof, name, another_store::<S>)
        .await;
}

async fn same<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let mut process = scene.open().await?;
    let identity = process.manager.store();
    for _ in 0..3 {
        process.committed(&scene.counter("same"), 1).await?;
        process = process.restart().await?;
        let got = process.manager.store();
        if got != identity {
            return broken(
                format_args!("the identity {identity} after a restart"),
                format_args!("{got}"),
            );
        }
    }
    Ok(())
}

async fn two<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let process = scene.open().await?;
    let mut identities = vec![process.manager.store()];
    for _ in 0..2 {
        let identity = scene.open_another().await?.manager.store();
        if identities.contains(&identity) {
            return broken(
                "another identity of every new store, drawn at random",
                format_args!("{identity} of two stores"),
            );
        }
        identities.push(identity);
    }
    Ok(())
}

/// Not to count is right, too.
async fn openings<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let mut process = scene.open().await?;
    let mut before = process.manager.openings();
    for _ in 0..3 {
        process = process.restart().await?;
        let next = process.manager.openings();
        let is_remembered = next.split_last().map(|(_, earlier)| earlier) == Some(&before[..]);
        if !is_remembered && (before.len(), next.len()) != (0, 0) {
            return broken(
                format_args!("one opening more than {before:?}"),
                format_args!("{next:?}"),
            );
        }
        before = next;
    }
    Ok(())
}

/// A backup that is restored while the original goes on: replicas can tell the two apart only by their
/// openings.
async fn copied<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let process = scene.open().await?;
    process.committed(&scene.counter("copied"), 1).await?;
    let copy = scene.open_copy().await?;
    let (original, got) = (process.manager.store(), copy.manager.store());
    if got != original {
        return broken(
            format_args!("the identity {original} in a copy of the store"),
            format_args!("{got}"),
        );
    }
    let process = process.restart().await?;
    let (own, of_copy) = (process.manager.openings(), copy.manager.openings());
    match (own.last(), of_copy.last()) {
        (Some(own), Some(_)) if of_copy.contains(own) => broken(
            "openings that a store and its copy remember to differ by what is drawn for each",
            format_args!("{own:?} in both"),
        ),
        (Some(_), Some(_)) | (None, None) => Ok(()),
        (Some(_), None) | (None, Some(_)) => broken(
            "a store that counts its openings, and a copy that counts its own",
            format_args!("{own:?} and {of_copy:?}"),
        ),
    }
}

/// An empty volume, a second replica of a deployment: it has the name, and not the data.
async fn another_store<S: Subject>(scene: &Scene<'_, S>) -> Result<(), Verdict> {
    let (commits, rolls_back) = (scene.counter("commits"), scene.counter("rolls-back"));
    let process = scene.open().await?;
    let branch = process.prepared(&commits, 1).await?;
    let other = process.prepared(&rolls_back, 1).await?;
    let another = scene.open_another().await?;
    another.expect_in_doubt(&[]).await?;
    let what = "which another store of the same name has prepared";
    another.expect_no_proof(&branch, what).await?;
    another
        .settled(other.id, std::slice::from_ref(&branch))
        .await?;
    another.expect_no_proof(&branch, what).await?;
    another.settled(other.id, &[]).await?;
    another.expect_no_proof(&branch, what).await?;
    another.rollback(&branch).await?;
    another.expire(&other, Expiry::NotPrepared).await?;
    another.expect_no_proof(&branch, what).await?;
    another
        .expect_value(&commits, 0, "in another store")
        .await?;
    // Nothing of it is seen where the branches are.
    process.expect_in_doubt(&[&branch, &other]).await?;
    process.commit(&branch).await?;
    process.rollback(&other).await?;
    another.expect_no_proof(&branch, what).await?;
    process
        .expect_value(&commits, 1, "after its commit")
        .await?;
    process
        .expect_value(&rolls_back, 0, "after its rollback")
        .await
}
