//! Branches in doubt, proofs of commits, and who may touch what.

use std::sync::Arc;

use paxos_commit::participant::{Expiry, ResourceManager};
use paxos_commit::protocol::types::{CommitId, ReadOnly, Session, Vote};
use paxos_commit::resource::postgres::{BranchError, MARKERS_PER_DELETE, Options, Postgres};

use super::support::{Base, branch, branch_of, connect, ids_in_doubt, pay, prepare, txn};

#[tokio::test]
async fn in_doubt_are_the_branches_of_this_participant_in_this_database_and_no_others() {
    let base = Base::new("in_doubt_here").await;
    let elsewhere = Base::new("in_doubt_elsewhere").await;
    let postgres = base.open().await;
    assert_eq!(postgres.prepared().await.unwrap().count, 0);
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    // Another session of the same participant.
    let second = base.open().await;
    let of_second = branch_of(2, 2);
    pay(&second, 2, "bob", -1).await;
    let voted = second.prepare(&of_second, None, ReadOnly::Forbidden).await;
    assert_eq!(voted.unwrap(), Vote::Prepared);
    // The same participant in another database of the same server.
    let other = elsewhere.open_with(base.options()).await;
    pay(&other, 3, "alice", -1).await;
    assert_eq!(prepare(&other, 3).await, Vote::Prepared);
    // Whoever else prepares here.
    let ours = base.names().await[0].clone();
    let foreign = [
        "somebody".to_owned(),
        ours.replace("/ledger/", "/ledgers/"),
        ours.replace("/in_doubt_here/", "/in_doubt/"),
        ours.replace("/0000000000000001", "/1"),
        format!("{ours}x"),
        format!("x{ours}"),
    ];
    for (n, name) in foreign.iter().enumerate() {
        let sql = format!("BEGIN; CREATE TABLE t{n} (); PREPARE TRANSACTION '{name}'");
        connect(&base.url).await.batch_execute(&sql).await.unwrap();
    }

    let found = postgres.in_doubt().await.unwrap();
    let mut found: Vec<_> = found
        .iter()
        .map(|found| (found.id, found.session))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [(branch(1).id, Session(1)), (of_second.id, Session(2))]
    );
    let standing = postgres.prepared().await.unwrap();
    assert!(standing.count == 2 && standing.oldest.is_some());

    // Any session finishes what another has prepared.
    postgres.commit(&of_second).await.unwrap();
    second.rollback(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 100);
    assert_eq!(base.balance("bob").await, 99);
    let mut left = base.names().await;
    left.sort();
    let mut expected = foreign.to_vec();
    expected.sort();
    assert_eq!(left, expected);
    for name in foreign {
        let sql = format!("ROLLBACK PREPARED '{name}'");
        base.admin.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(ids_in_doubt(&other).await, [branch(3).id]);
    other.rollback(&branch(3)).await.unwrap();
}

#[tokio::test]
async fn the_branch_of_another_participant_is_refused() {
    let base = Base::new("another_participant").await;
    let postgres = base.open_with(Options::new("test", "stock")).await;
    let asked = [
        postgres
            .prepare(&branch(1), None, ReadOnly::Forbidden)
            .await
            .map(drop),
        postgres.commit(&branch(1)).await,
        postgres.rollback(&branch(1)).await,
        postgres.expire(&branch(1)).await.map(drop),
    ];
    for answer in asked {
        assert!(
            matches!(answer, Err(BranchError::NotOurs { .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_commit_of_what_is_missing_needs_a_proof() {
    let base = Base::new("proof").await;
    let postgres = base.open().await;
    let error = postgres.commit(&branch(1)).await.unwrap_err();
    assert!(matches!(error, BranchError::NoProof { .. }), "{error}");
    // The horizon is one, and lasts; but not for what was missed before it came.
    postgres.settled(branch(5).id).await.unwrap();
    postgres.commit(&branch(3)).await.unwrap();
    assert!(postgres.commit(&branch(1)).await.is_err());
    let later = base.open().await;
    later.commit(&branch(5)).await.unwrap();
    assert!(later.commit(&branch(6)).await.is_err());
    // It never goes back, and is nobody else's.
    later.settled(branch(2).id).await.unwrap();
    later.commit(&branch(5)).await.unwrap();
    let other = base.open_with(Options::new("other", "ledger")).await;
    assert!(other.commit(&branch(1)).await.is_err());
    // An operator who ends a branch by hand is noticed.
    pay(&postgres, 7, "alice", -1).await;
    assert_eq!(prepare(&postgres, 7).await, Vote::Prepared);
    let sql = format!("ROLLBACK PREPARED '{}'", base.names().await[0]);
    base.admin.batch_execute(&sql).await.unwrap();
    assert!(postgres.commit(&branch(7)).await.is_err());
}

#[tokio::test]
async fn markers_go_in_batches_up_to_the_horizon_and_nobody_waits_for_a_lock() {
    let base = Base::new("markers").await;
    let postgres = base.open().await;
    for n in [1, 100_000] {
        pay(&postgres, n, "alice", -1).await;
        assert_eq!(prepare(&postgres, n).await, Vote::Prepared);
        postgres.commit(&branch(n)).await.unwrap();
    }
    // As many as that, with names in between; and those of another participant.
    let sql = "INSERT INTO paxos_commit.committed
               SELECT regexp_replace(gid, '-00000001-', '-' || lpad(to_hex(n), 8, '0') || '-')
               FROM paxos_commit.committed, generate_series(2, 5000) AS n
               WHERE gid LIKE '%-00000001-%';
               INSERT INTO paxos_commit.committed
               SELECT replace(gid, '/ledger/', other) FROM paxos_commit.committed,
               unnest(ARRAY['/ledge/', '/ledger2/']) AS other WHERE gid LIKE '%-00000001-%';
               CREATE TABLE batch (xid xid8, rows int8);
               CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO batch SELECT pg_current_xact_id(), count(*) FROM gone;
                RETURN NULL; END';
               CREATE TRIGGER note AFTER DELETE ON paxos_commit.committed
               REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION note()";
    base.admin.batch_execute(sql).await.unwrap();
    let markers = "SELECT count(*) FROM paxos_commit.committed";
    assert_eq!(base.count(markers).await, 5_003);
    // Somebody is at one of them.
    let other = connect(&base.url).await;
    let sql = "BEGIN; SELECT FROM paxos_commit.committed WHERE gid LIKE '%-00000010-%' FOR UPDATE";
    other.batch_execute(sql).await.unwrap();
    postgres.settled(branch(4_000).id).await.unwrap();
    assert_eq!(base.count(markers).await, 1_004);
    other.batch_execute("COMMIT").await.unwrap();
    postgres.settled(branch(4_000).id).await.unwrap();
    assert_eq!(base.count(markers).await, 1_003);
    // Few at a time, each time in a transaction of its own.
    let largest = base.count("SELECT max(rows) FROM batch").await;
    assert_eq!(largest, MARKERS_PER_DELETE);
    let transactions = base
        .count("SELECT count(DISTINCT xid) FROM batch WHERE rows > 0")
        .await;
    assert_eq!(transactions, 3_999 / MARKERS_PER_DELETE + 2);
    // Those after the horizon prove, and those before it need no marker.
    for n in [1, 4_000, 100_000] {
        postgres.commit(&branch(n)).await.unwrap();
    }
    postgres.settled(branch(u32::MAX).id).await.unwrap();
    assert_eq!(base.count(markers).await, 2);
}

#[tokio::test]
async fn work_that_is_settled_is_let_go() {
    let base = Base::new("settled_work").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    pay(&postgres, 2, "bob", -1).await;
    // All ids that the first one can have; none of the second.
    let through = *CommitId::all_of(txn(1)).end();
    postgres.settled(through).await.unwrap();
    base.admin
        .batch_execute("UPDATE account SET balance = 7 WHERE name = 'alice'")
        .await
        .unwrap();
    assert!(postgres.work(txn(1)).await.is_err());
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.commit(&branch(2)).await.unwrap();
}

#[tokio::test]
async fn what_is_forgotten_is_rolled_back_if_it_stands_prepared() {
    let base = Base::new("expired").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let expired = postgres.expire(&branch(1)).await.unwrap();
    assert_eq!(expired, Expiry::RolledBack);
    for n in [1, 2] {
        let expired = postgres.expire(&branch(n)).await.unwrap();
        assert_eq!(expired, Expiry::NotPrepared);
    }
    assert_eq!(base.balance("alice").await, 100);
}

#[tokio::test]
async fn a_rollback_for_another_session_reaches_its_branch_though_this_one_works_there_too() {
    let base = Base::new("same_transaction").await;
    let (first, second) = (base.open().await, base.open().await);
    for (n, name) in [(1, "alice"), (2, "bob")] {
        pay(&first, n, name, -1).await;
        assert_eq!(prepare(&first, n).await, Vote::Prepared);
        second.work(txn(n)).await.unwrap();
    }
    second.rollback(&branch(1)).await.unwrap();
    assert_eq!(ids_in_doubt(&second).await, [branch(2).id]);
    let expired = second.expire(&branch(2)).await.unwrap();
    assert_eq!(expired, Expiry::RolledBack);
    assert!(base.names().await.is_empty());
}

#[tokio::test]
async fn many_sessions_finish_one_branch_at_the_same_time() {
    let base = Base::new("many_finishers").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(Arc::new(base.open().await));
    }
    for n in 1..=20 {
        pay(&sessions[0], n, "alice", -1).await;
        assert_eq!(prepare(&sessions[0], n).await, Vote::Prepared);
        let commits = n % 2 == 0;
        let finishing = sessions.iter().map(|session| {
            let session = session.clone();
            tokio::spawn(async move {
                match commits {
                    true => session.commit(&branch(n)).await,
                    false => session.rollback(&branch(n)).await,
                }
            })
        });
        for finished in finishing.collect::<Vec<_>>() {
            finished.await.unwrap().unwrap();
        }
    }
    assert_eq!(base.balance("alice").await, 90);
    assert!(base.names().await.is_empty());
}

#[tokio::test]
async fn a_closed_adapter_does_nothing_more_and_what_is_prepared_stays() {
    let base = Base::new("closed").await;
    let postgres = base.open_with(base.options()).await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    pay(&postgres, 2, "bob", -1).await;
    postgres.close();
    assert!(postgres.work(txn(3)).await.is_err());
    assert!(postgres.commit(&branch(1)).await.is_err());
    // The lock of the other one is free.
    let sql = "UPDATE account SET balance = 7 WHERE name = 'bob'";
    base.admin.batch_execute(sql).await.unwrap();
    let next = base.open().await;
    assert_eq!(ids_in_doubt(&next).await, [branch(1).id]);
    next.commit(&branch(1)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}

/// The counter-example: somebody rolls back by hand what the coordinators then commit. Nothing proves
/// the commit, which is an alarm; two generations later the horizon has passed, and what comes before
/// it counts as done: the alarm would clear itself, and the replicas forget the commit.
#[tokio::test]
async fn a_commit_that_was_rolled_back_by_hand_is_disputed_whatever_is_settled() {
    let base = Base::new("disputed").await;
    let postgres = base.open().await;
    let (lost, done) = (branch(1), branch(2));
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let sql = format!("ROLLBACK PREPARED '{}'", base.names().await[0]);
    base.admin.batch_execute(&sql).await.unwrap();
    pay(&postgres, 2, "bob", -1).await;
    assert_eq!(prepare(&postgres, 2).await, Vote::Prepared);
    postgres.commit(&done).await.unwrap();
    let is_disputed = async |postgres: &Postgres| {
        let error = postgres.commit(&lost).await.unwrap_err();
        matches!(error, BranchError::NoProof { .. })
    };
    assert!(is_disputed(&postgres).await);
    postgres.settled(branch(9).id).await.unwrap();
    assert!(is_disputed(&postgres).await);
    assert!(is_disputed(&base.open().await).await);
    postgres.commit(&done).await.unwrap();
    let balances = (base.balance("alice").await, base.balance("bob").await);
    assert_eq!(balances, (100, 99));
}
