//! The branches of a session, counted by whose account they are on.
//!
//! A service begins work under the id that its caller names, and its caller may invent it. So what
//! an id says of its initiator is believed only of runs that a relay has vouched for: it has checked
//! the initiator's certificate before it told this session the floor of the run. What they take is
//! charged to their name. All other runs share one quota, whatever names they say that they have.
//!
//! (Counter-example to charging every name as the ids say: a caller invents a million ids with the
//! name of an honest initiator. From then on, this session takes part in no transaction of that one.
//! And with a million invented names there is no bound at all.)
//!
//! Two things remain. A caller that was told of a transaction of a run knows the run, and can use up
//! its places. And callers that invent millions of ids within the life of a generation keep initiators
//! out of which no relay has told this session anything so far. A service that is open to every
//! caller must check its callers before it begins work for them.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::protocol::types::{InitiatorId, TxnId};

use super::branch::Phase;

/// The phase of each branch, by transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Branches {
    phases: BTreeMap<TxnId, Phase>,
    /// The runs that have a branch, or that a relay has vouched for.
    runs: BTreeMap<InitiatorId, Run>,
    /// How many branches the vouched runs of each name have.
    of_names: BTreeMap<u128, usize>,
    /// How many branches all other runs have.
    of_strangers: usize,
    of_name_max: usize,
    of_strangers_max: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Run {
    branches: usize,
    standing: Standing,
}

/// Whether a relay has checked who owns a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Standing {
    Vouched,
    #[default]
    Stranger,
}

impl Branches {
    pub(super) fn new(of_name_max: usize, of_strangers_max: usize) -> Self {
        Branches {
            phases: BTreeMap::new(),
            runs: BTreeMap::new(),
            of_names: BTreeMap::new(),
            of_strangers: 0,
            of_name_max,
            of_strangers_max,
        }
    }

    pub(super) fn get(&self, txn: &TxnId) -> Option<&Phase> {
        self.phases.get(txn)
    }

    pub(super) fn get_mut(&mut self, txn: &TxnId) -> Option<&mut Phase> {
        self.phases.get_mut(txn)
    }

    /// Whether one more transaction of this run is remembered.
    pub(super) fn has_room_for(&self, run: InitiatorId) -> bool {
        match self.standing(run) {
            Standing::Vouched => {
                let held = self.of_names.get(&run.name_bits());
                held.copied().unwrap_or(0) < self.of_name_max
            }
            Standing::Stranger => self.of_strangers < self.of_strangers_max,
        }
    }

    pub(super) fn is_vouched(&self, run: InitiatorId) -> bool {
        self.standing(run) == Standing::Vouched
    }

    /// From now on its name pays for what the run takes.
    pub(super) fn vouch(&mut self, run: InitiatorId) {
        self.stand(run, Standing::Vouched);
    }

    /// What a relay has said of the run is forgotten.
    pub(super) fn forget(&mut self, run: InitiatorId) {
        self.stand(run, Standing::Stranger);
    }

    fn standing(&self, run: InitiatorId) -> Standing {
        self.runs
            .get(&run)
            .map_or(Standing::Stranger, |of| of.standing)
    }

    fn stand(&mut self, run: InitiatorId, standing: Standing) {
        let of = self.runs.entry(run).or_default();
        let before = std::mem::replace(&mut of.standing, standing);
        let branches = of.branches;
        self.count(run, before, |held| held - branches);
        self.count(run, standing, |held| held + branches);
        self.drop_if_empty(run);
    }

    /// Changes how many branches are charged to a run that stands so.
    fn count(&mut self, run: InitiatorId, standing: Standing, change: impl Fn(usize) -> usize) {
        match standing {
            Standing::Stranger => self.of_strangers = change(self.of_strangers),
            Standing::Vouched => {
                let name = run.name_bits();
                let held = self.of_names.entry(name).or_default();
                *held = change(*held);
                if *held == 0 {
                    self.of_names.remove(&name);
                }
            }
        }
    }

    fn drop_if_empty(&mut self, run: InitiatorId) {
        if self.runs.get(&run) == Some(&Run::default()) {
            self.runs.remove(&run);
        }
    }

    pub(super) fn insert(&mut self, txn: TxnId, phase: Phase) {
        if self.phases.insert(txn, phase).is_none() {
            let of = self.runs.entry(txn.initiator).or_default();
            of.branches += 1;
            let standing = of.standing;
            self.count(txn.initiator, standing, |held| held + 1);
        }
    }

    pub(super) fn remove(&mut self, txn: &TxnId) -> Option<Phase> {
        let phase = self.phases.remove(txn)?;
        if let Some(of) = self.runs.get_mut(&txn.initiator) {
            of.branches -= 1;
            let standing = of.standing;
            self.count(txn.initiator, standing, |held| held - 1);
        }
        self.drop_if_empty(txn.initiator);
        Some(phase)
    }

    pub(super) fn len(&self) -> usize {
        self.phases.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &TxnId> + '_ {
        self.phases.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Phase> + '_ {
        self.phases.values()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TxnId, &Phase)> + '_ {
        self.phases.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&TxnId, &mut Phase)> + '_ {
        self.phases.iter_mut()
    }

    pub(super) fn range(
        &self,
        range: impl RangeBounds<TxnId>,
    ) -> impl Iterator<Item = (&TxnId, &Phase)> + '_ {
        self.phases.range(range)
    }
}

#[cfg(test)]
mod tests {
    use super::super::branch::Done;
    use super::*;

    fn txn(run: u128, sequence: u32) -> TxnId {
        TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(run),
            sequence,
            nonce: 9,
        }
    }

    #[test]
    fn counts_follow_what_is_inserted_and_removed_and_who_vouches() {
        let fresh = || Branches::new(2, 3);
        let mut branches = fresh();
        let (run, other) = (InitiatorId::from_u128(1), InitiatorId::from_u128(2));
        let put = |branches: &mut Branches, run, sequence| {
            branches.insert(txn(run, sequence), Phase::Done(Done::LetGo));
        };
        put(&mut branches, 1, 1);
        put(&mut branches, 1, 1);
        put(&mut branches, 1, 2);
        put(&mut branches, 2, 1);
        assert!(!branches.has_room_for(other), "three strangers");
        branches.vouch(run);
        branches.vouch(run);
        assert!(!branches.has_room_for(run), "two of its name");
        assert!(branches.has_room_for(other) && !branches.is_vouched(other));
        branches.forget(run);
        assert!(!branches.has_room_for(other), "three strangers again");
        branches.vouch(other);
        assert!(branches.has_room_for(run) && branches.has_room_for(other));
        for (run, sequence) in [(1, 1), (1, 2), (2, 1)] {
            assert!(branches.remove(&txn(run, sequence)).is_some());
            assert!(branches.remove(&txn(run, sequence)).is_none());
        }
        branches.forget(other);
        branches.forget(run);
        assert_eq!(branches, fresh(), "nothing is left");
    }
}
