//! Whoever dies, at whatever step of the conversation with a database.

use paxos_commit::initiator::Known;
use tokio::time::timeout;

use super::scene::{Kind, LONG, Scene, transact};
use super::tap::Moment;

/// More steps than a transaction takes, by far.
const STEPS_MAX: usize = 60;

/// Who is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The database server, by SIGKILL.
    Server,
    /// The service, and all its connections.
    Service,
    /// This one connection: what came of the step is unknown to the service, which lives.
    Connection,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_postgres_is_killed_at_every_step() {
    at_every_step(Kind::Postgres, Victim::Server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_mariadb_is_killed_at_every_step() {
    at_every_step(Kind::Mariadb, Victim::Server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_before_postgres_dies_at_every_step() {
    at_every_step(Kind::Postgres, Victim::Service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_before_mariadb_dies_at_every_step() {
    at_every_step(Kind::Mariadb, Victim::Service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_postgres_is_lost_at_every_step() {
    at_every_step(Kind::Postgres, Victim::Connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_mariadb_is_lost_at_every_step() {
    at_every_step(Kind::Mariadb, Victim::Connection).await;
}

/// One transaction after the other; each is stopped a step later than the one before, until one comes
/// to its end before its step.
async fn at_every_step(kind: Kind, victim: Victim) {
    let mut scene = Scene::open().await;
    for moment in Moment::BOTH {
        let mut ends = Vec::new();
        for step in 1.. {
            assert!(
                step <= STEPS_MAX,
                "a transaction takes no {STEPS_MAX} steps"
            );
            let what = format!("{kind}, {victim:?}, {moment:?} step {step}");
            let number = scene.number();
            let reached = scene.tap(kind).arm(step, moment);
            let transaction = tokio::spawn(transact(scene.initiator.clone(), number));
            let held = tokio::select! {
                held = reached => held.ok(),
                () = scene.is_over(&transaction) => None,
            };
            scene.tap(kind).disarm();
            let is_reached = held.is_some();
            if is_reached {
                scene.strike(kind, victim);
            }
            drop(held);
            if is_reached {
                scene.mend(kind, victim).await;
            }
            let outcome = timeout(LONG, transaction).await;
            let outcome = outcome
                .unwrap_or_else(|_| panic!("{what}: no outcome"))
                .unwrap();
            println!(
                "{what}: {}, {outcome:?}",
                if is_reached { "reached" } else { "over before" }
            );
            scene.audit(number, outcome, &what).await;
            if !is_reached {
                break;
            }
            ends.push(outcome);
        }
        // Else it was stopped nowhere where it matters.
        assert!(
            ends.contains(&Known::Aborted) && ends.contains(&Known::Committed),
            "{ends:?}"
        );
    }
}

impl Scene {
    fn strike(&mut self, kind: Kind, victim: Victim) {
        match victim {
            Victim::Server => self.kill_server(kind),
            Victim::Service => self.kill_service(kind),
            Victim::Connection => {}
        }
    }

    async fn mend(&mut self, kind: Kind, victim: Victim) {
        match victim {
            Victim::Server => self.restart_server(kind).await,
            Victim::Service => self.start(kind).await,
            Victim::Connection => {}
        }
    }
}
