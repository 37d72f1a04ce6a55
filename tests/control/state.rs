//! A state of the model: a handful of numbers, cheap to copy, to hash and to compare.

use crate::cast::REPLICAS;

/// A set of records, by number. A set and no list, because
/// [`recover`](paxos_commit::protocol::Host::recover) takes records in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk(pub(crate) u64);

impl Disk {
    #[must_use]
    pub(crate) fn union(self, other: Disk) -> Disk {
        Disk(self.0 | other.0)
    }
}

/// The network: for each replica, which of the messages to it are on their way. Nothing is taken
/// from it by a delivery, so loss, duplication and reordering come free.
pub(crate) type Network = [u128; REPLICAS];

/// A state of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The memory of each replica, by number.
    pub(crate) hosts: [u32; REPLICAS],
    pub(crate) disks: [Disk; REPLICAS],
    pub(crate) network: Network,
    /// What was ever told, and what went wrong: bits of [`told`].
    pub(crate) told: u16,
    /// The branches that have voted Prepared.
    pub(crate) voted: u8,
    /// The branches that have applied the commit durably.
    pub(crate) applied: u8,
    /// Nobody crashes any more.
    pub(crate) crashed: bool,
}

/// What is remembered of all that was said and done.
pub(crate) mod told {
    /// Somebody was told Commit.
    pub(crate) const COMMIT: u16 = 1;
    /// Somebody was told Abort.
    pub(crate) const ABORT: u16 = 2;
    /// Somebody other than a branch was told Expired.
    pub(crate) const EXPIRED: u16 = 4;
    /// The first branch was told Expired; the second's bit is the next.
    pub(crate) const EXPIRED_BRANCH: u16 = 8;
    /// A replica touched what it had frozen, or what was settled.
    pub(crate) const TOUCHED: u16 = 32;
    /// A replica refused a message, although only correct hosts send any.
    pub(crate) const REFUSED: u16 = 64;
    /// A replica panicked.
    pub(crate) const PANICKED: u16 = 128;
    /// A replica told of a frozen generation that is not frozen on its disk.
    pub(crate) const UNTRUE: u16 = 256;
    /// A replica told of generations that it has not learned.
    pub(crate) const ANNOUNCED: u16 = 512;
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A replica gets the message with this bit.
    Deliver { replica: usize, bit: u8 },
    /// A branch applies the commit that it can have learned, and says so.
    Apply(usize),
    /// A replica crashes and comes back.
    Restart(usize),
}

/// The number of no host.
pub(crate) const NOBODY: u32 = u32::MAX;

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
