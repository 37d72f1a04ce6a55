//! How any host learns the outcome of a transaction by itself, from reports of replicas.

use super::paxos::{Acceptors, Ballot, Learner, ReplicaId};
use super::types::Outcome;

/// A learner of one transaction's outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OutcomeLearner(Learner<Outcome>);

impl OutcomeLearner {
    /// Takes the report that replica `from` accepted `outcome` at `ballot`.
    ///
    /// Abort at ballot 0 is final even from a single replica: a branch said `Aborted`, it never
    /// says anything else, so Commit can be chosen at no ballot. Anything else takes a majority at
    /// the same ballot.
    pub fn on_phase2b(
        &mut self,
        acceptors: &Acceptors,
        from: ReplicaId,
        ballot: Ballot,
        outcome: Outcome,
    ) -> Option<Outcome> {
        if is_final_alone(ballot, outcome) && acceptors.contains(from) {
            return Some(outcome);
        }
        self.0
            .on_accepted(acceptors, from, ballot, outcome)
            .copied()
    }
}

/// Whether one replica's acceptance settles the outcome.
pub fn is_final_alone(ballot: Ballot, outcome: Outcome) -> bool {
    ballot.is_zero() && outcome == Outcome::Abort
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_abort_at_ballot_0_is_final_all_else_takes_a_majority() {
        let acceptors = Acceptors::new((1..=3).map(ReplicaId)).unwrap();
        let later = Ballot::above(0, ReplicaId(1)).unwrap();
        let learn = |reports: &[(u32, Ballot, Outcome)]| {
            let mut learner = OutcomeLearner::default();
            let mut learned = None;
            for (from, ballot, outcome) in reports {
                learned = learner.on_phase2b(&acceptors, ReplicaId(*from), *ballot, *outcome);
            }
            learned
        };
        use Outcome::{Abort, Commit};
        assert_eq!(learn(&[(1, Ballot::ZERO, Abort)]), Some(Abort));
        assert_eq!(learn(&[(9, Ballot::ZERO, Abort)]), None, "a stranger");
        assert_eq!(learn(&[(1, later, Abort)]), None);
        assert_eq!(learn(&[(1, Ballot::ZERO, Commit)]), None);
        assert_eq!(learn(&[(1, later, Abort), (2, later, Abort)]), Some(Abort));
        let zero = Ballot::ZERO;
        assert_eq!(learn(&[(1, zero, Commit), (2, zero, Commit)]), Some(Commit));
        assert_eq!(learn(&[(1, zero, Commit), (2, later, Commit)]), None);
    }
}
