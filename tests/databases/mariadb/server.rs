//! The throw-away server itself.

use paxos_commit::resource::mariadb::mysql_async::prelude::Queryable;

use super::support::Server;

#[tokio::test]
async fn what_is_committed_survives_a_kill_and_nothing_is_left_at_the_end() {
    let mut server = Server::start_with(&[("max_connections", "37")]).await;
    let folder = server.server.folder().to_owned();
    assert_eq!(server.scalar("SELECT @@max_connections").await, 37);
    let mut conn = server.plain().await;
    let sql = "INSERT INTO counter VALUES ('a', 5)";
    conn.query_drop(sql).await.unwrap();
    let first = server.server.process_id().unwrap();
    server.server.kill();
    assert!(conn.query_drop("SELECT 1").await.is_err());
    server.server.restart().await.unwrap();
    assert_ne!(server.server.process_id(), Some(first));
    assert_eq!(server.value("a").await, 5);
    assert!(server.server.restart().await.is_err());
    server.server.stop();
    server.server.restart().await.unwrap();
    assert_eq!(server.value("a").await, 5);
    drop(server);
    assert!(!folder.exists());
}
