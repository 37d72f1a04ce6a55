//! Networks lose, reorder, double, delay and cut.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::harness::adversary::{NETWORK, summary};
use crate::harness::arena::PATIENCE;
use crate::harness::evidence::{Line, read_journal};
use crate::harness::network::Trouble;
use crate::harness::{Adversary, Arena, Knobs, Options};

#[tokio::test(flavor = "multi_thread")]
async fn networks_lose_reorder_double_delay_and_cut() {
    let knobs = Knobs::new(Duration::from_secs(8));
    let mut arena = Arena::start(&knobs, Options::default()).await;
    let mut adversary = Adversary::new(knobs.rng(), NETWORK);
    adversary.run(&mut arena, knobs.duration).await;
    let datagrams = arena.datagrams();
    let audit = arena.finish().await;
    println!("{}; {datagrams:?}", summary(adversary.done(), &audit));
    assert!(datagrams.lost > 0 && datagrams.doubled > 0 && datagrams.cut > 0);
}

/// An initiator that sees only a minority is told so at its deadline, with the id, and hears the
/// outcome when it sees the others again.
#[tokio::test(flavor = "multi_thread")]
async fn who_sees_a_minority_is_told_so_with_the_id() {
    let knobs = Knobs::new(Duration::ZERO);
    let options = Options {
        initiators: 1,
        deadline: Duration::from_millis(700),
        ..Options::default()
    };
    let mut arena = Arena::start(&knobs, options).await;
    let name = "initiator-1".to_owned();
    arena.troubles.push(Trouble::Sees {
        name: name.clone(),
        replicas: ["replica-1".to_owned()].into(),
    });
    arena.apply_troubles();
    let journal = arena.journal(&name);
    let told = |line: &Line| match line {
        Line::Unknown { number, error } => Some((*number, error.clone())),
        Line::Asking { .. } | Line::Heard { .. } => None,
    };
    let deadline = Instant::now() + PATIENCE;
    let (number, error) = loop {
        if let Some(told) = read_journal(&journal).iter().find_map(told) {
            break told;
        }
        if Instant::now() > deadline {
            arena.fail("nobody was told that the outcome is not known");
        }
        sleep(Duration::from_millis(50)).await;
    };
    let id = read_journal(&journal)
        .into_iter()
        .find_map(|line| match line {
            Line::Asking { number: of, id, .. } if of == number => Some(id),
            _ => None,
        });
    let id = id.unwrap();
    let expected = format!("the outcome of {id} is unknown, it may be commit or abort: ");
    assert!(error.starts_with(&expected), "{error}");
    let audit = arena.finish().await;
    assert!(audit.late > 0);
    println!("told: {error}");
}

/// Whoever is isolated, the others carry on.
#[tokio::test(flavor = "multi_thread")]
async fn each_single_node_is_isolated_in_turn() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut arena = Arena::start(&knobs, Options::default()).await;
    for name in arena.names("") {
        arena.troubles.push(Trouble::Isolated { name });
        arena.apply_troubles();
        arena.wait_for_commits(30).await;
        arena.troubles.clear();
    }
    arena.apply_troubles();
    let datagrams = arena.datagrams();
    let audit = arena.finish().await;
    assert!(datagrams.cut > 0);
    println!("isolated 8; {datagrams:?}; {audit:?}");
}
