//! Whether a replica takes on something new: places, counted per name.
//!
//! The owner of a certificate can invent transactions. Each takes a place of the name of the client
//! that made the replica take it on: the participant of the first vote, the initiator, or the asker.
//! Past [`undecided_max`](ReplicaConfig::undecided_max) undecided transactions only names with
//! few places get another one. A replica gives up nothing that it has taken on.
//!
//! (Counter-example to one limit for all: a participant votes, at each replica, in 100,000
//! transactions that it invents, in rosters with a branch that never votes. For ten minutes the
//! replica takes on no other transaction.)
//!
//! A place is free again when the transaction is decided, except that:
//! - a commit takes a place of each participant that has not applied it, listed or not;
//! - a transaction for which nobody else vouched leaves a record on disk until its generation is
//!   settled, and is counted until then. Its initiator vouches by asking for commit, and the branches
//!   do when there are votes of several participants. (A question is no sign: an initiator may ask
//!   about any id of its name.)
//!
//! An initiator asks for commit at one replica, the relay, so that the others charge the participant
//! that votes first. One that lies could so use up the quota of an honest participant: it asks for
//! votes in transactions of which the participant knows nothing, and each is aborted. So the
//! transactions of one initiator's name use up no more than a part of it. (An honest participant votes
//! in ids of an initiator because a relay asked it to, which has checked whose they are.)
//!
//! What remains: an initiator that has many requests prepared, with a branch that never votes, fills
//! the places of undecided transactions, and a participant with more than its share is told `Busy` by
//! replicas that are not the relay. That costs time, not the outcome: an initiator that hears nothing
//! asks the next replica, which charges the initiator, and then takes the participant's vote. And two
//! participants that lie together vouch for each other, as an initiator does for itself: each of these
//! can make generations turn at their minimum age, and not faster.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use crate::protocol::types::{Branch, Generations, InitiatorId, ParticipantName, Peer, TxnId};

use crate::protocol::replica::config::ReplicaConfig;

/// Past the limit a name may have this part of it.
const SHARES: usize = 64;

/// A name may have so many times the limit, commits that wait for it among them.
const HELD_MAX: usize = 2;

/// The transactions of one initiator's name may leave this part of what a participant may leave.
const PARTS: usize = 16;

/// The most initiators' names that are told apart on account of one participant; a participant that
/// lies can invent any number.
const INITIATORS_MAX: usize = 1_024;

/// How many places each name has. Nothing of it is saved: after a restart every name has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    counts: BTreeMap<Name, Held>,
}

/// The places of one name.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Of transactions under way.
    open: usize,
    /// Transactions that ended and were not vouched for, by generation.
    spent: BTreeMap<u32, Spent>,
}

/// Transactions that ended and were not vouched for.
#[derive(Clone, Debug, Default)]
struct Spent {
    all: usize,
    /// How many of them were of each initiator's name, as their ids say.
    of_initiators: BTreeMap<u128, usize>,
}

impl Spent {
    fn add(&mut self, initiator: InitiatorId) {
        self.all += 1;
        let is_full = self.of_initiators.len() >= INITIATORS_MAX;
        match self.of_initiators.entry(initiator.name_bits()) {
            Entry::Occupied(mut held) => *held.get_mut() += 1,
            Entry::Vacant(free) if !is_full => drop(free.insert(1)),
            Entry::Vacant(_) => {}
        }
    }

    fn of(&self, initiator: InitiatorId) -> usize {
        let held = self.of_initiators.get(&initiator.name_bits());
        held.copied().unwrap_or(0)
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.open == 0 && self.spent.is_empty()
    }
}

/// Whose places an instance takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(Vec<Name>);

/// What is left of an instance that ends, for those whose places it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    Nothing,
    /// It is counted until the generation of this transaction is settled.
    UntilSettled(TxnId),
}

/// The holders of one certificate's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Participant(ParticipantName),
    Initiator(u128),
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

fn held_max(config: &ReplicaConfig) -> usize {
    config.undecided_max.saturating_mul(HELD_MAX)
}

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
    /// A place for one more transaction that `from` makes this replica take on, beside `undecided`
    /// that are under way. None if there is none.
    pub(crate) fn admit(
        &mut self,
        from: &Peer,
        txn: TxnId,
        undecided: usize,
        config: &ReplicaConfig,
    ) -> Option<Place> {
        let name = Name::of(from);
        let (held, max) = (self.open(&name), config.undecided_max);
        let is_refused = held >= held_max(config)
            || self.is_spent(&name, txn, config.unvouched_max)
            || (undecided >= max && held >= max / SHARES);
        (!is_refused).then(|| self.take(vec![name]))
    }

    /// Whether the name of `from` has as many places as it can have.
    pub(crate) fn is_exhausted(&self, from: &Peer, config: &ReplicaConfig) -> bool {
        self.open(&Name::of(from)) >= held_max(config)
    }

    /// A commit still waits for these branches: it takes a place of each of their participants. (The
    /// client that made this replica take it on is done with it.)
    pub(crate) fn charge(&mut self, place: &mut Place, waiting: Vec<Branch>) {
        let names = waiting.into_iter();
        let names: BTreeSet<Name> = names
            .map(|branch| Name::Participant(branch.participant))
            .collect();
        if !place.0.iter().eq(&names) {
            self.free(&std::mem::take(place), Cost::Nothing);
            *place = self.take(names.into_iter().collect());
        }
    }

    fn take(&mut self, names: Vec<Name>) -> Place {
        for name in &names {
            self.counts.entry(name.clone()).or_default().open += 1;
        }
        Place(names)
    }

    /// The instance takes these places no longer.
    pub(crate) fn free(&mut self, Place(names): &Place, cost: Cost) {
        for name in names {
            let Some(held) = self.counts.get_mut(name) else {
                continue;
            };
            held.open = held.open.saturating_sub(1);
            if let (Cost::UntilSettled(txn), true) = (cost, *name != Name::Staff) {
                let spent = held.spent.entry(txn.generation).or_default();
                spent.add(txn.initiator);
            }
            if held.is_empty() {
                self.counts.remove(name);
            }
        }
    }

    /// What was spent in settled generations is given back.
    pub(crate) fn forget_settled(&mut self, generations: &Generations) {
        self.counts.retain(|_, held| {
            let is_unsettled = |generation| generations.acceptors(generation).is_some();
            held.spent.retain(|generation, _| is_unsettled(*generation));
            !held.is_empty()
        });
    }

    fn open(&self, name: &Name) -> usize {
        self.counts.get(name).map_or(0, |held| held.open)
    }

    /// Whether transactions that nobody vouched for have used up what this name may leave, or what
    /// the initiator of `txn` may use of it.
    fn is_spent(&self, name: &Name, txn: TxnId, max: usize) -> bool {
        let held = self.counts.get(name);
        let Some(spent) = held.and_then(|held| held.spent.get(&txn.generation)) else {
            return false;
        };
        let of_one_max = match name {
            Name::Participant(_) => (max / PARTS).max(1),
            // All are its own.
            Name::Initiator(_) | Name::Staff => max,
        };
        spent.all >= max || spent.of(txn.initiator) >= of_one_max
    }
}
