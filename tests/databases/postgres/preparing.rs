//! From the work to the vote.

use std::time::Duration;

use paxos_commit::cluster::servers::ThrowawayPostgres;
use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{ReadOnly, Request, Vote};
use paxos_commit::resource::postgres::{BranchError, Isolation, RequestError, Work, WorkError};

use super::support::{Base, branch, branch_of, pay, prepare, txn, vote};

#[tokio::test]
async fn what_is_prepared_commits_and_its_marker_proves_it() {
    let base = Base::new("commits").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    assert_eq!(base.names().await.len(), 1);
    assert_eq!(base.balance("alice").await, 100);
    let markers = "SELECT count(*) FROM paxos_commit.committed";
    assert_eq!(base.count(markers).await, 0);
    for _ in 0..2 {
        postgres.commit(&branch(1)).await.unwrap();
        assert_eq!(base.balance("alice").await, 70);
        assert_eq!(base.count(markers).await, 1);
    }
    assert!(base.names().await.is_empty());
}

#[tokio::test]
async fn what_is_prepared_rolls_back_as_often_as_told_and_leaves_nothing() {
    let base = Base::new("rolls_back").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    for _ in 0..2 {
        postgres.rollback(&branch(1)).await.unwrap();
        assert!(base.names().await.is_empty());
    }
    assert_eq!(base.balance("alice").await, 100);
    // Late: it is over.
    assert_eq!(vote(&postgres, &branch(1), None).await, Vote::Aborted);
    assert_eq!(postgres.commit(&branch(1)).await.unwrap(), Proof::Missing);
    // What was never there is rolled back, too.
    postgres.rollback(&branch(2)).await.unwrap();
    assert_eq!(vote(&postgres, &branch(2), None).await, Vote::Aborted);
}

#[tokio::test]
async fn a_branch_is_prepared_once_and_in_one_instance() {
    let base = Base::new("once").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    for _ in 0..3 {
        assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    }
    let mut other = branch(1);
    other.id.roster = branch_of(9, 1).id.roster;
    assert_eq!(vote(&postgres, &other, None).await, Vote::Aborted);
    // To roll the other one back leaves this one alone.
    postgres.rollback(&other).await.unwrap();
    assert_eq!(base.names().await.len(), 1);
    let error = postgres.work(txn(1)).await.unwrap_err();
    assert!(matches!(error, WorkError::Ended(_)), "{error}");
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 70);
}

#[tokio::test]
async fn who_only_read_lets_go_when_it_votes_where_that_is_allowed() {
    let base = Base::new("read_only").await;
    let serializable = base.options().isolation(Isolation::Serializable);
    let postgres = base.open_with(serializable).await;
    let read = |n| {
        let postgres = postgres.clone();
        async move {
            let work = postgres.work(txn(n)).await.unwrap();
            let sql = "SELECT sum(balance) FROM account";
            work.client().query_one(sql, &[]).await.unwrap();
        }
    };
    read(1).await;
    for _ in 0..2 {
        let voted = postgres.prepare(&branch(1), None, ReadOnly::Allowed).await;
        assert_eq!(voted.unwrap(), Vote::ReadOnly);
    }
    assert!(base.names().await.is_empty());
    assert_eq!(
        base.count("SELECT count(*) FROM paxos_commit.committed")
            .await,
        0
    );
    // Where it is not allowed it stands prepared, and keeps what it has read.
    read(2).await;
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    assert_eq!(base.names().await.len(), 1);
    postgres.commit(&branch(2)).await.unwrap();
    postgres.commit(&branch(2)).await.unwrap();
    // Who wrote is never let go, nor who locks a row to write it.
    for (n, sql) in [
        (3, "UPDATE account SET balance = 1"),
        (4, "SELECT FROM account FOR UPDATE"),
    ] {
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute(sql).await.unwrap();
        drop(work);
        let voted = postgres.prepare(&branch(n), None, ReadOnly::Allowed).await;
        assert_eq!(voted.unwrap(), Vote::Prepared);
        postgres.rollback(&branch(n)).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_transaction_votes_to_abort_although_the_server_gives_no_error() {
    let base = Base::new("failed").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -30).await;
    let work = postgres.work(txn(1)).await.unwrap();
    work.client().batch_execute("SELECT 1/0").await.unwrap_err();
    drop(work);
    assert_eq!(prepare(&postgres, 1).await, Vote::Aborted);
    // So does one whose caller did not wait for the error.
    pay(&postgres, 2, "alice", -30).await;
    let work = postgres.work(txn(2)).await.unwrap();
    let slow = work
        .client()
        .batch_execute("SELECT pg_sleep(0.2); SELECT 1/0");
    tokio::time::timeout(Duration::from_millis(20), slow)
        .await
        .unwrap_err();
    drop(work);
    assert_eq!(prepare(&postgres, 2).await, Vote::Aborted);
    assert!(base.names().await.is_empty());
    // An error up to a savepoint is none.
    pay(&postgres, 3, "alice", -30).await;
    let work = postgres.work(txn(3)).await.unwrap();
    work.client().batch_execute("SAVEPOINT a").await.unwrap();
    work.client().batch_execute("SELECT 1/0").await.unwrap_err();
    work.client().batch_execute("ROLLBACK TO a").await.unwrap();
    drop(work);
    assert_eq!(prepare(&postgres, 3).await, Vote::Prepared);
    postgres.commit(&branch(3)).await.unwrap();
    assert_eq!(base.balance("alice").await, 70);
    // A savepoint that is still there goes with the rest, and so does an error behind it.
    for (n, sql, voted) in [
        (4, "SELECT 1/0", Vote::Aborted),
        (5, "SELECT 1", Vote::Prepared),
    ] {
        pay(&postgres, n, "alice", -30).await;
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute("SAVEPOINT a").await.unwrap();
        let done = work.client().batch_execute(sql).await;
        assert_eq!(done.is_ok(), voted == Vote::Prepared);
        drop(work);
        assert_eq!(prepare(&postgres, n).await, voted);
    }
    assert_eq!(base.names().await.len(), 1);
    postgres.commit(&branch(5)).await.unwrap();
    assert_eq!(base.balance("alice").await, 40);
}

#[tokio::test]
async fn work_that_ends_its_transaction_by_itself_is_noticed() {
    let base = Base::new("ended_by_itself").await;
    let postgres = base.open().await;
    let ends = [
        "COMMIT",
        "ROLLBACK",
        "COMMIT; BEGIN",
        "ROLLBACK AND CHAIN",
        "PREPARE TRANSACTION 'somebody'; BEGIN",
        "END; SELECT 1",
    ];
    let ways = [ReadOnly::Allowed, ReadOnly::Forbidden];
    let all = ways.iter().flat_map(|way| ends.map(|ends| (*way, ends)));
    for (n, (read_only, ends)) in (1..).zip(all) {
        pay(&postgres, n, "bob", 1).await;
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute(ends).await.unwrap();
        drop(work);
        if ends.contains("somebody") {
            // It is not the adapter's, which leaves it alone.
            assert_eq!(base.names().await, ["somebody"]);
            base.admin
                .batch_execute("ROLLBACK PREPARED 'somebody'")
                .await
                .unwrap();
        }
        // Even if it goes on.
        pay(&postgres, n, "alice", 0).await;
        for _ in 0..2 {
            let voted = postgres.prepare(&branch(n), None, read_only).await.unwrap();
            assert_eq!(voted, Vote::Aborted, "{ends}");
        }
        assert!(base.names().await.is_empty(), "{ends}");
    }
    let sql = "SELECT count(*) FROM paxos_commit.committed";
    assert_eq!(base.count(sql).await, 0);
}

/// Outside of a transaction `PREPARE TRANSACTION` is no error either.
#[tokio::test]
async fn who_ends_its_transaction_and_forges_its_mark_aborts_as_well() {
    let base = Base::new("forged").await;
    let postgres = base.open().await;
    for (n, ends) in (1..).zip(["COMMIT", "ROLLBACK"]) {
        pay(&postgres, n, "bob", 1).await;
        let work = postgres.work(txn(n)).await.unwrap();
        let sql = "SELECT current_setting('paxos_commit.branch')";
        let mark: String = work.client().query_one(sql, &[]).await.unwrap().get(0);
        let forging = format!("{ends}; SET paxos_commit.branch = '{mark}'");
        work.client().batch_execute(&forging).await.unwrap();
        drop(work);
        assert_eq!(vote(&postgres, &branch(n), None).await, Vote::Aborted);
        assert!(base.names().await.is_empty(), "{ends}");
    }
}

/// Without it nobody could tell later whether it has committed.
#[tokio::test]
async fn without_a_marker_a_branch_does_not_vote_to_commit() {
    let base = Base::new("no_marker").await;
    let postgres = base.open().await;
    let sql = "CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql
               AS 'BEGIN RETURN NULL; END';
               CREATE TRIGGER drop_it BEFORE INSERT ON paxos_commit.committed
               FOR EACH ROW EXECUTE FUNCTION drop_it()";
    base.admin.batch_execute(sql).await.unwrap();
    pay(&postgres, 1, "alice", -30).await;
    let of = branch(1);
    let voting = postgres.prepare(&of, None, ReadOnly::Forbidden);
    let error = voting.await.unwrap_err().to_string();
    assert!(error.contains("no trigger"), "{error}");
    postgres.rollback(&of).await.unwrap();
    assert!(base.names().await.is_empty());
    assert_eq!(base.balance("alice").await, 100);
}

#[tokio::test]
async fn work_that_removes_the_adapters_statements_aborts_and_its_connection_goes() {
    let base = Base::new("deallocate").await;
    let postgres = base.open_with(base.options().work_connections(1)).await;
    for (n, read_only) in [(1, ReadOnly::Allowed), (2, ReadOnly::Forbidden)] {
        pay(&postgres, n, "alice", 1).await;
        let work = postgres.work(txn(n)).await.unwrap();
        let removing = work.client().batch_execute("DEALLOCATE ALL");
        removing.await.unwrap();
        drop(work);
        let voted = postgres.prepare(&branch(n), None, read_only).await;
        assert!(voted.is_err(), "{voted:?}");
        postgres.rollback(&branch(n)).await.unwrap();
        // The only connection: a new one.
        pay(&postgres, n + 10, "alice", -10).await;
        assert_eq!(prepare(&postgres, n + 10).await, Vote::Prepared);
        postgres.commit(&branch(n + 10)).await.unwrap();
    }
    assert_eq!(base.balance("alice").await, 80);
    assert!(base.names().await.is_empty());
}

/// The counter-example: what is written through a foreign table has no xid here, so it looks as if
/// nothing was written; the branch is committed at its vote, and the other server with it, while
/// another branch aborts.
#[tokio::test]
async fn what_was_written_or_locked_without_an_xid_is_no_reading() {
    let base = Base::new("without_xid").await;
    let sql = "CREATE EXTENSION postgres_fdw;
        CREATE TABLE near (b bigint); INSERT INTO near VALUES (100);
        DO $$ BEGIN EXECUTE format('CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host %L, port %L, dbname %L)', current_setting('unix_socket_directories'),
            current_setting('port'), current_database()); END $$;
        CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres');
        CREATE FOREIGN TABLE far_near (b bigint) SERVER far OPTIONS (table_name 'near')";
    base.admin.batch_execute(sql).await.unwrap();
    let postgres = base.open().await;
    let work = postgres.work(txn(1)).await.unwrap();
    let sql = "UPDATE far_near SET b = b - 30";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    let voted = postgres.prepare(&branch(1), None, ReadOnly::Allowed).await;
    assert!(voted.is_err(), "{voted:?}");
    postgres.rollback(&branch(1)).await.unwrap();
    assert_eq!(base.count("SELECT b FROM near").await, 100);
    for (n, lock) in [
        (2, "LOCK TABLE near IN SHARE ROW EXCLUSIVE MODE"),
        (3, "SELECT pg_advisory_xact_lock(7)"),
    ] {
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute(lock).await.unwrap();
        drop(work);
        let voted = postgres.prepare(&branch(n), None, ReadOnly::Allowed).await;
        assert_eq!(voted.unwrap(), Vote::Prepared, "{lock}");
        let sql = "SELECT count(*) FROM pg_locks WHERE pid IS NULL
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (locktype = 'advisory' OR mode = 'ShareRowExclusiveLock')";
        assert_eq!(base.count(sql).await, 1, "{lock}");
        postgres.commit(&branch(n)).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_server_does_not_prepare_aborts() {
    let base = Base::new("not_preparable").await;
    let sql = "CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
               CREATE ROLE clerk; GRANT ALL ON late TO clerk";
    base.admin.batch_execute(sql).await.unwrap();
    let postgres = base.open().await;
    // So that nothing but the role itself is wrong with what it prepares.
    let sql = "GRANT USAGE ON SCHEMA paxos_commit TO clerk;
               GRANT ALL ON paxos_commit.committed TO clerk";
    base.admin.batch_execute(sql).await.unwrap();
    for (n, sql) in [
        (1, "CREATE TEMP TABLE t (n int)"),
        (2, "LISTEN news"),
        (3, "NOTIFY news"),
        (4, "INSERT INTO late VALUES (1), (1)"),
        (5, "SET TRANSACTION READ ONLY"),
        (6, "INSERT INTO late VALUES (6); SET ROLE clerk"),
    ] {
        let work = postgres.work(txn(n)).await.unwrap();
        work.client().batch_execute(sql).await.unwrap();
        drop(work);
        assert_eq!(
            vote(&postgres, &branch(n), None).await,
            Vote::Aborted,
            "{sql}"
        );
        assert!(base.names().await.is_empty(), "{sql}");
    }
    let work = postgres.work(txn(7)).await.unwrap();
    let sql = "INSERT INTO late VALUES (7); SET ROLE clerk";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    let of = branch(7);
    let voting = postgres.prepare(&of, None, ReadOnly::Allowed);
    assert_eq!(voting.await.unwrap(), Vote::Aborted);
    pay(&postgres, 8, "alice", -1).await;
    assert_eq!(prepare(&postgres, 8).await, Vote::Prepared);
    postgres.commit(&branch(8)).await.unwrap();
    assert_eq!(base.count("SELECT count(*) FROM late").await, 0);
}

async fn take(work: Work, request: Request) -> Result<(), RequestError> {
    if &*request.0 == b"panic" {
        panic!("as the request says");
    }
    let sum: i64 = std::str::from_utf8(&request.0)?.parse()?;
    let sql = "UPDATE account SET balance = balance - $1 WHERE name = 'alice' RETURNING balance";
    let row = work.client().query_one(sql, &[&sum]).await?;
    if row.get::<_, i64>(0) < 0 {
        return Err("not enough money".into());
    }
    Ok(())
}

#[tokio::test]
async fn a_request_runs_just_before_the_vote() {
    let base = Base::new("requests").await;
    let postgres = base.open_with(base.options().requests(take)).await;
    let run = |n, text: &'static str| {
        let postgres = postgres.clone();
        async move { vote(&postgres, &branch(n), Some(Request(text.as_bytes().into()))).await }
    };
    assert_eq!(run(1, "30").await, Vote::Prepared);
    postgres.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 70);
    // After work of the service, in the same transaction.
    pay(&postgres, 2, "alice", 40).await;
    assert_eq!(run(2, "110").await, Vote::Prepared);
    postgres.commit(&branch(2)).await.unwrap();
    assert_eq!(base.balance("alice").await, 0);
    for (n, refused) in [(3, "1"), (4, "no number")] {
        assert_eq!(run(n, refused).await, Vote::Aborted, "{refused}");
    }
    // The participant takes a panic for an error.
    let panicked = tokio::spawn(run(5, "panic")).await;
    assert!(panicked.unwrap_err().is_panic());
    postgres.rollback(&branch(5)).await.unwrap();
    assert!(base.names().await.is_empty());
    assert_eq!(run(6, "0").await, Vote::Prepared);
    postgres.rollback(&branch(6)).await.unwrap();

    let none = base.open().await;
    let request = Some(Request(b"0".as_slice().into()));
    assert_eq!(vote(&none, &branch(7), request).await, Vote::Aborted);
}

#[tokio::test]
async fn a_prepare_does_not_wait_for_ever_for_who_works_on() {
    let base = Base::new("works_on").await;
    let short = base.options().acquire_max(Duration::from_millis(50));
    let postgres = base.open_with(short).await;
    pay(&postgres, 1, "alice", -1).await;
    let held = postgres.work(txn(1)).await.unwrap();
    let error = postgres
        .prepare(&branch(1), None, ReadOnly::Forbidden)
        .await;
    let is_busy = matches!(error, Err(BranchError::Work(WorkError::Busy { .. })));
    assert!(is_busy, "{error:?}");
    postgres.rollback(&branch(1)).await.unwrap();
    // Its lock is free although the service still holds its end.
    base.admin
        .batch_execute("UPDATE account SET balance = 1")
        .await
        .unwrap();
    assert!(held.client().batch_execute("SELECT 1").await.is_err());
}

#[tokio::test]
async fn without_room_for_one_more_a_branch_aborts_and_later_ones_do_not() {
    let server = ThrowawayPostgres::start(&[("max_prepared_transactions", "2")])
        .await
        .unwrap();
    let base = Base::on(&server, "no_room").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    pay(&postgres, 2, "bob", -1).await;
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    let work = postgres.work(txn(3)).await.unwrap();
    let sql = "INSERT INTO account VALUES ('carol', 1)";
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    let error = postgres
        .prepare(&branch(3), None, ReadOnly::Forbidden)
        .await;
    assert!(matches!(error, Err(BranchError::Full)), "{error:?}");
    let text = error.unwrap_err().to_string();
    assert!(text.contains("max_prepared_transactions"), "{text}");
    postgres.rollback(&branch(3)).await.unwrap();
    postgres.commit(&branch(1)).await.unwrap();
    // Without an operator.
    let work = postgres.work(txn(4)).await.unwrap();
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    assert_eq!(prepare(&postgres, 4).await, Vote::Prepared);
    for n in [2, 4] {
        postgres.commit(&branch(n)).await.unwrap();
    }
    assert_eq!(base.balance("carol").await, 1);
}
