//! Hostile clients: the simulator finds nothing, and finds every bug that was planted for them.

use fastrand::Rng;

use crate::is_found_by;
use crate::sim::hostile::{HostilePlan, Script};
use crate::sim::plan::{MILLISECOND, Plan, SECOND, Weather};
use crate::sim::plant::Plant;
use crate::sim::stats::{Sometimes, Stats};
use crate::sim::{Failure, Options, run, run_plan};

/// Seeds of a test run; `SIMULATOR_SEEDS` sets another number.
const SEEDS: u64 = 1_000;

const HOSTILE: Options = Options {
    trace: false,
    hostile: true,
    plant: None,
};

#[test]
fn hostile_clients_harm_no_honest_transaction() {
    let mut total = Stats::default();
    for seed in 0..crate::seeds_or(SEEDS) {
        match run(seed, Weather::Swarm, HOSTILE) {
            Ok(stats) => total.add(&stats),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total}");
}

/// What was found by more seeds than a run of the tests has.
#[test]
fn seeds_that_found_something() {
    for seed in [7_096] {
        if let Err(failure) = run(seed, Weather::Swarm, HOSTILE) {
            panic!("{failure}");
        }
    }
}

/// Two honest participants and a hostile one, which does nothing but contradict itself.
fn contradict(seed: u64, options: Options) -> Result<Stats, Failure> {
    let hostile = HostilePlan {
        certificates: 1,
        messages: 30,
        every: 200 * MILLISECOND,
        enlisted: 0.0,
        script: Script::Contradict,
    };
    let plan = Plan {
        fair: false,
        hostile: Some(hostile),
        think_max: SECOND,
        in_flight: 2,
        generation_ticks: 40,
        grace_ticks: 10,
        ..Plan::fair(1, 2, 100)
    };
    run_plan(seed, Rng::with_seed(seed), plan, options)
}

/// A participant certificate invents transactions with no branch but its own, votes Prepared to two
/// replicas, waits until they have exchanged reports, and votes Aborted to the third one. Then the
/// generation is settled: no replica fails, and honest transactions commit.
#[test]
fn six_contradicting_votes_end_no_replica() {
    for seed in 0..20 {
        let stats = contradict(seed, Options::default());
        let stats = stats.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(stats.sometimes.contains_key(&Sometimes::Commit));
        assert!(stats.sometimes.contains_key(&Sometimes::GenerationSettled));
    }
}

#[test]
fn finds_a_replica_that_asserts_that_clients_do_not_contradict() {
    let options = Options {
        plant: Some(Plant::AssertsOnContradiction),
        ..Options::default()
    };
    let mut failures = (0..20).filter_map(|seed| contradict(seed, options).err());
    let failure = failures.next().expect("20 runs suffice");
    let shown = "is aborted here, and settled as a commit";
    assert!(failure.what.contains(shown), "{failure}");
}

#[test]
fn finds_an_entry_for_a_generation_that_is_not_open() {
    let shown = ["of a generation that is not open"];
    is_found_by(HOSTILE, Plant::BelievesIdsOfGenerations, 200, &shown);
}

#[test]
fn finds_a_nonce_that_is_constant() {
    let shown = ["an instance of a hostile client ended its branch"];
    is_found_by(HOSTILE, Plant::ConstantNonce, 500, &shown);
}

#[test]
fn finds_a_floor_that_is_believed_from_a_plan() {
    let shown = ["holds floor"];
    is_found_by(HOSTILE, Plant::FloorFromPlan, 200, &shown);
}
