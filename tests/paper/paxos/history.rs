//! What happened in one instance, seen from above, and the invariants that must hold of it.
//!
//! The checker of every schedule test. It knows nothing of the code under test: it is handed who
//! issued, accepted and learned what, and holds that against the sentences of *Paxos Made Simple*.

use std::collections::{BTreeMap, BTreeSet};

use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};

use super::node::Value;

/// Which sentence of *Paxos Made Simple* is violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// Section 2.2: different proposals have different numbers.
    NumberUsedTwice,
    /// Two values chosen: a chosen proposal, and a higher-numbered one with another value.
    P2,
    /// A chosen proposal, and a higher-numbered one accepted with another value.
    P2a,
    /// A chosen proposal, and a higher-numbered one issued with another value.
    P2b,
    /// An issued proposal that no majority of acceptors supports.
    P2c,
    /// A learner holds a value chosen that is not.
    LearnedWhatIsNotChosen,
}

/// Everything that was ever issued, accepted and learned.
#[derive(Clone, Debug)]
pub(super) struct History {
    acceptors: Acceptors,
    issued: BTreeSet<(Ballot, Value)>,
    accepted: BTreeMap<(Ballot, Value), BTreeSet<ReplicaId>>,
    learned: BTreeSet<Value>,
    changed: bool,
}

impl History {
    pub(super) fn new(acceptors: Acceptors) -> Self {
        History {
            acceptors,
            issued: BTreeSet::new(),
            accepted: BTreeMap::new(),
            learned: BTreeSet::new(),
            changed: false,
        }
    }

    pub(super) fn issue(&mut self, ballot: Ballot, value: Value) {
        self.changed |= self.issued.insert((ballot, value));
    }

    pub(super) fn accept(&mut self, by: ReplicaId, ballot: Ballot, value: Value) {
        let all = self.accepted.entry((ballot, value)).or_default();
        self.changed |= all.insert(by);
    }

    pub(super) fn learn(&mut self, value: Value) {
        self.changed |= self.learned.insert(value);
    }

    /// The proposals that a majority has accepted, lowest number first.
    pub(super) fn chosen(&self) -> Vec<(Ballot, Value)> {
        let by_majority = |by: &BTreeSet<ReplicaId>| by.len() >= self.acceptors.majority();
        let chosen = self.accepted.iter().filter(|(_, by)| by_majority(by));
        chosen.map(|(proposal, _)| *proposal).collect()
    }

    /// The invariants that do not hold, looked at only if something happened since the last look.
    pub(super) fn news(&mut self) -> BTreeSet<Violation> {
        if !std::mem::take(&mut self.changed) {
            return BTreeSet::new();
        }
        self.violations()
    }

    /// The invariants that do not hold.
    pub(super) fn violations(&self) -> BTreeSet<Violation> {
        use Violation::{LearnedWhatIsNotChosen, NumberUsedTwice, P2, P2a, P2b, P2c};
        let chosen = self.chosen();
        // A chosen proposal with another value below this one.
        let contradicts = |(high, value): &(Ballot, Value)| {
            let mut below = chosen.iter().take_while(|(low, _)| low < high);
            below.any(|(_, kept)| kept != value)
        };
        let two_values = chosen.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let is_chosen = |value: &Value| chosen.iter().any(|(_, held)| held == value);
        let numbers: BTreeSet<Ballot> = self.issued.iter().map(|(ballot, _)| *ballot).collect();
        let (issued, mut accepted) = (&self.issued, self.accepted.keys());
        let checks = [
            (NumberUsedTwice, numbers.len() < issued.len()),
            (P2, two_values),
            (P2a, accepted.any(contradicts)),
            (P2b, issued.iter().any(contradicts)),
            (P2c, !issued.iter().all(|one| self.is_supported(one))),
            (LearnedWhatIsNotChosen, !self.learned.iter().all(is_chosen)),
        ];
        let violated = checks.into_iter().filter(|(_, violated)| *violated);
        violated.map(|(violation, _)| violation).collect()
    }

    /// P2c: is there a majority S such that (a) none of S accepted anything numbered less than n,
    /// or (b) the value is that of the highest-numbered proposal less than n that S accepted?
    fn is_supported(&self, (ballot, value): &(Ballot, Value)) -> bool {
        let highest: Vec<Option<(Ballot, Value)>> = self
            .acceptors
            .iter()
            .map(|acceptor| self.highest_below(*ballot, acceptor))
            .collect();
        majorities(self.acceptors.len()).any(|majority| {
            let reports = majority.into_iter().filter_map(|member| highest[member]);
            reports.max().is_none_or(|(_, bound)| bound == *value)
        })
    }

    fn highest_below(&self, ballot: Ballot, acceptor: ReplicaId) -> Option<(Ballot, Value)> {
        let below = self.accepted.iter().rev();
        let mut by_it = below.filter(|((at, _), by)| *at < ballot && by.contains(&acceptor));
        by_it.next().map(|(proposal, _)| *proposal)
    }
}

/// Every smallest majority of `members` positions.
pub(super) fn majorities(members: usize) -> impl Iterator<Item = Vec<usize>> {
    let size = members as u32 / 2 + 1;
    (0_u32..1 << members)
        .filter(move |set| set.count_ones() == size)
        .map(move |set| {
            (0..members)
                .filter(|member| set & (1 << member) != 0)
                .collect()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(1),
        }
    }

    /// Proposals as (number, value, the acceptors that accepted it), among 1, 2 and 3.
    fn violations(proposals: &[(u64, Value, &[u32])], learned: &[Value]) -> Vec<Violation> {
        let acceptors = Acceptors::new([1, 2, 3].map(ReplicaId)).unwrap();
        let mut history = History::new(acceptors);
        for (round, value, by) in proposals {
            history.issue(ballot(*round), *value);
            for id in *by {
                history.accept(ReplicaId(*id), ballot(*round), *value);
            }
        }
        learned.iter().for_each(|value| history.learn(*value));
        history.violations().into_iter().collect()
    }

    #[test]
    fn a_good_history_violates_nothing() {
        let good: [(u64, Value, &[u32]); 3] = [(1, 8, &[1]), (2, 5, &[2, 3]), (3, 5, &[1, 2, 3])];
        assert_eq!(violations(&good, &[5]), []);
    }

    #[test]
    fn each_violation_is_found() {
        use Violation::{LearnedWhatIsNotChosen, NumberUsedTwice, P2, P2a, P2b, P2c};
        assert_eq!(
            violations(&[(1, 8, &[1]), (1, 5, &[2])], &[]),
            [NumberUsedTwice]
        );
        let chosen_twice: [(u64, Value, &[u32]); 2] = [(1, 8, &[1, 2]), (2, 5, &[2, 3])];
        assert_eq!(violations(&chosen_twice, &[]), [P2, P2a, P2b, P2c]);
        assert_eq!(
            violations(&[(1, 8, &[1, 2]), (2, 5, &[3])], &[]),
            [P2a, P2b, P2c]
        );
        assert_eq!(violations(&[(1, 8, &[1, 2]), (2, 5, &[])], &[]), [P2b, P2c]);
        // Nothing is chosen: every majority accepted something below 3, none of them 7.
        assert_eq!(
            violations(&[(1, 8, &[1]), (2, 5, &[2]), (3, 7, &[])], &[]),
            [P2c]
        );
        // A majority of 1 and 3 supports 8, but one of 2 and 3 says nothing for 8.
        assert_eq!(
            violations(&[(1, 8, &[1]), (2, 5, &[2]), (3, 8, &[])], &[]),
            []
        );
        assert_eq!(violations(&[(1, 8, &[1])], &[8]), [LearnedWhatIsNotChosen]);
    }
}
