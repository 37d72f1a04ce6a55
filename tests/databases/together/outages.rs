//! What is away for a while.

use paxos_commit::initiator::{Known, Outcome};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::scene::{Kind, LONG, Scene, transact};
use super::tap::{Held, Moment};

/// What a service says to commit what it has prepared.
fn commit_in(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "COMMIT PREPARED",
        Kind::Mariadb => "XA COMMIT",
    }
}

fn other_than(kind: Kind) -> Kind {
    match kind {
        Kind::Postgres => Kind::Mariadb,
        Kind::Mariadb => Kind::Postgres,
    }
}

/// Its commit is tried again until it is back, and others are not held up meanwhile.
async fn is_away_at_commit_time(kind: Kind) {
    let mut scene = Scene::open().await;
    let number = scene.number();
    let reached = scene.tap(kind).arm_at(commit_in(kind), 1, Moment::Before);
    let transaction = tokio::spawn(transact(scene.initiator.clone(), number));
    let held = timeout(LONG, reached).await.unwrap().unwrap();
    scene.kill_server(kind);
    drop(held);
    // It was decided, so whoever asked is told.
    let outcome = timeout(LONG, transaction).await.unwrap().unwrap();
    assert_eq!(outcome, Known::Committed);

    for _ in 0..20 {
        let mut txn = scene.initiator.begin().await.unwrap();
        let number = scene.number();
        let name = other_than(kind).to_string();
        txn.request(&name, number.to_string()).await.unwrap();
        let outcome = timeout(LONG, txn.commit()).await.unwrap();
        assert_eq!(outcome, Ok(Outcome::Committed));
        scene.take_back(other_than(kind), number).await;
    }
    scene.restart_server(kind).await;
    scene.audit(number, outcome, "it is back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_away_at_commit_time() {
    is_away_at_commit_time(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_away_at_commit_time() {
    is_away_at_commit_time(Kind::Mariadb).await;
}

/// A transaction that stands prepared in PostgreSQL, which nobody knows so far but the server.
async fn until_prepared(scene: &mut Scene) -> (i64, JoinHandle<Known>, Held) {
    loop {
        let number = scene.number();
        let tap = scene.tap(Kind::Postgres);
        let reached = tap.arm_at("PREPARE TRANSACTION", 1, Moment::After);
        let mut transaction = tokio::spawn(transact(scene.initiator.clone(), number));
        let held = async {
            tokio::select! {
                held = reached => held.ok(),
                // It was sent to a session that has died, since nobody had noticed that so far.
                outcome = &mut transaction => {
                    assert_eq!(outcome.unwrap(), Known::Aborted);
                    None
                }
            }
        };
        if let Some(held) = timeout(LONG, held).await.unwrap() {
            return (number, transaction, held);
        }
    }
}

/// Two of three coordinators die while the branches stand prepared, then both servers and both
/// services; then all come back.
#[tokio::test(flavor = "multi_thread")]
async fn everything_dies_while_the_branches_stand_prepared() {
    let mut scene = Scene::open().await;
    for round in 0..5 {
        // (A vote that a killed session is asked for never comes, and two dead replicas end nothing.)
        scene.only_the_living().await;
        let (number, transaction, held) = until_prepared(&mut scene).await;
        let replicas = scene.cluster.replicas();
        let gone = [replicas[round % 3], replicas[(round + 1) % 3]];
        for id in gone {
            scene.cluster.kill(id).await.unwrap();
        }
        held.go_on();
        let both = async {
            while scene.prepared().await.len() < 2 {
                tokio::time::sleep(super::scene::LOOK_EVERY).await;
            }
        };
        timeout(LONG, both)
            .await
            .expect("both branches are prepared");
        for kind in Kind::BOTH {
            scene.kill_server(kind);
            scene.kill_service(kind);
            scene.restart_server(kind).await;
        }
        assert_eq!(scene.prepared().await.len(), 2, "they survive");
        for id in gone {
            scene.cluster.start(id).unwrap();
        }
        for kind in Kind::BOTH {
            scene.start(kind).await;
        }
        let outcome = timeout(LONG, transaction).await.unwrap().unwrap();
        scene.audit(number, outcome, "all are back").await;
    }
}
