//! Whoever dies, at whatever step of the conversation with a database.

use paxos_commit::initiator::Known;
use tokio::time::timeout;

use super::scene::{Kind, LONG, Scene, transact};
use super::tap::Moment;

/// More steps than a transaction takes, by far.
const STEPS_MAX: usize = 60;

/// How many transactions may be sent to a session that has died.
const STRAYS_MAX: usize = 20;

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
        let (mut ends, mut step, mut strays) = (Vec::new(), 1, 0);
        loop {
            assert!(
                step <= STEPS_MAX,
                "a transaction takes no {STEPS_MAX} steps"
            );
            let what = format!("{kind}, {victim:?}, {moment:?} step {step}");
            let Stopped { at_step, outcome } = scene.stop(kind, victim, moment, step, &what).await;
            match (at_step, outcome) {
                (true, _) => {
                    ends.push(outcome);
                    step += 1;
                }
                (false, Known::Committed) => break,
                // It was sent to the session that has died, since nobody had noticed that so far.
                (false, _) => {
                    strays += 1;
                    assert!(strays <= STRAYS_MAX, "{what}: nobody takes part");
                }
            }
        }
        // Else it was stopped nowhere where it matters.
        assert!(
            ends.contains(&Known::Aborted) && ends.contains(&Known::Committed),
            "{ends:?}"
        );
    }
}

/// What came of a transaction.
struct Stopped {
    /// Whether it got as far as its step.
    at_step: bool,
    outcome: Known,
}

impl Scene {
    /// One transaction, in which the victim dies at that step.
    async fn stop(
        &mut self,
        kind: Kind,
        victim: Victim,
        moment: Moment,
        step: usize,
        what: &str,
    ) -> Stopped {
        let number = self.number();
        let reached = self.tap(kind).arm(step, moment);
        let transaction = tokio::spawn(transact(self.initiator.clone(), number));
        let held = tokio::select! {
            held = reached => held.ok(),
            () = self.is_over(&transaction) => None,
        };
        self.tap(kind).disarm();
        let at_step = held.is_some();
        if at_step {
            self.strike(kind, victim);
        }
        drop(held);
        if at_step {
            self.mend(kind, victim).await;
        }
        let outcome = timeout(LONG, transaction).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{what}: no outcome"));
        let outcome = outcome.unwrap();
        println!(
            "{what}: {outcome:?}{}",
            if at_step { "" } else { " before it" }
        );
        self.audit(number, outcome, what).await;
        Stopped { at_step, outcome }
    }

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
