//! What is looked at when a database is opened.

use std::time::Duration;

use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::Vote;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Opts, OptsBuilder};
use paxos_commit::resource::mariadb::{AcquireError, ConnectError, Mariadb};

use crate::together::tap::{Moment, Tap};

use super::support::{PATIENCE, Server, branch, commit, options, prepared, rollback, txn, vote};

async fn refusal(opts: Opts) -> ConnectError {
    Mariadb::connect(opts, options()).await.unwrap_err()
}

#[tokio::test]
async fn a_database_is_needed_and_names_as_in_certificates() {
    let server = Server::start().await;
    let none: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(None::<String>)
        .into();
    assert!(matches!(refusal(none).await, ConnectError::NoDatabase));
    let wrong = paxos_commit::resource::mariadb::Options::new("a/b", "ledger");
    let error = Mariadb::connect(server.opts(), wrong).await.unwrap_err();
    assert!(matches!(error, ConnectError::Name(_)), "{error}");
}

#[tokio::test]
async fn servers_that_cannot_take_part_are_refused() {
    let settings = [("log_bin", "binlog"), ("binlog_format", "STATEMENT")];
    let mut server = Server::start_with(&settings).await;
    let error = refusal(server.opts()).await;
    assert!(matches!(error, ConnectError::Statements), "{error}");
    server.server.stop();
    server.server.set("binlog_format", "MIXED");
    server.server.set("sync_binlog", "1");
    server.server.restart().await.unwrap();
    // With a binary log everything works as without.
    let mariadb = server.open().await;
    let branch = prepared(&mariadb, 1, "a").await;
    mariadb.commit(&branch).await.unwrap();
    let branch = prepared(&mariadb, 2, "a").await;
    drop(mariadb);
    server.crash().await;
    let mariadb = server.open().await;
    mariadb.commit(&branch).await.unwrap();
    assert_eq!(server.value("a").await, 2);
    let sql = "SET GLOBAL read_only = 1";
    server.plain().await.query_drop(sql).await.unwrap();
    let error = refusal(server.opts()).await;
    assert!(matches!(error, ConnectError::ReadOnly), "{error}");
}

/// A connection that is asked anything would be inside a transaction then, and can finish no branch.
#[tokio::test]
async fn a_server_that_commits_nothing_by_itself_takes_part_all_the_same() {
    let mut server = Server::start_with(&[("autocommit", "0")]).await;
    let mariadb = server.open_with(options().hold_max(Duration::ZERO)).await;
    let branch = prepared(&mariadb, 1, "a").await;
    commit(&mariadb, &branch).await;
    assert_eq!(server.value("a").await, 1);
    let branch = prepared(&mariadb, 2, "a").await;
    rollback(&mariadb, &branch).await;
    server.crash().await;
    assert_eq!(server.prepared().await, 0);
    assert_eq!(server.value("a").await, 1);
}

#[tokio::test]
async fn who_opens_a_server_that_falls_silent_is_told_so() {
    let server = Server::start().await;
    let tap = Tap::open(&server.server.folder().join("socket"));
    let opts: Opts = OptsBuilder::from_opts(server.opts())
        .socket(Some(tap.socket().display().to_string()))
        .into();
    for text in ["VERSION()", "SHOW CREATE TABLE"] {
        let swallowed = tap.arm_at(text, 1, Moment::Before);
        let hasty = options().answer_max(Duration::from_secs(2));
        let opening = Mariadb::connect(opts.clone(), hasty);
        let opening = tokio::time::timeout(PATIENCE, opening);
        let (opened, held) = tokio::join!(opening, swallowed);
        let error = opened.expect("it waits no longer than that").unwrap_err();
        let is_silent = matches!(error, ConnectError::Acquire(AcquireError::Silent { .. }));
        assert!(is_silent, "{error}");
        drop(held);
    }
}

#[tokio::test]
async fn tables_of_another_engine_are_refused() {
    let server = Server::start().await;
    drop(server.open().await);
    let sql = "ALTER TABLE paxos_commit_store ENGINE=Aria";
    server.plain().await.query_drop(sql).await.unwrap();
    let error = refusal(server.opts()).await;
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Engine { .. }), "{text}");
    assert!(
        text.contains("expected") && text.contains("got Aria"),
        "{text}"
    );
}

#[tokio::test]
async fn who_lacks_rights_is_told_what_to_run() {
    let server = Server::start().await;
    let mut root = server.plain().await;
    // Everybody may do everything in the database that is there from the beginning.
    let sql = "CREATE DATABASE bank; CREATE USER clerk@localhost; \
               GRANT SELECT ON bank.* TO clerk@localhost";
    root.query_drop(sql).await.unwrap();
    let bank: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("bank"))
        .into();
    let clerk: Opts = OptsBuilder::from_opts(bank.clone())
        .user(Some("clerk"))
        .into();
    let error = refusal(clerk.clone()).await;
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Rights { .. }), "{text}");
    let sql = "CREATE TABLE IF NOT EXISTS `bank`.`paxos_commit_branch`";
    assert!(text.contains(sql), "{text}");
    // Whoever made the tables for him, and lets him write there, need give him nothing more.
    drop(Mariadb::connect(bank, options()).await.unwrap());
    let error = refusal(clerk.clone()).await;
    assert!(matches!(error, ConnectError::Rights { .. }), "{error}");
    let sql = "GRANT INSERT, UPDATE, DELETE ON bank.* TO clerk@localhost";
    root.query_drop(sql).await.unwrap();
    let mariadb = Mariadb::connect(clerk, options()).await.unwrap();
    drop(mariadb.work(txn(1)).await.unwrap());
    assert_eq!(vote(&mariadb, &branch(1)).await, Vote::Prepared);
    assert_eq!(mariadb.in_doubt().await.unwrap().len(), 1);
    mariadb.rollback(&branch(1)).await.unwrap();
    // His own connections he may end.
    drop(mariadb.work(txn(2)).await.unwrap());
    let mut work = mariadb.work(txn(2)).await.unwrap();
    let long = tokio::time::timeout(Duration::from_millis(50), work.execute("DO SLEEP(600)", ()));
    assert!(long.await.is_err());
    drop(work);
    mariadb.rollback(&branch(2)).await.unwrap();
    let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'DO SLEEP%'";
    assert_eq!(server.scalar(sql).await, 0);
}
