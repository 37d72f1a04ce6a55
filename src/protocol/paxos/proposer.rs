//! The proposer: phase 1 to learn what may have been chosen, phase 2 to propose it.

use super::acceptor::Nack;
use super::ballot::{Ballot, ReplicaId};
use super::quorum::{Acceptors, Tally};

/// One ballot of one proposer in one instance.
///
/// A ballot is used once: whoever makes a proposer saves the ballot before its first message
/// leaves, and never makes a second one with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer<V> {
    ballot: Ballot,
    acceptors: Acceptors,
    promises: Tally,
    highest: Option<(Ballot, V)>,
    phase: Phase<V>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase<V> {
    /// Phase 1: promises are being collected.
    Promises,
    /// A majority promised; the caller has still to propose.
    Ready,
    /// Phase 2: this value has been proposed.
    Proposed(V),
    /// A higher ballot was seen; this one is given up.
    Preempted,
}

/// What a majority of promises allows to propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice<V> {
    /// The value of the highest ballot reported: nothing else may be proposed (P2c).
    Bound(V),
    /// No acceptor of the majority has accepted anything: the caller chooses.
    Free,
}

impl<V: Clone + PartialEq> Proposer<V> {
    /// Starts `ballot` among `acceptors`; the caller sends `prepare(ballot)` to all of them.
    ///
    /// # Panics
    /// At ballot 0: it has no phase 1, so it would take no notice of what was accepted there.
    pub fn new(ballot: Ballot, acceptors: Acceptors) -> Self {
        assert!(!ballot.is_zero(), "ballot 0 has no phase 1");
        Proposer {
            ballot,
            acceptors,
            promises: Tally::default(),
            highest: None,
            phase: Phase::Promises,
        }
    }

    /// The ballot.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whether a majority has promised, and the caller has still to propose.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// What the promises bind this ballot to, as far as they are in.
    pub fn bound(&self) -> Option<&V> {
        self.highest.as_ref().map(|(_, value)| value)
    }

    /// The same ballot in the next of a sequence of instances, with phase 1 behind it.
    ///
    /// *Paxos Made Simple*, section 3: a leader executes phase 1 for all later instances at once.
    /// The caller vouches that the acceptors are the same, that each keeps its promise in all later
    /// instances, and that none had accepted anything there when it promised.
    ///
    /// # Panics
    /// When this ballot has not proposed: without a majority's promises nothing can be skipped.
    #[must_use]
    pub fn next_instance(&self) -> Self {
        assert!(
            matches!(self.phase, Phase::Proposed(_)),
            "phase 1 is skipped by a ballot that has completed it"
        );
        Proposer {
            ballot: self.ballot,
            acceptors: self.acceptors.clone(),
            promises: self.promises,
            highest: None,
            phase: Phase::Ready,
        }
    }

    /// What has been proposed in phase 2, if it has come to that.
    pub fn proposed(&self) -> Option<&V> {
        match &self.phase {
            Phase::Proposed(value) => Some(value),
            Phase::Promises | Phase::Ready | Phase::Preempted => None,
        }
    }

    /// The acceptors whose promise is still missing.
    pub fn silent(&self) -> Vec<ReplicaId> {
        self.promises.silent(&self.acceptors)
    }

    /// Takes one promise. Answers once, at the promise that completes a majority.
    pub fn on_promise(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        accepted: Option<(Ballot, V)>,
    ) -> Option<Choice<V>> {
        if self.phase != Phase::Promises || ballot != self.ballot {
            return None;
        }
        if !self.promises.add(&self.acceptors, from) {
            return None;
        }
        // Phase 1 of a ballot comes before its phase 2. Whoever accepted at this ballot already was
        // asked under the same number by an earlier life of this proposer: give it up.
        if accepted.as_ref().is_some_and(|(at, _)| *at >= self.ballot) {
            self.phase = Phase::Preempted;
            return None;
        }
        if let Some((at, value)) = accepted
            && self.highest.as_ref().is_none_or(|(high, _)| *high < at)
        {
            self.highest = Some((at, value));
        }
        if !self.promises.is_majority(&self.acceptors) {
            return None;
        }
        self.phase = Phase::Ready;
        Some(match &self.highest {
            Some((_, value)) => Choice::Bound(value.clone()),
            None => Choice::Free,
        })
    }

    /// Proposes `value`; the caller sends `accept(ballot, value)` to all acceptors.
    ///
    /// # Panics
    /// When phase 1 is not complete, a value was proposed already, or `value` is not the one that
    /// the promises bind to: each is a bug of the caller that could let two values be chosen.
    pub fn propose(&mut self, value: V) {
        assert!(
            self.phase == Phase::Ready,
            "a value is proposed once, after a majority of promises"
        );
        // Paxos Made Simple, P2c: the value of the highest-numbered proposal reported, if any.
        if let Some((_, bound)) = &self.highest {
            assert!(*bound == value, "the promises bind this ballot to a value");
        }
        self.phase = Phase::Proposed(value);
    }

    /// Takes a refusal. Says whether this ballot is thereby given up.
    pub fn on_nack(&mut self, nack: Nack) -> bool {
        if nack.promised <= self.ballot {
            return false;
        }
        self.phase = Phase::Preempted;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(1);

    fn ballot(round: u64) -> Ballot {
        Ballot { round, replica: ME }
    }

    fn proposer(replicas: u32) -> Proposer<char> {
        let acceptors = Acceptors::new((1..=replicas).map(ReplicaId)).unwrap();
        Proposer::new(ballot(5), acceptors)
    }

    #[test]
    fn free_when_no_promise_reports_a_value() {
        let mut proposer = proposer(3);
        assert_eq!(proposer.on_promise(ReplicaId(1), ballot(5), None), None);
        assert_eq!(proposer.silent(), [ReplicaId(2), ReplicaId(3)]);
        assert_eq!(
            proposer.on_promise(ReplicaId(3), ballot(5), None),
            Some(Choice::Free)
        );
        proposer.propose('x');
        assert_eq!(proposer.proposed(), Some(&'x'));
        assert_eq!(proposer.ballot(), ballot(5));
    }

    #[test]
    fn bound_to_the_value_of_the_highest_ballot() {
        let mut proposer = proposer(5);
        let report = |round, value| Some((ballot(round), value));
        assert_eq!(
            proposer.on_promise(ReplicaId(1), ballot(5), report(3, 'b')),
            None
        );
        assert_eq!(
            proposer.on_promise(ReplicaId(2), ballot(5), report(1, 'a')),
            None
        );
        assert_eq!(
            proposer.on_promise(ReplicaId(3), ballot(5), None),
            Some(Choice::Bound('b'))
        );
        assert_eq!(
            proposer.on_promise(ReplicaId(4), ballot(5), report(4, 'c')),
            None,
            "the majority is complete, a later promise changes nothing"
        );
        proposer.propose('b');
    }

    #[test]
    fn counts_no_duplicate_no_stranger_no_other_ballot() {
        let mut proposer = proposer(3);
        assert_eq!(proposer.on_promise(ReplicaId(1), ballot(5), None), None);
        assert_eq!(proposer.on_promise(ReplicaId(1), ballot(5), None), None);
        assert_eq!(proposer.on_promise(ReplicaId(9), ballot(5), None), None);
        assert_eq!(proposer.on_promise(ReplicaId(2), ballot(4), None), None);
        assert_eq!(proposer.on_promise(ReplicaId(2), ballot(6), None), None);
        assert!(proposer.on_promise(ReplicaId(2), ballot(5), None).is_some());
    }

    #[test]
    fn a_report_at_the_ballot_itself_means_that_it_was_used_before() {
        for round in [5, 6] {
            let mut proposer = proposer(3);
            let used = Some((ballot(round), 'z'));
            assert_eq!(proposer.on_promise(ME, ballot(5), used), None);
            assert_eq!(proposer.on_promise(ReplicaId(2), ballot(5), None), None);
            assert_eq!(proposer.on_promise(ReplicaId(3), ballot(5), None), None);
        }
    }

    #[test]
    #[should_panic(expected = "no phase 1")]
    fn ballot_zero_has_no_proposer() {
        let acceptors = Acceptors::new([ME]).unwrap();
        Proposer::<char>::new(Ballot::ZERO, acceptors);
    }

    #[test]
    fn a_higher_ballot_preempts() {
        let mut proposer = proposer(3);
        assert!(!proposer.on_nack(Nack {
            promised: ballot(5)
        }));
        assert!(proposer.on_nack(Nack {
            promised: ballot(6)
        }));
        for id in [1, 2, 3].map(ReplicaId) {
            assert_eq!(proposer.on_promise(id, ballot(5), None), None);
        }
        assert_eq!(proposer.proposed(), None);
    }

    #[test]
    #[should_panic(expected = "bind this ballot")]
    fn proposing_against_the_promises_is_a_bug() {
        let mut proposer = proposer(1);
        proposer.on_promise(ME, ballot(5), Some((ballot(1), 'a')));
        proposer.propose('b');
    }

    #[test]
    #[should_panic(expected = "proposed once")]
    fn proposing_before_a_majority_is_a_bug() {
        proposer(3).propose('a');
    }

    #[test]
    #[should_panic(expected = "proposed once")]
    fn proposing_twice_is_a_bug() {
        let mut proposer = proposer(1);
        proposer.on_promise(ME, ballot(5), None);
        proposer.propose('a');
        proposer.propose('a');
    }
}
