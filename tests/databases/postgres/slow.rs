//! Connections that are lost while the server is at `PREPARE TRANSACTION`.
//!
//! A deferred trigger makes that as slow as a test wants: it waits for an advisory lock.

use std::time::Duration;

use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::postgres::{BranchError, Postgres};

use super::support::{Base, branch, ids_in_doubt, pay, prepare, txn, vote};

/// Some process is at its `PREPARE TRANSACTION`.
const IS_SLOW: &str = "SELECT count(*) > 0 FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event = 'advisory'";

const NOBODY_IS_SLOW: &str = "SELECT count(*) = 0 FROM pg_stat_activity \
                              WHERE datname = current_database() AND wait_event = 'advisory'";

/// A database where a prepare waits until the administrator lets it go on.
async fn slow_base(name: &str) -> Base {
    let base = Base::new(name).await;
    let sql = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
               CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON account
               DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
               SELECT pg_advisory_lock(1)";
    base.admin.batch_execute(sql).await.unwrap();
    base
}

async fn go_on(base: &Base) {
    base.admin
        .batch_execute("SELECT pg_advisory_unlock(1)")
        .await
        .unwrap();
}

/// A prepare that has come as far as the trigger.
async fn preparing(
    base: &Base,
    postgres: &Postgres,
) -> tokio::task::JoinHandle<Result<Vote, BranchError>> {
    pay(postgres, 1, "alice", -1).await;
    let postgres = postgres.clone();
    let preparing = tokio::spawn(async move {
        postgres
            .prepare(&branch(1), None, ReadOnly::Forbidden)
            .await
    });
    base.until(IS_SLOW).await;
    preparing
}

#[tokio::test]
async fn a_slow_prepare_is_prepared_in_the_end() {
    let base = slow_base("slow").await;
    let postgres = base.open().await;
    let preparing = preparing(&base, &postgres).await;
    go_on(&base).await;
    assert_eq!(preparing.await.unwrap().unwrap(), Vote::Prepared);
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}

#[tokio::test]
async fn a_prepare_that_takes_too_long_cannot_surface_once_it_is_rolled_back() {
    let base = slow_base("too_slow").await;
    let short = base.options().answer_max(Duration::from_secs(3));
    let postgres = base.open_with(short).await;
    pay(&postgres, 1, "alice", -1).await;
    let error = postgres
        .prepare(&branch(1), None, ReadOnly::Forbidden)
        .await;
    assert!(
        matches!(error, Err(BranchError::Silent { .. })),
        "{error:?}"
    );
    base.until(IS_SLOW).await;
    // Nobody was told that it is rolled back, so nobody may say so.
    let again = postgres
        .prepare(&branch(1), None, ReadOnly::Forbidden)
        .await;
    assert!(matches!(again, Err(BranchError::Preparing(_))), "{again:?}");
    // It says so when the process that was at it is gone, and not before.
    postgres.rollback(&branch(1)).await.unwrap();
    let still = base.count(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' \
                            AND datname = current_database()",
    );
    assert_eq!(still.await, 0);
    go_on(&base).await;
    assert!(base.names().await.is_empty());
    pay(&postgres, 2, "alice", -2).await;
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.commit(&branch(2)).await.unwrap();
    assert_eq!(base.balance("alice").await, 98);
}

#[tokio::test]
async fn what_a_dead_process_sent_may_surface_later_and_is_found_then() {
    let base = slow_base("surfaces").await;
    let dying = base.open().await;
    let other = base.open().await;
    let preparing = preparing(&base, &dying).await;
    preparing.abort();
    assert!(preparing.await.unwrap_err().is_cancelled());
    dying.close();
    drop(dying);
    // The server works on, with nobody to tell; and no scan can see it.
    base.until(IS_SLOW).await;
    assert_eq!(ids_in_doubt(&other).await, []);
    go_on(&base).await;
    base.until(NOBODY_IS_SLOW).await;
    base.until("SELECT count(*) = 1 FROM pg_prepared_xacts WHERE database = current_database()")
        .await;
    assert_eq!(ids_in_doubt(&other).await, [branch(1).id]);
    other.rollback(&branch(1)).await.unwrap();
    assert!(base.names().await.is_empty());
    assert_eq!(base.balance("alice").await, 100);
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_prepare_aborts_it() {
    let base = slow_base("breaks").await;
    let postgres = base.open().await;
    let preparing = preparing(&base, &postgres).await;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE wait_event = 'advisory' AND datname = current_database()";
    base.admin.batch_execute(sql).await.unwrap();
    let error = preparing.await.unwrap();
    assert!(
        matches!(error, Err(BranchError::Server { .. })),
        "{error:?}"
    );
    postgres.rollback(&branch(1)).await.unwrap();
    go_on(&base).await;
    assert!(base.names().await.is_empty());
    pay(&postgres, 2, "alice", -2).await;
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.rollback(&branch(2)).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_while_the_service_works_poisons_the_branch() {
    let base = Base::new("poisoned").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    pay(&postgres, 2, "bob", -1).await;
    let work = postgres.work(txn(1)).await.unwrap();
    let row = work
        .client()
        .query_one("SELECT pg_backend_pid()", &[])
        .await;
    let process: i32 = row.unwrap().get(0);
    let sql = format!("SELECT pg_terminate_backend({process}, 60000)");
    base.admin.batch_execute(&sql).await.unwrap();
    assert!(work.client().batch_execute("SELECT 1").await.is_err());
    drop(work);
    // Never on another connection, where the first half of the work is missing.
    assert!(postgres.work(txn(1)).await.is_err());
    for _ in 0..2 {
        assert_eq!(vote(&postgres, &branch(1), None).await, Vote::Aborted);
    }
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.commit(&branch(2)).await.unwrap();
    assert_eq!(base.balance("alice").await, 100);
    assert_eq!(base.balance("bob").await, 99);
}
