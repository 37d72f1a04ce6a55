//! The acceptors of an instance, majorities of them, and tallies of who has answered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ballot::ReplicaId;

/// The most acceptors that one instance can have.
pub const ACCEPTORS_MAX: usize = 31;

/// The 2F+1 acceptors of an instance, sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<ReplicaId>", into = "Vec<ReplicaId>")]
pub struct Acceptors(Arc<[ReplicaId]>);

impl Acceptors {
    /// Makes the set of acceptors.
    ///
    /// # Errors
    /// When the number is even, zero or above [`ACCEPTORS_MAX`], or a name stands twice.
    pub fn new(ids: impl IntoIterator<Item = ReplicaId>) -> Result<Self, AcceptorsError> {
        let mut ids: Vec<ReplicaId> = ids.into_iter().collect();
        ids.sort_unstable();
        if ids.len().is_multiple_of(2) || ids.len() > ACCEPTORS_MAX {
            return Err(AcceptorsError::Count { got: ids.len() });
        }
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(AcceptorsError::Twice { replica: pair[0] }),
            None => Ok(Acceptors(ids.into())),
        }
    }

    /// How many acceptors there are: 2F+1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The size of a majority: F+1. Any two majorities have a member in common.
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// The position of `replica` in the sorted order.
    pub fn index_of(&self, replica: ReplicaId) -> Option<usize> {
        self.0.iter().position(|id| *id == replica)
    }

    /// Whether `replica` is one of the acceptors.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.index_of(replica).is_some()
    }

    /// The acceptors in order.
    pub fn iter(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.0.iter().copied()
    }
}

impl TryFrom<Vec<ReplicaId>> for Acceptors {
    type Error = AcceptorsError;

    fn try_from(ids: Vec<ReplicaId>) -> Result<Self, AcceptorsError> {
        Acceptors::new(ids)
    }
}

impl From<Acceptors> for Vec<ReplicaId> {
    fn from(acceptors: Acceptors) -> Self {
        acceptors.0.to_vec()
    }
}

/// Why a set of acceptors was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AcceptorsError {
    /// The number of replicas is not 2F+1 for an F that is supported.
    #[error("expected an odd number of replicas from 1 to {ACCEPTORS_MAX} (2F+1), got {got}")]
    Count {
        /// How many were given.
        got: usize,
    },
    /// One name was given twice.
    #[error("replica {replica} is listed twice; every replica needs an id of its own")]
    Twice {
        /// The name.
        replica: ReplicaId,
    },
}

/// Which acceptors have answered: a set of positions in [`Acceptors`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tally(u32);

impl Tally {
    /// Counts `replica`, once. Says whether it was new; a stranger is never counted.
    pub fn add(&mut self, acceptors: &Acceptors, replica: ReplicaId) -> bool {
        let Some(index) = acceptors.index_of(replica) else {
            return false;
        };
        let before = self.0;
        self.0 |= 1 << index;
        self.0 != before
    }

    /// Whether `replica` has answered.
    pub fn contains(self, acceptors: &Acceptors, replica: ReplicaId) -> bool {
        let index = acceptors.index_of(replica);
        index.is_some_and(|index| self.0 & (1 << index) != 0)
    }

    /// How many have answered.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether a majority has answered.
    pub fn is_majority(self, acceptors: &Acceptors) -> bool {
        self.count() >= acceptors.majority()
    }

    /// Those that have not answered, in order.
    pub fn silent(self, acceptors: &Acceptors) -> Vec<ReplicaId> {
        let answered = |index: usize| self.0 & (1 << index) != 0;
        let members = acceptors.iter().enumerate();
        members
            .filter(|(index, _)| !answered(*index))
            .map(|(_, replica)| replica)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acceptors(n: u32) -> Acceptors {
        Acceptors::new((1..=n).map(ReplicaId)).unwrap()
    }

    #[test]
    fn majority_of_2f_plus_1_is_f_plus_1() {
        for f in 0..=15 {
            assert_eq!(acceptors(2 * f + 1).majority(), f as usize + 1);
        }
    }

    #[test]
    fn refuses_even_none_too_many_and_doubles() {
        for n in [0, 2, 4, 32, 33] {
            let error = Acceptors::new((0..n).map(ReplicaId)).unwrap_err();
            assert_eq!(error, AcceptorsError::Count { got: n as usize });
        }
        assert_eq!(acceptors(31).len(), ACCEPTORS_MAX);
        let twice = Acceptors::new([3, 1, 3].map(ReplicaId)).unwrap_err();
        assert_eq!(
            twice,
            AcceptorsError::Twice {
                replica: ReplicaId(3)
            }
        );
    }

    #[test]
    fn tally_counts_each_member_once_and_no_stranger() {
        let acceptors = acceptors(3);
        let mut tally = Tally::default();
        assert!(tally.add(&acceptors, ReplicaId(2)));
        assert!(!tally.add(&acceptors, ReplicaId(2)));
        assert!(!tally.add(&acceptors, ReplicaId(4)));
        assert_eq!(tally.count(), 1);
        let counted = [1, 2, 3, 4].map(|id| tally.contains(&acceptors, ReplicaId(id)));
        assert_eq!(counted, [false, true, false, false]);
        assert!(!tally.is_majority(&acceptors));
        assert_eq!(tally.silent(&acceptors), [ReplicaId(1), ReplicaId(3)]);
        assert!(tally.add(&acceptors, ReplicaId(1)));
        assert!(tally.is_majority(&acceptors));
        assert_eq!(tally.silent(&acceptors), [ReplicaId(3)]);
    }

    #[test]
    fn sorted_whatever_the_order_given() {
        let acceptors = Acceptors::new([3, 1, 2].map(ReplicaId)).unwrap();
        let order: Vec<u32> = acceptors.iter().map(|id| id.0).collect();
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(acceptors.index_of(ReplicaId(3)), Some(2));
        assert!(acceptors.contains(ReplicaId(1)) && !acceptors.contains(ReplicaId(0)));
    }
}
