//! Branches that get in each other's way, and what a session leaves to the next.

use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::Vote;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::{MARKERS_PER_DELETE, WorkError};

use super::support::{ADD, Server, add, branch, commit, options, prepared, txn, vote};

#[tokio::test]
async fn after_a_deadlock_one_branch_aborts_and_the_other_commits() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    add(&mariadb, 1, "a", 1).await;
    add(&mariadb, 2, "b", 1).await;
    let cross = |sequence, name: &'static str| {
        let mariadb = mariadb.clone();
        tokio::spawn(async move {
            let mut work = mariadb.work(txn(sequence)).await.unwrap();
            work.execute(ADD, (name, 1)).await
        })
    };
    let (one, two) = (cross(1, "b"), cross(2, "a"));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let (victim, survivor, error) = match (one, two) {
        (Err(error), Ok(_)) => (1, 2, error),
        (Ok(_), Err(error)) => (2, 1, error),
        other => panic!("expected one victim, got {other:?}"),
    };
    assert_eq!(error.code(), Some(1213), "{error}");
    // Even if the service goes on as if nothing had happened.
    let mut work = mariadb.work(txn(victim)).await.unwrap();
    assert!(work.execute(ADD, ("c", 1)).await.is_err());
    drop(work);
    assert_eq!(vote(&mariadb, &branch(victim)).await, Vote::Aborted);
    assert_eq!(vote(&mariadb, &branch(survivor)).await, Vote::Prepared);
    mariadb.commit(&branch(survivor)).await.unwrap();
    assert_eq!((server.value("a").await, server.value("b").await), (1, 1));
    assert_eq!(server.value("c").await, 0);
}

#[tokio::test]
async fn the_timeout_of_a_lock_undoes_one_statement() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let first = prepared(&mariadb, 1, "locked").await;
    add(&mariadb, 2, "before", 1).await;
    let mut work = mariadb.work(txn(2)).await.unwrap();
    let error = work.execute(ADD, ("locked", 1)).await.unwrap_err();
    assert_eq!(error.code(), Some(1205), "{error}");
    drop(work);
    assert_eq!(vote(&mariadb, &branch(2)).await, Vote::Prepared);
    commit(&mariadb, &first).await;
    commit(&mariadb, &branch(2)).await;
    assert_eq!(server.value("locked").await, 1);
    assert_eq!(server.value("before").await, 1);
}

#[tokio::test]
async fn what_is_read_is_locked() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let sql = "SELECT COUNT(*) FROM counter WHERE name LIKE 'a%'";
    let mut work = mariadb.work(txn(1)).await.unwrap();
    assert_eq!(work.first(sql, ()).await.unwrap(), Some(0));
    drop(work);
    assert_eq!(vote(&mariadb, &branch(1)).await, Vote::Prepared);
    // Neither a row that is there nor one that is not.
    let mut work = mariadb.work(txn(2)).await.unwrap();
    let error = work.execute(ADD, ("ab", 1)).await.unwrap_err();
    assert_eq!(error.code(), Some(1205), "{error}");
    commit(&mariadb, &branch(1)).await;
    work.execute(ADD, ("ab", 1)).await.unwrap();
}

#[tokio::test]
async fn what_work_leaves_in_its_session_the_next_does_not_find() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().work_connections(1)).await;
    let mut work = mariadb.work(txn(1)).await.unwrap();
    for sql in [
        "SET @left = 1",
        "SET SESSION lock_wait_timeout = 77",
        "SET SESSION autocommit = 0",
        "CREATE TEMPORARY TABLE leftover (x INT) ENGINE=InnoDB",
        "DO GET_LOCK('left', 0)",
    ] {
        // The server may refuse it inside a branch, which is as good.
        let _ = work.execute(sql, ()).await;
    }
    drop(work);
    mariadb.rollback(&branch(1)).await.unwrap();
    let sql = "SELECT @left IS NULL AND @@lock_wait_timeout = 2 AND @@autocommit = 1 \
               AND IS_FREE_LOCK('left') AND @@tx_isolation = 'SERIALIZABLE'";
    let mut work = mariadb.work(txn(2)).await.unwrap();
    assert_eq!(work.first(sql, ()).await.unwrap(), Some(true));
    assert!(work.execute("SELECT * FROM leftover", ()).await.is_err());
}

#[tokio::test]
async fn what_would_end_the_branch_is_refused_and_it_goes_on() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    add(&mariadb, 1, "a", 1).await;
    let mut work = mariadb.work(txn(1)).await.unwrap();
    for sql in ["COMMIT", "ROLLBACK", "DROP TABLE counter"] {
        let error = work.execute(sql, ()).await.unwrap_err();
        assert_eq!(error.code(), Some(1399), "{error}");
        assert!(matches!(error, WorkError::Statement { .. }));
    }
    drop(work);
    assert_eq!(vote(&mariadb, &branch(1)).await, Vote::Prepared);
    mariadb.commit(&branch(1)).await.unwrap();
    assert_eq!(server.value("a").await, 1);
}

#[tokio::test]
async fn markers_are_dropped_in_batches_around_what_stands_prepared() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let standing = prepared(&mariadb, 5, "a").await;
    let committed = prepared(&mariadb, 6, "b").await;
    commit(&mariadb, &committed).await;
    // Behind its back: commits would take long. Many more, below the horizon and one above it.
    let many = MARKERS_PER_DELETE * 2 + 7;
    let copy = format!(
        "INSERT INTO paxos_commit_branch SELECT owner, \
         CONCAT(LEFT(commit_id, 20), UNHEX(LPAD(HEX(seq), 8, '0')), RIGHT(commit_id, 24)), \
         session, process FROM paxos_commit_branch, seq_10_to_{}",
        many + 9
    );
    let mut plain = server.plain().await;
    // Its reads are not to wait for the row of what stands prepared.
    let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
    plain.query_drop(level).await.unwrap();
    plain.query_drop(copy).await.unwrap();
    let count = "SELECT COUNT(*) FROM paxos_commit_branch";
    assert_eq!(server.scalar(count).await, many as i64 + 1);
    // Their nonces are not known here: all ids of the last sequence but one.
    let mut last = branch(u32::try_from(many + 8).unwrap());
    last.id.txn.nonce = u64::MAX;
    let listed = [committed.clone()];
    mariadb.settled(last.id, &listed).await.unwrap();
    assert_eq!(server.scalar(count).await, 2);
    assert_eq!(mariadb.commit(&committed).await.unwrap(), Proof::Found);
    mariadb.settled(last.id, &[]).await.unwrap();
    assert_eq!(server.scalar(count).await, 1);
    assert_eq!(mariadb.commit(&committed).await.unwrap(), Proof::Missing);
    assert_eq!(mariadb.in_doubt().await.unwrap().len(), 1);
    commit(&mariadb, &standing).await;
    assert_eq!(mariadb.commit(&standing).await.unwrap(), Proof::Found);
    mariadb.settled(last.id, &[]).await.unwrap();
    assert_eq!(mariadb.commit(&standing).await.unwrap(), Proof::Missing);
    assert_eq!(server.value("a").await, 1);
    assert_eq!(server.scalar(count).await, 1);
}
