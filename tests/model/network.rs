//! The network: a set from which no message is ever taken away.
//!
//! Loss, duplication and reordering come free: a message in the set may be delivered never, once or
//! many times, in any order. So a message that is in the set and is not delivered is the same as
//! one that is not in it, and to send one twice is the same as to send it once.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::types::Peer;

use crate::cast::PLACES;

/// A set of messages: for each place, which of the messages that were ever sent to it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Network([u128; PLACES]);

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Envelope {
    pub(crate) from: Peer,
    pub(crate) message: Message,
}

/// An envelope's number: the place that it goes to, and the bit there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EnvelopeId {
    pub(crate) place: u8,
    pub(crate) bit: u8,
}

impl Network {
    pub(crate) fn insert(&mut self, id: EnvelopeId) {
        self.0[usize::from(id.place)] |= 1 << id.bit;
    }

    #[must_use]
    pub(crate) fn union(mut self, other: &Network) -> Network {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine |= others;
        }
        self
    }

    #[must_use]
    pub(crate) fn minus(mut self, other: &Network) -> Network {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine &= !others;
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; PLACES]
    }

    /// What was sent to one place.
    pub(crate) fn at(&self, place: usize) -> u128 {
        self.0[place]
    }

    pub(crate) fn keep_at(&mut self, place: usize, word: u128) {
        self.0[place] = word;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = EnvelopeId> + '_ {
        (0..PLACES).flat_map(|place| {
            bits(self.0[place]).map(move |bit| EnvelopeId {
                place: place as u8,
                bit,
            })
        })
    }
}

/// The positions of the bits that are set.
pub(crate) fn bits(mut word: u128) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as u8;
        word &= word - 1;
        Some(bit)
    })
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|id| (id.place, id.bit)))
            .finish()
    }
}
