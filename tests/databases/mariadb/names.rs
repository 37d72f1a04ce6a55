//! Whose branches the adapter touches: its own participant's, in its own database.

use std::time::Duration;

use paxos_commit::participant::{BranchId, Expiry, Proof, ResourceManager};
use paxos_commit::protocol::types::{Branch, Vote};
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Opts, OptsBuilder};
use paxos_commit::resource::mariadb::{BranchError, Mariadb, Options};

use super::support::{
    Server, add, branch, branch_of, commit, options, prepared, txn, until_ok, vote,
};

#[tokio::test]
async fn xids_of_others_are_neither_listed_nor_touched() {
    let server = Server::start().await;
    let mut other = server.plain().await;
    let foreign = "X'01',X'02',1347961650";
    let sql = format!(
        "XA START {foreign}; INSERT INTO counter VALUES ('x', 1); XA END {foreign}; XA PREPARE {foreign}"
    );
    other.query_drop(sql).await.unwrap();
    other.disconnect().await.unwrap();
    let mariadb = server.open().await;
    assert_eq!(mariadb.in_doubt().await.unwrap(), []);
    assert_eq!(mariadb.prepared().await.unwrap().count, 0);
    let mine = prepared(&mariadb, 1, "a").await;
    assert_eq!(mariadb.in_doubt().await.unwrap().len(), 1);
    mariadb.settled(branch(9).id, &[]).await.unwrap();
    mariadb.rollback(&mine).await.unwrap();
    assert_eq!(server.prepared().await, 1);
}

#[tokio::test]
async fn participants_clusters_and_databases_on_one_server_do_not_see_each_other() {
    let server = Server::start().await;
    let here = server.open().await;
    let mine = prepared(&here, 1, "a").await;
    drop(here);
    let sql = "CREATE DATABASE second";
    server.plain().await.query_drop(sql).await.unwrap();
    let second: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("second"))
        .into();
    let others = [
        server.open_with(Options::new("local", "stock")).await,
        server.open_with(Options::new("market", "ledger")).await,
        Mariadb::connect(second, Options::new("local", "ledger"))
            .await
            .unwrap(),
    ];
    for other in &others {
        assert_eq!(other.in_doubt().await.unwrap(), []);
        match other.commit(&mine).await {
            Ok(Proof::Missing) | Err(BranchError::NotOurs { .. }) => {}
            wrong => panic!("{wrong:?}"),
        }
    }
    let stock = BranchId {
        branch: Branch {
            participant: "stock".parse().unwrap(),
            ..mine.branch.clone()
        },
        ..mine.clone()
    };
    others[0].rollback(&stock).await.unwrap();
    others[1].rollback(&mine).await.unwrap();
    others[2].rollback(&mine).await.unwrap();
    let again = server.open().await;
    commit(&again, &mine).await;
    assert_eq!(server.value("a").await, 1);
}

/// Two sessions of one participant in one transaction are two branches.
#[tokio::test]
async fn the_branch_of_another_session_ends_without_the_work_here() {
    let server = Server::start().await;
    let there = server.open_with(options().hold_max(Duration::ZERO)).await;
    let here = server.open().await;
    for sequence in 1..=2 {
        let name = format!("there{sequence}");
        let theirs = prepared(&there, sequence, &name).await;
        let mine = branch_of(2, sequence);
        add(&here, sequence, &format!("here{sequence}"), 1).await;
        match sequence {
            1 => here.rollback(&theirs).await.unwrap(),
            _ => assert_eq!(here.expire(&theirs).await.unwrap(), Expiry::RolledBack),
        }
        assert_eq!(server.prepared().await, 0);
        // Here nobody was asked to give up.
        assert!(here.work(txn(sequence)).await.is_ok());
        assert_eq!(vote(&here, &mine).await, Vote::Prepared);
        commit(&here, &mine).await;
        assert_eq!(server.value(&name).await, 0);
        assert_eq!(server.value(&format!("here{sequence}")).await, 1);
    }
}

/// A server that folds the names of databases takes them in any spelling.
#[tokio::test]
async fn however_a_database_is_spelled_its_branches_are_the_same() {
    let server = Server::start_with(&[("lower_case_table_names", "1")]).await;
    let loud: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("TEST"))
        .into();
    let loud = Mariadb::connect(loud, options()).await.unwrap();
    let branch = prepared(&loud, 1, "a").await;
    drop(loud);
    let soft = server.open().await;
    let found = until_ok(|| soft.in_doubt()).await;
    assert_eq!(found.len(), 1);
    commit(&soft, &branch).await;
    assert_eq!(server.value("a").await, 1);
}

#[tokio::test]
async fn the_operator_sees_how_many_stand_prepared_and_for_how_long() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    assert_eq!(mariadb.prepared().await.unwrap().oldest, None);
    let branch = prepared(&mariadb, 1, "a").await;
    let first = mariadb.prepared().await.unwrap();
    assert_eq!(first.count, 1);
    let second = mariadb.prepared().await.unwrap();
    assert!(second.oldest > first.oldest);
    // Another process has seen it for less long.
    let later = server.open().await;
    assert!(later.prepared().await.unwrap().oldest < mariadb.prepared().await.unwrap().oldest);
    commit(&mariadb, &branch).await;
    assert_eq!(mariadb.prepared().await.unwrap().oldest, None);
}
