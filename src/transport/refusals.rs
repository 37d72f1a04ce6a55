//! What a process turns away: counted, and logged without flooding.
//!
//! Whoever is hostile can be so ten thousand times a second, and must not be able to fill the log of
//! whom it attacks: of each kind some are logged, and then no more for a while. All are counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::protocol::types::Peer;

use super::links::lock;

/// How many of one kind are logged in one period.
const LOGGED_MAX: u64 = 10;

/// How long a period is.
const PERIOD: Duration = Duration::from_secs(10);

/// What was turned away, by kind.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    count: u64,
    /// The period, how many were logged in it, and how many not since the last that was.
    since: Instant,
    logged: u64,
    unlogged: u64,
}

impl Refusals {
    /// One more of this kind. Some if it should be logged: how many before it were not.
    pub(crate) fn note(&self, kind: &'static str) -> Option<u64> {
        metrics::counter!("paxos_commit_refusals_total", "kind" => kind).increment(1);
        self.note_at(kind, Instant::now())
    }

    /// A message of the core came to nothing, because of who sent it or because of what it says.
    pub(crate) fn turned_away(&self, kind: &'static str, peer: &Peer, what: &dyn fmt::Debug) {
        if let Some(unlogged) = self.note(kind) {
            tracing::info!(%peer, kind, ?what, unlogged, "turned a message away");
        }
    }

    /// Whether one more of this kind, which is counted elsewhere, should be logged, like [`note`](Self::note).
    pub(crate) fn may_log(&self, kind: &'static str) -> Option<u64> {
        self.note_at(kind, Instant::now())
    }

    fn note_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = lock(&self.0);
        let kind = kinds.entry(kind).or_insert(Kind {
            count: 0,
            since: now,
            logged: 0,
            unlogged: 0,
        });
        kind.count += 1;
        if now.saturating_duration_since(kind.since) >= PERIOD {
            kind.since = now;
            kind.logged = 0;
        }
        if kind.logged >= LOGGED_MAX {
            kind.unlogged += 1;
            return None;
        }
        kind.logged += 1;
        Some(std::mem::take(&mut kind.unlogged))
    }

    /// How many there were of each kind, since the start of the process.
    pub(crate) fn counts(&self) -> Vec<(String, u64)> {
        let kinds = lock(&self.0);
        let counts = kinds
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), kind.count));
        counts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_logged() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let logged = (0..10_000).filter_map(|_| refusals.note_at("identity", start));
        assert_eq!(logged.collect::<Vec<_>>(), [0; 10]);
        // Another kind is not silenced by that.
        assert_eq!(refusals.note_at("version", start), Some(0));
        let counts = [("identity".to_owned(), 10_000), ("version".to_owned(), 1)];
        assert_eq!(refusals.counts(), counts);
        // After a while it is told how many were left out.
        assert_eq!(refusals.note_at("identity", start + PERIOD), Some(9_990));
        assert_eq!(refusals.note_at("identity", start + PERIOD), Some(0));
    }
}
