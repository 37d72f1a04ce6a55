//! What is drawn and how long it goes on: `FAULT_SEED`, `FAULT_SECONDS`.

use std::env;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The seed of a run, and its length.
#[derive(Clone, Debug)]
pub(crate) struct Knobs {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    test: String,
}

impl Knobs {
    /// Those of the test that runs in this thread (and is named after it). Without a setting the
    /// seed is new in each run, and the length is `usual`. Prints how to repeat the run.
    pub(crate) fn new(usual: Duration) -> Knobs {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("main").to_owned();
        let seed = setting("FAULT_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        let seconds = setting("FAULT_SECONDS").unwrap_or(usual.as_secs());
        let knobs = Knobs {
            seed,
            duration: Duration::from_secs(seconds),
            test,
        };
        println!("{}", knobs.replay());
        knobs
    }

    /// The command that repeats the run: the same faults in the same order. (What the machine does
    /// meanwhile is not repeated.)
    pub(crate) fn replay(&self) -> String {
        let features = if cfg!(feature = "fault-injection") {
            " --features fault-injection"
        } else {
            ""
        };
        format!(
            "FAULT_SEED={} FAULT_SECONDS={} cargo test{features} --test faults -- --exact {} \
             --nocapture",
            self.seed,
            self.duration.as_secs(),
            self.test
        )
    }

    pub(crate) fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }
}

/// A number from the environment.
fn setting<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("{name}: expected a number, got {text:?}: {error}"),
    }
}
