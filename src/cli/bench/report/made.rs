//! Runs as they could have been.

use std::time::Duration;

use fastrand::Rng;

use super::super::plan::{Fault, Kind, Load, Prepare, Protocol, Spec};
use super::super::results::{Counts, End, Environment, Floor, Mark, Results, Run, Sample};

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) protocol: Protocol,
    pub(super) prepare: Prepare,
    pub(super) fault: Fault,
    pub(super) relayed: bool,
    pub(super) load: Load,
    pub(super) seconds: u64,
    pub(super) marks: &'static [(u64, &'static str)],
    /// When nobody could commit, in milliseconds.
    pub(super) outages: &'static [(u64, u64)],
    pub(super) seed: u64,
}

impl Default for Made {
    fn default() -> Made {
        Made {
            protocol: Protocol::PaxosCommit,
            prepare: Prepare::Relay,
            fault: Fault::None,
            relayed: false,
            load: Load::Rate(1_000),
            seconds: 12,
            marks: &[],
            outages: &[],
            seed: 1,
        }
    }
}

/// A run with latencies as a machine would have them.
pub(super) fn made(made: Made) -> Run {
    let Made {
        protocol,
        prepare,
        fault,
        relayed,
        load,
        seconds,
        ..
    } = made;
    let f = u32::from(protocol == Protocol::PaxosCommit);
    let lasted = Duration::from_secs(seconds);
    let samples = samples(&made);
    let count = samples.len() as u64;
    let of_replicas = u64::from(2 * f + 1);
    let marks = made.marks.iter().map(|(ms, what)| Mark {
        at: Duration::from_millis(*ms),
        what: (*what).to_owned(),
    });
    Run {
        spec: Spec {
            protocol,
            f,
            participants: 2,
            kind: Kind::Null,
            prepare,
            fault,
            load,
            duration: lasted,
            relayed,
        },
        samples,
        marks: marks.collect(),
        lasted,
        counts: Counts {
            messages: count * (5 + 4 * of_replicas),
            bytes: count * (900 + 700 * of_replicas),
            forced_writes: count * (2 + of_replicas),
            cpu_us: Some(count * (90 + 60 * of_replicas)),
        },
        message_delays: Some(if prepare == Prepare::Relay { 4 } else { 3 }),
    }
}

/// How many begin in a second, and how long most of them take, in microseconds.
fn usual(made: &Made) -> (f64, f64) {
    let (most, idle) = match made.protocol {
        Protocol::TwoPhase => (14_000.0, 1_900.0),
        Protocol::PaxosCommit => (11_000.0, 2_300.0),
    };
    let idle = match made.prepare {
        Prepare::Relay => idle,
        Prepare::Spontaneous => idle * 0.8,
    };
    let far = match (made.fault, made.relayed) {
        (Fault::Wan, _) => 80_000.0,
        (_, true) => 400.0,
        (_, false) => 0.0,
    };
    match made.load {
        Load::Rate(rate) => (rate as f64, idle * 1.3 + far),
        Load::Concurrency(count) => {
            let count = count as f64;
            let throughput = most * count / (count + most * idle / 1e6);
            (throughput, count * 1e6 / throughput)
        }
        Load::SearchP99(_) => (5_000.0, idle * 2.0),
    }
}

fn samples(made: &Made) -> Vec<Sample> {
    let mut random = Rng::with_seed(made.seed);
    let (per_second, middle_us) = usual(made);
    let count = (per_second * made.seconds as f64) as u64;
    let samples = (0..count).map(|number| {
        let start_us = (number as f64 * 1e6 / per_second) as u64;
        // The sum of several is about normal, and its power has a long tail.
        let normal: f64 = (0..6).map(|_| random.f64()).sum::<f64>() - 3.0;
        let rare = if random.u32(0..400) == 0 { 5.0 } else { 1.0 };
        let latency = middle_us * (0.35 * normal).exp() * rare;
        let done_us = start_us + latency as u64;
        let mut outages = made
            .outages
            .iter()
            .map(|(from, to)| (from * 1_000, to * 1_000));
        let outage = outages.find(|(from, to)| *from < done_us && start_us < *to);
        let end_us = outage.map_or(done_us, |(_, to)| to + random.u64(500..9_000));
        let end = match outage.map(|_| random.u32(0..100)) {
            Some(0..3) => End::Unresolved,
            Some(3..6) => End::Aborted,
            _ => End::Committed,
        };
        let latency_us = end_us - start_us;
        Sample {
            start_us,
            latency_us,
            end,
        }
    });
    samples.collect()
}

type Scenario = (
    Fault,
    bool,
    &'static [(u64, &'static str)],
    &'static [(u64, u64)],
);

/// What happens to the relay happens to two-phase commit's only coordinator.
const OF_TWO_PHASE: [Scenario; 7] = [
    (Fault::None, false, &[], &[]),
    (
        Fault::KillRelay,
        false,
        &[(4_000, "kill 1"), (8_000, "start 1")],
        &[(4_000, 8_050)],
    ),
    (
        Fault::Pause,
        false,
        &[(4_000, "pause 1"), (6_000, "continue 1")],
        &[(4_000, 6_010)],
    ),
    (Fault::None, true, &[], &[]),
    (
        Fault::Partition,
        true,
        &[(4_000, "cut 1"), (8_000, "heal")],
        &[(4_000, 8_400)],
    ),
    (
        Fault::Loss,
        true,
        &[(4_000, "lose 1 %"), (8_000, "heal")],
        &[(5_000, 5_040), (7_000, 7_030)],
    ),
    (Fault::Wan, true, &[], &[]),
];

const OF_PAXOS_COMMIT: [Scenario; 9] = [
    (Fault::None, false, &[], &[]),
    (
        Fault::Kill,
        false,
        &[(4_000, "kill 2"), (8_000, "start 2")],
        &[(8_000, 8_006)],
    ),
    (
        Fault::KillRelay,
        false,
        &[(4_000, "kill 1"), (8_000, "start 1")],
        &[(4_000, 4_130)],
    ),
    (
        Fault::Rolling,
        false,
        &[
            (2_000, "kill 1"),
            (3_600, "start 1"),
            (5_200, "kill 2"),
            (6_800, "start 2"),
            (8_400, "kill 3"),
            (10_000, "start 3"),
        ],
        &[(2_000, 2_120), (5_200, 5_230), (8_400, 8_600)],
    ),
    (
        Fault::Pause,
        false,
        &[(4_000, "pause 1"), (6_000, "continue 1")],
        &[(4_000, 4_100)],
    ),
    (Fault::None, true, &[], &[]),
    (
        Fault::Partition,
        true,
        &[(4_000, "cut 1"), (8_000, "heal")],
        &[(4_000, 4_180)],
    ),
    (
        Fault::Loss,
        true,
        &[(4_000, "lose 1 %"), (8_000, "heal")],
        &[(5_000, 5_030), (7_000, 7_060)],
    ),
    (Fault::Wan, true, &[], &[]),
];

/// What the usual plan would have measured.
pub(super) fn results() -> Results {
    let both = [Protocol::TwoPhase, Protocol::PaxosCommit];
    let mut runs = Vec::new();
    for prepare in [Prepare::Relay, Prepare::Spontaneous] {
        let load = Load::Concurrency(1);
        runs.extend(both.map(|protocol| {
            made(Made {
                protocol,
                prepare,
                load,
                seconds: 6,
                ..Made::default()
            })
        }));
    }
    for count in [16, 64, 256, 1_024] {
        let load = Load::Concurrency(count);
        runs.extend(both.map(|protocol| {
            made(Made {
                protocol,
                load,
                seconds: 5,
                ..Made::default()
            })
        }));
    }
    for (protocol, scenarios) in [
        (both[0], &OF_TWO_PHASE[..]),
        (both[1], &OF_PAXOS_COMMIT[..]),
    ] {
        for (fault, relayed, marks, outages) in scenarios.iter().copied() {
            runs.push(made(Made {
                protocol,
                fault,
                relayed,
                marks,
                outages,
                ..Made::default()
            }));
        }
    }
    // All contenders in a scenario, then in the next.
    let place = |run: &Run| {
        let is_it = |of: &Scenario| (of.0, of.1) == (run.spec.fault, run.spec.relayed);
        OF_PAXOS_COMMIT.iter().position(is_it)
    };
    runs.sort_by_key(|run| (matches!(run.spec.load, Load::Rate(_)), place(run)));
    Results {
        environment: Environment {
            program: "paxos-commit 0.1.0 (release)".to_owned(),
            os: "Linux 6.1".to_owned(),
            cpu: "Some CPU @ 2.00 GHz".to_owned(),
            cores: 2,
            memory_mb: 7_900,
            file_system: "ext4".to_owned(),
        },
        floor: Floor {
            hop: 84.2,
            fdatasync: 412.0,
            commit: 1_320.0,
        },
        runs,
    }
}
