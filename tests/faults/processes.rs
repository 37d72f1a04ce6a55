//! Processes die, stand still, and come back.

use std::time::Duration;

use crate::bank::Bank;
use crate::harness::adversary::{PROCESSES, summary};
use crate::harness::{Adversary, Arena, Harm, Knobs, Options};

#[tokio::test(flavor = "multi_thread")]
async fn processes_die_and_stand_still_at_random_instants() {
    let knobs = Knobs::new(Duration::from_secs(8));
    let mut arena = Arena::start(&knobs, Options::default()).await;
    let mut adversary = Adversary::new(knobs.rng(), PROCESSES);
    adversary.run(&mut arena, knobs.duration).await;
    let audit = arena.finish().await;
    println!("{}", summary(adversary.done(), &audit));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_die_one_after_the_other() {
    let knobs = Knobs::new(Duration::from_secs(5));
    let mut rng = knobs.rng();
    let mut arena = Arena::start(&knobs, Options::default()).await;
    let end = tokio::time::Instant::now() + knobs.duration;
    let mut done = Adversary::new(knobs.rng(), &[]);
    while tokio::time::Instant::now() < end {
        for name in arena.names("replica") {
            arena.process(&name).kill().await;
            done.count(Harm::KillReplica);
            // The others carry on while it is down, and while it comes back.
            arena.wait_for_commits(rng.usize(1..20)).await;
            arena.process(&name).start();
            arena.wait_for_commits(rng.usize(1..40)).await;
        }
    }
    let audit = arena.finish().await;
    println!("{}", summary(done.done(), &audit));
}

/// One second is less than the time after which a silent peer is taken for gone. Peers that do not
/// notice a restart would be without a majority.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_aborts_when_replicas_restart_one_second_apart() {
    let mut bank = Bank::open().await;
    let load = bank.load();
    for id in 1..=3 {
        bank.kill(id).await;
        let next = tokio::time::Instant::now() + Duration::from_secs(1);
        bank.launch(id);
        tokio::time::sleep_until(next).await;
    }
    bank.ledgers_are_connected(&[1, 2, 3]).await;
    bank.unload(load).await;
    bank.transfer().await;
    bank.audit_all(&[1, 2, 3]).await;
    bank.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn f_replicas_are_dead_for_the_whole_run() {
    let knobs = Knobs::new(Duration::from_secs(6));
    let options = Options {
        replicas: 5,
        ..Options::default()
    };
    let mut arena = Arena::start(&knobs, options).await;
    let mut rng = knobs.rng();
    let mut replicas = arena.names("replica");
    rng.shuffle(&mut replicas);
    for name in &replicas[..2] {
        arena.process(name).kill().await;
    }
    let menu = [Harm::KillLedger, Harm::KillInitiator, Harm::PauseInitiator];
    let mut adversary = Adversary::new(rng, &menu);
    adversary.run(&mut arena, knobs.duration).await;
    arena.wait_for_commits(50).await;
    let audit = arena.finish().await;
    println!("{}", summary(adversary.done(), &audit));
}
