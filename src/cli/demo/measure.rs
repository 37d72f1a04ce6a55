//! What the transfers took, before, during and after.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::audit::Audit;
use super::load::{End, Moved};
use super::picture;

/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Something that was done to the cluster.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) what: &'static str,
    /// Since the start.
    pub(super) at: Duration,
}

impl Event {
    pub(super) fn new(what: &'static str, start: Instant) -> Self {
        Event {
            what,
            at: start.elapsed(),
        }
    }
}

/// All that was measured.
pub(super) struct Measured {
    pub(super) moved: Vec<Moved>,
    pub(super) events: Vec<Event>,
    pub(super) duration: Duration,
}

/// One stretch of time between events.
struct Phase {
    name: &'static str,
    committed: Histogram<u64>,
    aborted: BTreeMap<String, u64>,
    not_begun: u64,
    unknown: u64,
    longest_stall: Duration,
}

impl Measured {
    pub(super) fn new(moved: Vec<Moved>, events: Vec<Event>, duration: Duration) -> Self {
        Measured {
            moved,
            events,
            duration,
        }
    }

    /// The stretches of time, by the events that end them.
    fn phases(&self) -> Vec<Phase> {
        let at = |what: &str| {
            let event = self.events.iter().find(|event| event.what == what);
            event.map_or(self.duration, |event| event.at)
        };
        let bounds = [
            ("all replicas up", Duration::ZERO, at("replica killed")),
            (
                "one replica killed",
                at("replica killed"),
                at("replica restarted"),
            ),
            ("replica back", at("replica restarted"), at("ledger killed")),
            ("a ledger killed", at("ledger killed"), Duration::MAX),
        ];
        let phases = bounds.into_iter().map(|(name, from, to)| {
            let within = |moved: &&Moved| from <= moved.at && moved.at < to;
            self.phase(
                name,
                (from, to.min(self.duration)),
                self.moved.iter().filter(within),
            )
        });
        phases.collect()
    }

    fn phase<'m>(
        &self,
        name: &'static str,
        (from, to): (Duration, Duration),
        moved: impl Iterator<Item = &'m Moved>,
    ) -> Phase {
        let committed = Histogram::new_with_max(LATENCY_MAX_US, 3).expect("fixed bounds are right");
        let mut phase = Phase {
            name,
            committed,
            aborted: BTreeMap::new(),
            not_begun: 0,
            unknown: 0,
            longest_stall: Duration::ZERO,
        };
        let mut answers = vec![from, to];
        for moved in moved {
            match &moved.end {
                End::Committed => {
                    phase
                        .committed
                        .saturating_record(moved.latency.as_micros() as u64);
                    answers.push((moved.at + moved.latency).min(to));
                }
                End::Aborted(reason) => {
                    *phase.aborted.entry(reason.to_string()).or_default() += 1;
                }
                End::NotBegun => phase.not_begun += 1,
                End::Unknown(_) => phase.unknown += 1,
            }
        }
        answers.sort_unstable();
        let stalls = answers.windows(2).map(|pair| pair[1] - pair[0]);
        phase.longest_stall = stalls.max().unwrap_or_default();
        phase
    }

    pub(super) fn print(&self, audit: &Audit) {
        say!(
            "\n{:<20} {:>9} {:>8} {:>9} {:>9} {:>9} {:>14}",
            "",
            "committed",
            "aborted",
            "p50",
            "p99",
            "max",
            "longest stall"
        );
        for phase in self.phases() {
            let at = |quantile: f64| ms(phase.committed.value_at_quantile(quantile));
            say!(
                "{:<20} {:>9} {:>8} {:>9} {:>9} {:>9} {:>14}",
                phase.name,
                phase.committed.len(),
                phase.aborted.values().sum::<u64>(),
                at(0.5),
                at(0.99),
                ms(phase.committed.max()),
                ms(phase.longest_stall.as_micros() as u64),
            );
            for (reason, count) in &phase.aborted {
                say!("{:<20}   aborted, {reason}: {count}", "");
            }
            if phase.not_begun + phase.unknown > 0 {
                say!(
                    "{:<20}   not begun: {}; outcome not known: {}",
                    "",
                    phase.not_begun,
                    phase.unknown
                );
            }
        }
        say!(
            "(latency: from asking for commit to the outcome; stall: the longest time without a \
             commit)"
        );
        say!("\nAudit");
        say!("  total: {} of {}", audit.total, audit.expected);
        say!("  transfers in both ledgers: {}", audit.in_both);
        say!("  acknowledged commits, all there: {}", audit.acknowledged);
        for complaint in &audit.complaints {
            say!("  WRONG: {complaint}");
        }
        if audit.is_clean() {
            say!("  in one ledger only: 0; in doubt: 0; lost: 0. Nothing is wrong.");
        }
    }

    pub(super) fn to_json(&self, audit: &Audit, picture: &Path) -> Value {
        let phases = self.phases().into_iter().map(|phase| {
            json!({
                "phase": phase.name,
                "committed": phase.committed.len(),
                "aborted": phase.aborted,
                "not_begun": phase.not_begun,
                "unknown": phase.unknown,
                "p50_us": phase.committed.value_at_quantile(0.5),
                "p99_us": phase.committed.value_at_quantile(0.99),
                "max_us": phase.committed.max(),
                "longest_stall_us": phase.longest_stall.as_micros() as u64,
            })
        });
        json!({
            "phases": phases.collect::<Vec<_>>(),
            "audit": {
                "clean": audit.is_clean(),
                "total": audit.total,
                "expected": audit.expected,
                "in_both_ledgers": audit.in_both,
                "acknowledged": audit.acknowledged,
                "complaints": audit.complaints,
            },
            "picture": picture.display().to_string(),
        })
    }

    pub(super) fn picture(&self, path: &Path) -> anyhow::Result<()> {
        picture::draw(path, &self.moved, &self.events, self.duration)
    }
}

fn ms(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1_000.0)
}
