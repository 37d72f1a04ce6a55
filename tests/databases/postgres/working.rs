//! Work under a transaction, before anybody asks to prepare it.

use std::time::Duration;

use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::postgres::{AcquireError, Isolation, Work, WorkError};
use tokio_postgres::error::SqlState;

use super::support::{Base, branch, pay, prepare, txn, until_done, vote};

#[tokio::test]
async fn all_calls_of_one_transaction_work_in_one_local_transaction() {
    let base = Base::new("one_local_transaction").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    let other_handle = postgres.clone();
    pay(&other_handle, 1, "alice", -5).await;
    let work = postgres.work(txn(1)).await.unwrap();
    let sql = "SELECT balance FROM account WHERE name = 'alice'";
    let row = work.client().query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 65);
    drop(work);
    assert_eq!(base.balance("alice").await, 100);
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 65);
}

#[tokio::test]
async fn a_connection_serves_one_call_at_a_time() {
    let base = Base::new("one_call_at_a_time").await;
    let short = base.options().acquire_max(Duration::from_millis(50));
    let postgres = base.open_with(short).await;
    let held = postgres.work(txn(1)).await.unwrap();
    let error = postgres.work(txn(1)).await.unwrap_err();
    assert!(matches!(error, WorkError::Busy { .. }), "{error}");
    drop(held);
    postgres.work(txn(1)).await.unwrap();
}

#[tokio::test]
async fn work_that_is_let_go_is_undone_and_does_not_begin_again() {
    let base = Base::new("let_go_is_undone").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    postgres.let_go(txn(1)).await;
    let error = postgres.work(txn(1)).await.unwrap_err();
    assert!(
        matches!(error, WorkError::Ended(of) if of == txn(1)),
        "{error}"
    );
    assert_eq!(vote(&postgres, &branch(1), None).await, Vote::Aborted);
    // Its lock is free, and the connection as good as new.
    pay(&postgres, 2, "alice", -1).await;
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.commit(&branch(2)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}

#[tokio::test]
async fn to_let_go_ends_a_statement_that_waits_for_a_lock() {
    let base = Base::new("ends_a_statement").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    pay(&postgres, 2, "bob", 1).await;
    let waiting = tokio::spawn({
        let postgres = postgres.clone();
        async move {
            let work = postgres.work(txn(2)).await.unwrap();
            let sql = "UPDATE account SET balance = 0 WHERE name = 'alice'";
            work.client().execute(sql, &[]).await.unwrap_err()
        }
    });
    base.until(
        "SELECT count(*) > 0 FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .await;
    postgres.let_go(txn(2)).await;
    let error = waiting.await.unwrap();
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
    // Bob is free.
    pay(&postgres, 3, "bob", 1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    postgres.rollback(&branch(1)).await.unwrap();
}

#[tokio::test]
async fn work_is_as_isolated_as_the_options_say_whatever_the_database_does_by_itself() {
    let base = Base::new("isolated").await;
    let sql = "ALTER DATABASE isolated SET default_transaction_read_only = on";
    base.admin.batch_execute(sql).await.unwrap();
    for (n, isolation, expected) in [
        (1, Isolation::ReadCommitted, "read committed"),
        (2, Isolation::RepeatableRead, "repeatable read"),
        (3, Isolation::Serializable, "serializable"),
    ] {
        let postgres = base.open_with(base.options().isolation(isolation)).await;
        let work = postgres.work(txn(n)).await.unwrap();
        let row = work.client().query_one("SHOW transaction_isolation", &[]);
        assert_eq!(row.await.unwrap().get::<_, &str>(0), expected);
        drop(work);
        pay(&postgres, n, "alice", -1).await;
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
        postgres.commit(&branch(n)).await.unwrap();
    }
    assert_eq!(base.balance("alice").await, 97);
}

#[tokio::test]
async fn work_does_not_keep_others_from_coming_to_their_end() {
    let base = Base::new("pools").await;
    let few = base
        .options()
        .work_connections(2)
        .finish_connections(1)
        .acquire_max(Duration::from_millis(200));
    let postgres = base.open_with(few).await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    pay(&postgres, 2, "bob", -1).await;
    // A transaction that is prepared holds no connection any more; but it is cleaned first.
    let held = until_done(|| postgres.work(txn(3))).await;
    let error = postgres.work(txn(4)).await.unwrap_err();
    let is_exhausted = matches!(
        &error,
        WorkError::Acquire(AcquireError::Exhausted { max: 2, .. })
    );
    assert!(is_exhausted, "{error}");
    // All work connections are held; what is prepared comes to its end all the same.
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    until_done(|| postgres.work(txn(4))).await;
    postgres.rollback(&branch(2)).await.unwrap();
    drop(held);
}

#[tokio::test]
async fn of_two_branches_in_a_deadlock_one_commits() {
    let base = Base::new("deadlock").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    pay(&postgres, 2, "bob", -1).await;
    let cross = |n, name: &'static str| {
        let postgres = postgres.clone();
        async move {
            let work = postgres.work(txn(n)).await.unwrap();
            let sql = "UPDATE account SET balance = balance + 1 WHERE name = $1";
            let result = work.client().execute(sql, &[&name]).await;
            drop(work);
            if let Err(error) = &result {
                assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED));
            }
            let vote = vote(&postgres, &branch(n), None).await;
            assert_eq!(vote == Vote::Prepared, result.is_ok());
            if vote == Vote::Prepared {
                postgres.commit(&branch(n)).await.unwrap();
            }
            vote
        }
    };
    let votes = tokio::join!(cross(1, "bob"), cross(2, "alice"));
    let prepared = [votes.0, votes.1].map(|vote| vote == Vote::Prepared);
    assert_eq!(prepared.iter().filter(|prepared| **prepared).count(), 1);
    let (alice, bob) = (base.balance("alice").await, base.balance("bob").await);
    assert_eq!(alice + bob, 200, "{alice} {bob}");
    assert!(alice != bob);
}

#[tokio::test]
async fn a_statement_waits_for_a_prepared_branch_no_longer_than_told() {
    let base = Base::new("lock_timeout").await;
    let impatient = base.options().lock_max(Duration::from_millis(100));
    let postgres = base.open_with(impatient).await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let work = postgres.work(txn(2)).await.unwrap();
    let sql = "UPDATE account SET balance = 0 WHERE name = 'alice'";
    let error = work.client().execute(sql, &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{error}");
    drop(work);
    assert_eq!(vote(&postgres, &branch(2), None).await, Vote::Aborted);
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}

#[tokio::test]
async fn nothing_of_a_session_is_left_to_the_next_transaction() {
    let base = Base::new("clean_sessions").await;
    let postgres = base.open_with(base.options().work_connections(1)).await;
    let process = |n| {
        let postgres = postgres.clone();
        async move {
            let work = postgres.work(txn(n)).await.unwrap();
            let sql = "SELECT pg_backend_pid(), current_setting('work_mem'), \
                       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                        AND pid = pg_backend_pid())";
            let row = work.client().query_one(sql, &[]).await.unwrap();
            (
                row.get::<_, i32>(0),
                row.get::<_, String>(1),
                row.get::<_, i64>(2),
            )
        }
    };
    let before = process(1).await;
    let work = postgres.work(txn(1)).await.unwrap();
    let sql = "SET work_mem = '7MB'; SELECT pg_advisory_lock(9)";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    assert_eq!(process(1).await.1, "7MB");
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(process(2).await, before);
}

/// What was only read ends by a commit, which leaves what a prepare would have refused.
#[tokio::test]
async fn nothing_of_a_session_is_left_by_who_only_read() {
    let base = Base::new("clean_readers").await;
    let postgres = base.open_with(base.options().work_connections(1)).await;
    let left = "SELECT (SELECT count(*) FROM pg_cursors WHERE is_holdable) \
                + (SELECT count(*) FROM pg_listening_channels()) \
                + (SELECT count(*) FROM pg_class WHERE relpersistence = 't')";
    for (n, sql) in (1..).zip([
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LISTEN news",
        "COMMIT; CREATE TEMP TABLE t (n int)",
    ]) {
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute(sql).await.unwrap();
        assert!(n == 2 || count(&work, left).await == 1, "{sql}");
        drop(work);
        let voted = postgres.prepare(&branch(n), None, ReadOnly::Allowed).await;
        println!("{sql}: {voted:?}");
        postgres.let_go(txn(n)).await;
        let work = postgres.work(txn(n + 10)).await.unwrap();
        assert_eq!(count(&work, left).await, 0, "{sql}");
        drop(work);
        postgres.let_go(txn(n + 10)).await;
    }
    // Nor if nobody has asked for commit.
    let work = postgres.work(txn(20)).await.unwrap();
    let sql = "COMMIT; CREATE TEMP TABLE t (n int)";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    postgres.let_go(txn(20)).await;
    let work = postgres.work(txn(21)).await.unwrap();
    assert_eq!(count(&work, left).await, 0);
}

async fn count(work: &Work, sql: &str) -> i64 {
    work.client().query_one(sql, &[]).await.unwrap().get(0)
}
