//! What was measured, and what it comes to.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::{Fault, Kind, Load, Prepare, Protocol, Spec};

/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;

/// For how long after it a fault counts as felt.
pub(super) const FAULT_WINDOW: Duration = Duration::from_secs(1);

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Committed,
    Aborted,
    /// No answer had come when the run was over and everything was up again.
    Unresolved,
}

/// One transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it should have begun, in microseconds since the start of the load.
    pub(super) start_us: u64,
    /// From then to its outcome.
    pub(super) latency_us: u64,
    pub(super) end: End,
}

impl Sample {
    pub(super) fn end_us(&self) -> u64 {
        self.start_us + self.latency_us
    }
}

/// Something that was done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Since the start of the load.
    pub(super) at: Duration,
    /// Such as "kill 2".
    pub(super) what: String,
}

/// What all processes did for the transactions of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) forced_writes: u64,
    /// CPU time of all processes, this one with the load among them. None if the replicas are not
    /// this program's own.
    pub(super) cpu_us: Option<u64>,
}

/// One run, as it was.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) spec: Spec,
    /// Those that began after the warm-up, by their start.
    pub(super) samples: Vec<Sample>,
    pub(super) marks: Vec<Mark>,
    /// For how long the load ran.
    pub(super) lasted: Duration,
    pub(super) counts: Counts,
    /// How many messages one after the other a commit takes, measured over a slow network; None if
    /// that cannot be made slow.
    pub(super) message_delays: Option<u32>,
}

/// Quantiles of the latency of commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// What it was like within [`FAULT_WINDOW`] after each fault, or as long as the network was bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Window {
    pub(super) latency_us: Latency,
    pub(super) longest_stall_ms: f64,
    pub(super) aborted: u64,
}

/// What one run comes to: an item of `runs` in the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) protocol: Protocol,
    pub(super) replicas: u32,
    pub(super) participants: u32,
    pub(super) participant_kind: Kind,
    pub(super) prepare: Prepare,
    pub(super) fault: Fault,
    /// Whether every datagram went through a relay of the benchmark.
    pub(super) relayed: bool,
    /// Transactions per second that came; none in a closed loop.
    pub(super) rate: Option<u64>,
    /// Transactions under way at a time; none in an open loop.
    pub(super) concurrency: Option<u64>,
    pub(super) duration_s: f64,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) unresolved: u64,
    pub(super) throughput_per_s: f64,
    pub(super) latency_us: Latency,
    /// None without a fault.
    pub(super) fault_window: Option<Window>,
    pub(super) longest_stall_ms: f64,
    pub(super) messages_per_commit: f64,
    pub(super) message_delays: Option<u32>,
    pub(super) forced_writes_per_commit: f64,
    pub(super) bytes_per_commit: f64,
    pub(super) cpu_us_per_commit: Option<f64>,
}

/// What the machine takes for the same hops and forced writes without any protocol, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Floor {
    /// Half a round trip over QUIC between two processes.
    pub(super) hop: f64,
    /// One append and fdatasync.
    pub(super) fdatasync: f64,
    /// Four hops; two appends with fdatasync at the same time; then three.
    pub(super) commit: f64,
}

/// Where it ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Environment {
    pub(super) program: String,
    pub(super) os: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_mb: u64,
    /// The file system of the data directories.
    pub(super) file_system: String,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub(super) environment: Environment,
    pub(super) floor: Floor,
    pub(super) runs: Vec<Run>,
}

impl Results {
    pub(super) fn to_json(&self) -> serde_json::Value {
        let runs: Vec<Summary> = self.runs.iter().map(Run::summary).collect();
        serde_json::json!({
            "environment": self.environment,
            "floor_us": self.floor,
            "runs": runs,
        })
    }
}

impl Run {
    /// The spans of time that count as faulty, in microseconds since the start.
    pub(super) fn windows(&self) -> Vec<(u64, u64)> {
        let us = |at: Duration| at.as_micros() as u64;
        match self.spec.fault {
            Fault::None => vec![],
            Fault::Wan => vec![(0, u64::MAX)],
            Fault::Loss => {
                let first = self.marks.first().map_or(0, |mark| us(mark.at));
                let last = self.marks.last().map_or(u64::MAX, |mark| us(mark.at));
                vec![(first, last)]
            }
            Fault::Kill
            | Fault::KillRelay
            | Fault::Rolling
            | Fault::RollingFast
            | Fault::Pause
            | Fault::Partition => {
                let marks = self.marks.iter();
                let windows = marks.map(|mark| (us(mark.at), us(mark.at + FAULT_WINDOW)));
                windows.collect()
            }
        }
    }

    /// Of those that committed.
    pub(super) fn latencies(&self) -> Histogram<u64> {
        histogram(self.samples.iter())
    }

    /// How many came to that end.
    pub(super) fn count(&self, end: End) -> u64 {
        let ended = self.samples.iter().filter(|sample| sample.end == end);
        ended.count() as u64
    }

    /// The longest time without a commit, beyond the time between two arrivals, among the gaps that
    /// lie in one of these spans with a part.
    fn longest_stall(&self, windows: &[(u64, u64)]) -> Duration {
        let committed = self.samples.iter().filter(|of| of.end == End::Committed);
        let fastest = committed.clone().map(|of| of.latency_us).min();
        let mut ends: Vec<u64> = committed.map(Sample::end_us).collect();
        let lasted = self.lasted.as_micros() as u64;
        ends.retain(|end| *end < lasted);
        // What began first could not end before the fastest takes.
        ends.extend([fastest.unwrap_or(0), lasted]);
        ends.sort_unstable();
        let arrival = match self.spec.load {
            Load::Rate(rate) => 1_000_000 / rate.max(1),
            Load::Concurrency(_) | Load::SearchP99(_) => 0,
        };
        let gaps = ends.windows(2).map(|pair| (pair[0], pair[1]));
        let gaps = gaps.filter(|(from, to)| {
            let meets = |(start, end): &(u64, u64)| from < end && start < to;
            windows.iter().any(meets)
        });
        let longest = gaps.map(|(from, to)| (to - from).saturating_sub(arrival));
        Duration::from_micros(longest.max().unwrap_or(0))
    }

    pub(super) fn summary(&self) -> Summary {
        let spec = &self.spec;
        let committed = self.count(End::Committed);
        let per_commit = |count: u64| count as f64 / committed.max(1) as f64;
        let windows = self.windows();
        let fault_window = (!windows.is_empty()).then(|| {
            let within = |sample: &&Sample| {
                let mut spans = windows.iter();
                spans.any(|(from, to)| *from <= sample.start_us && sample.start_us < *to)
            };
            let felt = || self.samples.iter().filter(within);
            Window {
                latency_us: latency(&histogram(felt())),
                longest_stall_ms: ms(self.longest_stall(&windows)),
                aborted: felt().filter(|of| of.end == End::Aborted).count() as u64,
            }
        });
        let (rate, concurrency) = match spec.load {
            Load::Rate(rate) => (Some(rate), None),
            Load::Concurrency(count) => (None, Some(count)),
            Load::SearchP99(_) => (None, None),
        };
        Summary {
            protocol: spec.protocol,
            replicas: spec.replicas(),
            participants: spec.participants,
            participant_kind: spec.kind,
            prepare: spec.prepare,
            fault: spec.fault,
            relayed: spec.relayed,
            rate,
            concurrency,
            duration_s: self.lasted.as_secs_f64(),
            committed,
            aborted: self.count(End::Aborted),
            unresolved: self.count(End::Unresolved),
            throughput_per_s: committed as f64 / self.lasted.as_secs_f64(),
            latency_us: latency(&self.latencies()),
            fault_window,
            longest_stall_ms: ms(self.longest_stall(&[(0, u64::MAX)])),
            messages_per_commit: per_commit(self.counts.messages),
            message_delays: self.message_delays,
            forced_writes_per_commit: per_commit(self.counts.forced_writes),
            bytes_per_commit: per_commit(self.counts.bytes),
            cpu_us_per_commit: self.counts.cpu_us.map(per_commit),
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn histogram<'s>(samples: impl Iterator<Item = &'s Sample>) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_max(LATENCY_MAX_US, 3).expect("fixed bounds are right");
    for sample in samples.filter(|sample| sample.end == End::Committed) {
        histogram.saturating_record(sample.latency_us);
    }
    histogram
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    Latency {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(fault: Fault, load: Load, samples: Vec<Sample>, marks: &[(u64, &str)]) -> Run {
        let marks = marks.iter().map(|(ms, what)| Mark {
            at: Duration::from_millis(*ms),
            what: (*what).to_owned(),
        });
        Run {
            spec: Spec {
                protocol: Protocol::PaxosCommit,
                f: 1,
                participants: 2,
                kind: Kind::Null,
                prepare: Prepare::Relay,
                fault,
                load,
                duration: Duration::from_secs(4),
                relayed: false,
            },
            samples,
            marks: marks.collect(),
            lasted: Duration::from_secs(4),
            counts: Counts {
                messages: 8_000,
                bytes: 800_000,
                forced_writes: 2_000,
                cpu_us: Some(40_000),
            },
            message_delays: Some(4),
        }
    }

    /// One each 10 ms, which takes 2 ms.
    fn steady() -> Vec<Sample> {
        let starts = (0..400).map(|number| number * 10_000);
        let samples = starts.map(|start_us| Sample {
            start_us,
            latency_us: 2_000,
            end: End::Committed,
        });
        samples.collect()
    }

    #[test]
    fn a_steady_run_has_no_stall_and_no_window() {
        let run = run(Fault::None, Load::Rate(100), steady(), &[]);
        let summary = run.summary();
        assert_eq!(summary.committed, 400);
        assert_eq!(summary.latency_us.p50, 2_000);
        assert_eq!(summary.latency_us.max, 2_000);
        assert_eq!(summary.longest_stall_ms, 0.0);
        assert_eq!(summary.fault_window, None);
        assert_eq!(summary.messages_per_commit, 20.0);
        assert_eq!(summary.forced_writes_per_commit, 5.0);
        assert_eq!(summary.bytes_per_commit, 2_000.0);
        assert_eq!(summary.cpu_us_per_commit, Some(100.0));
        assert_eq!(summary.throughput_per_s, 100.0);
    }

    #[test]
    fn whoever_had_to_wait_is_seen_in_latency_stall_and_window() {
        let mut samples = steady();
        // Everything that came from 1 s to 1.5 s was answered at 1.5 s; one was aborted there.
        for sample in &mut samples[100..150] {
            sample.latency_us = 1_500_000 - sample.start_us;
        }
        samples[120].end = End::Aborted;
        samples[390].end = End::Unresolved;
        let marks = [(1_000, "kill 1"), (2_500, "start 1")];
        let run = run(Fault::KillRelay, Load::Rate(100), samples, &marks);
        let summary = run.summary();
        assert_eq!((summary.aborted, summary.unresolved), (1, 1));
        // The last commit before it ended at 992 ms; the arrivals come each 10 ms.
        assert_eq!(summary.longest_stall_ms, 498.0);
        let window = summary.fault_window.unwrap();
        assert_eq!(window.longest_stall_ms, 498.0);
        assert_eq!(window.aborted, 1);
        assert!(window.latency_us.max.abs_diff(500_000) < 500);
        // 200 transactions came within the two windows.
        assert_eq!(window.latency_us.p50, 2_000);
        assert!(window.latency_us.p90 > 200_000);
    }

    #[test]
    fn a_run_that_stalls_to_its_end_shows_that() {
        let mut samples = steady();
        for sample in &mut samples[300..] {
            sample.latency_us = 30_000_000;
        }
        let run = run(Fault::None, Load::Concurrency(1), samples, &[]);
        assert_eq!(run.summary().longest_stall_ms, 1_008.0);
    }

    #[test]
    fn long_ways_are_no_stall_and_a_stall_at_the_beginning_is_one() {
        let mut samples = steady();
        for sample in &mut samples {
            sample.latency_us = 70_000;
        }
        let far = run(Fault::Wan, Load::Rate(100), samples.clone(), &[]);
        assert_eq!(far.summary().longest_stall_ms, 0.0);
        for sample in &mut samples[..20] {
            sample.latency_us += 200_000 - sample.start_us;
        }
        let late = run(Fault::Wan, Load::Rate(100), samples, &[]);
        assert_eq!(late.summary().longest_stall_ms, 190.0);
    }
}
