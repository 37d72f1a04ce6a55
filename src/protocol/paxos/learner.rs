//! The learner: a value is chosen when a majority has accepted it at the same ballot.

use super::ballot::{Ballot, ReplicaId};
use super::quorum::Acceptors;

/// One learner of one instance.
///
/// It keeps the highest report of each acceptor, so its memory is bounded by the number of
/// acceptors. Reports of different ballots are never counted together: three acceptors that
/// accepted Abort at ballots 1, 2 and 3 have chosen nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner<V> {
    reports: Vec<Report<V>>,
    chosen: Option<V>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Report<V> {
    acceptor: ReplicaId,
    ballot: Ballot,
    value: V,
}

impl<V> Default for Learner<V> {
    fn default() -> Self {
        Learner {
            reports: Vec::new(),
            chosen: None,
        }
    }
}

impl<V: Clone + PartialEq> Learner<V> {
    /// The value chosen, once it is known.
    pub fn chosen(&self) -> Option<&V> {
        self.chosen.as_ref()
    }

    /// Takes the report that `from` accepted `value` at `ballot`. Answers with the chosen value.
    pub fn on_accepted(
        &mut self,
        acceptors: &Acceptors,
        from: ReplicaId,
        ballot: Ballot,
        value: V,
    ) -> Option<&V> {
        if self.chosen.is_some() || !acceptors.contains(from) {
            return self.chosen.as_ref();
        }
        match self.reports.iter_mut().find(|held| held.acceptor == from) {
            Some(held) if held.ballot >= ballot => return None,
            Some(held) => {
                held.ballot = ballot;
                held.value = value.clone();
            }
            None => self.reports.push(Report {
                acceptor: from,
                ballot,
                value: value.clone(),
            }),
        }
        let same = |held: &&Report<V>| held.ballot == ballot && held.value == value;
        if self.reports.iter().filter(same).count() >= acceptors.majority() {
            self.reports.clear();
            self.chosen = Some(value);
        }
        self.chosen.as_ref()
    }
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

    fn learn(reports: &[(u32, u64, char)]) -> Option<char> {
        let acceptors = Acceptors::new((1..=5).map(ReplicaId)).unwrap();
        let mut learner = Learner::default();
        for (from, round, value) in reports {
            learner.on_accepted(&acceptors, ReplicaId(*from), ballot(*round), *value);
        }
        learner.chosen().copied()
    }

    #[test]
    fn chosen_by_a_majority_at_one_ballot() {
        assert_eq!(learn(&[(1, 1, 'a'), (2, 1, 'a')]), None);
        assert_eq!(learn(&[(1, 1, 'a'), (2, 1, 'a'), (5, 1, 'a')]), Some('a'));
    }

    #[test]
    fn reports_of_different_ballots_are_not_counted_together() {
        assert_eq!(learn(&[(1, 1, 'a'), (2, 2, 'a'), (3, 3, 'a')]), None);
        let caught_up = [(1, 1, 'a'), (2, 3, 'a'), (3, 3, 'a'), (1, 3, 'a')];
        assert_eq!(learn(&caught_up), Some('a'));
    }

    #[test]
    fn a_report_counts_once_and_never_goes_back() {
        assert_eq!(learn(&[(1, 1, 'a'), (1, 1, 'a'), (1, 1, 'a')]), None);
        let stale = [(1, 2, 'b'), (1, 1, 'a'), (2, 1, 'a'), (3, 1, 'a')];
        assert_eq!(learn(&stale), None);
        assert_eq!(learn(&[(1, 1, 'a'), (2, 1, 'a'), (9, 1, 'a')]), None);
    }

    #[test]
    fn reports_of_different_values_are_not_counted_together() {
        assert_eq!(learn(&[(1, 1, 'a'), (2, 1, 'a'), (3, 1, 'b')]), None);
    }

    #[test]
    fn what_is_chosen_stays() {
        let chosen = [(1, 1, 'a'), (2, 1, 'a'), (3, 1, 'a'), (4, 9, 'b')];
        assert_eq!(learn(&chosen), Some('a'));
    }
}
