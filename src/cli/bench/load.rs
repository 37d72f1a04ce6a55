//! Transactions, as many as the run wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::participant::Ticket;
use paxos_commit::protocol::types::Branch;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::channel::ToParticipant;
use super::plan::Prepare;
use super::results::{End, Sample};
use super::scene::Scene;
use super::service::Orders;

/// How long what is under way may take after the load has ended and every process is up again.
const GRACE: Duration = Duration::from_secs(15);

/// Begins transactions over all participants and commits them.
pub(super) struct Application {
    initiator: Initiator,
    targets: Vec<Target>,
    prepare: Prepare,
    next: AtomicU64,
    committed: AtomicU64,
}

struct Target {
    name: String,
    branch: Branch,
    orders: Orders,
    /// How long what the application says to it by itself is on its way.
    hop: Duration,
}

/// When a load runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// What begins before this is not counted: it warms up.
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Span {
    /// From now, after a time to warm up.
    pub(super) fn from_now(warm_up: Duration, duration: Duration) -> Self {
        let start = Instant::now() + warm_up;
        Span {
            start,
            end: start + duration,
        }
    }

    /// What came of a transaction, if it counts.
    fn sample(&self, began: Instant, end: End) -> Option<Sample> {
        let start = began.checked_duration_since(self.start)?;
        Some(Sample {
            start_us: start.as_micros() as u64,
            latency_us: began.elapsed().as_micros() as u64,
            end,
        })
    }
}

impl Application {
    /// `hop_to`: how long it is on its way to the participant with this number, from 1.
    pub(super) fn new(
        scene: &Scene,
        prepare: Prepare,
        hop_to: impl Fn(u32) -> Duration,
    ) -> Arc<Self> {
        let targets = (1..).zip(&scene.services).map(|(number, service)| Target {
            name: service.name.clone(),
            branch: service.branch.clone(),
            orders: service.orders(),
            hop: hop_to(number),
        });
        Arc::new(Application {
            initiator: scene.initiator.clone(),
            targets: targets.collect(),
            prepare,
            next: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        })
    }

    /// One transaction.
    async fn transact(&self) -> End {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match self.try_transact(number).await {
            Ok(Outcome::Committed) => {
                self.committed.fetch_add(1, Ordering::Relaxed);
                End::Committed
            }
            Ok(Outcome::Aborted(_)) => End::Aborted,
            Err(error) => {
                tracing::warn!(%error, "a transaction has no outcome");
                End::Unresolved
            }
        }
    }

    async fn try_transact(&self, number: u64) -> anyhow::Result<Outcome> {
        let mut txn = self.initiator.begin().await?;
        for target in &self.targets {
            let (id, branch) = (txn.id(), target.branch.clone());
            txn.enlist(Ticket { txn: id, branch })?;
        }
        if self.prepare == Prepare::Relay {
            for target in &self.targets {
                txn.request(&target.name, number.to_le_bytes()).await?;
            }
            return Ok(txn.commit().await?);
        }
        let plan = txn.plan().await?;
        for target in &self.targets {
            let (orders, plan, hop) = (target.orders.clone(), plan.clone(), target.hop);
            let work = ToParticipant::Work { number, plan };
            if hop.is_zero() {
                orders.tell(work);
                continue;
            }
            tokio::spawn(async move {
                sleep(hop).await;
                orders.tell(work);
            });
        }
        Ok(txn.commit_prepared().await?)
    }

    async fn transact_within(&self, span: Span) -> End {
        let ended = timeout_at(span.end + GRACE, self.transact()).await;
        ended.unwrap_or(End::Unresolved)
    }

    /// So many at a time: each that ends is followed by the next.
    pub(super) async fn closed_loop(self: &Arc<Self>, count: u64, span: Span) -> Vec<Sample> {
        let mut workers = JoinSet::new();
        for _ in 0..count {
            let application = self.clone();
            workers.spawn(async move {
                let mut samples = Vec::new();
                loop {
                    let began = Instant::now();
                    if began >= span.end {
                        return samples;
                    }
                    let end = application.transact_within(span).await;
                    samples.extend(span.sample(began, end));
                }
            });
        }
        let mut samples = workers.join_all().await.concat();
        samples.sort_unstable_by_key(|sample| sample.start_us);
        samples
    }

    /// So many each second, each at its time, whatever has become of those before.
    pub(super) async fn open_loop(self: &Arc<Self>, rate: u64, span: Span) -> Vec<Sample> {
        let (done, mut all) = mpsc::unbounded_channel();
        let (application, runtime) = (self.clone(), Handle::current());
        let begin = Instant::now();
        // A thread of its own keeps time to some microseconds; the runtime's timers, to one
        // millisecond.
        thread::spawn(move || {
            let interval = Duration::from_secs(1).div_f64(rate as f64);
            for number in 0_u32.. {
                let due = begin + interval.mul_f64(f64::from(number));
                if due >= span.end || done.is_closed() {
                    return;
                }
                if let Some(wait) = due.checked_duration_since(Instant::now()) {
                    thread::sleep(wait);
                }
                let (application, done) = (application.clone(), done.clone());
                runtime.spawn(async move {
                    let end = application.transact_within(span).await;
                    let _ = done.send(span.sample(due, end));
                });
            }
        });
        let mut samples = Vec::new();
        while let Some(sample) = all.recv().await {
            samples.extend(sample);
        }
        samples.sort_unstable_by_key(|sample| sample.start_us);
        samples
    }

    /// Shows how far it is, for as long as it is polled.
    pub(super) async fn show(&self, span: Span, bar: &ProgressBar) {
        let whole = span.end - span.start;
        bar.set_length(whole.as_secs());
        loop {
            let done = Instant::now().saturating_duration_since(span.start);
            bar.set_position(done.min(whole).as_secs());
            let committed = self.committed.load(Ordering::Relaxed);
            bar.set_message(format!("{committed} committed"));
            sleep(Duration::from_millis(200)).await;
        }
    }
}
