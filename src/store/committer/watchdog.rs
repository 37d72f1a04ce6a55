//! Ends the process when a commit does not return.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Fatal, OnFatal};

/// How often it looks, within the time that a commit may take.
const LOOKS: u32 = 8;

/// The watchdog has given the commit up.
#[derive(Debug, thiserror::Error)]
#[error("a commit took too long")]
pub(super) struct GivenUp;

struct Shared {
    epoch: Instant,
    /// When the commit under way started, in microseconds after `epoch`, and 1 more; 0 if none is.
    since: AtomicU64,
    has_fired: AtomicBool,
    is_over: AtomicBool,
}

/// Watches the one thread that holds it.
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn start(
        name: &str,
        store: &str,
        commit_max: Duration,
        on_fatal: OnFatal,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            since: AtomicU64::new(0),
            has_fired: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let (watched, store) = (Arc::clone(&shared), store.to_owned());
        let thread = thread::Builder::new().name(format!("{name}-watchdog"));
        let thread = thread.spawn(move || {
            if watched.watch(commit_max) {
                let cause =
                    format!("a commit takes longer than {commit_max:?}; is the disk stuck?");
                on_fatal(Fatal { store, cause });
            }
        })?;
        Ok(Watchdog {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn commit_starts(&self) -> Instant {
        let now = Instant::now();
        self.shared
            .since
            .store(self.shared.at(now), Ordering::Release);
        now
    }

    /// # Errors
    /// When it came too late. The jobs must not be completed then: the process is about to end.
    pub(super) fn commit_ended(&self) -> Result<(), GivenUp> {
        self.shared.since.store(0, Ordering::Release);
        if self.shared.has_fired.load(Ordering::Acquire) {
            return Err(GivenUp);
        }
        Ok(())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // If it panicked, it was in the handler of a test.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn at(&self, now: Instant) -> u64 {
        let us = now.saturating_duration_since(self.epoch).as_micros();
        u64::try_from(us).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Returns when a commit takes too long, or the committer has ended: then `false`.
    fn watch(&self, commit_max: Duration) -> bool {
        let max = u64::try_from(commit_max.as_micros()).unwrap_or(u64::MAX);
        while !self.is_over.load(Ordering::Acquire) {
            let since = self.since.load(Ordering::Acquire);
            let now = self.at(Instant::now());
            if since != 0 && now.saturating_sub(since) > max {
                self.has_fired.store(true, Ordering::Release);
                return true;
            }
            thread::park_timeout(commit_max / LOOKS);
        }
        false
    }
}
