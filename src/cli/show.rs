//! What replicas say, and what went wrong, for people and as JSON.

use std::fmt;
use std::io::{ErrorKind, Write};

use paxos_commit::protocol::message::State;
use paxos_commit::protocol::types::Branch;
use serde_json::{Value, json};

pub(super) fn state_json(state: &State) -> Value {
    match state {
        State::Undecided { missing, silent } => json!({
            "state": "undecided",
            "missing_votes": names(missing),
            "silent_replicas": silent.iter().map(|id| id.0).collect::<Vec<_>>(),
        }),
        State::Decided { outcome, unapplied } => json!({
            "state": outcome.to_string(),
            "not_applied_by": names(unapplied),
        }),
    }
}

/// A state in a sentence: what it waits for, and why.
pub(super) fn state_text(state: &State) -> String {
    match state {
        State::Undecided { missing, silent } => {
            let mut why = Vec::new();
            if !missing.is_empty() {
                why.push(format!("no vote of {}", names(missing).join(", ")));
            }
            if !silent.is_empty() {
                let ids: Vec<String> = silent.iter().map(|id| id.to_string()).collect();
                why.push(format!("replica {} silent", ids.join(", ")));
            }
            if why.is_empty() {
                why.push(
                    "what a majority of the replicas has saved is not known here yet, or its roster is not"
                        .into(),
                );
            }
            format!("undecided: {}", why.join("; "))
        }
        State::Decided { outcome, unapplied } if unapplied.is_empty() => {
            format!("{outcome}: finished")
        }
        State::Decided { outcome, unapplied } => {
            format!("{outcome}: not applied by {}", names(unapplied).join(", "))
        }
    }
}

pub(super) fn names(branches: &[Branch]) -> Vec<String> {
    branches.iter().map(Branch::to_string).collect()
}

/// Prints one line to standard output. When its reader has gone (`| head`), the rest is for nobody to
/// read, and the command goes on to its end.
pub(super) fn print_line(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let printed = out.write_fmt(text).and_then(|()| out.write_all(b"\n"));
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write to standard output: {error}"));
            std::process::exit(1);
        }
        Ok(()) | Err(_) => {}
    }
}

/// Prints what went wrong to standard error, if it can be printed at all.
pub(super) fn complain(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "paxos-commit: {text}");
}

/// An error and its causes in one line. Some errors name their cause in their own text; it is not
/// said a second time.
pub(super) fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

pub(super) fn print_json(value: &Value) {
    say!("{value:#}");
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use paxos_commit::operator::OperatorError;
    use paxos_commit::protocol::message::Declined;

    use super::error_text;

    #[test]
    fn a_cause_is_said_once() {
        let error: OperatorError = Declined::UnderWay.into();
        let said = error.to_string();
        assert!(said.contains(&Declined::UnderWay.to_string()), "{said}");
        assert_eq!(error_text(&error.into()), said);
        let read = std::fs::read("/no such file").unwrap_err();
        let cause = read.to_string();
        let error = Err::<(), _>(read).context("cannot read it").unwrap_err();
        assert_eq!(error_text(&error), format!("cannot read it: {cause}"));
    }
}
