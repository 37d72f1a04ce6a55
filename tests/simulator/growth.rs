//! How a commit grows with its branches and with its replicas, in virtual time.
//!
//! Branches prepare side by side, and so do replicas save. So the latency of a commit is that of the
//! slowest branch and of the middle replica, not a sum over them; messages and forced writes are
//! what there is more of. `cargo test --test simulator growth -- --nocapture` prints the tables.

use std::ops::RangeInclusive;

use fastrand::Rng;

use crate::sim::count::{By, count, one_commit};
use crate::sim::plan::Micros;

/// Branches of a transaction.
const BRANCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// How many replicas of 2F+1 may be lost.
const F: RangeInclusive<u32> = 0..=3;

/// How long the model's resource manager takes to answer, beside its forced write.
const ANSWER: Micros = 1;

/// Every message takes the same time, and so does every forced write: then so does every commit, to
/// the microsecond, however many branches and replicas it has. Nothing has to queue for anything in
/// this model: a message takes no one's time but its own, and the votes of a transaction share one
/// forced write of each replica.
#[test]
fn latency_is_the_same_for_any_number_of_branches_and_replicas() {
    let (hop, write) = (500, 300);
    println!("\n F  N  relay  itself  messages  forced writes");
    for f in F {
        for n in BRANCHES {
            let latency = |by| one_commit(0, f, n, by, hop..=hop, write..=write).latency_us;
            let (relay, itself) = (latency(By::Relay), latency(By::Itself));
            let counted = count(f, n, By::Relay);
            println!(
                "{f:>2} {n:>2} {relay:>6} {itself:>7} {:>9} {:>14}",
                counted.messages(),
                counted.writes,
            );
            assert_eq!(relay, 4 * hop + 2 * write + ANSWER);
            assert_eq!(itself, 3 * hop + 2 * write + ANSWER);
        }
    }
}

/// What a message and a forced write take where that is drawn. All of a commit takes less than the
/// hedge delay of 5 ms, so that only one relay is asked.
const HOP: RangeInclusive<Micros> = 100..=700;
const WRITE: RangeInclusive<Micros> = 100..=900;

/// Commits of which the mean is taken, each on a cluster of its own.
const COMMITS: u64 = 400;

/// What a commit takes if only the slowest of what is done side by side counts: a replica waits for
/// the last vote, and the initiator for the report of a majority.
fn of_the_slowest(rng: &mut Rng, f: u32, branches: usize, by: By) -> Micros {
    let asked = match by {
        By::Relay => rng.u64(HOP),
        By::Itself => 0,
    };
    let prepared = (0..branches).map(|_| asked + rng.u64(HOP) + rng.u64(WRITE) + ANSWER);
    let prepared: Vec<Micros> = prepared.collect();
    let reports = (0..2 * f + 1).map(|_| {
        let votes = prepared.iter().map(|prepared| prepared + rng.u64(HOP));
        let last_vote = votes.max().unwrap_or(0);
        last_vote + rng.u64(WRITE) + rng.u64(HOP)
    });
    let mut reports: Vec<Micros> = reports.collect();
    reports.sort_unstable();
    reports[f as usize]
}

/// With times that are drawn, latency grows as the maximum over the branches and the middle of the
/// replicas do: the mean is that of [`of_the_slowest`], which knows nothing of the protocol. And no
/// commit takes longer than the longest message and the longest write, four and two times, whatever
/// the number of branches and replicas: branches one after the other would pass that with four.
#[test]
fn latency_is_that_of_the_slowest_and_not_the_sum() {
    println!("\n F  N  by      mean  of the slowest  longest");
    for f in F {
        for n in BRANCHES {
            for (by, hops) in [(By::Relay, 4), (By::Itself, 3)] {
                let latency = |seed| one_commit(seed, f, n, by, HOP, WRITE).latency_us;
                let latencies: Vec<Micros> = (0..COMMITS).map(latency).collect();
                let mut rng = Rng::with_seed(1);
                let expected: Micros = (0..20 * COMMITS)
                    .map(|_| of_the_slowest(&mut rng, f, n, by))
                    .sum();
                let expected = expected as f64 / (20 * COMMITS) as f64;
                let mean = latencies.iter().sum::<Micros>() as f64 / COMMITS as f64;
                let longest = latencies.iter().max().copied().unwrap_or(0);
                let name = format!("{by:?}");
                println!("{f:>2} {n:>2}  {name:<6} {mean:>5.0} {expected:>15.0} {longest:>8}");
                assert!((mean / expected - 1.0).abs() < 0.02, "{mean} {expected}");
                assert!(longest <= hops * HOP.end() + 2 * WRITE.end() + ANSWER);
            }
        }
    }
}
