//! The acceptor: what it promised, what it accepted, and when it refuses.

use thiserror::Error;

use super::ballot::Ballot;

/// One acceptor of one instance.
///
/// Its state must be durable before an answer that it gave leaves the process: an acceptor that
/// forgets what it promised or accepted can let two values be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor<V> {
    promised: Ballot,
    accepted: Option<(Ballot, V)>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor {
            promised: Ballot::ZERO,
            accepted: None,
        }
    }
}

impl<V: Clone + PartialEq> Acceptor<V> {
    /// The highest ballot that this acceptor has promised, [`Ballot::ZERO`] at first.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The proposal with the highest ballot that this acceptor has accepted.
    pub fn accepted(&self) -> Option<&(Ballot, V)> {
        self.accepted.as_ref()
    }

    /// Phase 1b: promises to accept nothing below `ballot`, and tells what it has accepted.
    ///
    /// To promise the same ballot again is the answer to a duplicate; it changes nothing.
    ///
    /// # Errors
    /// [`Nack`] when a higher ballot has been promised.
    pub fn promise(&mut self, ballot: Ballot) -> Result<Option<&(Ballot, V)>, Nack> {
        // Paxos Made Simple, section 2.2: it responds to a prepare request whose number is greater
        // than that of any prepare request to which it has already responded.
        self.guard(ballot)?;
        self.promised = ballot;
        Ok(self.accepted.as_ref())
    }

    /// Phase 2b: accepts `value` at `ballot`, unless a higher ballot has been promised (P1a).
    ///
    /// # Errors
    /// [`Refusal::Nack`] when a higher ballot has been promised, [`Refusal::Conflict`] when another
    /// value was accepted at this very ballot: the proposer used its ballot twice.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> Result<(), Refusal> {
        self.guard(ballot)?;
        match &self.accepted {
            Some((at, held)) if *at == ballot && *held != value => Err(Refusal::Conflict),
            Some(_) | None => {
                self.promised = ballot;
                self.accepted = Some((ballot, value));
                Ok(())
            }
        }
    }

    /// Takes back from disk that `ballot` was promised. Any order of records gives the same state.
    pub fn restore_promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    /// Takes back from disk that `value` was accepted at `ballot`. Any order of records gives the
    /// same state: the highest accepted ballot stays, however much higher a promise went.
    pub fn restore_accept(&mut self, ballot: Ballot, value: V) {
        self.restore_promise(ballot);
        if self.accepted.as_ref().is_none_or(|(at, _)| *at < ballot) {
            self.accepted = Some((ballot, value));
        }
    }

    fn guard(&self, ballot: Ballot) -> Result<(), Nack> {
        if ballot < self.promised {
            return Err(Nack {
                promised: self.promised,
            });
        }
        Ok(())
    }
}

/// A refusal that tells the higher ballot, so that the proposer can go above it or stand back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("a higher ballot, {promised}, was promised")]
pub struct Nack {
    /// The ballot that the acceptor has promised.
    pub promised: Ballot,
}

/// Why a phase 2 request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A higher ballot was promised.
    #[error(transparent)]
    Nack(#[from] Nack),
    /// Another value was accepted at the same ballot.
    #[error("another value was accepted at this very ballot: its proposer used it twice")]
    Conflict,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::paxos::ReplicaId;

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            replica: ReplicaId(1),
        }
    }

    #[test]
    fn ballot_zero_needs_no_phase_1() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(Ballot::ZERO, 'a'), Ok(()));
        assert_eq!(acceptor.accepted(), Some(&(Ballot::ZERO, 'a')));
    }

    #[test]
    fn a_promise_refuses_what_is_below_and_tells_the_higher_ballot() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.promise(ballot(2)), Ok(None));
        let nack = Nack {
            promised: ballot(2),
        };
        assert_eq!(acceptor.promise(ballot(1)), Err(nack));
        assert_eq!(acceptor.accept(ballot(1), 'a'), Err(Refusal::Nack(nack)));
        assert_eq!(acceptor.accept(Ballot::ZERO, 'a'), Err(Refusal::Nack(nack)));
        assert_eq!(acceptor.promise(ballot(2)), Ok(None), "again is harmless");
        assert_eq!(acceptor.accept(ballot(2), 'a'), Ok(()));
        assert_eq!(acceptor.promise(ballot(3)), Ok(Some(&(ballot(2), 'a'))));
        assert_eq!(acceptor.promised(), ballot(3));
    }

    #[test]
    fn accepting_above_the_promise_raises_it() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(ballot(5), 'a'), Ok(()));
        assert_eq!(acceptor.promised(), ballot(5));
        assert!(acceptor.promise(ballot(4)).is_err());
    }

    #[test]
    fn one_ballot_one_value() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(ballot(1), 'a'), Ok(()));
        assert_eq!(acceptor.accept(ballot(1), 'a'), Ok(()));
        assert_eq!(acceptor.accept(ballot(1), 'b'), Err(Refusal::Conflict));
        assert_eq!(acceptor.accepted(), Some(&(ballot(1), 'a')));
        assert_eq!(acceptor.accept(ballot(2), 'b'), Ok(()));
    }

    #[test]
    fn restored_in_any_order() {
        let mut forwards = Acceptor::default();
        forwards.restore_accept(ballot(1), 'a');
        forwards.restore_promise(ballot(4));
        forwards.restore_accept(ballot(2), 'b');
        let mut backwards = Acceptor::default();
        backwards.restore_accept(ballot(2), 'b');
        backwards.restore_promise(ballot(4));
        backwards.restore_accept(ballot(1), 'a');
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.promised(), ballot(4));
        assert_eq!(forwards.accepted(), Some(&(ballot(2), 'b')));
    }
}
