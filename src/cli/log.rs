//! Where the log goes.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing::Level;
use tracing_subscriber::EnvFilter;

use super::show::complain;

/// What is logged, and how.
#[derive(Debug, Args)]
pub(super) struct LogArguments {
    /// What is logged to standard error: error, warn, info, debug or trace of this program (and warnings
    /// of its libraries), or directives like `warn,paxos_commit::transport=debug`. Without it, `replica`
    /// logs at info, and every other command at warn.
    #[arg(long, global = true, env = "PAXOS_COMMIT_LOG", value_name = "LEVEL")]
    log: Option<String>,
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
    pub(super) fn start(&self, usual: Level) {
        let usual = directives(usual.as_str());
        let wanted = self.log.as_deref().map(directives);
        let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(&usual));
        let filter = filter.unwrap_or_else(|error| {
            let log = self.log.as_deref().unwrap_or_default();
            complain(format_args!("--log {log:?}: {error}; logging as usual"));
            EnvFilter::new(usual)
        });
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            // A log line that cannot be written must not end the process. The library would complain on
            // standard error, which is the stream that was closed.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        match self.log_format {
            Format::Human => subscriber.init(),
            Format::Json => subscriber.json().init(),
        }
    }
}

/// A level is that of this program; its libraries say what is wrong, and no more.
fn directives(text: &str) -> String {
    match text.parse::<Level>() {
        Ok(level) => format!("warn,paxos_commit={level}"),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::directives;

    #[test]
    fn a_level_is_that_of_this_program_only() {
        assert_eq!(directives("info"), "warn,paxos_commit=INFO");
        assert_eq!(directives("Debug"), "warn,paxos_commit=DEBUG");
        assert_eq!(directives("info,quinn=debug"), "info,quinn=debug");
    }
}
