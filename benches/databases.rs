//! What a transaction over two databases costs, beside what the same databases take by themselves.
//!
//! `cargo bench --bench databases --features postgres,mariadb`; with `-- --test` a few transactions, to
//! show that it runs, with `-- local` only the ways whose names have that word. A row in PostgreSQL
//! and a row in MariaDB change, on throw-away servers beside each other on this machine:
//!
//! | way | what |
//! |---|---|
//! | local | each database by itself: `BEGIN`, one `UPDATE`, `COMMIT` |
//! | by hand, both at once | `PREPARE TRANSACTION` and `XA PREPARE` at the same time, then both commits; whoever drives it has no log, so a crash of his leaves both in doubt for ever |
//! | by hand, the decision forced to disk | the same, with the decision written to a file, and forced, before the commits: what it takes at least to know it afterwards |
//! | by hand, one after the other | as one types it, and as most programs do it: prepare here, prepare there, commit here, commit there |
//! | planned | both, as participants of three coordinator replicas (F = 1), each a process: the services work, then they prepare by themselves |
//! | requested | the same, but the work travels to the services with the commit |
//!
//! The last two until the outcome is known, and until both have applied it. In all of them whoever
//! drives the transaction and the services are in one process.
//!
//! One after the other for latencies, sixteen at a time for throughput; each way a few rounds in turn,
//! and of those the median.

#[path = "support/applied.rs"]
mod applied;
#[path = "support/ways.rs"]
mod ways;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use ways::{Hand, Until, Way, Ways};

/// So many at a time, for throughput.
const CONCURRENT: u32 = 16;

/// Between two transactions that are one at a time: what is done after an outcome (to apply it, to
/// clean up) is not to be in the way of the next one.
const THINKING: Duration = Duration::from_millis(5);

fn main() {
    // The servers and the replicas want processors too, and workers that wake each other for every
    // packet take them away.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    // On a worker, as a service does: from this thread each message would wake another one.
    let comparing = runtime.spawn(compare());
    runtime.block_on(comparing).expect("it does not panic");
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn compare() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, count) = if is_test { (1, 10) } else { (5, 400) };
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_wanted = |way: &Way| {
        word.as_ref()
            .is_none_or(|word| way.to_string().contains(word))
    };
    let wanted: Vec<Way> = Way::ALL.into_iter().filter(is_wanted).collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let ways = Ways::open(folder.path(), CONCURRENT).await;
    println!("                                      one at a time, ms      {CONCURRENT} at a time");
    println!("way                                     p50      p99           per s");
    let mut results = vec![Vec::new(); wanted.len()];
    for _ in 0..rounds {
        for (way, results) in wanted.iter().copied().zip(&mut results) {
            results.push(measure(&ways, way, count).await);
        }
    }
    let mut medians = Vec::new();
    for (way, results) in wanted.iter().copied().zip(&results) {
        let p50 = median(results.iter().map(|result| result.p50));
        let p99 = median(results.iter().map(|result| result.p99));
        let rate = median(results.iter().map(|result| result.per_s));
        println!(
            "{:<36} {p50:>7.2}  {p99:>7.2}       {rate:>9.0}",
            way.to_string()
        );
        medians.push((way, p50));
    }
    let of = |wanted: Way| {
        let found = medians.iter().find(|(way, _)| *way == wanted);
        found.map(|(_, p50)| *p50)
    };
    for (name, way) in [
        ("planned", Way::Planned as fn(Until) -> Way),
        ("requested", Way::Requested),
    ] {
        for hand in [Hand::AtOnce, Hand::Written, Hand::InTurn] {
            let by_hand = Way::ByHand(hand);
            if let (Some(one), Some(outcome), Some(applied)) = (
                of(by_hand),
                of(way(Until::Outcome)),
                of(way(Until::Applied)),
            ) {
                println!(
                    "paxos-commit, {name}: p50 {:.2} x {by_hand}, until the outcome; {:.2} x until \
                     applied",
                    outcome / one,
                    applied / one
                );
            }
        }
    }
    ways.close().await;
}

#[derive(Clone)]
struct Measured {
    p50: f64,
    p99: f64,
    per_s: f64,
}

async fn measure(ways: &Ways, way: Way, count: u32) -> Measured {
    let mut times = Vec::new();
    for _ in 0..count {
        sleep(THINKING).await;
        let start = Instant::now();
        ways.go(way, 0).await;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for lane in 0..CONCURRENT {
        let ways = ways.clone();
        workers.spawn(async move {
            for _ in 0..count.div_ceil(4) {
                ways.go(way, lane).await;
            }
        });
    }
    workers.join_all().await;
    let done = f64::from(CONCURRENT * count.div_ceil(4));
    Measured {
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        per_s: done / start.elapsed().as_secs_f64(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
