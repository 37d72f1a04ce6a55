//! What it is like when a service stops voting: ten thousand transactions wait for it until their
//! vote timeout, and are then decided by ballots; other transactions go on meanwhile.
//!
//! `cargo bench --bench undecided`; with `-- --test` a few hundred, to show that it runs.

#[path = "support/nothing.rs"]
mod nothing;
#[path = "support/processes.rs"]
mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use paxos_commit::initiator::{AbortReason, Initiator, Outcome};
use tokio::task::JoinSet;

use nothing::AT_A_LOSS;

/// How long votes are waited for.
const VOTE_TIMEOUT: Duration = Duration::from_secs(3);

/// The other transactions: one each.
const INTERVAL: Duration = Duration::from_millis(4);

/// How long they run before and after.
const USUAL: Duration = Duration::from_secs(3);

/// One of the other transactions.
struct Usual {
    began: Instant,
    took: Duration,
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let count = if is_test { 300 } else { 10_000 };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut cluster = processes::cluster(folder.path(), "undecided");
        cluster.start_all().expect("replicas");
        let _participants = processes::participants(&cluster).await;
        let mut initiators = Vec::new();
        for name in ["usual", "unlucky"] {
            let builder = processes::initiator(&cluster, name).vote_timeout(VOTE_TIMEOUT);
            initiators.push(builder.connect().await.expect("an initiator"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let usual = tokio::spawn(go_on(initiators[0].clone(), stop.clone()));
        tokio::time::sleep(USUAL).await;

        let asked = Instant::now();
        let ends = ask(&initiators[1], count).await;
        let all_asked = ends.asked - asked;
        tokio::time::sleep(USUAL).await;
        stop.store(true, Ordering::Relaxed);
        let usual = usual.await.expect("no panic");

        // From the timeout of the first to the end of the last.
        let from = asked + VOTE_TIMEOUT;
        let to = ends.last;
        let before = quantiles(usual.iter().filter(|of| of.began < asked));
        let waiting = quantiles(usual.iter().filter(|of| ends.asked <= of.began && of.began < from));
        let deciding = quantiles(usual.iter().filter(|of| from <= of.began && of.began < to));
        println!(
            "{count} transactions without a vote of one branch, asked for within {all_asked:.1?}: all \
             aborted by ballots; from its own vote timeout to its outcome, p50 {:.1?}, the last {:.1?}",
            ends.late[ends.late.len() / 2],
            ends.late[ends.late.len() - 1],
        );
        println!("others before:                p50 {:.1?}, p99 {:.1?}", before.0, before.1);
        println!("others while those wait:      p50 {:.1?}, p99 {:.1?}", waiting.0, waiting.1);
        println!(
            "others while those are decided: p50 {:.1?}, p99 {:.1?} ({:.1?} long)",
            deciding.0,
            deciding.1,
            to.saturating_duration_since(from)
        );
        cluster.stop().await.expect("stopped in order");
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// What became of those that nobody votes for.
struct Ends {
    /// When commit had been asked for of all.
    asked: Instant,
    /// When the last had its outcome.
    last: Instant,
    /// How long after its vote timeout each had its outcome, sorted.
    late: Vec<Duration>,
}

async fn ask(initiator: &Initiator, count: usize) -> Ends {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let initiator = initiator.clone();
        tasks.spawn(async move {
            let mut txn = initiator.begin().await.expect("begun");
            txn.request("a", "").await.expect("connected");
            txn.request("b", AT_A_LOSS).await.expect("connected");
            let asked = Instant::now();
            let outcome = txn.commit().await;
            assert_eq!(outcome, Ok(Outcome::Aborted(AbortReason::Ballot)));
            (asked, Instant::now())
        });
    }
    let ended = tasks.join_all().await;
    let late = |(asked, ended): &(Instant, Instant)| (*ended - *asked).saturating_sub(VOTE_TIMEOUT);
    let mut late: Vec<Duration> = ended.iter().map(late).collect();
    late.sort_unstable();
    let start = Instant::now();
    Ends {
        asked: ended.iter().map(|(asked, _)| *asked).max().unwrap_or(start),
        last: ended.iter().map(|(_, ended)| *ended).max().unwrap_or(start),
        late,
    }
}

/// Commits one after the other at a fixed rate, until told to stop.
async fn go_on(initiator: Initiator, stop: Arc<AtomicBool>) -> Vec<Usual> {
    let mut tasks = JoinSet::new();
    let mut ticks = tokio::time::interval(INTERVAL);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let initiator = initiator.clone();
        tasks.spawn(async move {
            let mut txn = initiator.begin().await.expect("begun");
            txn.request("a", "").await.expect("connected");
            txn.request("b", "").await.expect("connected");
            let began = Instant::now();
            assert_eq!(txn.commit().await, Ok(Outcome::Committed));
            let took = began.elapsed();
            Usual { began, took }
        });
    }
    tasks.join_all().await
}

/// The median and the 99th percentile.
fn quantiles<'u>(usual: impl Iterator<Item = &'u Usual>) -> (Duration, Duration) {
    let mut times: Vec<Duration> = usual.map(|usual| usual.took).collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}
