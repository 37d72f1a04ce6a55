//! Ballots: who proposes, and in which order proposals outrank each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of one replica: an acceptor, proposer and learner of every instance. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u32);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A proposal number: unique to its replica, ordered by round, then by replica.
///
/// *Paxos Made Simple*, section 2.2: different proposals have different numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// The round; 0 only in [`Ballot::ZERO`].
    pub round: u64,
    /// The replica whose ballot this is.
    pub replica: ReplicaId,
}

impl Ballot {
    /// The lowest ballot. It needs no phase 1, because nothing can have been accepted below it
    /// (Gray & Lamport, section 4.1).
    pub const ZERO: Ballot = Ballot {
        round: 0,
        replica: ReplicaId(0),
    };

    /// The highest ballot. No replica leads it; it stands for the promise of a generation that is
    /// frozen.
    pub const LAST: Ballot = Ballot {
        round: u64::MAX,
        replica: ReplicaId(u32::MAX),
    };

    /// The lowest ballot of `replica` that is higher than every ballot of round `round`.
    ///
    /// `None` when rounds are exhausted, which takes a peer that sends absurd ballots: the replica
    /// then leads no more, and stays safe.
    pub fn above(round: u64, replica: ReplicaId) -> Option<Ballot> {
        let round = round.checked_add(1)?;
        (round < Ballot::LAST.round).then_some(Ballot { round, replica })
    }

    /// Whether this is [`Ballot::ZERO`], the one that needs no phase 1.
    pub fn is_zero(self) -> bool {
        self == Ballot::ZERO
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_by_round_then_replica() {
        let low = Ballot {
            round: 1,
            replica: ReplicaId(9),
        };
        let high = Ballot {
            round: 2,
            replica: ReplicaId(1),
        };
        assert!(Ballot::ZERO < low && low < high);
        assert!(
            Ballot {
                round: 2,
                replica: ReplicaId(2)
            } > high
        );
        assert!(Ballot::ZERO.is_zero() && !low.is_zero());
    }

    #[test]
    fn above_is_higher_and_ends_at_the_last_round() {
        let ballot = Ballot::above(7, ReplicaId(1)).unwrap();
        assert_eq!(ballot.to_string(), "8.1");
        assert_eq!(Ballot::above(u64::MAX, ReplicaId(1)), None);
        assert_eq!(Ballot::above(u64::MAX - 1, ReplicaId(1)), None);
        let last = Ballot::above(u64::MAX - 2, ReplicaId(1)).unwrap();
        assert!(last < Ballot::LAST);
    }
}
