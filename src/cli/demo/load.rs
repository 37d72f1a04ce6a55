//! Transfers at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use indicatif::ProgressBar;
use paxos_commit::initiator::{AbortReason, CommitError, Initiator, Outcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::LEDGERS;
use super::ledger::{ACCOUNTS, Transfer};

/// The most that one transfer moves.
const AMOUNT_MAX: i64 = 20;

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);

/// What came of one transfer.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    pub(super) number: u64,
    /// When it should have begun, since the start: a load that waits for answers would not see
    /// what it did not send.
    pub(super) at: Duration,
    /// From asking for commit to the answer.
    pub(super) latency: Duration,
    pub(super) end: End,
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Committed,
    Aborted(AbortReason),
    /// Not begun: no session of a ledger was connected.
    NotBegun,
    /// The answer did not come in time.
    Unknown(String),
}

/// Who moves the money.
pub(super) struct Load {
    initiator: Initiator,
    rate: u64,
    rng: Rng,
}

impl Load {
    pub(super) fn new(initiator: Initiator, rate: u64, seed: u64) -> Self {
        Load {
            initiator,
            rate,
            rng: Rng::with_seed(seed),
        }
    }

    /// Waits until both ledgers can be reached.
    pub(super) async fn wait_for_ledgers(&self) {
        loop {
            let Ok(mut txn) = self.initiator.begin().await else {
                return;
            };
            if txn.request(LEDGERS[0], "").await.is_ok()
                && txn.request(LEDGERS[1], "").await.is_ok()
            {
                let _ = txn.rollback().await;
                return;
            }
        }
    }

    /// Moves money from `start` on; answers with what came of each transfer.
    pub(super) async fn run(
        &mut self,
        start: Instant,
        duration: Duration,
        bar: &ProgressBar,
    ) -> Vec<Moved> {
        let (done, mut all) = mpsc::unbounded_channel();
        let committed = Arc::new(AtomicU64::new(0));
        let interval = Duration::from_secs(1) / self.rate as u32;
        for number in 0..duration.as_secs() * self.rate {
            let at = interval * number as u32;
            sleep_until(start + at).await;
            let transfer = self.draw(number);
            let (initiator, done) = (self.initiator.clone(), done.clone());
            let count = committed.clone();
            tokio::spawn(async move {
                let (latency, end) = transfer_once(&initiator, transfer).await;
                if end == End::Committed {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let moved = Moved {
                    number,
                    at,
                    latency,
                    end,
                };
                let _ = done.send(moved);
            });
            bar.set_position(at.as_secs());
            bar.set_message(format!("{} committed", committed.load(Ordering::Relaxed)));
        }
        drop(done);
        let mut moved = Vec::new();
        while let Some(one) = all.recv().await {
            moved.push(one);
        }
        moved.sort_by_key(|moved| moved.number);
        moved
    }

    /// Who pays whom, and how much.
    fn draw(&mut self, number: u64) -> [Transfer; 2] {
        let amount = self.rng.i64(1..=AMOUNT_MAX);
        let amount = if self.rng.bool() { amount } else { -amount };
        [amount, -amount].map(|amount| Transfer {
            number,
            account: self.rng.u32(0..ACCOUNTS),
            amount,
        })
    }

    pub(super) async fn shutdown(self) {
        self.initiator.shutdown(GRACE).await;
    }
}

async fn transfer_once(initiator: &Initiator, transfers: [Transfer; 2]) -> (Duration, End) {
    let began = Instant::now();
    let Ok(mut txn) = initiator.begin().await else {
        return (began.elapsed(), End::NotBegun);
    };
    for (ledger, transfer) in LEDGERS.iter().zip(&transfers) {
        let request = serde_json::to_vec(transfer).expect("plain data");
        if txn.request(ledger, request).await.is_err() {
            return (began.elapsed(), End::NotBegun);
        }
    }
    let asked = Instant::now();
    let end = match txn.commit().await {
        Ok(Outcome::Committed) => End::Committed,
        Ok(Outcome::Aborted(reason)) => End::Aborted(reason),
        Err(CommitError::Refused(error)) => End::Unknown(error.to_string()),
        Err(error) => End::Unknown(error.to_string()),
    };
    (asked.elapsed(), end)
}
