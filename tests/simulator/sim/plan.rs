//! What one run looks like: its cluster, its load and its faults, all drawn from the seed.

use fastrand::Rng;

use super::hostile::HostilePlan;

/// Microseconds of virtual time.
pub type Micros = u64;

/// A millisecond of virtual time.
pub const MILLISECOND: Micros = 1_000;
/// A second of virtual time.
pub const SECOND: Micros = 1_000_000;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// No faults at all.
    Fair,
    /// A random mix of faults, each with a probability drawn per run.
    Swarm,
}

/// The settings of one run. Probabilities are between 0 and 1, per occasion.
#[derive(Clone, Debug)]
pub struct Plan {
    pub fair: bool,
    pub f: u32,
    pub participants: usize,
    /// Sessions that live at the same time, at least one per participant.
    pub sessions: usize,
    pub initiators: usize,
    pub transactions: usize,
    /// Transactions that each initiator has under way.
    pub in_flight: usize,
    pub branches_max: usize,
    pub undecided_max: usize,

    pub delay_min: Micros,
    pub delay_max: Micros,
    pub save_min: Micros,
    pub save_max: Micros,
    pub resource_min: Micros,
    pub resource_max: Micros,
    pub think_max: Micros,
    pub vote_timeout: Micros,

    pub loss: f64,
    pub duplicate: f64,
    pub spike: f64,
    pub spike_max: Micros,
    /// A copy of the message that arrives seconds or minutes later.
    pub very_late: f64,
    pub stall: f64,
    pub stall_max: Micros,
    pub failed_sync: f64,
    pub crash_in_step: f64,
    /// Mean time between two faults of the schedule; none if 0.
    pub fault_every: Micros,
    pub outage_max: Micros,
    pub crash_weight: u32,
    pub partition_weight: u32,
    pub one_way_weight: u32,
    pub force_abort_weight: u32,
    pub pause_weight: u32,
    pub membership_weight: u32,
    /// The last participant goes for good at some time.
    pub dead_participant: bool,

    /// Ticks of a generation; 0 if the first one lasts.
    pub generation_ticks: u32,
    pub generation_transactions_max: u64,
    pub grace_ticks: u32,
    pub list_max: usize,
    /// So many finished transactions may stay in a replica's memory; all, if it is the maximum.
    pub keep_finished: usize,
    /// So many commits are not applied by their first branch before the load has ended.
    pub stuck: usize,
    /// Clocks run at these percentages of true time.
    pub clock_min: u32,
    pub clock_max: u32,

    pub cannot_prepare: f64,
    pub read_only: f64,
    pub unknown_result: f64,
    pub request: f64,
    pub itself: f64,
    pub rollback: f64,
    pub dropped: f64,
    pub poison: f64,
    pub unknown_branch: f64,
    pub abandon: f64,
    /// The initiator enlists a session that is gone.
    pub stale_session: f64,
    /// A session starts again on an empty directory.
    pub empty_volume: f64,
    /// A relay wakes up late with an old request.
    pub late_relay: f64,
    /// The initiator is confused, or cloned: it asks for commit again with another roster or under
    /// an old id, with requests, with a wrong floor, or rolls back what it commits.
    pub confused: f64,
    /// What hostile clients do, if there are any.
    pub hostile: Option<HostilePlan>,
}

impl Plan {
    /// A cluster without faults: `branches` branches in each transaction.
    pub fn fair(f: u32, branches: usize, transactions: usize) -> Plan {
        Plan {
            fair: true,
            f,
            participants: branches,
            sessions: branches,
            initiators: 1,
            transactions,
            in_flight: 32,
            branches_max: branches,
            undecided_max: 100_000,
            delay_min: 50,
            delay_max: 60,
            save_min: 100,
            save_max: 120,
            resource_min: 100,
            resource_max: 120,
            think_max: 0,
            vote_timeout: 2 * SECOND,
            loss: 0.0,
            duplicate: 0.0,
            spike: 0.0,
            spike_max: 0,
            very_late: 0.0,
            stall: 0.0,
            stall_max: 0,
            failed_sync: 0.0,
            crash_in_step: 0.0,
            fault_every: 0,
            outage_max: 0,
            crash_weight: 0,
            partition_weight: 0,
            one_way_weight: 0,
            force_abort_weight: 0,
            pause_weight: 0,
            membership_weight: 0,
            dead_participant: false,
            generation_ticks: 0,
            generation_transactions_max: u64::MAX,
            grace_ticks: 20,
            list_max: 256,
            keep_finished: 0,
            stuck: 0,
            clock_min: 100,
            clock_max: 100,
            cannot_prepare: 0.0,
            read_only: 0.0,
            unknown_result: 0.0,
            request: 0.0,
            itself: 0.0,
            rollback: 0.0,
            dropped: 0.0,
            poison: 0.0,
            unknown_branch: 0.0,
            abandon: 0.0,
            stale_session: 0.0,
            empty_volume: 0.0,
            late_relay: 0.0,
            confused: 0.0,
            hostile: None,
        }
    }

    /// A random cluster with random faults ("swarm": most faults are off in most runs, so that
    /// those that are on go far).
    pub fn swarm(rng: &mut Rng) -> Plan {
        let f = [0, 1, 1, 1, 2][rng.usize(..5)];
        let participants = rng.usize(1..=6);
        let delay_min = rng.u64(10..500);
        let save_min = rng.u64(10..500);
        let turning = chance(rng, 0.6);
        let slow = turning && rng.bool();
        // Generations that turn fast and are settled at once, in the midst of the load.
        let hasty = turning && rng.bool();
        // Drawn aside: what stays in memory changes nothing, so that seeds keep their runs.
        let mut aside = rng.clone();
        let keep_finished = [0, 0, 0, aside.usize(1..20)][aside.usize(..4)];
        Plan {
            keep_finished,
            fair: false,
            participants,
            sessions: participants + rng.usize(0..=2),
            initiators: rng.usize(1..=3),
            in_flight: rng.usize(1..=6),
            branches_max: rng.usize(1..=8),
            undecided_max: if chance(rng, 0.15) { 3 } else { 1_000 },
            delay_min,
            delay_max: delay_min + rng.u64(10..20 * MILLISECOND),
            save_min,
            save_max: save_min + rng.u64(10..10 * MILLISECOND),
            resource_min: 10,
            resource_max: rng.u64(20..50 * MILLISECOND),
            think_max: rng.u64(1..if slow { SECOND } else { 20 * MILLISECOND }),
            vote_timeout: rng.u64(20 * MILLISECOND..SECOND),
            loss: sometimes(rng, 0.3),
            duplicate: sometimes(rng, 0.3),
            spike: sometimes(rng, 0.1),
            spike_max: rng.u64(MILLISECOND..SECOND),
            very_late: sometimes(rng, 0.05),
            stall: sometimes(rng, 0.1),
            stall_max: rng.u64(MILLISECOND..SECOND),
            failed_sync: sometimes(rng, 0.02),
            crash_in_step: sometimes(rng, 0.005),
            fault_every: if chance(rng, 0.8) {
                rng.u64(5 * MILLISECOND..200 * MILLISECOND)
            } else {
                0
            },
            outage_max: rng.u64(10 * MILLISECOND..if slow { 10 * SECOND } else { 2 * SECOND }),
            crash_weight: rng.u32(0..4),
            partition_weight: rng.u32(0..3),
            one_way_weight: rng.u32(0..3),
            force_abort_weight: rng.u32(0..3),
            pause_weight: rng.u32(0..3),
            membership_weight: if turning { rng.u32(0..3) } else { 0 },
            dead_participant: turning && participants > 1 && chance(rng, 0.15),
            generation_ticks: match (turning, hasty) {
                (false, _) => 0,
                (true, false) => rng.u32(4..60),
                (true, true) => rng.u32(2..12),
            },
            generation_transactions_max: if chance(rng, 0.3) {
                rng.u64(5..50)
            } else {
                u64::MAX
            },
            grace_ticks: rng.u32(0..if hasty { 4 } else { 20 }),
            list_max: if rng.bool() { 256 } else { rng.usize(1..4) },
            clock_min: rng.u32(50..=100),
            clock_max: rng.u32(100..=200),
            cannot_prepare: sometimes(rng, 0.3),
            read_only: sometimes(rng, 0.6),
            unknown_result: sometimes(rng, 0.2),
            request: sometimes(rng, 0.8),
            itself: sometimes(rng, 1.0),
            rollback: sometimes(rng, 0.2),
            dropped: sometimes(rng, 0.1),
            poison: sometimes(rng, 0.1),
            unknown_branch: sometimes(rng, 0.1),
            abandon: sometimes(rng, 0.3),
            stale_session: sometimes(rng, 0.2),
            empty_volume: sometimes(rng, 0.3),
            late_relay: sometimes(rng, 0.3),
            confused: sometimes(rng, 0.5),
            ..Plan::fair(f, 1, rng.usize(10..60))
        }
    }

    /// Whether this run has no faults: no process dies, nothing arrives twice or late.
    pub fn is_fair(&self) -> bool {
        self.fair
    }

    /// Whether what is finished leaves a replica's memory.
    pub fn evicts(&self) -> bool {
        self.keep_finished < usize::MAX
    }

    pub fn replicas(&self) -> u32 {
        2 * self.f + 1
    }
}

/// Whether something of probability `p` happens.
pub fn chance(rng: &mut Rng, p: f64) -> bool {
    p > 0.0 && rng.f64() < p
}

fn sometimes(rng: &mut Rng, max: f64) -> f64 {
    if rng.bool() { 0.0 } else { rng.f64() * max }
}
