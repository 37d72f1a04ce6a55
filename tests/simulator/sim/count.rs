//! Messages, delays and forced writes of one transaction without faults, as they are counted.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::Options;
use super::plan::{MILLISECOND, Micros, Plan};
use super::stats::Stats;
use super::world::World;

/// What one commit of `branches` branches with 2`f`+1 replicas takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub branches: u64,
    pub f: u64,
    /// One-way messages in sequence, from asking for commit until the initiator knows the outcome.
    pub delays: u64,
    /// Forced writes in sequence, in the same time.
    pub writes_in_sequence: u64,
    /// Forced writes before the outcome, of all participants and replicas.
    pub writes: u64,
    pub begin: u64,
    pub prepare: u64,
    pub vote: u64,
    pub report: u64,
    pub applied: u64,
    /// Anything else about it.
    pub other: u64,
}

impl Count {
    /// Messages until all have learned the outcome.
    pub fn messages(&self) -> u64 {
        self.begin + self.prepare + self.vote + self.report
    }
}

/// How the branches come to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Relay,
    Itself,
}

/// Counts one commit.
pub fn count(f: u32, branches: usize, by: By) -> Count {
    // A delay of 1 ms and writes that take no time count the delays, and the other way round.
    let delays = measure(f, branches, by, MILLISECOND, 0);
    let writes = measure(f, branches, by, 0, MILLISECOND);
    let of = |name| delays.messages_of(name);
    let known = of("BeginCommit") + of("Prepare") + of("Vote") + of("Phase2b") + of("Applied");
    // What replicas say of generations is about no transaction.
    let control = of("Announce") + of("Log");
    Count {
        branches: branches as u64,
        f: u64::from(f),
        delays: delays.latency_us / MILLISECOND,
        writes_in_sequence: writes.latency_us / MILLISECOND,
        writes: writes.writes_before_outcome,
        begin: of("BeginCommit"),
        prepare: of("Prepare"),
        vote: of("Vote"),
        report: of("Phase2b"),
        applied: of("Applied"),
        other: delays.messages() - known - control,
    }
}

fn measure(f: u32, branches: usize, by: By, delay: Micros, write: Micros) -> Stats {
    one_commit(0, f, branches, by, delay..=delay, write..=write)
}

/// One commit on an idle cluster: what is seen until all have applied it and forgotten it. A message
/// takes a `delay`, a forced write a `write`, each drawn anew.
pub fn one_commit(
    seed: u64,
    f: u32,
    branches: usize,
    by: By,
    delay: RangeInclusive<Micros>,
    write: RangeInclusive<Micros>,
) -> Stats {
    let mut plan = Plan::fair(f, branches, 1);
    plan.in_flight = 1;
    (plan.delay_min, plan.delay_max) = delay.into_inner();
    (plan.save_min, plan.save_max) = write.clone().into_inner();
    (plan.resource_min, plan.resource_max) = write.into_inner();
    plan.itself = match by {
        By::Relay => 0.0,
        By::Itself => 1.0,
    };
    let mut world = World::new(Rng::with_seed(seed), plan, Options::default());
    world.run().expect("a run without faults passes");
    world.stats
}
