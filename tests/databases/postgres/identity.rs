//! Which store it is, and who can read the names in it.

use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::{StoreId, Vote};
use paxos_commit::resource::postgres::{
    AcquireError, BranchError, ConnectError, Options, Postgres, WorkError,
};
use tokio_postgres::NoTls;

use super::support::{Base, base32, branch, connect, ids_in_doubt, pay, prepare, txn, vote};

/// Another identity than the one at `connect` has come to stand in the row.
const CHANGE: &str = "UPDATE paxos_commit.store SET identity = '00000000000000000000000000000002'";

#[tokio::test]
async fn an_identity_is_drawn_once_for_each_participant_and_stays() {
    let base = Base::new("drawn_once").await;
    let elsewhere = Base::new("drawn_elsewhere").await;
    // The identity is durable all the same.
    let sql = "ALTER DATABASE drawn_elsewhere SET synchronous_commit = off";
    base.admin.batch_execute(sql).await.unwrap();
    let url: tokio_postgres::Config = base.url.parse().unwrap();
    let opening = (0..8).map(|_| {
        let (url, options) = (url.clone(), base.options());
        tokio::spawn(async move { Postgres::connect(url, NoTls, options).await.unwrap() })
    });
    let mut stores = Vec::new();
    for opened in opening.collect::<Vec<_>>() {
        stores.push(opened.await.unwrap().store());
    }
    let again = base.open().await.store();
    assert!(stores.iter().all(|store| *store == again), "{stores:?}");
    // Another participant, another cluster, another database: other data.
    let others = [
        base.open_with(Options::new("drawn_once", "stock")).await,
        base.open_with(Options::new("drawn", "ledger")).await,
        elsewhere.open_with(base.options()).await,
    ];
    let mut stores: Vec<StoreId> = others.iter().map(Postgres::store).collect();
    stores.push(again);
    stores.sort();
    stores.dedup();
    assert_eq!(stores.len(), 4);
    let keys = base.count("SELECT count(DISTINCT secret) FROM paxos_commit.store");
    assert_eq!(keys.await, 3);
}

/// The counter-example: the server's name leads to another server after a failover, and what the
/// first server has committed is missing there.
#[tokio::test]
async fn a_new_connection_to_another_store_is_refused_and_both_are_named() {
    let base = Base::new("moved").await;
    let postgres = base.open().await;
    let expected = postgres.store();
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let held = postgres.work(txn(2)).await.unwrap();
    base.admin.batch_execute(CHANGE).await.unwrap();
    let other = StoreId::from_u128(2);
    // What is connected stays connected: it is the store that it was.
    held.client().batch_execute("SELECT 1").await.unwrap();
    let (second, third) = (postgres.work(txn(3)).await, postgres.work(txn(4)).await);
    let error = second.err().or(third.err()).unwrap();
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
    drop(held);
    let sql = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    base.admin.batch_execute(sql).await.unwrap();
    let refused = super::support::until_refused(async || postgres.commit(&branch(1)).await).await;
    let is_told = matches!(
        refused,
        BranchError::Acquire(AcquireError::OtherStore { expected: of, .. }) if of == expected
    );
    assert!(is_told, "{refused}");
    assert_eq!(base.names().await.len(), 1);
    // The right store comes back.
    let sql = format!("UPDATE paxos_commit.store SET identity = '{expected}'");
    base.admin.batch_execute(&sql).await.unwrap();
    assert_eq!(postgres.commit(&branch(1)).await.unwrap(), Proof::Found);
}

#[tokio::test]
async fn a_database_without_the_row_or_without_the_table_is_another_store() {
    for (name, sql) in [
        ("without_row", "DELETE FROM paxos_commit.store"),
        ("without_schema", "DROP SCHEMA paxos_commit CASCADE"),
    ] {
        let base = Base::new(name).await;
        let postgres = base.open().await;
        base.admin.batch_execute(sql).await.unwrap();
        let error = postgres.work(txn(1)).await.unwrap_err();
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
    let base = Base::new("drawn_anew").await;
    let postgres = base.open().await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let names = base.names().await;
    let sql = "CREATE TABLE kept AS TABLE paxos_commit.store; DELETE FROM paxos_commit.store";
    base.admin.batch_execute(sql).await.unwrap();
    let anew = base.open().await;
    assert_ne!(anew.store(), postgres.store());
    assert_eq!(ids_in_doubt(&anew).await, []);
    assert_eq!(anew.commit(&branch(1)).await.unwrap(), Proof::Missing);
    anew.rollback(&branch(1)).await.unwrap();
    assert_eq!(base.names().await, names);
    let sql = "DELETE FROM paxos_commit.store; INSERT INTO paxos_commit.store TABLE kept";
    base.admin.batch_execute(sql).await.unwrap();
    let again = base.open().await;
    assert_eq!(ids_in_doubt(&again).await, [branch(1).id]);
    assert_eq!(again.commit(&branch(1)).await.unwrap(), Proof::Found);
}

#[tokio::test]
async fn a_row_that_holds_no_identity_is_refused() {
    let base = Base::new("damaged_row").await;
    drop(base.open().await);
    for sql in [
        "UPDATE paxos_commit.store SET secret = 'short'",
        "UPDATE paxos_commit.store SET identity = 'it'",
    ] {
        base.admin.batch_execute(sql).await.unwrap();
        let url = base.url.parse::<tokio_postgres::Config>().unwrap();
        let error = Postgres::connect(url, NoTls, base.options()).await;
        let error = error.unwrap_err();
        assert!(matches!(error, ConnectError::Damaged { .. }), "{error}");
    }
}

/// Another role of the server sees names, and an administrator what is being said; neither tells the
/// nonce, which entitles its holder to take part.
#[tokio::test]
async fn no_role_but_the_services_own_reads_a_nonce() {
    let base = Base::new("masked").await;
    let sql = "CREATE ROLE spy LOGIN";
    base.admin.batch_execute(sql).await.unwrap();
    let mut of = branch(1);
    of.id.txn.nonce = 0x0123_4567_89ab_cdef;
    let mut open = branch(2);
    open.id.txn.nonce = of.id.txn.nonce;
    let postgres = base.open().await;
    // The digits that hold nothing but the nonce.
    let digits = base32(&of.id.to_be_bytes())[39..51].to_owned();
    let expect_masked = |text: &str| {
        assert!(!text.contains("0123456789abcdef"), "{text}");
        assert!(!text.contains(&digits), "{text}");
    };
    let sql = "UPDATE account SET balance = 1 WHERE name = 'alice'";
    let work = postgres.work(of.id.txn).await.unwrap();
    work.client().batch_execute(sql).await.unwrap();
    drop(work);
    assert_eq!(vote(&postgres, &of, None).await, Vote::Prepared);
    drop(postgres.work(open.id.txn).await.unwrap());

    let spy = connect(&base.url.replace("user=postgres", "user=spy")).await;
    let sql = "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'paxos-commit/2/masked/%'";
    let rows = spy.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    expect_masked(rows[0].get(0));
    for table in ["store", "committed"] {
        let sql = format!("SELECT * FROM paxos_commit.{table}");
        let error = spy.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{error}");
    }
    // The last statement of each process.
    let sql = "SELECT query, application_name FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut says_mark = false;
    for row in base.admin.query(sql, &[]).await.unwrap() {
        let (query, name): (&str, &str) = (row.get(0), row.get(1));
        says_mark |= query.contains("paxos_commit.branch");
        expect_masked(query);
        expect_masked(name);
    }
    assert!(says_mark, "the statement that begins the work was not seen");
    // With another key another name, and the nonce reads back.
    assert_eq!(ids_in_doubt(&postgres).await, [of.id]);
    postgres.commit(&of).await.unwrap();
}

#[tokio::test]
async fn tables_that_every_role_may_read_are_refused() {
    let base = Base::new("public_tables").await;
    // A default of the database, from before the tables were made.
    let sql = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC";
    base.admin.batch_execute(sql).await.unwrap();
    drop(base.open().await);
    let sql = "GRANT SELECT ON paxos_commit.store TO PUBLIC";
    base.admin.batch_execute(sql).await.unwrap();
    let url = base.url.parse::<tokio_postgres::Config>().unwrap();
    let error = Postgres::connect(url, NoTls, base.options()).await;
    let ConnectError::Public { sql } = error.unwrap_err() else {
        panic!("it is readable");
    };
    base.admin.batch_execute(&sql).await.unwrap();
    drop(base.open().await);
}
