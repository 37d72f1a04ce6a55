//! The application: it asks for transfers, and writes down what it was told of each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use paxos_commit::initiator::{CommitError, Initiator, Known, Outcome};
use paxos_commit::protocol::types::{CommitId, Request};
use tokio::task::JoinSet;

use super::PATIENCE;
use super::databases::{ACCOUNTS, Kind};

/// No transfer moves more.
const AMOUNT_MAX: i64 = 50;

/// How long replicas wait for votes: a service that was killed will not vote.
const VOTE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait when nothing can be begun.
const PAUSE: Duration = Duration::from_millis(20);

/// One side of a transfer, as a service gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booking {
    /// Counts transfers.
    pub(crate) number: i64,
    /// Whose money.
    pub(crate) account: i64,
    /// How much comes, or goes if it is negative.
    pub(crate) amount: i64,
}

impl Booking {
    pub(crate) fn parse(request: &Request) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(&request.0).map_err(|_| "a request is text")?;
        let mut numbers = text.split(' ').map(str::parse::<i64>);
        let mut next = || numbers.next()?.ok();
        let booking = (|| {
            Some(Booking {
                number: next()?,
                account: next()?,
                amount: next()?,
            })
        })();
        booking.ok_or("expected a number, an account and an amount")
    }
}

impl fmt::Display for Booking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.number, self.account, self.amount)
    }
}

/// What was told of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    Aborted,
    /// The question came after its outcome was forgotten: both databases must say the same.
    Either,
}

/// What was told of every transfer.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) ends: BTreeMap<i64, End>,
    /// The longest time in which nothing was committed.
    pub(crate) longest_gap: Duration,
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |end| self.ends.values().filter(|of| **of == end).count();
        write!(
            f,
            "{} transfers: {} committed, {} aborted; the longest time without a commit {:.1} s",
            self.ends.len(),
            count(End::Committed),
            count(End::Aborted),
            self.longest_gap.as_secs_f64()
        )
    }
}

/// The application.
#[derive(Clone)]
pub(crate) struct Teller {
    shared: Arc<Shared>,
}

struct Shared {
    initiator: Initiator,
    next: AtomicI64,
    stop: AtomicBool,
    book: Mutex<Book>,
}

struct Book {
    ends: BTreeMap<i64, End>,
    /// Those of which nothing was told in time.
    open: BTreeMap<i64, CommitId>,
    committed: u64,
    last: Instant,
    longest_gap: Duration,
}

impl Teller {
    pub(crate) fn new(initiator: Initiator) -> Self {
        let book = Book {
            ends: BTreeMap::new(),
            open: BTreeMap::new(),
            committed: 0,
            last: Instant::now(),
            longest_gap: Duration::ZERO,
        };
        Teller {
            shared: Arc::new(Shared {
                initiator,
                next: AtomicI64::new(1),
                stop: AtomicBool::new(false),
                book: Mutex::new(book),
            }),
        }
    }

    /// Moves money, so many times at a time, until it is told to stop.
    pub(crate) fn start(&self, concurrency: u32) -> JoinSet<Result<()>> {
        let mut moving = JoinSet::new();
        for _ in 0..concurrency {
            let teller = self.clone();
            moving.spawn(async move {
                while !teller.shared.stop.load(Ordering::Relaxed) {
                    teller.transfer().await?;
                }
                Ok(())
            });
        }
        moving
    }

    /// Until so many more are committed.
    pub(crate) async fn wait_for_commits(&self, count: u64) -> Result<()> {
        let wanted = self.book().committed + count;
        let waiting = async {
            while self.book().committed < wanted {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.context("nothing is committed any more")
    }

    /// Stops, and finds out what became of those whose outcome was not told in time.
    pub(crate) async fn stop(self, mut moving: JoinSet<Result<()>>) -> Result<Ledger> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = moving.join_next().await {
            ended??;
        }
        let open = std::mem::take(&mut self.book().open);
        for (number, id) in open {
            let end = match self.shared.initiator.outcome(id).await? {
                Known::Committed => End::Committed,
                Known::Aborted => End::Aborted,
                Known::Forgotten => End::Either,
            };
            self.book().ends.insert(number, end);
        }
        let mut book = self.book();
        Ok(Ledger {
            ends: std::mem::take(&mut book.ends),
            longest_gap: book.longest_gap,
        })
    }

    async fn transfer(&self) -> Result<()> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let amount = fastrand::i64(1..=AMOUNT_MAX) * fastrand::choice([-1, 1]).unwrap_or(1);
        let Ok(mut txn) = self.shared.initiator.begin().await else {
            tokio::time::sleep(PAUSE).await;
            return Ok(());
        };
        txn.vote_timeout(VOTE_TIMEOUT);
        for (kind, amount) in [(Kind::Postgres, -amount), (Kind::Mariadb, amount)] {
            let account = fastrand::i64(1..=ACCOUNTS);
            let booking = Booking {
                number,
                account,
                amount,
            };
            let named = txn.request(&kind.to_string(), booking.to_string()).await;
            if named.is_err() {
                // That service is away. Nothing has happened yet.
                tokio::time::sleep(PAUSE).await;
                return Ok(());
            }
        }
        let outcome = txn.commit().await;
        let mut book = self.book();
        match outcome {
            Ok(Outcome::Committed) => {
                book.ends.insert(number, End::Committed);
                book.committed += 1;
                let gap = book.last.elapsed();
                book.longest_gap = book.longest_gap.max(gap);
                book.last = Instant::now();
            }
            Ok(Outcome::Aborted(_)) => {
                book.ends.insert(number, End::Aborted);
            }
            Err(CommitError::Unknown { id, .. }) => {
                book.open.insert(number, id);
            }
            Err(CommitError::Refused(_)) => {}
            Err(error) => bail!("transfer {number}: {error}"),
        }
        Ok(())
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.shared
            .book
            .lock()
            .expect("nobody panics with the book in hand")
    }
}
