//! What all processes did: messages, bytes, forced writes, CPU time.

use std::collections::HashMap;
use std::fs;

use super::results::Counts;
use super::scene::Scene;

/// Linux counts a process's time in hundredths of a second, whatever the kernel's own tick is.
const TICK_US: u64 = 10_000;

/// What one process has counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    messages: u64,
    bytes: u64,
    forced_writes: u64,
    cpu_us: u64,
}

/// Adds up what processes count, over their deaths: a process that is killed was looked at just
/// before, and its successor begins at nothing.
#[derive(Debug, Default)]
pub(super) struct Counting {
    last: HashMap<String, Count>,
    sum: Count,
    /// Whether the CPU time of every process is known.
    knows_cpu: bool,
}

impl Counting {
    /// Everything up to now is not counted.
    pub(super) async fn begin(scene: &mut Scene) -> anyhow::Result<Self> {
        let mut counting = Counting {
            knows_cpu: true,
            ..Counting::default()
        };
        counting.add(scene).await?;
        counting.sum = Count::default();
        Ok(counting)
    }

    /// Adds what was counted since the last time.
    pub(super) async fn add(&mut self, scene: &mut Scene) -> anyhow::Result<()> {
        for report in scene.reports().await {
            let process = scene.replicas.process_id(report.replica);
            let count = Count {
                messages: report.sent.messages,
                bytes: report.sent.bytes,
                forced_writes: report.saves,
                cpu_us: self.cpu(process),
            };
            let name = format!("replica {} {process:?}", report.replica);
            self.note(name, count);
        }
        for service in &scene.services {
            let (sent, forced_writes) = service.counted().await?;
            let count = Count {
                messages: sent.messages,
                bytes: sent.bytes,
                forced_writes,
                cpu_us: self.cpu(service.process_id()),
            };
            self.note(service.name.clone(), count);
        }
        let sent = scene.initiator.sent();
        let own = Count {
            messages: sent.messages,
            bytes: sent.bytes,
            forced_writes: 0,
            cpu_us: self.cpu(Some(std::process::id())),
        };
        self.note("initiator".into(), own);
        Ok(())
    }

    fn note(&mut self, name: String, now: Count) {
        let last = self.last.entry(name).or_default();
        // A cluster of somebody else's may have been started again.
        let more = |now: u64, last: u64| now.checked_sub(last).unwrap_or(now);
        self.sum.messages += more(now.messages, last.messages);
        self.sum.bytes += more(now.bytes, last.bytes);
        self.sum.forced_writes += more(now.forced_writes, last.forced_writes);
        self.sum.cpu_us += more(now.cpu_us, last.cpu_us);
        *last = now;
    }

    fn cpu(&mut self, process: Option<u32>) -> u64 {
        let text = process.map(|id| fs::read_to_string(format!("/proc/{id}/stat")));
        let text = text.and_then(Result::ok);
        let cpu = text.as_deref().and_then(cpu_us);
        self.knows_cpu &= cpu.is_some();
        cpu.unwrap_or(0)
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            messages: self.sum.messages,
            bytes: self.sum.bytes,
            forced_writes: self.sum.forced_writes,
            cpu_us: self.knows_cpu.then_some(self.sum.cpu_us),
        }
    }
}

/// User and system time in `/proc/PID/stat`.
fn cpu_us(stat: &str) -> Option<u64> {
    // The name of the program, in brackets, may hold anything; after it comes the third field.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_begins_at_nothing_after_its_death() {
        let mut counting = Counting::default();
        let count = |messages| Count {
            messages,
            ..Count::default()
        };
        counting.note("replica 1 Some(7)".into(), count(100));
        counting.sum = Count::default();
        counting.note("replica 1 Some(7)".into(), count(150));
        counting.note("replica 1 Some(8)".into(), count(20));
        // One of somebody else's has no number here, and is seen by its lower count.
        counting.note("replica 2 None".into(), count(40));
        counting.note("replica 2 None".into(), count(10));
        assert_eq!(counting.counts().messages, 50 + 20 + 40 + 10);
    }

    #[test]
    fn the_time_of_a_process_stands_behind_its_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 1 0 0 0 7 5 0 0 20 0 3 0 100 0 0";
        assert_eq!(cpu_us(stat), Some(120_000));
        assert_eq!(cpu_us("42 (a"), None);
    }
}
