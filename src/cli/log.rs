//! Where the log goes.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Debug, Args)]
pub(super) struct LogArguments {
    /// What is logged to standard error: error, warn, info, debug, or directives like
    /// `info,paxos_commit::transport=debug`.
    #[arg(long, global = true, env = "PAXOS_COMMIT_LOG", default_value = "warn")]
    log: String,
    /// How.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogArguments {
    pub(super) fn start(&self) {
        let filter = EnvFilter::try_new(&self.log).unwrap_or_else(|error| {
            eprintln!(
                "paxos-commit: --log {:?}: {error}; logging at warn",
                self.log
            );
            EnvFilter::new("warn")
        });
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            Format::Human => subscriber.init(),
            Format::Json => subscriber.json().init(),
        }
    }
}
