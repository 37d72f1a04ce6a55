//! What a service, or the network below it, does to a branch that is at work.

use std::time::Duration;

use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::Vote;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Opts, OptsBuilder};
use paxos_commit::resource::mariadb::{Mariadb, Options, WorkError};
use ring::hmac;

use crate::together::tap::{Moment, Tap};

use super::support::{
    ADD, PATIENCE, Server, add, branch, commit, options, prepared, rollback, txn, vote,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// The lock that the session of a transaction has: a digest under the store's key, with the process
/// from the name of an earlier transaction, which alone stands prepared.
async fn lock_of(server: &Server, sequence: u32) -> String {
    let mut plain = server.plain().await;
    let found: Option<(i64, u64, u64, Vec<u8>)> = plain.query_first("XA RECOVER").await.unwrap();
    let (_, _, _, name) = found.unwrap();
    let sql = "SELECT secret FROM paxos_commit_store";
    let secret: Option<Vec<u8>> = plain.query_first(sql).await.unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.unwrap());
    let txn = txn(sequence).to_be_bytes();
    let digest = hmac::sign(&key, &[&b"lock"[..], &txn, &name[32..40]].concat());
    let half = &digest.as_ref()[..16];
    let half: String = half.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("paxos-commit/{half}")
}

/// Without its lock nobody would know that the branch's session lives.
#[tokio::test]
async fn a_branch_does_not_begin_without_its_lock() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let first = prepared(&mariadb, 1, "a").await;
    let lock = lock_of(&server, 2).await;
    let mut meddler = server.plain().await;
    let take = format!("SELECT GET_LOCK('{lock}', 0)");
    let taken: Option<i64> = meddler.query_first(take).await.unwrap();
    assert_eq!(taken, Some(1));
    let error = mariadb.work(txn(2)).await.unwrap_err();
    assert!(matches!(error, WorkError::Locked { .. }), "{error}");
    meddler.query_drop("DO RELEASE_ALL_LOCKS()").await.unwrap();
    // Whoever tried has left nothing.
    add(&mariadb, 2, "b", 1).await;
    let free = format!("SELECT IS_FREE_LOCK('{lock}')");
    assert_eq!(server.scalar(&free).await, 0);
    commit(&mariadb, &first).await;
    assert_eq!(vote(&mariadb, &branch(2)).await, Vote::Prepared);
    commit(&mariadb, &branch(2)).await;
    assert_eq!((server.value("a").await, server.value("b").await), (1, 1));
}

/// The service that gives up the branch's lock gives the branch up.
#[tokio::test]
async fn a_branch_is_not_prepared_without_its_lock() {
    let mut server = Server::start().await;
    let mariadb = server.open().await;
    for sequence in 1..=3 {
        let mut work = mariadb.work(txn(sequence)).await.unwrap();
        work.execute(ADD, ("a", 1)).await.unwrap();
        let sql = "DO RELEASE_ALL_LOCKS()";
        work.execute(sql, ()).await.unwrap();
        drop(work);
        assert_eq!(vote(&mariadb, &branch(sequence)).await, Vote::Aborted);
        assert_eq!(server.prepared().await, 0);
    }
    // Nor does anything come back, or keep a lock.
    server.crash().await;
    assert_eq!(server.prepared().await, 0);
    let mariadb = server.open().await;
    let branch = prepared(&mariadb, 4, "a").await;
    commit(&mariadb, &branch).await;
    assert_eq!(server.value("a").await, 1);
    let rows = "SELECT COUNT(*) FROM paxos_commit_branch";
    assert_eq!(server.scalar(rows).await, 1);
}

#[tokio::test]
async fn a_row_of_another_type_than_expected_is_an_error_and_the_work_goes_on() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let mut work = mariadb.work(txn(1)).await.unwrap();
    work.execute(ADD, ("a", 1)).await.unwrap();
    let sql = "SELECT name FROM counter";
    let error = work.first::<i64>(sql, ()).await.unwrap_err();
    assert!(matches!(error, WorkError::Row { .. }), "{error}");
    let error = work.query::<(String, i64)>(sql, ()).await.unwrap_err();
    assert!(matches!(error, WorkError::Row { .. }), "{error}");
    let sql = "SELECT NULL";
    assert!(work.first::<i64>(sql, ()).await.is_err());
    assert_eq!(
        work.first::<Option<i64>>(sql, ()).await.unwrap(),
        Some(None)
    );
    drop(work);
    assert_eq!(vote(&mariadb, &branch(1)).await, Vote::Prepared);
    commit(&mariadb, &branch(1)).await;
    assert_eq!(server.value("a").await, 1);
}

/// What makes a rollback durable is committed whatever the service has set in its session.
#[tokio::test]
async fn a_rollback_is_durable_where_the_service_committed_by_hand() {
    let mut server = Server::start().await;
    let mariadb = server.open_with(options().hold_max(HOUR)).await;
    for sequence in 1..=3 {
        let mut work = mariadb.work(txn(sequence)).await.unwrap();
        work.execute("SET SESSION autocommit = 0", ())
            .await
            .unwrap();
        work.execute(ADD, ("a", 1)).await.unwrap();
        drop(work);
        assert_eq!(vote(&mariadb, &branch(sequence)).await, Vote::Prepared);
        rollback(&mariadb, &branch(sequence)).await;
        server.crash().await;
        assert_eq!(server.prepared().await, 0);
    }
    assert_eq!(server.value("a").await, 0);
}

async fn open_through(tap: &Tap, server: &Server, options: Options) -> Mariadb {
    let opts: Opts = OptsBuilder::from_opts(server.opts())
        .socket(Some(tap.socket().display().to_string()))
        .into();
    let options = options.hold_max(Duration::ZERO);
    Mariadb::connect(opts, options).await.unwrap()
}

/// Nobody knows whether the server works for it, until it is rolled back.
#[tokio::test]
async fn a_branch_whose_begin_was_not_answered_can_only_abort() {
    let server = Server::start().await;
    let tap = Tap::open(&server.server.folder().join("socket"));
    let hasty = options().answer_max(Duration::from_secs(2));
    let mariadb = open_through(&tap, &server, hasty).await;
    prepared(&mariadb, 9, "a").await;
    for (sequence, moment) in [(1, Moment::Before), (2, Moment::After)] {
        let swallowed = tap.arm_at("GET_LOCK", 1, moment);
        let error = mariadb.work(txn(sequence)).await.unwrap_err();
        assert!(matches!(error, WorkError::Lost(_)), "{error}");
        let held = swallowed.await.unwrap();
        let error = mariadb.work(txn(sequence)).await.unwrap_err();
        assert!(matches!(error, WorkError::Lost(_)), "{error}");
        // Its session, of which the server believes that it lives, is ended.
        let lock = lock_of(&server, sequence).await;
        let free = format!("SELECT IS_FREE_LOCK('{lock}')");
        assert_eq!(
            server.scalar(&free).await,
            i64::from(moment == Moment::Before)
        );
        rollback(&mariadb, &branch(sequence)).await;
        assert_eq!(server.scalar(&free).await, 1);
        drop(held);
    }
}

/// No answer comes any more, and nothing tells that: a host that vanished, or a network.
#[tokio::test]
async fn who_lets_go_of_a_statement_in_flight_gets_its_connection_back() {
    let server = Server::start().await;
    let tap = Tap::open(&server.server.folder().join("socket"));
    let mariadb = open_through(&tap, &server, options().work_connections(1)).await;
    for sequence in 1..=2 {
        add(&mariadb, sequence, "a", 1).await;
        let swallowed = tap.arm_at("SELECT 'swallowed'", 1, Moment::Before);
        let waiting = tokio::spawn({
            let mariadb = mariadb.clone();
            async move {
                let mut work = mariadb.work(txn(sequence)).await?;
                work.first::<String>("SELECT 'swallowed'", ()).await
            }
        });
        let held = swallowed.await.unwrap();
        match sequence {
            1 => {
                mariadb.let_go(txn(1)).await;
                let branch = prepared(&mariadb, 3, "a").await;
                commit(&mariadb, &branch).await;
            }
            _ => mariadb.close(),
        }
        let ended = tokio::time::timeout(PATIENCE, waiting).await;
        let ended = ended.expect("whoever waits is told").unwrap();
        assert!(matches!(ended, Err(WorkError::Ended(_))), "{ended:?}");
        drop(held);
    }
    assert_eq!(server.value("a").await, 1);
}

/// The session of the server that the adapter has left is ended by it, should that not hear of it.
#[tokio::test]
async fn a_session_that_does_not_hear_of_its_end_is_ended() {
    let server = Server::start().await;
    let tap = Tap::open(&server.server.folder().join("socket"));
    let mariadb = open_through(&tap, &server, options()).await;
    for sequence in 1..=2 {
        add(&mariadb, sequence, "a", 1).await;
        // The client's word of parting.
        let parting = tap.arm_at("\u{1}\0\0\0\u{1}", 1, Moment::Before);
        assert_eq!(vote(&mariadb, &branch(sequence)).await, Vote::Prepared);
        let held = parting.await.unwrap();
        match sequence {
            1 => drop(mariadb.commit(&branch(1)).await.unwrap()),
            _ => mariadb.rollback(&branch(2)).await.unwrap(),
        }
        assert_eq!(server.prepared().await, 0);
        drop(held);
    }
    assert_eq!(server.value("a").await, 1);
}
