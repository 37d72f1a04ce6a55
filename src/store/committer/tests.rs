//! Groups, order, failure, and the end.

use std::sync::mpsc::{Receiver, Sender, channel};

use fjall::KeyspaceCreateOptions;
use tempfile::TempDir;

use super::*;

/// How long a test waits for something that must come.
const SURELY: Duration = Duration::from_secs(60);

/// What a job does when it is written.
enum Step {
    /// Sets a key.
    Key(u32),
    /// Nothing at all.
    Nothing,
    /// Says that it was reached, and waits until the other end is dropped.
    Gate(Sender<()>, Receiver<()>),
    /// Fails.
    Fail,
    /// Panics.
    Panic,
}

struct Job {
    number: u32,
    step: Step,
}

/// Sets keys, and tells what was done.
struct Keys {
    keyspace: Keyspace,
    done: Sender<u32>,
    sealed: Arc<AtomicU64>,
}

impl Saver for Keys {
    type Job = Job;

    fn write(&mut self, job: &mut Job, batch: &mut Batch) -> Result<(), Failure> {
        match &job.step {
            Step::Key(key) => batch.insert(&self.keyspace, key.to_be_bytes(), "value"),
            Step::Nothing => {}
            Step::Gate(reached, open) => {
                let _ = reached.send(());
                let _ = open.recv();
            }
            Step::Fail => return Err("the disk said no".into()),
            Step::Panic => panic!("what a bug says"),
        }
        Ok(())
    }

    fn seal(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        if !batch.is_empty() {
            self.sealed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn done(&mut self, job: Job) {
        let _ = self.done.send(job.number);
    }

    fn close(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        batch.insert(&self.keyspace, "closed", "");
        Ok(())
    }
}

struct Bench {
    committer: Committer<Keys>,
    keyspace: Keyspace,
    done: Receiver<u32>,
    fatal: Receiver<Fatal>,
    sealed: Arc<AtomicU64>,
    // Goes last: the database writes into it to the end.
    _folder: TempDir,
}

fn bench(commit_max: Duration, observer: Option<Observer>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::builder(folder.path())
        .worker_threads(1)
        .open()
        .unwrap();
    let keyspace = database
        .keyspace("keys", KeyspaceCreateOptions::default)
        .unwrap();
    let (tell_done, done) = channel();
    let (tell_fatal, fatal) = channel();
    let tell_fatal = Mutex::new(tell_fatal);
    let sealed = Arc::new(AtomicU64::new(0));
    let saver = Keys {
        keyspace: keyspace.clone(),
        done: tell_done,
        sealed: Arc::clone(&sealed),
    };
    let mut config = CommitterConfig::new("bench", "of a bench");
    config.commit_max = commit_max;
    config.observer = observer;
    config.on_fatal = Arc::new(move |fatal| tell_fatal.lock().unwrap().send(fatal).unwrap());
    Bench {
        committer: Committer::start(database, saver, config).unwrap(),
        keyspace,
        done,
        fatal,
        sealed,
        _folder: folder,
    }
}

impl Bench {
    fn submit(&self, number: u32, step: Step) {
        self.committer.submit(Job { number, step });
    }

    /// Holds the thread inside a batch until the answer is dropped.
    fn gate(&self, number: u32) -> Sender<()> {
        let (reached, is_reached) = channel();
        let (open, opened) = channel();
        self.submit(number, Step::Gate(reached, opened));
        is_reached.recv_timeout(SURELY).unwrap();
        open
    }
}

#[test]
fn what_waits_is_one_save_and_completes_in_order() {
    let (observer, observed) = channel();
    let observer: Observer = Box::new(move |saved| observer.send(saved).unwrap());
    let bench = bench(SURELY, Some(observer));
    let gate = bench.gate(0);
    for number in 1..=1_000 {
        // Every third has nothing to write, and must not overtake.
        let step = if number % 3 == 0 {
            Step::Nothing
        } else {
            Step::Key(number)
        };
        bench.submit(number, step);
    }
    assert_eq!(bench.committer.pending(), 1_001);
    assert!(bench.done.try_recv().is_err(), "nothing is durable yet");
    drop(gate);
    let done: Vec<u32> = bench.done.iter().take(1_001).collect();
    assert_eq!(done, (0..=1_000).collect::<Vec<_>>());
    bench.committer.close();
    assert_eq!(bench.committer.pending(), 0);
    let stats = bench.committer.stats();
    assert_eq!(
        (stats.saves, stats.jobs),
        (2, 1_001),
        "one, and the last words"
    );
    assert_eq!(stats.records, 667 + 1);
    assert_eq!(bench.sealed.load(Ordering::Relaxed), 2);
    let saved: Vec<Saved> = observed.iter().collect();
    assert_eq!((saved[0].jobs, saved[0].records), (1_001, 667));
    assert_eq!(saved[0].bytes, 667 * (4 + 5));
    assert_eq!(saved[1].jobs, 0);
    assert!(stats.total_us >= stats.longest_us && stats.longest_us >= stats.last_us);
    assert_eq!(bench.keyspace.len().unwrap(), 668);
}

#[test]
fn jobs_that_write_nothing_force_no_save() {
    let bench = bench(SURELY, None);
    for number in 0..10 {
        bench.submit(number, Step::Nothing);
    }
    let done: Vec<u32> = bench.done.iter().take(10).collect();
    assert_eq!(done, (0..10).collect::<Vec<_>>());
    assert_eq!(bench.committer.stats().saves, 0);
    assert_eq!(bench.sealed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_batch_has_bounds() {
    let bench = bench(SURELY, None);
    let gate = bench.gate(0);
    let count = 2 * BATCH_JOBS_MAX as u32;
    for number in 1..=count {
        bench.submit(number, Step::Key(number));
    }
    drop(gate);
    assert_eq!(
        bench.done.iter().take(count as usize + 1).count(),
        count as usize + 1
    );
    assert_eq!(
        bench.committer.stats().saves,
        3,
        "the gate makes it one job more"
    );
}

#[test]
fn a_failure_is_fatal_and_completes_nothing() {
    for (step, cause) in [
        (Step::Fail, "the disk said no"),
        (Step::Panic, "its thread panicked: what a bug says"),
    ] {
        let bench = bench(SURELY, None);
        let gate = bench.gate(0);
        bench.submit(1, Step::Key(1));
        bench.submit(2, step);
        bench.submit(3, Step::Key(3));
        drop(gate);
        let fatal = bench.fatal.recv_timeout(SURELY).unwrap();
        assert_eq!(
            (fatal.store.as_str(), fatal.cause.as_str()),
            ("of a bench", cause)
        );
        let text = fatal.to_string();
        assert!(text.contains("restart is the only repair; nothing that was told is lost"));
        bench.submit(4, Step::Key(4));
        bench.committer.close();
        assert!(bench.done.iter().next().is_none(), "nothing was told");
        assert_eq!(bench.committer.stats().saves, 0);
        assert_eq!(bench.committer.pending(), 5);
    }
}

#[test]
fn what_the_system_said_is_what_is_told() {
    let said = std::io::Error::from_raw_os_error(5);
    let words = said.to_string();
    assert_eq!(reason(&fjall::Error::Io(said)), words);
    let poisoned = fjall::Error::Poisoned;
    assert_eq!(reason(&poisoned), poisoned.to_string());
}

#[test]
fn a_commit_that_does_not_return_is_fatal() {
    let bench = bench(Duration::from_millis(500), None);
    let gate = bench.gate(0);
    let fatal = bench.fatal.recv_timeout(SURELY).unwrap();
    assert!(fatal.cause.starts_with("a commit takes longer than 500ms"));
    // It comes back too late: nothing is told any more.
    drop(gate);
    bench.committer.close();
    assert!(bench.done.iter().next().is_none());
    assert!(bench.fatal.try_recv().is_err(), "said once");
}

#[test]
fn dropping_completes_what_was_submitted() {
    let Bench {
        committer,
        done,
        keyspace,
        _folder,
        ..
    } = bench(SURELY, None);
    for number in 0..100 {
        let step = Step::Key(number);
        committer.submit(Job { number, step });
    }
    drop(committer);
    assert_eq!(done.iter().count(), 100);
    assert!(keyspace.contains_key("closed").unwrap());
}

#[test]
fn what_is_submitted_after_the_end_is_dropped() {
    let bench = bench(SURELY, None);
    bench.committer.close();
    bench.submit(1, Step::Key(1));
    bench.committer.close();
    assert!(bench.done.iter().next().is_none());
}
