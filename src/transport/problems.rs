//! Why replicas cannot be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::protocol::paxos::ReplicaId;

use super::dialing::DialError;
use super::links::lock;

/// Why the last attempt to reach a replica failed, for each that has no connection since.
#[derive(Default)]
pub(crate) struct Problems(Mutex<BTreeMap<ReplicaId, Problem>>);

struct Problem {
    text: String,
    /// Whether this machine does not know the name of the replica.
    is_unresolved: bool,
}

impl Problems {
    /// An attempt failed. Whether that is another problem than before.
    pub(super) fn note(&self, replica: ReplicaId, error: &DialError) -> bool {
        let problem = Problem {
            text: error.to_string(),
            is_unresolved: matches!(error, DialError::Resolve { .. }),
        };
        let text = problem.text.clone();
        let before = lock(&self.0).insert(replica, problem);
        before.is_none_or(|before| before.text != text)
    }

    /// The replica was reached.
    pub(super) fn solved(&self, replica: ReplicaId) {
        lock(&self.0).remove(&replica);
    }

    /// Of each replica, in words.
    pub(crate) fn texts(&self) -> BTreeMap<ReplicaId, String> {
        let problems = lock(&self.0);
        let texts = problems
            .iter()
            .map(|(replica, of)| (*replica, of.text.clone()));
        texts.collect()
    }

    /// The replicas whose addresses this machine cannot resolve.
    pub(crate) fn unresolved(&self) -> BTreeSet<ReplicaId> {
        let problems = lock(&self.0);
        let unresolved = problems.iter().filter(|(_, of)| of.is_unresolved);
        unresolved.map(|(replica, _)| *replica).collect()
    }

    /// All of them in one line; empty if there is none.
    pub(crate) fn summary(&self) -> String {
        let texts = self.texts().into_iter();
        let texts: Vec<String> = texts
            .map(|(replica, text)| format!("replica {replica}: {text}"))
            .collect();
        texts.join("; ")
    }
}
