//! Which connection a branch has, for how long, and what comes of it when it breaks.

use std::time::Duration;

use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::{AcquireError, BranchError, Mariadb, WorkError};

use super::support::{
    Server, add, branch, commit, options, prepared, rollback, txn, until_ok, vote,
};

const HOUR: Duration = Duration::from_secs(3_600);

async fn connection(mariadb: &Mariadb, sequence: u32) -> u64 {
    let mut work = mariadb.work(txn(sequence)).await.unwrap();
    let id = work.first("SELECT CONNECTION_ID()", ()).await.unwrap();
    id.unwrap()
}

async fn kill(server: &Server, id: u64) {
    let sql = format!("KILL CONNECTION {id}");
    server.plain().await.query_drop(sql).await.unwrap();
}

/// A branch does not prepare: it says no, or nobody knows, and then it is rolled back.
async fn refuses(mariadb: &Mariadb, sequence: u32) {
    let branch = branch(sequence);
    match mariadb.prepare(&branch, None, ReadOnly::Forbidden).await {
        Ok(vote) => assert_eq!(vote, Vote::Aborted),
        Err(_) => rollback(mariadb, &branch).await,
    }
}

#[tokio::test]
async fn all_who_work_under_one_transaction_share_its_connection() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let id = connection(&mariadb, 1).await;
    add(&mariadb, 1, "a", 1).await;
    assert_eq!(connection(&mariadb, 1).await, id);
    assert_ne!(connection(&mariadb, 2).await, id);
    // One after the other: who comes meanwhile waits.
    let held = mariadb.work(txn(1)).await.unwrap();
    let waiting = tokio::spawn({
        let mariadb = mariadb.clone();
        async move { add(&mariadb, 1, "a", 1).await }
    });
    drop(held);
    waiting.await.unwrap();
    assert_eq!(vote(&mariadb, &branch(1)).await, Vote::Prepared);
    mariadb.commit(&branch(1)).await.unwrap();
    assert_eq!(server.value("a").await, 2);
}

#[tokio::test]
async fn a_branch_is_held_where_it_was_prepared_and_then_handed_over() {
    let server = Server::start().await;
    let here = server.open_with(options().hold_max(HOUR)).await;
    let there = server.open().await;
    let held = prepared(&here, 1, "a").await;
    let error = there.commit(&held).await.unwrap_err();
    assert!(matches!(error, BranchError::Held(of) if of == held));
    assert!(matches!(
        there.rollback(&held).await,
        Err(BranchError::Held(_))
    ));
    assert!(matches!(
        there.expire(&held).await,
        Err(BranchError::Held(_))
    ));
    here.commit(&held).await.unwrap();
    there.commit(&held).await.unwrap();
    let soon = server
        .open_with(options().hold_max(Duration::from_millis(1)))
        .await;
    let free = prepared(&soon, 2, "b").await;
    commit(&there, &free).await;
    soon.commit(&free).await.unwrap();
    assert_eq!((server.value("a").await, server.value("b").await), (1, 1));
    assert_eq!(server.prepared().await, 0);
}

#[tokio::test]
async fn work_that_waits_gets_the_connection_that_a_prepared_branch_has_kept() {
    let server = Server::start().await;
    let few = options().hold_max(HOUR).work_connections(2);
    let mariadb = server.open_with(few).await;
    for sequence in 1..=10 {
        prepared(&mariadb, sequence, &format!("c{sequence}")).await;
    }
    assert_eq!(server.prepared().await, 10);
    assert_eq!(mariadb.prepared().await.unwrap().count, 10);
    for sequence in 1..=10 {
        commit(&mariadb, &branch(sequence)).await;
        assert_eq!(server.value(&format!("c{sequence}")).await, 1);
    }
}

#[tokio::test]
async fn when_all_connections_work_the_next_is_told_so_and_what_is_prepared_ends() {
    let server = Server::start().await;
    let one = options()
        .work_connections(1)
        .acquire_max(Duration::from_millis(300));
    let mariadb = server.open_with(one).await;
    let in_doubt = prepared(&mariadb, 1, "a").await;
    add(&mariadb, 2, "b", 1).await;
    let error = mariadb.work(txn(3)).await.unwrap_err();
    let exhausted = matches!(
        &error,
        WorkError::Acquire(AcquireError::Exhausted { max: 1, .. })
    );
    assert!(exhausted, "{error}");
    commit(&mariadb, &in_doubt).await;
    assert_eq!(server.value("a").await, 1);
    mariadb.let_go(txn(2)).await;
    until_ok(|| mariadb.work(txn(4))).await;
}

#[tokio::test]
async fn work_whose_connection_was_killed_can_only_abort() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    add(&mariadb, 1, "a", 1).await;
    kill(&server, connection(&mariadb, 1).await).await;
    refuses(&mariadb, 1).await;
    assert_eq!(mariadb.in_doubt().await.unwrap(), []);
    // Whoever works on meets the loss, and cannot go on without what was lost.
    add(&mariadb, 2, "a", 1).await;
    kill(&server, connection(&mariadb, 2).await).await;
    for _ in 0..2 {
        let worked = match mariadb.work(txn(2)).await {
            Ok(mut work) => work.execute("DO 1", ()).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(worked.is_err());
    }
    assert!(matches!(
        mariadb.work(txn(2)).await,
        Err(WorkError::Lost(_))
    ));
    refuses(&mariadb, 2).await;
    assert_eq!(server.value("a").await, 0);
}

#[tokio::test]
async fn a_branch_whose_connection_was_killed_after_its_vote_commits_on_another() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().hold_max(HOUR)).await;
    for sequence in [1, 2] {
        let id = connection(&mariadb, sequence).await;
        let branch = prepared(&mariadb, sequence, "a").await;
        kill(&server, id).await;
        match sequence {
            1 => commit(&mariadb, &branch).await,
            _ => rollback(&mariadb, &branch).await,
        }
        assert_eq!(server.value("a").await, 1);
        assert_eq!(server.prepared().await, 0);
    }
}

#[tokio::test]
async fn a_statement_that_is_cut_short_loses_the_connection_and_its_locks() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().lock_max(HOUR)).await;
    let first = prepared(&mariadb, 1, "locked").await;
    add(&mariadb, 2, "other", 1).await;
    // It waits for the lock; then nobody waits for it any more.
    let waiting = add(&mariadb, 2, "locked", 1);
    let waits = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(waits.is_err(), "the row was locked");
    assert!(matches!(
        mariadb.work(txn(2)).await,
        Err(WorkError::Lost(_))
    ));
    assert_eq!(vote(&mariadb, &branch(2)).await, Vote::Aborted);
    // The server was told: nothing of it waits, nor holds a lock.
    add(&mariadb, 3, "other", 10).await;
    assert_eq!(vote(&mariadb, &branch(3)).await, Vote::Prepared);
    commit(&mariadb, &first).await;
    commit(&mariadb, &branch(3)).await;
    assert_eq!(server.value("locked").await, 1);
    assert_eq!(server.value("other").await, 10);
}

#[tokio::test]
async fn a_rollback_ends_a_statement_that_waits() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().lock_max(HOUR)).await;
    let first = prepared(&mariadb, 1, "locked").await;
    add(&mariadb, 2, "other", 1).await;
    let waiting = tokio::spawn({
        let mariadb = mariadb.clone();
        async move {
            let mut work = mariadb.work(txn(2)).await?;
            let sql = "UPDATE counter SET value = 7 WHERE name = 'locked'";
            work.execute(sql, ()).await
        }
    });
    let waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                 WHERE INFO LIKE 'UPDATE counter SET value = 7%'";
    until_ok(|| async {
        match server.scalar(waits).await {
            1 => Ok(()),
            _ => Err("the statement does not run"),
        }
    })
    .await;
    mariadb.rollback(&branch(2)).await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    let late = mariadb.prepare(&branch(2), None, ReadOnly::Forbidden).await;
    assert_eq!(late.unwrap(), Vote::Aborted);
    commit(&mariadb, &first).await;
    assert_eq!(server.value("locked").await, 1);
    assert_eq!(server.value("other").await, 0);
}

/// The server may say that such a branch has ended, and do nothing: nobody takes its word for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_is_handed_over_at_this_very_moment_comes_to_its_end() {
    let server = Server::start().await;
    let here = server.open_with(options().hold_max(Duration::ZERO)).await;
    let there = server.open().await;
    let mut under_way = tokio::task::JoinSet::new();
    for sequence in 1..=200 {
        let (here, there) = (here.clone(), there.clone());
        under_way.spawn(async move {
            let branch = prepared(&here, sequence, &format!("c{sequence}")).await;
            match sequence % 4 {
                0 => commit(&here, &branch).await,
                1 => commit(&there, &branch).await,
                2 => rollback(&here, &branch).await,
                _ => rollback(&there, &branch).await,
            }
        });
    }
    while let Some(ended) = under_way.join_next().await {
        ended.unwrap();
    }
    assert_eq!(server.prepared().await, 0);
    // Nobody whom the server has forgotten holds a lock.
    let all = "SET innodb_lock_wait_timeout = 2; UPDATE counter SET value = value + 1; \
               UPDATE counter SET value = value - 1";
    server.plain().await.query_drop(all).await.unwrap();
    for sequence in 1..=200 {
        let expected = i64::from(sequence % 4 < 2);
        assert_eq!(server.value(&format!("c{sequence}")).await, expected);
    }
}

/// How often the moment is tried to be hit. It was in 1 of 150 tries.
const TRIES: u32 = 2_000;

/// Somebody else commits a branch while its session ends, and the server says that this is done and
/// does nothing. The adapter does not say so too, and finishes the branch once the server, restarted,
/// knows it again.
#[tokio::test]
async fn what_the_server_falsely_says_is_done_is_not_believed() {
    let mut server = Server::start().await;
    let mariadb = server.open_with(options().hold_max(HOUR)).await;
    let (mut killer, mut meddler) = (server.plain().await, server.plain().await);
    for sequence in 1..=TRIES {
        let name = format!("c{sequence}");
        let kill = format!("KILL CONNECTION {}", connection(&mariadb, sequence).await);
        let branch = prepared(&mariadb, sequence, &name).await;
        let found: Option<(i64, u64, u64, String)> = meddler
            .query_first("XA RECOVER FORMAT='SQL'")
            .await
            .unwrap();
        let commit_it = format!("XA COMMIT {}", found.unwrap().3);
        killer.query_drop(kill).await.unwrap();
        while meddler.query_drop(&commit_it).await.is_err() {}
        if server.value(&name).await == 1 {
            commit(&mariadb, &branch).await;
            continue;
        }
        assert_eq!(server.prepared().await, 0, "nobody knows it any more");
        // Its row, which is there and not committed, weighs more than the horizon, too.
        for _ in 0..2 {
            let error = mariadb.commit(&branch).await.unwrap_err();
            assert!(matches!(error, BranchError::NotEnded { .. }), "{error}");
            mariadb
                .settled(self::branch(TRIES + 1).id, &[])
                .await
                .unwrap();
        }
        let error = mariadb.rollback(&branch).await.unwrap_err();
        assert!(matches!(error, BranchError::NotEnded { .. }), "{error}");
        let error = mariadb.expire(&branch).await.unwrap_err();
        assert!(matches!(error, BranchError::NotEnded { .. }), "{error}");
        server.crash().await;
        commit(&mariadb, &branch).await;
        assert_eq!(server.value(&name).await, 1);
        return;
    }
}

/// To clean a session takes its prepared statements away. Those of the last work are there again
/// before the next begins, which need not wait for them.
#[tokio::test]
async fn a_connection_comes_back_with_the_statements_of_its_last_work() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().work_connections(1)).await;
    let standing = "SELECT CAST(variable_value AS INT) FROM information_schema.global_status \
                    WHERE variable_name = 'PREPARED_STMT_COUNT'";
    for sequence in 1..=3 {
        commit(&mariadb, &prepared(&mariadb, sequence, "a").await).await;
        // The only one: whoever has it has it cleaned.
        let work = mariadb.work(txn(sequence + 10)).await.unwrap();
        assert_eq!(server.scalar(standing).await, 1);
        drop(work);
        mariadb.let_go(txn(sequence + 10)).await;
    }
    // What the server refuses to prepare again is done without.
    let sql = "CREATE TEMPORARY TABLE passing (n INT)";
    let mut work = mariadb.work(txn(21)).await.unwrap();
    work.execute(sql, ()).await.unwrap();
    work.execute("INSERT INTO passing VALUES (?)", (1,))
        .await
        .unwrap();
    drop(work);
    mariadb.let_go(txn(21)).await;
    commit(&mariadb, &prepared(&mariadb, 22, "a").await).await;
    assert_eq!(server.value("a").await, 4);
}
