//! The server is killed (SIGKILL), or loses connections, at every step.

use std::time::Duration;

use paxos_commit::cluster::servers::ThrowawayPostgres;
use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::postgres::{BranchError, Postgres};

use super::support::{
    Base, balance, branch, connect, ids_in_doubt, pay, prepare, until_done, vote,
};

async fn start() -> ThrowawayPostgres {
    let settings = [("max_prepared_transactions", "50")];
    ThrowawayPostgres::start(&settings).await.unwrap()
}

async fn crash(server: &mut ThrowawayPostgres) {
    server.kill();
    server.restart().await.unwrap();
}

#[tokio::test]
async fn what_was_voted_outlives_the_server_and_work_does_not() {
    let mut server = start().await;
    let base = Base::on(&server, "outlives").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    pay(&postgres, 2, "bob", -1).await;
    server.kill();
    // Nothing is said to be done that is not.
    assert!(postgres.commit(&branch(1)).await.is_err());
    assert!(postgres.rollback(&branch(1)).await.is_err());
    assert!(postgres.in_doubt().await.is_err());
    assert!(
        postgres
            .prepare(&branch(2), None, ReadOnly::Forbidden)
            .await
            .is_err()
    );
    server.restart().await.unwrap();
    assert_eq!(ids_in_doubt(&postgres).await, [branch(1).id]);
    postgres.rollback(&branch(2)).await.unwrap();
    postgres.commit(&branch(1)).await.unwrap();
    // What was committed is, and so is its proof.
    crash(&mut server).await;
    until_done(|| commit(&postgres, 1)).await;
    let admin = connect(&base.url).await;
    assert_eq!(balance(&admin, "alice").await, 99);
    assert_eq!(balance(&admin, "bob").await, 100);
    assert_eq!(ids_in_doubt(&postgres).await, []);
}

async fn commit(postgres: &Postgres, n: u32) -> Result<Proof, BranchError> {
    postgres.commit(&branch(n)).await
}

async fn roll_back(postgres: &Postgres, n: u32) -> Result<(), BranchError> {
    postgres.rollback(&branch(n)).await
}

/// A moment in the time that one step takes, another one for each `n`.
async fn a_moment(n: u32) {
    let begun = std::time::Instant::now();
    let moment = Duration::from_micros(u64::from(n % 12) * 150);
    while begun.elapsed() < moment {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_a_prepare_has_prepared_it_or_not() {
    let mut server = start().await;
    let base = Base::on(&server, "killed_in_prepare").await;
    let postgres = base.open().await;
    let mut committed = 0;
    for n in 1..=12 {
        until_done(|| try_pay(&postgres, n)).await;
        let voting = tokio::spawn({
            let postgres = postgres.clone();
            async move { vote(&postgres, &branch(n), None).await }
        });
        a_moment(n).await;
        server.kill();
        let vote = voting.await.unwrap();
        server.restart().await.unwrap();
        let found = until_done(|| postgres.in_doubt()).await;
        if vote == Vote::Prepared {
            assert_eq!(found.len(), 1, "{n}");
            until_done(|| commit(&postgres, n)).await;
            committed += 1;
        } else {
            // It may stand prepared all the same; it is asked about, and comes to an abort.
            for found in found {
                assert_eq!(found.id, branch(n).id);
            }
            until_done(|| roll_back(&postgres, n)).await;
        }
        assert_eq!(ids_in_doubt(&postgres).await, []);
        let admin = connect(&base.url).await;
        assert_eq!(balance(&admin, "alice").await, 100 - committed);
    }
    println!("{committed} of 12 were prepared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_a_commit_has_committed_when_it_says_so() {
    let mut server = start().await;
    let base = Base::on(&server, "killed_in_commit").await;
    let postgres = base.open().await;
    for n in 1..=12 {
        until_done(|| try_pay(&postgres, n)).await;
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
        let committing = tokio::spawn({
            let postgres = postgres.clone();
            async move { commit(&postgres, n).await }
        });
        a_moment(n).await;
        crash(&mut server).await;
        let committed = committing.await.unwrap();
        let found = until_done(|| postgres.in_doubt()).await;
        assert!(committed.is_err() || found.is_empty(), "{n}: {committed:?}");
        // Tried again until it is done; often it was.
        until_done(|| commit(&postgres, n)).await;
        assert_eq!(ids_in_doubt(&postgres).await, []);
        let admin = connect(&base.url).await;
        assert_eq!(balance(&admin, "alice").await, 100 - i64::from(n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_in_a_commit_leaves_the_commit_to_the_next_try() {
    let base = Base::new("lost_in_commit").await;
    let postgres = base.open_with(base.options().finish_connections(1)).await;
    // The process keeps its last statement's text while it waits for the next.
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid() \
               AND query LIKE 'COMMIT PREPARED%'";
    let mut lost = 0;
    for n in 1..=40 {
        until_done(|| try_pay(&postgres, n)).await;
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
        let committing = tokio::spawn({
            let postgres = postgres.clone();
            async move { commit(&postgres, n).await }
        });
        a_moment(n).await;
        lost += base.count(sql).await;
        let _ = committing.await.unwrap();
        until_done(|| commit(&postgres, n)).await;
        assert_eq!(base.balance("alice").await, 100 - i64::from(n));
        assert!(base.names().await.is_empty());
    }
    assert!(lost > 0, "no connection was lost");
}

async fn try_pay(
    postgres: &Postgres,
    n: u32,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let work = postgres.work(super::support::txn(n)).await?;
    let sql = "UPDATE account SET balance = balance - 1 WHERE name = 'alice'";
    work.client().execute(sql, &[]).await?;
    Ok(())
}
