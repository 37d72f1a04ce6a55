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
use std::hash::{Hash, Hasher};

use crate::protocol::types::{Branch, CommitId, ParticipantName, Peer};

use super::Replica;

/// Past the limit a name may have this part of it.
const SHARES: usize = 64;

/// A name may have so many times the limit, commits that wait for it among them.
const HELD_MAX: usize = 2;

/// Who has which places. It is not saved: after a restart nobody has any.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    names: BTreeMap<CommitId, Name>,
    counts: BTreeMap<Name, usize>,
}

/// Whoever can show one certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Participant(ParticipantName),
    Initiator(u64),
    /// Operators and replicas are trusted.
    Staff,
}

/// Replicas that differ in this alone do the same until one is full, so the model checker takes them
/// for one.
impl PartialEq for Places {
    fn eq(&self, _: &Places) -> bool {
        true
    }
}

impl Eq for Places {}

impl Hash for Places {
    fn hash<H: Hasher>(&self, _: &mut H) {}
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
    fn take(&mut self, id: CommitId, name: Name) {
        *self.counts.entry(name.clone()).or_default() += 1;
        self.names.insert(id, name);
    }

    /// The transaction is none of those under way any more.
    pub(super) fn free(&mut self, id: &CommitId) {
        let Some(name) = self.names.remove(id) else {
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
        self.places.free(&id);
        if let Some(branch) = unapplied.first()
            && !self.generations.is_settled(&id)
        {
            let name = Name::Participant(branch.participant.clone());
            self.places.take(id, name);
        }
    }

    /// Whether `id` is known here, or has a place from now on.
    pub(super) fn takes_on(&mut self, from: &Peer, id: CommitId) -> bool {
        if self.instances.contains_key(&id) {
            return true;
        }
        let name = Name::of(from);
        let held = self.places.counts.get(&name).copied().unwrap_or(0);
        let max = self.config.undecided_max;
        let is_full = self.undecided >= max;
        let admitted = held < max.saturating_mul(HELD_MAX) && (!is_full || held < max / SHARES);
        if admitted {
            self.places.take(id, name);
        }
        admitted
    }
}
