//! Whether a replica takes on something new when it has much already.
//!
//! Whoever has a certificate can invent transactions, and each stays until its vote timeout has
//! passed. So places are counted by name, the name of whoever made the replica take the transaction
//! on: the participant of the first vote, the initiator, or who asked. Past
//! [`undecided_max`](super::ReplicaConfig::undecided_max) only those are taken on whose name has
//! few. Nothing that was taken on is given up for that. A commit that is not applied after a while
//! takes a place of a participant that it waits for.
//!
//! (The counter-example to one limit for all: a participant votes, at each replica, in 100,000
//! transactions that it invents, in rosters with a branch that never votes. For ten minutes nobody
//! else's transaction is taken on.)

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{Hash, Hasher};

use crate::protocol::types::{Branch, CommitId, ParticipantName, Peer};

use super::instance::Instance;
use super::{Replica, count_new};

/// Past the limit a name may have this part of it.
const SHARES: usize = 64;

/// A name may have so many times the limit, commits that wait for it among them.
const HELD_MAX: usize = 2;

/// How many places each name has. It is not saved: after a restart nobody has any.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    counts: BTreeMap<Name, usize>,
}

/// Whose place an instance takes, if it is anybody's.
#[derive(Clone, Debug, Default)]
pub(super) struct Place(Option<Name>);

/// Whoever can show one certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Participant(ParticipantName),
    Initiator(u64),
    /// Operators and replicas are trusted.
    Staff,
}

/// Replicas that differ in places alone do the same until one is full, so the model checker takes
/// them for one.
macro_rules! all_are_equal {
    ($of:ty) => {
        impl PartialEq for $of {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }

        impl Eq for $of {}

        impl Hash for $of {
            fn hash<H: Hasher>(&self, _: &mut H) {}
        }
    };
}

all_are_equal!(Places);
all_are_equal!(Place);

impl Name {
    fn of(peer: &Peer) -> Name {
        match peer {
            Peer::Session(branch) => Name::Participant(branch.participant.clone()),
            Peer::Initiator(id) => Name::Initiator(id.name_bits()),
            Peer::Operator(_) | Peer::Replica(_) => Name::Staff,
        }
    }
}

impl Places {
    fn take(&mut self, name: Name) -> Place {
        *self.counts.entry(name.clone()).or_default() += 1;
        Place(Some(name))
    }

    /// The instance is none of those under way any more.
    pub(super) fn free(&mut self, Place(name): Place) {
        let Some(name) = name else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&name);
            }
        }
    }
}

impl Replica {
    /// A commit still waits for these branches: it takes a place of theirs. (Whoever made the replica
    /// take it on is done with it.)
    pub(super) fn charge(&mut self, id: CommitId, unapplied: &[Branch]) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        self.places.free(std::mem::take(&mut instance.place));
        if let Some(branch) = unapplied.first()
            && !self.generations.is_settled(&id)
        {
            let name = Name::Participant(branch.participant.clone());
            instance.place = self.places.take(name);
        }
    }

    /// The instance `id`, made if it is new here and there is a place for it.
    pub(super) fn take_on(
        &mut self,
        from: &Peer,
        id: CommitId,
        patience: u32,
    ) -> Option<&mut Instance> {
        match self.instances.entry(id) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(free) => {
                let name = Name::of(from);
                let held = self.places.counts.get(&name).copied().unwrap_or(0);
                let max = self.config.undecided_max;
                let is_full = self.undecided >= max;
                if held >= max.saturating_mul(HELD_MAX) || (is_full && held >= max / SHARES) {
                    return None;
                }
                count_new(&id, &self.generations, &mut self.undecided, &mut self.begun);
                let instance = free.insert(Instance::new(None, patience));
                instance.place = self.places.take(name);
                Some(instance)
            }
        }
    }
}
