//! The server is killed while branches are prepared and finished, and nothing is lost.

use std::time::Duration;

use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::mariadb::Mariadb;
use tokio::task::JoinSet;

use super::support::{ADD, Server, branch, commit, options, prepared, rollback, txn, until_ok};

/// How many branches are under way when the server is killed.
const BRANCHES: u32 = 24;

/// When it is killed: so long after the first of them has begun.
const MOMENTS: [u64; 6] = [0, 1, 3, 6, 12, 25];

async fn work_and_prepare(mariadb: Mariadb, sequence: u32) -> Option<Vote> {
    let worked = async {
        let mut work = mariadb.work(txn(sequence)).await?;
        work.execute(ADD, (format!("c{sequence}"), 1)).await
    };
    worked.await.ok()?;
    let branch = branch(sequence);
    let preparing = mariadb.prepare(&branch, None, ReadOnly::Forbidden);
    preparing.await.ok()
}

/// What a vote said stands; what it did not say is found in doubt, or is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_prepares_loses_no_vote() {
    let mut server = Server::start().await;
    let mariadb = server.open_with(options().work_connections(8)).await;
    let mut voted = 0;
    for (round, moment) in MOMENTS.iter().enumerate() {
        let mut under_way = JoinSet::new();
        let first = round as u32 * BRANCHES + 1;
        for sequence in first..first + BRANCHES {
            let working = work_and_prepare(mariadb.clone(), sequence);
            under_way.spawn(async move { (sequence, working.await) });
        }
        tokio::time::sleep(Duration::from_millis(*moment)).await;
        server.crash().await;
        while let Some(ended) = under_way.join_next().await {
            let (sequence, vote) = ended.unwrap();
            let branch = branch(sequence);
            if vote == Some(Vote::Prepared) {
                voted += 1;
                let found = until_ok(|| mariadb.in_doubt()).await;
                assert!(found.iter().any(|found| found.id == branch.id));
                commit(&mariadb, &branch).await;
                assert_eq!(server.value(&format!("c{sequence}")).await, 1);
            } else {
                rollback(&mariadb, &branch).await;
                assert_eq!(server.value(&format!("c{sequence}")).await, 0);
            }
        }
        assert_eq!(server.prepared().await, 0);
    }
    assert!(voted > 0, "no kill came late enough to find a vote");
}

/// Every commit is done in the end, once; every rollback, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_commits_loses_none() {
    let mut server = Server::start().await;
    let mariadb = server
        .open_with(options().work_connections(BRANCHES as usize))
        .await;
    for (round, moment) in MOMENTS.iter().enumerate() {
        let mut under_way = JoinSet::new();
        let first = round as u32 * BRANCHES + 1;
        for sequence in first..first + BRANCHES {
            prepared(&mariadb, sequence, &format!("c{sequence}")).await;
        }
        for sequence in first..first + BRANCHES {
            let mariadb = mariadb.clone();
            under_way.spawn(async move {
                let branch = branch(sequence);
                match sequence % 3 {
                    0 => rollback(&mariadb, &branch).await,
                    _ => commit(&mariadb, &branch).await,
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(*moment)).await;
        server.crash().await;
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        for sequence in first..first + BRANCHES {
            let expected = i64::from(sequence % 3 != 0);
            assert_eq!(server.value(&format!("c{sequence}")).await, expected);
        }
        assert_eq!(server.prepared().await, 0);
    }
}

#[tokio::test]
async fn after_restarts_of_server_and_service_any_session_finishes() {
    let mut server = Server::start().await;
    let mariadb = server.open().await;
    for sequence in 1..=4 {
        prepared(&mariadb, sequence, &format!("c{sequence}")).await;
    }
    drop(mariadb);
    server.crash().await;
    let here = server.open().await;
    server.crash().await;
    let there = server.open().await;
    assert_eq!(until_ok(|| here.in_doubt()).await.len(), 4);
    assert_eq!(there.in_doubt().await.unwrap().len(), 4);
    commit(&here, &branch(1)).await;
    there.commit(&branch(1)).await.unwrap();
    there.commit(&branch(2)).await.unwrap();
    here.rollback(&branch(3)).await.unwrap();
    there.rollback(&branch(4)).await.unwrap();
    assert_eq!(here.commit(&branch(4)).await.unwrap(), Proof::Missing);
    for (name, expected) in [("c1", 1), ("c2", 1), ("c3", 0), ("c4", 0)] {
        assert_eq!(server.value(name).await, expected);
    }
    assert_eq!(server.prepared().await, 0);
}
