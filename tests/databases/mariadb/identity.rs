//! Which store it is, and who can read the names in it.

use std::time::Duration;

use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{StoreId, Vote};
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Conn, Opts, OptsBuilder};
use paxos_commit::resource::mariadb::{
    AcquireError, BranchError, ConnectError, Mariadb, Options, WorkError,
};

use super::support::{ADD, Server, branch, commit, options, prepared, txn, until_ok, vote};

#[tokio::test]
async fn an_identity_is_drawn_once_for_each_participant_and_stays() {
    let server = Server::start().await;
    let sql = "CREATE DATABASE second";
    server.plain().await.query_drop(sql).await.unwrap();
    let second: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("second"))
        .into();
    let opening = (0..8).map(|_| {
        let opts = server.opts();
        tokio::spawn(async move { Mariadb::connect(opts, options()).await.unwrap() })
    });
    let mut stores = Vec::new();
    for opened in opening.collect::<Vec<_>>() {
        stores.push(opened.await.unwrap().store());
    }
    let again = server.open().await.store();
    assert!(stores.iter().all(|store| *store == again), "{stores:?}");
    // Another participant, another cluster, another database: other data.
    let others = [
        server.open_with(Options::new("local", "stock")).await,
        server.open_with(Options::new("market", "ledger")).await,
        Mariadb::connect(second, options()).await.unwrap(),
    ];
    let mut stores: Vec<StoreId> = others.iter().map(Mariadb::store).collect();
    stores.push(again);
    stores.sort();
    stores.dedup();
    assert_eq!(stores.len(), 4);
    let keys = "SELECT COUNT(DISTINCT secret) FROM paxos_commit_store";
    assert_eq!(server.scalar(keys).await, 3);
}

/// The counter-example: the server's name leads to another server after a failover, and what the
/// first server has committed is missing there.
#[tokio::test]
async fn a_new_connection_to_another_store_is_refused_and_both_are_named() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let expected = mariadb.store();
    let of = prepared(&mariadb, 1, "a").await;
    let change = "UPDATE paxos_commit_store SET identity = '00000000000000000000000000000002'";
    let mut root = server.plain().await;
    root.query_drop(change).await.unwrap();
    let other = StoreId::from_u128(2);
    // The connection of the prepared branch is taken: this needs a new one.
    let error = mariadb.work(txn(2)).await.unwrap_err();
    let is_told = matches!(
        error,
        WorkError::Acquire(AcquireError::OtherStore { expected: of, got: Some(got) })
            if of == expected && got == other
    );
    assert!(is_told, "{error}");
    let text = error.to_string();
    assert!(text.contains(&expected.to_string()), "{text}");
    assert!(text.contains(&other.to_string()), "{text}");
    assert!(text.contains("paxos-commit participant list"), "{text}");
    // The connections that finish are no other.
    let sql = "SELECT id FROM information_schema.PROCESSLIST WHERE id <> CONNECTION_ID()";
    let ids: Vec<u64> = root.query(sql).await.unwrap();
    for id in ids {
        // Some end by themselves.
        let _ = root.query_drop(format!("KILL CONNECTION {id}")).await;
    }
    let refused = loop {
        match mariadb.commit(&of).await.unwrap_err() {
            BranchError::Acquire(AcquireError::OtherStore { expected, .. }) => break expected,
            error => println!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(refused, expected);
    assert_eq!(server.prepared().await, 1);
    // The right store comes back.
    let sql = format!("UPDATE paxos_commit_store SET identity = '{expected}'");
    root.query_drop(sql).await.unwrap();
    let proof = until_ok(|| mariadb.commit(&of)).await;
    assert_eq!(proof, Proof::Found);
    assert_eq!(server.value("a").await, 1);
}

#[tokio::test]
async fn a_database_without_the_row_or_without_the_table_is_another_store() {
    let server = Server::start().await;
    for sql in [
        "DELETE FROM paxos_commit_store",
        "DROP TABLE paxos_commit_store",
    ] {
        let mariadb = server.open().await;
        server.plain().await.query_drop(sql).await.unwrap();
        let error = mariadb.work(txn(1)).await.unwrap_err();
        let is_told = matches!(
            error,
            WorkError::Acquire(AcquireError::OtherStore { got: None, .. })
        );
        assert!(is_told, "{error}");
        assert!(error.to_string().contains("no store of this"), "{error}");
    }
}

/// The counter-example: with the key of a new row, an old name reads as a transaction that no replica
/// knows. The replicas answer that it is forgotten, and a branch that waits for its commit is rolled
/// back.
#[tokio::test]
async fn a_row_drawn_anew_leaves_what_the_old_one_has_prepared_alone() {
    let server = Server::start().await;
    let mariadb = server.open_with(options().hold_max(Duration::ZERO)).await;
    let of = prepared(&mariadb, 1, "a").await;
    let mut root = server.plain().await;
    let sql = "CREATE TABLE kept AS SELECT * FROM paxos_commit_store";
    root.query_drop(sql).await.unwrap();
    let forget = "DELETE FROM paxos_commit_store";
    root.query_drop(forget).await.unwrap();
    let anew = server.open().await;
    assert_ne!(anew.store(), mariadb.store());
    assert_eq!(anew.in_doubt().await.unwrap(), []);
    assert_eq!(anew.commit(&of).await.unwrap(), Proof::Missing);
    anew.rollback(&of).await.unwrap();
    assert_eq!(server.prepared().await, 1);
    root.query_drop(forget).await.unwrap();
    let sql = "INSERT INTO paxos_commit_store SELECT * FROM kept";
    root.query_drop(sql).await.unwrap();
    let again = server.open().await;
    assert_eq!(again.in_doubt().await.unwrap().len(), 1);
    commit(&again, &of).await;
    assert_eq!(server.value("a").await, 1);
}

#[tokio::test]
async fn a_row_that_holds_no_identity_is_refused() {
    let server = Server::start().await;
    drop(server.open().await);
    let sql = "UPDATE paxos_commit_store SET identity = 'it'";
    server.plain().await.query_drop(sql).await.unwrap();
    let error = Mariadb::connect(server.opts(), options()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Damaged { .. }), "{error}");
}

/// Another user of the server sees xids, and an administrator what is being said; neither tells the
/// nonce, which entitles its holder to take part.
#[tokio::test]
async fn no_user_but_the_services_own_reads_a_nonce() {
    let server = Server::start().await;
    let mut root = server.plain().await;
    let sql = "CREATE USER spy@localhost; CREATE DATABASE elsewhere; \
               GRANT SELECT ON elsewhere.* TO spy@localhost; \
               CREATE DATABASE bank; CREATE TABLE bank.counter LIKE counter; \
               SET GLOBAL general_log = 1; SET GLOBAL log_output = 'TABLE'";
    root.query_drop(sql).await.unwrap();
    let bank: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("bank"))
        .into();
    let mariadb = Mariadb::connect(bank, options()).await.unwrap();
    let mut of = branch(1);
    of.id.txn.nonce = 0x0123_4567_89ab_cdef;
    let mut work = mariadb.work(of.id.txn).await.unwrap();
    work.execute(ADD, ("a", 1)).await.unwrap();
    drop(work);
    assert_eq!(vote(&mariadb, &of).await, Vote::Prepared);

    let spy: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("elsewhere"))
        .user(Some("spy"))
        .into();
    let mut spy = Conn::new(spy).await.unwrap();
    let sql = "XA RECOVER FORMAT='SQL'";
    let rows: Vec<(i64, i64, i64, String)> = spy.query(sql).await.unwrap();
    assert_eq!(rows.len(), 1);
    let xid = rows[0].3.to_lowercase();
    assert!(!xid.contains("0123456789abcdef"), "{xid}");
    for table in ["paxos_commit_store", "paxos_commit_branch"] {
        let sql = format!("SELECT * FROM bank.{table}");
        let error = spy.query_drop(sql).await.unwrap_err();
        assert!(error.to_string().contains("denied"), "{error}");
    }
    assert_eq!(mariadb.in_doubt().await.unwrap()[0].id, of.id);
    commit(&mariadb, &of).await;
    mariadb.settled(of.id, &[]).await.unwrap();
    // All that was said: an administrator may read it.
    let sql = "SELECT CONVERT(argument USING latin1) FROM mysql.general_log";
    let said: Vec<String> = root.query(sql).await.unwrap();
    for expected in [
        "XA PREPARE",
        "XA COMMIT",
        "INSERT INTO `bank`.`paxos_commit_branch`",
    ] {
        assert!(said.iter().any(|said| said.contains(expected)), "{said:?}");
    }
    for said in said {
        let said = said.to_lowercase();
        assert!(!said.contains("0123456789abcdef"), "{said}");
    }
}
