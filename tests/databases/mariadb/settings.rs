//! What a server sets for its sessions changes nothing for the adapter.

use std::time::Duration;

use paxos_commit::participant::{Proof, ResourceManager};
use paxos_commit::protocol::types::Vote;
use paxos_commit::resource::mariadb::Mariadb;
use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;
use paxos_commit::resource::mariadb::mysql_async::{Conn, Opts, OptsBuilder};

use super::support::{Server, branch, commit, options, prepared, rollback, txn, until_ok, vote};

const HOUR: Duration = Duration::from_secs(3_600);

/// Settings that a server can give to every session, alone and together.
const SETTINGS: [&str; 31] = [
    "autocommit = 0",
    "completion_type = 'CHAIN'",
    "completion_type = 'RELEASE'",
    "foreign_key_checks = 0",
    "innodb_lock_wait_timeout = 1",
    "lock_wait_timeout = 1",
    "max_join_size = 1",
    "max_sort_length = 64",
    "sql_auto_is_null = 1",
    "sql_big_selects = 0",
    "sql_mode = ''",
    "sql_mode = 'ANSI'",
    "sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "sql_mode = 'DB2'",
    "sql_mode = 'EMPTY_STRING_IS_NULL,SIMULTANEOUS_ASSIGNMENT'",
    "sql_mode = 'IGNORE_SPACE,HIGH_NOT_PRECEDENCE'",
    "sql_mode = 'MAXDB'",
    "sql_mode = 'MSSQL'",
    "sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "sql_mode = 'NO_TABLE_OPTIONS,NO_FIELD_OPTIONS,NO_KEY_OPTIONS'",
    "sql_mode = 'NO_UNSIGNED_SUBTRACTION,PAD_CHAR_TO_FULL_LENGTH'",
    "sql_mode = 'ORACLE'",
    "sql_mode = 'POSTGRESQL'",
    "sql_mode = 'TRADITIONAL,ONLY_FULL_GROUP_BY'",
    "sql_quote_show_create = 0",
    "sql_safe_updates = 1",
    "sql_select_limit = 1",
    "tx_isolation = 'SERIALIZABLE'",
    "tx_read_only = 1",
    "unique_checks = 0",
    "wait_timeout = 1",
];

async fn work(mariadb: &Mariadb, n: u32) {
    let mut work = mariadb.work(txn(n)).await.unwrap();
    let sql = "INSERT INTO noted VALUES (1)";
    work.execute(sql, ()).await.unwrap();
}

/// A commit where it was prepared, one elsewhere, its proof, a rollback and a horizon.
async fn does_all_it_must(opts: &Opts) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let open = async |hold| {
        let opened = Mariadb::connect(opts.clone(), options().hold_max(hold)).await;
        opened.map_err(|error| format!("it does not open: {error}"))
    };
    let (holds, hands_over) = (open(HOUR).await?, open(Duration::ZERO).await?);
    for n in 1..=4 {
        let mariadb = if n % 2 == 0 { &holds } else { &hands_over };
        work(mariadb, n).await;
        let of = branch(n);
        let voted = vote(mariadb, &of).await;
        if voted != Vote::Prepared {
            return Err(format!("{n}: {voted:?}"));
        }
        let listed = holds.in_doubt().await.map_err(|error| said(&error))?;
        if listed.iter().map(|found| found.id).ne([of.id]) {
            return Err(format!("{n}: listed are {listed:?}"));
        }
        match n {
            1 | 2 => commit(mariadb, &of).await,
            _ => rollback(mariadb, &of).await,
        }
    }
    for (n, expected) in [(1, Proof::Found), (2, Proof::Found), (3, Proof::Missing)] {
        let of = branch(n);
        let proof = until_ok(|| holds.commit(&of)).await;
        if proof != expected {
            return Err(format!("{n}: expected {expected:?}, got {proof:?}"));
        }
    }
    let settled = holds.settled(branch(4).id, &[]).await;
    settled.map_err(|error| format!("not settled: {error}"))?;
    let of = branch(1);
    let proof = until_ok(|| holds.commit(&of)).await;
    match proof {
        Proof::Missing => Ok(()),
        Proof::Found => Err("markers stay".into()),
    }
}

async fn forget(root: &mut Conn) {
    let sql = "DROP TABLE IF EXISTS paxos_commit_store, paxos_commit_branch, paxos_commit_forced; \
               DELETE FROM noted";
    root.query_drop(sql).await.unwrap();
}

async fn found(root: &mut Conn) -> Result<(), String> {
    let count = root.query_first("SELECT COUNT(*) FROM noted").await;
    match count.unwrap() {
        Some(2) => Ok(()),
        got => Err(format!("expected 2 rows, got {got:?}")),
    }
}

#[tokio::test]
async fn a_server_with_settings_of_its_own_takes_part_all_the_same() {
    let server = Server::start().await;
    let mut root = server.plain().await;
    let sql = "CREATE TABLE noted (n INT) ENGINE=InnoDB";
    root.query_drop(sql).await.unwrap();
    let mut failed = Vec::new();
    for setting in SETTINGS {
        let (name, value) = setting.split_once(" = ").unwrap();
        let before: Option<String> = root
            .query_first(format!("SELECT CONVERT(@@GLOBAL.{name}, CHAR)"))
            .await
            .unwrap();
        let sql = format!("SET GLOBAL {name} = {value}");
        root.query_drop(sql).await.unwrap();
        forget(&mut root).await;
        let opts = server.opts();
        let told = tokio::spawn(async move { does_all_it_must(&opts).await }).await;
        let told = told.unwrap_or_else(|panic| Err(panic.to_string()));
        if let Err(error) = told.and(found(&mut root).await) {
            failed.push(format!("{setting}: {error}"));
        }
        let before = before.unwrap();
        let is_number = before.bytes().all(|byte| byte.is_ascii_digit());
        let before = if is_number && !before.is_empty() {
            before
        } else {
            format!("'{before}'")
        };
        let sql = format!("SET GLOBAL {name} = {before}");
        root.query_drop(sql).await.unwrap();
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// `init_connect` is run for those who are no administrators.
#[tokio::test]
async fn what_the_server_has_each_session_run_first_changes_nothing() {
    let server = Server::start().await;
    let mut root = server.plain().await;
    let sql = "CREATE DATABASE bank; CREATE TABLE bank.noted (n INT) ENGINE=InnoDB; \
               CREATE USER clerk@localhost; GRANT ALL ON bank.* TO clerk@localhost; \
               SET GLOBAL init_connect = 'SET autocommit = 0, sql_mode = ORACLE, \
               sql_safe_updates = 1, tx_read_only = 1, completion_type = 2, sql_select_limit = 1'";
    root.query_drop(sql).await.unwrap();
    let opts: Opts = OptsBuilder::from_opts(server.opts())
        .db_name(Some("bank"))
        .user(Some("clerk"))
        .into();
    does_all_it_must(&opts).await.unwrap();
    let sql = "SELECT COUNT(*) FROM bank.noted";
    assert_eq!(server.scalar(sql).await, 2);
}

/// The longest time that a statement may take is for the service's statements, not for what ends
/// branches: a trigger writes down what stands in those sessions.
#[tokio::test]
async fn what_ends_branches_may_take_its_time() {
    let server = Server::start().await;
    let mariadb = server.open().await;
    let sql = "CREATE TABLE seen (statement_max DOUBLE) ENGINE=InnoDB; \
               CREATE TRIGGER look AFTER INSERT ON paxos_commit_forced FOR EACH ROW \
               INSERT INTO seen VALUES (@@max_statement_time); \
               SET GLOBAL max_statement_time = 50";
    server.plain().await.query_drop(sql).await.unwrap();
    drop(mariadb);
    let mariadb = server.open().await;
    let of = prepared(&mariadb, 1, "a").await;
    rollback(&mariadb, &of).await;
    let sql = "SELECT COUNT(*) FROM seen WHERE statement_max = 0";
    assert_eq!(server.scalar(sql).await, 1);
}

/// With these two a session locks the whole of an empty table when it writes the first row.
#[tokio::test]
async fn branches_do_not_wait_for_each_other_without_checks() {
    let server = Server::start().await;
    let sql = "SET GLOBAL unique_checks = 0, GLOBAL foreign_key_checks = 0";
    server.plain().await.query_drop(sql).await.unwrap();
    let mariadb = server.open_with(options().hold_max(HOUR)).await;
    for n in [1, 2, 3] {
        drop(mariadb.work(txn(n)).await.unwrap());
        assert_eq!(vote(&mariadb, &branch(n)).await, Vote::Prepared);
    }
    for n in [1, 2, 3] {
        commit(&mariadb, &branch(n)).await;
    }
}

/// Only what the options say ends work that does nothing.
#[tokio::test]
async fn work_may_be_idle_for_as_long_as_the_options_say() {
    let server = Server::start().await;
    let sql = "SET GLOBAL wait_timeout = 1, GLOBAL idle_transaction_timeout = 1, \
               GLOBAL idle_write_transaction_timeout = 1, \
               GLOBAL idle_readonly_transaction_timeout = 1";
    server.plain().await.query_drop(sql).await.unwrap();
    let idle = options().idle_max(HOUR).work_connections(1);
    let mariadb = server.open_with(idle).await;
    for n in [1, 2] {
        let mut work = mariadb.work(txn(n)).await.unwrap();
        let sql = "SELECT @@wait_timeout > 3600, @@idle_transaction_timeout, \
                   @@idle_write_transaction_timeout, @@idle_readonly_transaction_timeout";
        let row: Option<(bool, u64, u64, u64)> = work.first(sql, ()).await.unwrap();
        assert_eq!(row, Some((true, 3_600, 0, 0)));
        drop(work);
        mariadb.rollback(&branch(n)).await.unwrap();
    }
}

/// Of all connections of the adapter, those for work and those that end branches.
#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced_before_it_is_used() {
    let server = Server::start().await;
    let few = options().work_connections(2).finish_connections(1);
    let mariadb = server.open_with(few.hold_max(Duration::ZERO)).await;
    let mut root = server.plain().await;
    commit(&mariadb, &prepared(&mariadb, 1, "a").await).await;
    let of = prepared(&mariadb, 2, "b").await;
    for step in 0..5 {
        let sql = "SELECT ID FROM information_schema.PROCESSLIST \
                   WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon'";
        let ids: Vec<u64> = root.query(sql).await.unwrap();
        for id in ids {
            // It may end by itself.
            let _ = root.query_drop(format!("KILL CONNECTION {id}")).await;
        }
        until_ok(|| async {
            let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                       WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon' AND USER <> 'system user'";
            let mut conn = server.plain().await;
            match conn.query_first::<u64, _>(sql).await.unwrap() {
                Some(1) => Ok(()),
                others => Err(format!("{others:?} sessions")),
            }
        })
        .await;
        match step {
            0 => assert_eq!(mariadb.in_doubt().await.unwrap().len(), 1),
            1 => assert_eq!(mariadb.commit(&of).await.unwrap(), Proof::Found),
            2 => assert_eq!(mariadb.commit(&of).await.unwrap(), Proof::Found),
            3 => mariadb.settled(of.id, &[]).await.unwrap(),
            _ => drop(mariadb.work(txn(9)).await.unwrap()),
        }
    }
}
