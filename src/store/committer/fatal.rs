//! The end of the process.

use std::fmt;
use std::sync::Arc;

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// Whose store it is, and where.
    pub store: String,
    /// What failed.
    pub cause: String,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fatal { store, cause } = self;
        write!(
            f,
            "the store {store} failed: {cause}; this process ends, restart is the only repair; \
             nothing that was told is lost"
        )
    }
}

impl Fatal {
    /// Says why, and ends the process at once: no destructor runs, because nothing that this
    /// process believes about its disk can be trusted any more.
    pub fn abort(&self) -> ! {
        tracing::error!(store = self.store, cause = self.cause, "{self}");
        eprintln!("{self}");
        std::process::abort()
    }
}

/// What is done about a failure. If it returns, which only a test's does, the committer stops and
/// completes no further job.
pub type OnFatal = Arc<dyn Fn(Fatal) + Send + Sync>;
