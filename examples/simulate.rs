//! Runs the simulator by hand.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 10000     # look for a failing seed
//! cargo run --release --example simulate -- --replay 42       # replay one, with a trace
//! cargo run --release --example simulate -- --fair            # simulated transactions per second
//! ```

use std::time::Instant;

use clap::Parser;

#[path = "../tests/simulator/sim/mod.rs"]
mod sim;

use sim::plan::{Plan, Weather};
use sim::stats::Stats;
use sim::{Options, run, run_plan};

/// The seeded simulator of Paxos Commit.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this one seed and print every step.
    #[arg(long)]
    replay: Option<u64>,
    /// Without faults: how many transactions are simulated per second of real time.
    #[arg(long)]
    fair: bool,
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.fair {
        fair();
    } else if let Some(seed) = arguments.replay {
        replay(seed);
    } else {
        swarm(&arguments);
    }
}

fn replay(seed: u64) {
    let options = Options {
        trace: true,
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
    for seed in arguments.first..arguments.first + arguments.seeds {
        match run(seed, Weather::Swarm, Options::default()) {
            Ok(stats) => total.add(&stats),
            Err(failure) => {
                eprintln!("{failure}");
                std::process::exit(1);
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{total}");
    let rate = arguments.seeds as f64 / seconds;
    println!(
        "{} seeds in {seconds:.1} s: {rate:.0} seeds/s",
        arguments.seeds
    );
    let never = total.never_seen();
    if !never.is_empty() {
        eprintln!("never seen: {}", never.join(", "));
        std::process::exit(1);
    }
}

fn fair() {
    let transactions = 200_000;
    let start = Instant::now();
    let plan = Plan::fair(1, 2, transactions);
    let rng = fastrand::Rng::with_seed(1);
    match run_plan(1, rng, plan, Options::default()) {
        Ok(stats) => {
            let seconds = start.elapsed().as_secs_f64();
            println!("{stats}");
            let rate = transactions as f64 / seconds;
            println!("N = 2, F = 1, no faults: {rate:.0} simulated transactions/s");
        }
        Err(failure) => {
            eprintln!("{failure}");
            std::process::exit(1);
        }
    }
}
