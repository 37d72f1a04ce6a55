//! Group commit: one thread writes everything that is queued, and forces it to disk once.
//!
//! A forced write costs the same for one record as for a hundred, so whoever saves hands his writes
//! to a queue and is told when they are durable. The thread of a [`Committer`] takes all jobs that
//! wait, puts their writes into one batch of the database, commits it with one `fdatasync`, and then
//! completes the jobs in the order in which they were submitted. What arrives meanwhile is the next
//! batch: the busier it is, the cheaper each save gets, without any timer.
//!
//! **A failure ends the process.** After an error of `write` or `fdatasync` nobody can know what is
//! on disk: the kernel may have dropped the dirty pages and report success the next time, and a
//! commit that failed may be there after the next start. The only place from which the truth can be
//! read is the disk, by a new process. For the same reason a commit that does not return at all ends
//! the process too, from a watchdog's thread: a replica that hangs looks alive to its peers.
//!
//! The thread is generic over a [`Saver`], which says what jobs are and what they write.

mod fatal;
mod stats;
mod watchdog;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode, UserKey, UserValue};

use watchdog::{GivenUp, Watchdog};

pub use fatal::{Fatal, OnFatal};
pub use stats::{Observer, Saved, Stats};

/// The most jobs that wait; past that [`Committer::submit`] blocks.
pub const QUEUE_MAX: usize = 64 * 1024;

/// The most jobs of one batch.
pub const BATCH_JOBS_MAX: usize = 4 * 1024;

/// No further job is added to a batch that has this many bytes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A commit that takes longer than this ends the process, unless told otherwise.
pub const COMMIT_MAX: Duration = Duration::from_secs(10);

/// Why something could not be saved. Nothing is done with it but to say it: see [`Fatal`].
pub type Failure = Box<dyn Error + Send + Sync>;

/// What a [`Committer`] saves, and how. It lives on the committer's thread.
pub trait Saver: Send + 'static {
    /// What is submitted.
    type Job: Send + 'static;

    /// Adds what `job` writes, which may be nothing. A key may stand only once in a batch, unless
    /// all its writes are the same: the database does not order the writes of one batch.
    ///
    /// # Errors
    /// End the process.
    fn write(&mut self, job: &mut Self::Job, batch: &mut Batch) -> Result<(), Failure>;

    /// The last word before a batch is committed. One that is still empty then is not: jobs that had
    /// nothing to write waited for those before them, and need no save of their own.
    ///
    /// # Errors
    /// End the process.
    fn seal(&mut self, _batch: &mut Batch) -> Result<(), Failure> {
        Ok(())
    }

    /// The batch is durable; its jobs are completed next.
    fn saved(&mut self) {}

    /// The jobs of a batch that was saved are completed. Nobody waits for what is done here but the
    /// next batch.
    ///
    /// # Errors
    /// End the process.
    fn completed(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// The writes of `job`, and of all jobs before it, are durable. Must not block, nor panic.
    fn done(&mut self, job: Self::Job);

    /// No job waits. What is written here is committed without being forced to disk; so it must be
    /// something that can be done again.
    ///
    /// # Errors
    /// End the process.
    fn idle(&mut self, _batch: &mut Batch) -> Result<Idle, Failure> {
        Ok(Idle::UntilNextSave)
    }

    /// No job comes any more. What is written here is saved as the last batch.
    ///
    /// # Errors
    /// End the process.
    fn close(&mut self, _batch: &mut Batch) -> Result<(), Failure> {
        Ok(())
    }

    /// What was written at the end is durable.
    ///
    /// # Errors
    /// End the process.
    fn closed(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// When [`Saver::idle`] wants to be called again, if no job comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There is more to do.
    Again,
    /// After some time.
    After(Duration),
    /// Only when something was saved.
    UntilNextSave,
}

/// The writes of one commit, over all keyspaces of a database: all of them or none.
pub struct Batch {
    writes: OwnedWriteBatch,
    bytes: usize,
}

impl Batch {
    fn new(database: &Database, durability: PersistMode) -> Self {
        Batch {
            writes: database.batch().durability(Some(durability)),
            bytes: 0,
        }
    }

    /// Sets a key.
    pub fn insert(
        &mut self,
        keyspace: &Keyspace,
        key: impl Into<UserKey>,
        value: impl Into<UserValue>,
    ) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.writes.insert(keyspace, key, value);
    }

    /// Removes a key.
    pub fn remove(&mut self, keyspace: &Keyspace, key: impl Into<UserKey>) {
        let key = key.into();
        self.bytes += key.len();
        self.writes.remove(keyspace, key);
    }

    /// How many keys are written.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many bytes the keys and values have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// How a [`Committer`] runs.
#[non_exhaustive]
pub struct CommitterConfig {
    /// The name of its thread.
    pub name: String,
    /// Whose store it is and where, for its last words: `of replica 1 in /var/lib/bank`.
    pub store: String,
    /// A commit that takes longer ends the process.
    pub commit_max: Duration,
    /// Told of each save, on the committer's thread.
    pub observer: Option<Observer>,
    /// What is done about a failure: [`Fatal::abort`], except in tests.
    pub on_fatal: OnFatal,
}

impl CommitterConfig {
    /// The usual settings.
    pub fn new(name: impl Into<String>, store: impl Into<String>) -> Self {
        CommitterConfig {
            name: name.into(),
            store: store.into(),
            commit_max: COMMIT_MAX,
            observer: None,
            on_fatal: Arc::new(|fatal: Fatal| fatal.abort()),
        }
    }
}

enum Message<J> {
    Job(J),
    Close,
}

/// What the committer's thread and everyone else see.
#[derive(Default)]
struct Counters {
    submitted: AtomicU64,
    saves: AtomicU64,
    completed: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    last_us: AtomicU64,
    longest_us: AtomicU64,
    total_us: AtomicU64,
}

/// A handle of the thread that saves.
pub struct Committer<S: Saver> {
    queue: SyncSender<Message<S::Job>>,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: Saver> Committer<S> {
    /// Starts the thread, and its watchdog.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(database: Database, saver: S, config: CommitterConfig) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let counters = Arc::new(Counters::default());
        let CommitterConfig {
            name,
            store,
            commit_max,
            observer,
            on_fatal,
        } = config;
        let watchdog = Watchdog::start(&name, &store, commit_max, Arc::clone(&on_fatal))?;
        let worker = Worker {
            database,
            saver,
            queue: jobs,
            waiting: Vec::new(),
            counters: Arc::clone(&counters),
            observer,
            watchdog,
        };
        let thread = thread::Builder::new().name(name);
        let thread = thread.spawn(move || {
            // A panic is a failure like any other: the thread must not just be gone.
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
            let cause = match ended {
                Ok(Ok(())) => return,
                // The watchdog has said so already.
                Ok(Err(failure)) if failure.is::<GivenUp>() => return,
                Ok(Err(failure)) => reason(&*failure),
                Err(panic) => format!("its thread panicked: {}", text_of(panic.as_ref())),
            };
            on_fatal(Fatal { store, cause });
        })?;
        Ok(Committer {
            queue,
            counters,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a job. Blocks while [`QUEUE_MAX`] jobs wait. After [`close`](Self::close), and when
    /// the process is about to end, the job is dropped.
    pub fn submit(&self, job: S::Job) {
        self.counters.submitted.fetch_add(1, Ordering::Relaxed);
        // An error says that the thread has ended: whoever ended it knows.
        let _ = self.queue.send(Message::Job(job));
    }

    /// How many jobs were submitted and not completed yet. When it is 0, `done` has returned for
    /// each of them.
    pub fn pending(&self) -> u64 {
        let completed = self.counters.completed.load(Ordering::Acquire);
        let submitted = self.counters.submitted.load(Ordering::Relaxed);
        submitted.saturating_sub(completed)
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            saves: of(&counters.saves),
            jobs: of(&counters.completed),
            records: of(&counters.records),
            bytes: of(&counters.bytes),
            last_us: of(&counters.last_us),
            longest_us: of(&counters.longest_us),
            total_us: of(&counters.total_us),
        }
    }

    /// Completes all jobs that were submitted, and ends the thread. Dropping the committer does the
    /// same.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = { thread }.take();
        let Some(thread) = thread else { return };
        // A job that holds the last handle drops it on the thread itself, which cannot wait for its
        // own end, nor for room in its own queue. It ends when the queue has no handle any more.
        if thread.thread().id() != thread::current().id() {
            let _ = self.queue.send(Message::Close);
            // A panic of the thread was dealt with there.
            let _ = thread.join();
        }
    }
}

impl<S: Saver> Drop for Committer<S> {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the system said, where a failure leads back to that: the words of the database around it
/// are for its programmers.
fn reason(failure: &(dyn Error + 'static)) -> String {
    let mut last = failure;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// What a panic said.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let string = panic.downcast_ref::<String>().map(String::as_str);
    text.or(string).unwrap_or("without a message")
}

struct Worker<S: Saver> {
    database: Database,
    saver: S,
    queue: Receiver<Message<S::Job>>,
    /// The jobs of the batch under way.
    waiting: Vec<S::Job>,
    counters: Arc<Counters>,
    observer: Option<Observer>,
    watchdog: Watchdog,
}

impl<S: Saver> Worker<S> {
    fn run(mut self) -> Result<(), Failure> {
        let mut idle = Idle::Again;
        loop {
            match self.next(idle) {
                Some(Message::Job(job)) => {
                    let is_open = self.save(job)?;
                    if !is_open {
                        return self.close();
                    }
                    idle = Idle::Again;
                }
                Some(Message::Close) => return self.close(),
                None => idle = self.idle()?,
            }
        }
    }

    /// The next message, if it comes before there is something else to do.
    fn next(&self, idle: Idle) -> Option<Message<S::Job>> {
        match idle {
            Idle::Again => match self.queue.try_recv() {
                Ok(message) => Some(message),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Message::Close),
            },
            Idle::After(time) => match self.queue.recv_timeout(time) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Close),
            },
            Idle::UntilNextSave => Some(self.queue.recv().unwrap_or(Message::Close)),
        }
    }

    /// Saves `first` and everything that waits behind it. Says whether more may come.
    fn save(&mut self, first: S::Job) -> Result<bool, Failure> {
        let started = self.watchdog.commit_starts();
        let mut batch = Batch::new(&self.database, PersistMode::SyncData);
        let mut next = Some(Message::Job(first));
        let is_open = loop {
            match next.take() {
                Some(Message::Job(mut job)) => {
                    self.saver.write(&mut job, &mut batch)?;
                    self.waiting.push(job);
                }
                Some(Message::Close) => break false,
                None => break true,
            }
            if self.waiting.len() < BATCH_JOBS_MAX && batch.bytes < BATCH_BYTES_MAX {
                next = self.queue.try_recv().ok();
            }
        };
        self.saver.seal(&mut batch)?;
        let is_save = !batch.is_empty();
        if is_save {
            self.commit(batch, started)?;
        }
        self.watchdog.commit_ended()?;
        for job in self.waiting.drain(..) {
            self.saver.done(job);
            self.counters.completed.fetch_add(1, Ordering::Release);
        }
        if is_save {
            self.watchdog.commit_starts();
            self.saver.completed()?;
            self.watchdog.commit_ended()?;
        }
        Ok(is_open)
    }

    fn commit(&mut self, batch: Batch, started: Instant) -> Result<(), Failure> {
        let (records, bytes) = (batch.len(), batch.bytes);
        batch.writes.commit()?;
        self.saver.saved();
        let latency = started.elapsed();
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let counters = &self.counters;
        counters.saves.fetch_add(1, Ordering::Relaxed);
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&counters.records, records);
        add(&counters.bytes, bytes);
        counters.last_us.store(us, Ordering::Relaxed);
        counters.longest_us.fetch_max(us, Ordering::Relaxed);
        counters.total_us.fetch_add(us, Ordering::Relaxed);
        if let Some(observer) = &mut self.observer {
            observer(Saved {
                latency,
                jobs: self.waiting.len(),
                records,
                bytes,
            });
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<Idle, Failure> {
        self.watchdog.commit_starts();
        let mut batch = Batch::new(&self.database, PersistMode::Buffer);
        let idle = self.saver.idle(&mut batch)?;
        batch.writes.commit()?;
        self.watchdog.commit_ended()?;
        Ok(idle)
    }

    fn close(mut self) -> Result<(), Failure> {
        let started = self.watchdog.commit_starts();
        let mut batch = Batch::new(&self.database, PersistMode::SyncData);
        self.saver.close(&mut batch)?;
        self.saver.seal(&mut batch)?;
        if !batch.is_empty() {
            self.commit(batch, started)?;
        }
        self.saver.closed()?;
        self.watchdog.commit_ended()?;
        Ok(())
    }
}
