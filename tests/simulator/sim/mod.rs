//! The simulator: a whole cluster in one thread and virtual time, drawn from one seed.
//!
//! | file | what |
//! |---|---|
//! | `plan` | what a run looks like, drawn from the seed |
//! | `world` | the hosts, the event queue, the loop |
//! | `node` | one host with its disk and timers |
//! | `memory` | what is finished leaves a replica's memory, and is read from disk when asked for |
//! | `crank` | input -> step -> save -> release, for any host |
//! | `network` | loss, duplication, delay, partitions |
//! | `resource` | the participants' resource managers |
//! | `app` | the applications: what they ask for and what they are told |
//! | `chaos` | crashes, restarts, pauses, partitions, forced aborts |
//! | `hostile` | clients that lie: what they say, and what is judged all the same |
//! | `operator` | changes of the membership, disks that are lost, commits that are let go |
//! | `observe` | what must be seen sometimes |
//! | `audit` | the end: everything decided, applied and released |
//! | `plant` | planted bugs, to judge the judge |
//! | `count` | messages, delays and forced writes of one transaction |
//!
//! A run has two phases, as in TigerBeetle's simulator: under faults, safety is checked at every
//! step; then the faults stop, and within a bounded virtual time everything must come to its end.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by a test, an example and a benchmark"
)]

mod app;
mod audit;
mod chaos;
pub mod count;
mod crank;
mod handed_out;
pub mod hostile;
mod memory;
mod network;
mod node;
mod observe;
mod operator;
pub mod plan;
pub mod plant;
mod resource;
pub mod stats;
mod volumes;
mod world;

use std::panic::catch_unwind;

use fastrand::Rng;

use hostile::HostilePlan;
use plan::{Plan, Weather};
use plant::Plant;
use stats::Stats;
use world::World;

/// Of so many runs one has hostile clients.
const ONE_IN: u32 = 4;

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    /// Virtual time, if it is known.
    pub at_us: Option<u64>,
    pub what: String,
    /// The bug that was planted, if one was: a replay has none.
    pub plant: Option<Plant>,
    /// Whether the run was to have hostile clients whatever the seed says.
    pub hostile: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}", self.seed)?;
        if let Some(at_us) = self.at_us {
            write!(f, " at {at_us} us")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(plant) = self.plant {
            return write!(f, " (planted: {plant:?})");
        }
        let command = "cargo run --release --example simulate -- --replay";
        write!(f, "\nreplay: {command} {}", self.seed)?;
        if self.hostile {
            write!(f, " --hostile")?;
        }
        Ok(())
    }
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub trace: bool,
    /// Every run has hostile clients, not only one in four.
    pub hostile: bool,
    pub plant: Option<Plant>,
}

/// Runs one seed in the given weather.
pub fn run(seed: u64, weather: Weather, options: Options) -> Result<Stats, Failure> {
    let mut rng = Rng::with_seed(seed);
    let mut plan = match weather {
        Weather::Fair => Plan::fair(1, 2, 1_000),
        Weather::Swarm => Plan::swarm(&mut rng),
    };
    if weather == Weather::Swarm {
        // Drawn aside, so that the other runs stay as they are.
        let mut aside = Rng::with_seed(!seed);
        if options.hostile || aside.u32(..ONE_IN) == 0 {
            plan = HostilePlan::draw(&mut aside).join(plan);
        }
    }
    run_plan(seed, rng, plan, options)
}

/// Runs one plan. An assertion of the product that fails is a find, too, and must name its seed.
pub fn run_plan(seed: u64, rng: Rng, plan: Plan, options: Options) -> Result<Stats, Failure> {
    let (plant, hostile) = (options.plant, options.hostile);
    let failure = |at_us, what| Failure {
        seed,
        at_us,
        what,
        plant,
        hostile,
    };
    let result = catch_unwind(move || {
        let mut world = World::new(rng, plan, options);
        match world.run() {
            Ok(()) => Ok(world.stats),
            Err(what) => Err((world.now, what)),
        }
    });
    match result {
        Ok(Ok(stats)) => Ok(stats),
        Ok(Err((now, what))) => Err(failure(Some(now), what)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            let text = text.unwrap_or_else(|| "(no message)".into());
            Err(failure(None, format!("an assertion failed: {text}")))
        }
    }
}
