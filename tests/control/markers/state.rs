//! A state of the model: numbers, cheap to copy, to hash and to compare.

use crate::cast::REPLICAS;
use crate::state::Disk;

use super::store::{Kept, SESSIONS, STORES};

/// The network: for each replica and each session, which of the messages to it are on their way.
/// Nothing is taken from it by a delivery, so loss, duplication and reordering come free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    pub(crate) replicas: [u128; REPLICAS],
    pub(crate) sessions: [u32; SESSIONS],
}

impl Network {
    pub(crate) fn add(&mut self, other: &Network) {
        for (word, new) in self.replicas.iter_mut().zip(other.replicas) {
            *word |= new;
        }
        for (word, new) in self.sessions.iter_mut().zip(other.sessions) {
            *word |= new;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Network::default()
    }
}

/// A state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The memory of each replica, by number.
    pub(crate) hosts: [u32; REPLICAS],
    pub(crate) disks: [Disk; REPLICAS],
    pub(crate) stores: [Node; STORES],
    pub(crate) network: Network,
    /// What went wrong: bits of [`wrong`].
    pub(crate) wrong: u16,
    /// No replica crashes any more.
    pub(crate) crashed: bool,
}

/// A store and the session in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    /// The memory of the session, by number.
    pub(crate) host: u32,
    /// How many sessions came before it.
    pub(crate) run: u8,
    pub(crate) kept: Kept,
    /// The session waits for proof.
    pub(crate) unproven: bool,
}

/// What no correct host does. (Bits that [`crate::state::told`] uses for the same are the same.)
pub(crate) mod wrong {
    pub(crate) use crate::state::told::{PANICKED, REFUSED};

    /// A commit that is listed was said to be off the list, or was taken for it.
    pub(crate) const UNTRUE: u16 = 1;
    /// Applied was said for a branch of the roster by a store that has not applied it, or that is not
    /// the one that the roster names.
    pub(crate) const NOT_APPLIED: u16 = 2;
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A replica gets the message with this bit.
    Deliver { replica: usize, bit: u8 },
    /// The session in front of a store gets the message with this bit.
    Hear { store: usize, bit: u8 },
    /// Time passes for a leader, which proposes to take the commit off the list.
    Propose(usize),
    /// A replica crashes and comes back.
    Restart(usize),
    /// The first participant's session crashes; the next one is greeted by this replica.
    Reopen(usize),
}
