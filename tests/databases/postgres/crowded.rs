//! When there is no connection to finish with, or somebody waits for one.

use std::pin::pin;
use std::time::Duration;

use paxos_commit::participant::ResourceManager;
use paxos_commit::protocol::types::{ReadOnly, Vote};
use paxos_commit::resource::postgres::{Postgres, WorkError};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::support::{Base, branch, connect, pay, prepare, txn};

/// A connection for work, one to finish with, and not much patience. There is one marker.
async fn narrow(base: &Base) -> Postgres {
    let options = base.options().work_connections(1).finish_connections(1);
    let options = options.acquire_max(Duration::from_millis(200));
    let postgres = base.open_with(options).await;
    pay(&postgres, 1, "alice", 0).await;
    assert_eq!(prepare(&postgres, 1).await, Vote::Prepared);
    postgres.commit(&branch(1)).await.unwrap();
    postgres
}

/// Somebody has the only connection to finish with, until the lock is given back.
struct Occupied {
    admin: tokio_postgres::Client,
    settling: JoinHandle<()>,
}

impl Occupied {
    async fn new(base: &Base, postgres: &Postgres) -> Occupied {
        let admin = connect(&base.url).await;
        let sql = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
                   AS 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END';
                   CREATE TRIGGER wait BEFORE DELETE ON paxos_commit.committed
                   FOR EACH STATEMENT EXECUTE FUNCTION wait()";
        admin.batch_execute(sql).await.unwrap();
        let sql = "BEGIN; SELECT pg_advisory_xact_lock(7)";
        admin.batch_execute(sql).await.unwrap();
        let settling = postgres.clone();
        // Before what the test works under.
        let through = branch(2).id;
        let settling = tokio::spawn(async move { settling.settled(through, &[]).await.unwrap() });
        let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        base.until(waits).await;
        Occupied { admin, settling }
    }

    async fn release(self) {
        self.admin.batch_execute("ROLLBACK").await.unwrap();
        self.settling.await.unwrap();
    }
}

/// The counter-example: what rolls back finds the connection in the hands of the service, and cannot
/// have the server's process ended. The service lets go; and nobody ever takes the connection again.
#[tokio::test]
async fn a_rollback_that_failed_leaves_no_connection_behind() {
    let base = Base::new("left_behind").await;
    let postgres = narrow(&base).await;
    let held = postgres.work(txn(3)).await.unwrap();
    let sql = "UPDATE account SET balance = 0";
    held.client().batch_execute(sql).await.unwrap();
    let occupied = Occupied::new(&base, &postgres).await;
    let of = branch(3);
    let prepared = postgres.prepare(&of, None, ReadOnly::Forbidden).await;
    assert!(prepared.is_err(), "{prepared:?}");
    let rolled_back = postgres.rollback(&of).await;
    assert!(rolled_back.is_err(), "{rolled_back:?}");
    drop(held);
    // It is the only one.
    pay(&postgres, 4, "alice", -1).await;
    occupied.release().await;
    assert_eq!(prepare(&postgres, 4).await, Vote::Prepared);
    postgres.commit(&branch(4)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}

/// The counter-example: a rollback has given the connection back and then failed to look for the name.
/// The next try has the server end the process, which works for another transaction by now.
#[tokio::test]
async fn a_rollback_that_comes_again_disturbs_nobody() {
    let base = Base::new("comes_again").await;
    let postgres = narrow(&base).await;
    let work = postgres.work(txn(3)).await.unwrap();
    work.client().batch_execute("SELECT 1/0").await.unwrap_err();
    drop(work);
    let occupied = Occupied::new(&base, &postgres).await;
    let of = branch(3);
    let prepared = postgres.prepare(&of, None, ReadOnly::Forbidden).await;
    assert!(prepared.is_err(), "{prepared:?}");
    pay(&postgres, 4, "alice", -1).await;
    occupied.release().await;
    postgres.rollback(&of).await.unwrap();
    assert_eq!(prepare(&postgres, 4).await, Vote::Prepared);
    postgres.commit(&branch(4)).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}

/// The counter-example: it waits for the connection when commit is asked for. Its first statement would
/// be prepared with the rest, and its second not.
#[tokio::test]
async fn who_waits_while_commit_is_asked_for_does_not_slip_in() {
    let base = Base::new("slips_in").await;
    let postgres = base.open().await;
    pay(&postgres, 3, "alice", -1).await;
    let held = postgres.work(txn(3)).await.unwrap();
    let mut waiting = pin!(postgres.work(txn(3)));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    let of = branch(3);
    let mut preparing = pin!(postgres.prepare(&of, None, ReadOnly::Forbidden));
    assert!(timeout(Duration::ZERO, &mut preparing).await.is_err());
    drop(held);
    let (slipped, prepared) = tokio::join!(waiting, preparing);
    assert!(matches!(slipped, Err(WorkError::Ended(_))), "{slipped:?}");
    assert_eq!(prepared.unwrap(), Vote::Prepared);
    postgres.commit(&of).await.unwrap();
    assert_eq!(base.balance("alice").await, 99);
}
