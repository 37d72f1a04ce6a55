//! Runs the simulator by hand.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 10000     # look for a failing seed
//! cargo run --release --example simulate -- --replay 42       # replay one, with a trace
//! cargo run --release --example simulate -- --fair            # simulated transactions per second
//! ```

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Parser;

#[path = "../tests/invariant/facts/mod.rs"]
#[allow(dead_code, reason = "each judge asks for a part of it")]
mod invariant;
#[path = "../tests/simulator/sim/mod.rs"]
mod sim;

use sim::plan::{Plan, Weather};
use sim::stats::Stats;
use sim::{Options, run, run_plan};

/// The seeded simulator of Paxos Commit.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this one seed and print every step.
    #[arg(long, conflicts_with_all = ["fair", "forget", "seeds", "first"])]
    replay: Option<u64>,
    /// Every cluster has hostile clients, not only one in four.
    #[arg(long, conflicts_with_all = ["fair", "forget"])]
    hostile: bool,
    /// Go on after a failure, and print each kind of failure once.
    #[arg(long, conflicts_with_all = ["fair", "forget", "replay"])]
    keep_going: bool,
    /// Without faults: how many transactions are simulated per second of real time.
    #[arg(long, conflicts_with_all = ["forget", "seeds", "first"])]
    fair: bool,
    /// Without faults: a million transactions over ten generations, and what is kept of them.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    forget: bool,
}

/// With fewer seeds some rare event may never happen, which then says nothing.
const SEEDS_TO_SEE_ALL: u64 = 1_000;

fn main() {
    let arguments = Arguments::parse();
    if arguments.fair {
        fair();
    } else if arguments.forget {
        forget();
    } else if let Some(seed) = arguments.replay {
        replay(seed, arguments.hostile);
    } else {
        swarm(&arguments);
    }
}

fn replay(seed: u64, hostile: bool) {
    let options = Options {
        trace: true,
        hostile,
        ..Options::default()
    };
    match run(seed, Weather::Swarm, options) {
        Ok(stats) => println!("seed {seed} passes\n{stats}"),
        Err(failure) => {
            eprintln!("{failure}");
            std::process::exit(1);
        }
    }
}

fn swarm(arguments: &Arguments) {
    let start = Instant::now();
    let mut total = Stats::default();
    let last = arguments.first.saturating_add(arguments.seeds - 1);
    let options = Options {
        hostile: arguments.hostile,
        ..Options::default()
    };
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    for seed in arguments.first..=last {
        match run(seed, Weather::Swarm, options) {
            Ok(stats) => total.add(&stats),
            Err(failure) if arguments.keep_going => {
                let kind = kind(&failure.what);
                let count = failures.entry(kind).or_default();
                *count += 1;
                if *count == 1 {
                    eprintln!("{failure}");
                }
            }
            Err(failure) => {
                eprintln!("{failure}");
                std::process::exit(1);
            }
        }
    }
    if !failures.is_empty() {
        for (kind, count) in failures {
            eprintln!("{count:>6} times: {kind}");
        }
        std::process::exit(1);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{total}");
    let seeds = last - arguments.first + 1;
    let rate = seeds as f64 / seconds;
    println!("{seeds} seeds in {seconds:.1} s: {rate:.0} seeds/s");
    println!(
        "Nothing wrong was found: in each of the {seeds} clusters every invariant held at every \
         step, and when the faults had stopped everything was decided, applied and released, and \
         where generations turned, forgotten."
    );
    let mut never = total.never_seen();
    if arguments.hostile {
        // It takes an honest store that is lost, which is rarer where liars take up the time.
        never.retain(|what| what != "CommitWithoutProof");
    }
    if never.is_empty() {
        println!("Every fault and every event that these runs are for was seen.");
    } else if seeds >= SEEDS_TO_SEE_ALL {
        eprintln!(
            "But these never happened, so they were not tested: {}",
            never.join(", ")
        );
        std::process::exit(1);
    } else {
        println!(
            "With so few seeds these never happened: {}",
            never.join(", ")
        );
    }
}

/// What went wrong, without ids and numbers.
fn kind(what: &str) -> String {
    let is_id = |word: &&str| !word.contains(|letter: char| letter.is_ascii_digit());
    let words: Vec<&str> = what.split_whitespace().filter(is_id).collect();
    words.join(" ")
}

fn fair() {
    let transactions = 200_000;
    let start = Instant::now();
    let stats = without_faults(Plan::fair(1, 2, transactions));
    let seconds = start.elapsed().as_secs_f64();
    println!("{stats}");
    let rate = transactions as f64 / seconds;
    println!("N = 2, F = 1, no faults: {rate:.0} simulated transactions/s");
}

fn forget() {
    let (transactions, generations) = (1_000_000, 10);
    let plan = Plan {
        generation_transactions_max: transactions / generations,
        // About 16,000 transactions per second of virtual time, so that the log keeps up.
        in_flight: 320,
        think_max: 20_000,
        ..Plan::fair(1, 2, transactions as usize)
    };
    let stats = without_faults(plan);
    println!(
        "when a generation was opened: the transactions in one replica's memory, the records of"
    );
    println!("transactions on its disk, and the branches in one session's memory");
    println!("generation  in memory  on disk  branches");
    for at in &stats.memory {
        println!(
            "{:>10} {:>10} {:>8} {:>9}",
            at.generation, at.transactions, at.records, at.branches
        );
    }
    println!("{transactions} finished transactions of {generations} generations");
}

fn without_faults(plan: Plan) -> Stats {
    let rng = fastrand::Rng::with_seed(1);
    match run_plan(1, rng, plan, Options::default()) {
        Ok(stats) => stats,
        Err(failure) => {
            eprintln!("{failure}");
            std::process::exit(1);
        }
    }
}
