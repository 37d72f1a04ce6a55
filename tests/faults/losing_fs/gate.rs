//! Where requests wait on a disk that is stuck.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Until somebody says otherwise.
const FOREVER: Duration = Duration::from_secs(3_600);

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

    /// Lets all go that wait, for the power is gone. A slow disk stays slow.
    pub(super) fn let_go(&self) {
        let mut state = self.state.lock().unwrap();
        state.turn += 1;
        if matches!(state.stall, Stall::Syncs | Stall::Everything) {
            state.stall = Stall::Nothing;
        }
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
        self.wait(|stall| (stall == Stall::Everything).then_some(FOREVER));
    }

    pub(super) fn pass_sync(&self) {
        let since = Instant::now();
        self.wait(|stall| match stall {
            Stall::Nothing => None,
            Stall::SlowSyncs(time) => time.checked_sub(since.elapsed()),
            Stall::Syncs | Stall::Everything => Some(FOREVER),
        });
    }

    /// Waits as long as `left` says how long.
    fn wait(&self, left: impl Fn(Stall) -> Option<Duration>) {
        let mut state = self.state.lock().unwrap();
        let turn = state.turn;
        state.waiting += 1;
        while let Some(left) = left(state.stall).filter(|_| state.turn == turn) {
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        state.waiting -= 1;
    }
}
