//! The throw-away server itself.

use std::path::Path;

use paxos_commit::cluster::servers::{ServerError, ThrowawayPostgres};
use tokio_postgres::{Client, NoTls};

async fn connect(server: &ThrowawayPostgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

async fn sum(client: &Client) -> i64 {
    let row = client.query_one("select sum(n) from t", &[]).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_its_settings_a_restart() {
    let mut server = ThrowawayPostgres::start(&[("max_prepared_transactions", "7")])
        .await
        .unwrap();
    let client = connect(&server).await;
    client
        .batch_execute("create table t (n int)")
        .await
        .unwrap();
    for n in 1..=10 {
        client
            .execute("insert into t values ($1)", &[&n])
            .await
            .unwrap();
        if n % 5 == 0 {
            server.kill();
            server.restart().await.unwrap();
            break;
        }
    }
    assert!(client.simple_query("select 1").await.is_err());
    let client = connect(&server).await;
    assert_eq!(sum(&client).await, 15);
    let row = client
        .query_one("show max_prepared_transactions", &[])
        .await;
    assert_eq!(row.unwrap().get::<_, &str>(0), "7");
    assert!(matches!(server.restart().await, Err(ServerError::Running)));

    server.stop();
    server.set("max_prepared_transactions", "8");
    server.restart().await.unwrap();
    let client = connect(&server).await;
    assert_eq!(sum(&client).await, 15);
    let row = client
        .query_one("show max_prepared_transactions", &[])
        .await;
    assert_eq!(row.unwrap().get::<_, &str>(0), "8");
}

#[tokio::test]
async fn nothing_of_a_server_is_left_when_it_is_dropped() {
    let server = ThrowawayPostgres::start(&[]).await.unwrap();
    let folder = server.folder().to_owned();
    let process = format!("/proc/{}", server.process_id().unwrap());
    assert!(folder.join("data").exists() && Path::new(&process).exists());
    drop(server);
    assert!(!folder.exists() && !Path::new(&process).exists());
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let settings = [("max_prepared_transactions", "many")];
    let error = ThrowawayPostgres::start(&settings).await.err().unwrap();
    assert!(
        error.to_string().contains("max_prepared_transactions"),
        "{error}"
    );
}
