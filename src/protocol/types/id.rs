//! Transaction ids and commit ids. No clock takes part in them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::branch::Roster;

/// One run of one initiator, drawn at random when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InitiatorId(pub u64);

impl InitiatorId {
    /// The lower bits tell the runs of one initiator apart.
    pub(crate) const RUN_BITS: u32 = 40;

    /// The upper bits, which whoever draws ids binds to the initiator's name.
    pub(crate) fn name_bits(self) -> u64 {
        self.0 >> Self::RUN_BITS
    }
}

impl fmt::Display for InitiatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The name of a transaction, from the moment it begins. Sorts by age within an initiator.
///
/// Its text form is stable: generation, initiator and sequence in big-endian hexadecimal, for
/// example `00000001-00c0ffee00c0ffee-0000002a`, so that text sorts as ids do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxnId {
    /// The generation in which the transaction runs.
    pub generation: u32,
    /// Who began it.
    pub initiator: InitiatorId,
    /// Counts the transactions of this initiator.
    pub sequence: u32,
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08x}-{}-{:08x}",
            self.generation, self.initiator, self.sequence
        )
    }
}

impl FromStr for TxnId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('-');
        let id = TxnId {
            generation: hex(text, parts.next(), 8)? as u32,
            initiator: InitiatorId(hex(text, parts.next(), 16)? as u64),
            sequence: hex(text, parts.next(), 8)? as u32,
        };
        end(text, parts.next(), id)
    }
}

/// A stable 128-bit digest of a roster: the first half of SHA-256 over its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RosterDigest(u128);

impl RosterDigest {
    /// The lowest digest, to search for the commit ids of a transaction.
    pub const MIN: RosterDigest = RosterDigest(0);
    /// The highest digest.
    pub const MAX: RosterDigest = RosterDigest(u128::MAX);

    /// The digest of `roster`. Names carry their length, so no two rosters share their bytes.
    pub fn of(roster: &Roster) -> Self {
        roster.digest()
    }

    pub(super) fn compute(roster: &Roster) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"paxos-commit roster 1\0");
        for branch in roster.iter() {
            let name = branch.participant.as_str().as_bytes();
            hash.update([name.len() as u8]);
            hash.update(name);
            hash.update(branch.session.0.to_be_bytes());
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        RosterDigest(u128::from_be_bytes(half))
    }
}

impl fmt::Display for RosterDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The name of one Paxos instance: a transaction and the digest of the roster that it commits with.
///
/// Two rosters are two instances, so an initiator that is confused or cloned cannot make one
/// instance mean two things. Text form: the transaction's, `-`, the digest in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitId {
    /// The transaction.
    pub txn: TxnId,
    /// The digest of its roster.
    pub roster: RosterDigest,
}

impl CommitId {
    /// The instance that decides `txn` with `roster`.
    pub fn new(txn: TxnId, roster: &Roster) -> Self {
        CommitId {
            txn,
            roster: RosterDigest::of(roster),
        }
    }

    /// The id as bytes, which sort as ids do: generation, initiator, sequence and digest, each
    /// big-endian.
    pub fn to_be_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&self.txn.generation.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.txn.initiator.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.txn.sequence.to_be_bytes());
        bytes[16..].copy_from_slice(&self.roster.0.to_be_bytes());
        bytes
    }

    /// The id that has these bytes.
    pub fn from_be_bytes(bytes: [u8; 32]) -> Self {
        let (txn, digest) = bytes.split_at(16);
        let half =
            |half: &[u8]| u128::from_be_bytes(half.try_into().expect("each has 16 of 32 bytes"));
        let txn = half(txn);
        CommitId {
            txn: TxnId {
                generation: (txn >> 96) as u32,
                initiator: InitiatorId((txn >> 32) as u64),
                sequence: txn as u32,
            },
            roster: RosterDigest(half(digest)),
        }
    }
}

impl CommitId {
    /// All commit ids that `txn` can have, in order.
    pub fn all_of(txn: TxnId) -> std::ops::RangeInclusive<CommitId> {
        let id = |roster| CommitId { txn, roster };
        id(RosterDigest::MIN)..=id(RosterDigest::MAX)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.txn, self.roster)
    }
}

impl FromStr for CommitId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError { got: text.into() };
        let (txn, digest) = text.rsplit_once('-').ok_or_else(error)?;
        Ok(CommitId {
            txn: txn.parse().map_err(|_| error())?,
            roster: RosterDigest(hex(text, Some(digest), 32)?),
        })
    }
}

/// A text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected an id like 00000001-00c0ffee00c0ffee-0000002a (a transaction), or that followed by \
     - and 32 hexadecimal digits (a commit id), all in lower case, got {got:?}"
)]
pub struct IdError {
    /// The text.
    pub got: String,
}

fn hex(text: &str, part: Option<&str>, digits: usize) -> Result<u128, IdError> {
    let error = || IdError { got: text.into() };
    let part = part.filter(|part| part.len() == digits).ok_or_else(error)?;
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !part.bytes().all(lower) {
        return Err(error());
    }
    u128::from_str_radix(part, 16).map_err(|_| error())
}

fn end<T>(text: &str, rest: Option<&str>, id: T) -> Result<T, IdError> {
    match rest {
        None => Ok(id),
        Some(_) => Err(IdError { got: text.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::branch::{Branch, Session};
    use super::*;

    fn txn() -> TxnId {
        TxnId {
            generation: 1,
            initiator: InitiatorId(0x00c0_ffee_00c0_ffee),
            sequence: 42,
        }
    }

    fn roster(branches: &[(&str, u64)]) -> Roster {
        let branch = |(name, session): &(&str, u64)| Branch {
            participant: name.parse().unwrap(),
            session: Session(*session),
        };
        Roster::new(branches.iter().map(branch)).unwrap()
    }

    #[test]
    fn text_forms_are_stable_and_read_back() {
        assert_eq!(txn().to_string(), "00000001-00c0ffee00c0ffee-0000002a");
        assert_eq!(txn().to_string().parse(), Ok(txn()));
        let id = CommitId::new(txn(), &roster(&[("ledger", 7), ("stock", 9)]));
        // A golden digest: a change here would make replicas of two versions disagree on names.
        assert_eq!(
            id.to_string(),
            "00000001-00c0ffee00c0ffee-0000002a-b86e3c1ce93979aa48bd5f9222a2016b"
        );
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn text_sorts_as_ids_do() {
        let mut later = txn();
        later.sequence = 0x100;
        let mut next = txn();
        next.generation = 0x10;
        assert!(txn() < later && later < next);
        assert!(txn().to_string() < later.to_string());
        assert!(later.to_string() < next.to_string());
    }

    #[test]
    fn bytes_sort_as_ids_do_and_read_back() {
        let lowest = CommitId {
            txn: txn(),
            roster: RosterDigest::MIN,
        };
        let change = |change: fn(&mut CommitId)| {
            let mut id = lowest;
            change(&mut id);
            id
        };
        let ids = [
            lowest,
            change(|id| id.roster = RosterDigest(1)),
            change(|id| id.roster = RosterDigest::MAX),
            change(|id| id.txn.sequence = 0x100),
            change(|id| id.txn.initiator.0 += 1),
            change(|id| id.txn.initiator.0 = u64::MAX),
            change(|id| id.txn.generation = 0x10),
        ];
        let bytes = ids.map(CommitId::to_be_bytes);
        assert!(ids.is_sorted() && bytes.is_sorted());
        assert_eq!(bytes.map(CommitId::from_be_bytes), ids);
    }

    #[test]
    fn what_is_no_id_is_refused_and_quoted() {
        for text in [
            "",
            "1-2-3",
            "00000001-00c0ffee00c0ffee",
            "00000001-00c0ffee00c0ffee-0000002a-",
            "00000001-00c0ffee00c0ffee-0000002a-0",
            "00000001-00C0FFEE00c0ffee-0000002a",
            "+0000001-00c0ffee00c0ffee-0000002a",
            "00000001-00c0ffee00c0ffee-0000002g",
        ] {
            let error = text.parse::<TxnId>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")));
            assert_eq!(text.parse::<CommitId>().unwrap_err().got, text);
        }
        let two_digests = format!("{}-{:032x}-{:032x}", txn(), 1, 2);
        assert!(two_digests.parse::<CommitId>().is_err());
    }

    #[test]
    fn the_digest_tells_rosters_apart() {
        let rosters = [
            roster(&[("a", 1)]),
            roster(&[("a", 2)]),
            roster(&[("b", 1)]),
            roster(&[("a", 1), ("b", 1)]),
            roster(&[("a", 1), ("a", 2)]),
            roster(&[("ab", 1)]),
        ];
        for (i, one) in rosters.iter().enumerate() {
            for (j, other) in rosters.iter().enumerate() {
                assert_eq!(RosterDigest::of(one) == RosterDigest::of(other), i == j);
            }
        }
        assert!(RosterDigest::MIN < RosterDigest::of(&rosters[0]));
        assert!(RosterDigest::MAX > RosterDigest::of(&rosters[0]));
    }
}
