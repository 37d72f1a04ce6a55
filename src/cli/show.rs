//! What replicas say, for people and as JSON.

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
                why.push("a ballot is under way, or its roster is unknown here".into());
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

pub(super) fn print_json(value: &Value) {
    println!("{value:#}");
}
