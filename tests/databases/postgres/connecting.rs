//! Which servers can take part, and what the others are told.

use std::fs;

use paxos_commit::cluster::servers::ThrowawayPostgres;
use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::Vote;
use paxos_commit::resource::postgres::{ConnectError, Options, Postgres};
use tokio_postgres::{Config, NoTls};

use super::support::{Base, branch, options, pay, prepare};

async fn refusal(url: &str, options: Options) -> ConnectError {
    let config: Config = url.parse().unwrap();
    Postgres::connect(config, NoTls, options).await.unwrap_err()
}

#[tokio::test]
async fn a_server_as_it_is_by_default_is_told_what_to_set() {
    let server = ThrowawayPostgres::start(&[]).await.unwrap();
    let error = refusal(
        &server.url("postgres"),
        options("test").work_connections(23),
    )
    .await;
    assert!(
        matches!(error, ConnectError::Disabled { expected: 23 }),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("max_prepared_transactions = 0"), "{text}");
    assert!(text.contains("postgresql.conf, to at least 23"), "{text}");
    assert!(text.contains("restart"), "{text}");
}

#[tokio::test]
async fn a_standby_is_refused() {
    let mut server = ThrowawayPostgres::start(&[("max_prepared_transactions", "5")])
        .await
        .unwrap();
    server.stop();
    fs::write(server.folder().join("data/standby.signal"), "").unwrap();
    server.restart().await.unwrap();
    let error = refusal(&server.url("postgres"), options("test")).await;
    assert!(matches!(error, ConnectError::Standby), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let mut server = ThrowawayPostgres::start(&[]).await.unwrap();
    server.kill();
    let error = refusal(&server.url("postgres"), options("test")).await;
    assert!(matches!(error, ConnectError::Acquire(_)), "{error}");
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_what_an_administrator_runs() {
    let base = Base::new("rights").await;
    let sql = "CREATE ROLE \"it's\" LOGIN; GRANT ALL ON account TO \"it's\"";
    base.admin.batch_execute(sql).await.unwrap();
    let url = base.url.replace("user=postgres", "user=it's");
    let mut told = Vec::new();
    let postgres = loop {
        match Postgres::connect(url.parse::<Config>().unwrap(), NoTls, base.options()).await {
            Ok(postgres) => break postgres,
            Err(ConnectError::Rights { sql, role, .. }) => {
                assert_eq!(role, "it's");
                base.admin.batch_execute(&sql).await.unwrap();
                told.push(sql);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(told.len() < 3, "{told:?}");
    };
    // Once is enough.
    assert_eq!(told.len(), 1, "{told:?}");
    // A right that is taken away is missed.
    for right in [
        "USAGE ON SCHEMA paxos_commit",
        "INSERT ON paxos_commit.committed",
    ] {
        let sql = format!("REVOKE {right} FROM \"it's\"");
        base.admin.batch_execute(&sql).await.unwrap();
        let error = refusal(&url, options("test")).await;
        let ConnectError::Rights { sql, .. } = error else {
            panic!("{right}: {error}");
        };
        base.admin.batch_execute(&sql).await.unwrap();
    }
    // It can do all that is needed.
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    let first = branch(1);
    postgres.commit(&first).await.unwrap();
    postgres.settled(first.id, &[]).await.unwrap();
    postgres.commit(&first).await.unwrap();
}

/// The counter-example: a role that takes on another one at its login. The server does not show it its
/// own process, which nobody could end when it must be.
#[tokio::test]
async fn a_role_that_may_not_end_its_own_processes_is_told_so() {
    let base = Base::new("set_role").await;
    let sql = "CREATE ROLE the_owner; CREATE ROLE the_app LOGIN; GRANT the_owner TO the_app;
               ALTER ROLE the_app SET role = 'the_owner'; GRANT ALL ON DATABASE set_role TO the_owner";
    base.admin.batch_execute(sql).await.unwrap();
    let url = base.url.replace("user=postgres", "user=the_app");
    let error = refusal(&url, base.options()).await;
    let is_told = matches!(&error, ConnectError::Rights { role, .. } if role == "the_owner");
    assert!(is_told, "{error}");
    assert!(error.to_string().contains("the_app"), "{error}");
}

#[tokio::test]
async fn many_processes_make_the_tables_at_the_same_time() {
    let base = Base::new("all_at_once").await;
    let url: Config = base.url.parse().unwrap();
    let opening = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Postgres::connect(url, NoTls, options("test")).await })
    });
    for opened in opening.collect::<Vec<_>>() {
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let base = Base::new("wrong_names").await;
    for wrong in [
        Options::new("a/b", "ledger"),
        Options::new("test", "it's"),
        Options::new("test", ""),
    ] {
        let error = refusal(&base.url, wrong).await;
        assert!(matches!(error, ConnectError::Name(_)), "{error}");
    }
    let error = refusal(&base.url, options("test").schema("public; DROP")).await;
    assert!(matches!(error, ConnectError::Schema { .. }), "{error}");
    // Any other schema will do.
    let postgres = base.open_with(options("test").schema("elsewhere")).await;
    pay(&postgres, 1, "alice", -1).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    assert_eq!(base.names().await.len(), 1);
}
