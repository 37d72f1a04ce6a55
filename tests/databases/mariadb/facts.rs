//! What the server does, as the adapter's documentation says. When one of these fails, a new version
//! of the server does something else: look at what the adapter makes of it.

use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Conn, Error};

use super::support::{Server, until_ok};

const XID: &str = "X'01',X'02',77";

async fn prepare(conn: &mut Conn, statement: &str) {
    let sql = format!("XA START {XID}; {statement}; XA END {XID}; XA PREPARE {XID}");
    conn.query_drop(sql).await.unwrap();
}

async fn code(conn: &mut Conn, sql: &str) -> Option<u16> {
    match conn.query_drop(sql).await {
        Ok(()) => None,
        Err(Error::Server(error)) => Some(error.code),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn nobody_else_finishes_a_branch_while_its_session_lives() {
    let mut server = Server::start().await;
    let (mut owner, mut other) = (server.plain().await, server.plain().await);
    prepare(&mut owner, "INSERT INTO counter VALUES ('a', 1)").await;
    assert_eq!(server.prepared().await, 1);
    for ending in ["XA COMMIT", "XA ROLLBACK"] {
        assert_eq!(
            code(&mut other, &format!("{ending} {XID}")).await,
            Some(1397)
        );
    }
    // Who wants the name is told that it is taken.
    assert_eq!(
        code(&mut other, &format!("XA START {XID}")).await,
        Some(1440)
    );
    assert_eq!(
        code(&mut owner, "SELECT value FROM counter").await,
        Some(1399)
    );
    owner.disconnect().await.unwrap();
    until_ok(|| async {
        let mut other = server.plain().await;
        other.query_drop(format!("XA COMMIT {XID}")).await
    })
    .await;
    if server.value("a").await == 0 {
        // The very moment in which the server says so and does nothing.
        server.crash().await;
        let commit = format!("XA COMMIT {XID}");
        server.plain().await.query_drop(commit).await.unwrap();
    }
    assert_eq!(server.value("a").await, 1);
}

#[tokio::test]
async fn a_prepared_branch_that_wrote_nothing_is_lost_with_its_session() {
    let server = Server::start().await;
    let (mut owner, mut other) = (server.plain().await, server.plain().await);
    prepare(&mut owner, "SELECT value FROM counter").await;
    assert_eq!(server.prepared().await, 1);
    owner.disconnect().await.unwrap();
    let sql = format!("XA COMMIT {XID}");
    loop {
        match code(&mut other, &sql).await {
            // Its session has not quite ended.
            Some(1397) if server.prepared().await == 1 => {}
            answer => {
                assert_eq!(answer, Some(1402));
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_ends_a_transaction_is_refused_inside_a_branch() {
    let server = Server::start().await;
    let mut conn = server.plain().await;
    conn.query_drop(format!("XA START {XID}")).await.unwrap();
    for sql in [
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "CREATE TABLE x (y INT)",
        "TRUNCATE counter",
    ] {
        assert_eq!(code(&mut conn, sql).await, Some(1399), "{sql}");
    }
}

#[tokio::test]
async fn a_rollback_that_nothing_follows_is_undone_by_a_crash() {
    let mut server = Server::start().await;
    let mut conn = server.plain().await;
    prepare(&mut conn, "INSERT INTO counter VALUES ('a', 1)").await;
    conn.query_drop(format!("XA ROLLBACK {XID}")).await.unwrap();
    server.crash().await;
    let resurfaced = server.prepared().await;
    // Nearly always it does; the log may happen to have been written.
    assert!(resurfaced <= 1);
    let mut conn = server.plain().await;
    if resurfaced == 1 {
        conn.query_drop(format!("XA ROLLBACK {XID}")).await.unwrap();
    }
    prepare(&mut conn, "INSERT INTO counter VALUES ('a', 1)").await;
    conn.query_drop(format!("XA ROLLBACK {XID}")).await.unwrap();
    // Any commit carries it to disk.
    conn.query_drop("INSERT INTO counter VALUES ('b', 1)")
        .await
        .unwrap();
    server.crash().await;
    assert_eq!(server.prepared().await, 0);
}

/// Reads `a` and writes `w` at a level, and prepares.
async fn prepare_reader(conn: &mut Conn, level: &str, read: &str) {
    let sql = "REPLACE INTO counter VALUES ('a', 1), ('w', 1)";
    conn.query_drop(sql).await.unwrap();
    let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}");
    conn.query_drop(sql).await.unwrap();
    let write = "UPDATE counter SET value = 2 WHERE name = 'w'";
    prepare(
        conn,
        &format!("SELECT value FROM counter WHERE name = 'a'{read}; {write}"),
    )
    .await;
}

async fn is_locked(server: &Server, name: &str) -> bool {
    let mut conn = server.plain().await;
    let sql = "SET SESSION innodb_lock_wait_timeout = 1";
    conn.query_drop(sql).await.unwrap();
    let sql = format!("UPDATE counter SET value = 3 WHERE name = '{name}'");
    match code(&mut conn, &sql).await {
        None => false,
        Some(1205) => true,
        Some(other) => panic!("expected 1205 or nothing, got {other}"),
    }
}

#[tokio::test]
async fn shared_locks_end_at_the_prepare_below_serializable() {
    let server = Server::start().await;
    let mut conn = server.plain().await;
    for (level, read, is_kept) in [
        ("SERIALIZABLE", "", true),
        ("REPEATABLE READ", " LOCK IN SHARE MODE", false),
        ("REPEATABLE READ", " FOR UPDATE", true),
        ("READ COMMITTED", " LOCK IN SHARE MODE", false),
        ("READ COMMITTED", " FOR UPDATE", true),
    ] {
        prepare_reader(&mut conn, level, read).await;
        assert!(is_locked(&server, "w").await, "{level}{read}");
        assert_eq!(is_locked(&server, "a").await, is_kept, "{level}{read}");
        conn.query_drop(format!("XA ROLLBACK {XID}")).await.unwrap();
    }
}

#[tokio::test]
async fn only_what_was_written_is_locked_after_a_crash() {
    let mut server = Server::start().await;
    for read in ["", " FOR UPDATE"] {
        prepare_reader(&mut server.plain().await, "SERIALIZABLE", read).await;
        server.crash().await;
        assert_eq!(server.prepared().await, 1);
        assert!(is_locked(&server, "w").await);
        assert!(!is_locked(&server, "a").await);
        let end = format!("XA ROLLBACK {XID}");
        server.plain().await.query_drop(end).await.unwrap();
    }
}
