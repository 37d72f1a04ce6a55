//! Where requests wait on a disk that is stuck.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// What is stuck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stall {
    #[default]
    Nothing,
    /// Each sync takes so long.
    SlowSyncs(Duration),
    /// No sync returns.
    Syncs,
    /// Nothing returns.
    Everything,
}

#[derive(Debug, Default)]
struct State {
    stall: Stall,
    /// How many requests wait.
    waiting: usize,
    /// One more each time that all who wait are let go, whatever the disk does.
    turn: u64,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn set(&self, stall: Stall) {
        self.state.lock().unwrap().stall = stall;
        self.changed.notify_all();
    }

    /// Lets all go that wait, for the power is gone.
    pub(super) fn let_go(&self) {
        let mut state = self.state.lock().unwrap();
        state.turn += 1;
        state.stall = Stall::Nothing;
        self.changed.notify_all();
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    /// Whether a sync would have to wait now.
    pub(super) fn holds_syncs(&self) -> bool {
        self.state.lock().unwrap().stall != Stall::Nothing
    }

    pub(super) fn pass_request(&self) {
        self.wait(|stall, _| stall == Stall::Everything);
    }

    pub(super) fn pass_sync(&self) {
        let since = Instant::now();
        self.wait(|stall, now| match stall {
            Stall::Nothing => false,
            Stall::SlowSyncs(time) => now.saturating_duration_since(since) < time,
            Stall::Syncs | Stall::Everything => true,
        });
    }

    fn wait(&self, is_held: impl Fn(Stall, Instant) -> bool) {
        /// How often the end of a slow sync is looked for.
        const LOOK: Duration = Duration::from_millis(10);
        let mut state = self.state.lock().unwrap();
        let turn = state.turn;
        if !is_held(state.stall, Instant::now()) {
            return;
        }
        state.waiting += 1;
        while state.turn == turn && is_held(state.stall, Instant::now()) {
            state = self.changed.wait_timeout(state, LOOK).unwrap().0;
        }
        state.waiting -= 1;
    }
}
