//! Transaction ids and commit ids. No clock takes part in them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::branch::Roster;
use super::wide::Wide;

/// How many bytes a transaction id has.
pub const TXN_ID_BYTES: usize = 32;

/// How many bytes a commit id has.
pub const COMMIT_ID_BYTES: usize = TXN_ID_BYTES + 16;

/// One run of one initiator: 80 bits that are bound to the name in its certificate, then 48 that
/// are drawn at random when the run starts.
///
/// Replicas check with it, without a memory of anybody, who may commit, roll back or ask. Its text
/// form is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InitiatorId(Wide);

impl InitiatorId {
    /// The lower bits tell the runs of one initiator apart.
    pub(crate) const RUN_BITS: u32 = 48;

    /// The highest id.
    pub const MAX: InitiatorId = InitiatorId(Wide::MAX);

    /// The id that has this value.
    pub const fn from_u128(value: u128) -> Self {
        InitiatorId(Wide::from_u128(value))
    }

    /// The value, which sorts as the id does.
    pub const fn to_u128(self) -> u128 {
        self.0.to_u128()
    }

    /// The lowest and the highest id of the initiators of this name.
    pub(crate) const fn of_its_name(self) -> (InitiatorId, InitiatorId) {
        let run = (1 << Self::RUN_BITS) - 1;
        let first = self.to_u128() & !run;
        (Self::from_u128(first), Self::from_u128(first | run))
    }

    /// The upper bits, which are bound to the initiator's name.
    pub(crate) const fn name_bits(self) -> u128 {
        self.to_u128() >> Self::RUN_BITS
    }
}

impl fmt::Display for InitiatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a transaction, from the moment it begins. Ids of one initiator sort by age.
///
/// The id entitles its holder to take part in the transaction: the nonce is drawn at random, so a
/// client that was not told of a transaction cannot name it.
///
/// The text form is stable: generation, initiator, sequence and nonce in big-endian hexadecimal,
/// for example `00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef`, so that text
/// sorts as ids do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxnId {
    /// The generation in which the transaction runs.
    pub generation: u32,
    /// The run of the initiator that began it.
    pub initiator: InitiatorId,
    /// Counts the transactions of this initiator.
    pub sequence: u32,
    /// Drawn at random for each transaction.
    pub nonce: u64,
}

impl TxnId {
    /// The lowest id of a generation.
    pub const fn first_of(generation: u32) -> Self {
        TxnId {
            generation,
            initiator: InitiatorId::from_u128(0),
            sequence: 0,
            nonce: 0,
        }
    }

    /// The highest id of a generation.
    pub const fn last_of(generation: u32) -> Self {
        TxnId {
            generation,
            initiator: InitiatorId::MAX,
            sequence: u32::MAX,
            nonce: u64::MAX,
        }
    }

    /// The id as bytes, which sort as ids do: generation, initiator, sequence and nonce, each
    /// big-endian.
    pub fn to_be_bytes(self) -> [u8; TXN_ID_BYTES] {
        let mut bytes = [0; TXN_ID_BYTES];
        bytes[..4].copy_from_slice(&self.generation.to_be_bytes());
        bytes[4..20].copy_from_slice(&self.initiator.to_u128().to_be_bytes());
        bytes[20..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..].copy_from_slice(&self.nonce.to_be_bytes());
        bytes
    }

    /// The id that has these bytes.
    pub fn from_be_bytes(bytes: [u8; TXN_ID_BYTES]) -> Self {
        let high = u128::from_be_bytes(half(&bytes, 0));
        let low = u128::from_be_bytes(half(&bytes, 16));
        TxnId {
            generation: (high >> 96) as u32,
            initiator: InitiatorId::from_u128(high << 32 | low >> 96),
            sequence: (low >> 64) as u32,
            nonce: low as u64,
        }
    }
}

/// The 16 bytes from `at` on.
fn half(bytes: &[u8], at: usize) -> [u8; 16] {
    let half = &bytes[at..at + 16];
    half.try_into().expect("it is 16 bytes long")
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:08x}-{}-{:08x}-{:016x}",
            self.generation, self.initiator, self.sequence, self.nonce
        )
    }
}

impl FromStr for TxnId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('-');
        let id = TxnId {
            generation: hex(text, parts.next(), 8)? as u32,
            initiator: InitiatorId::from_u128(hex(text, parts.next(), 32)?),
            sequence: hex(text, parts.next(), 8)? as u32,
            nonce: hex(text, parts.next(), 16)? as u64,
        };
        end(text, parts.next(), id)
    }
}

/// A stable 128-bit digest of a roster: the first half of SHA-256 over its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RosterDigest(Wide);

impl RosterDigest {
    /// The lowest digest, to search for the commit ids of a transaction.
    pub const MIN: RosterDigest = RosterDigest(Wide::MIN);
    /// The highest digest.
    pub const MAX: RosterDigest = RosterDigest(Wide::MAX);

    /// The digest of `roster`. Names carry their length, so no two rosters share their bytes.
    pub fn of(roster: &Roster) -> Self {
        roster.digest()
    }

    pub(super) fn compute(roster: &Roster) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"paxos-commit roster 2\0");
        for branch in roster.iter() {
            let name = branch.participant.as_str().as_bytes();
            hash.update([name.len() as u8]);
            hash.update(name);
            hash.update(branch.session.0.to_be_bytes());
            hash.update(branch.store.to_be_bytes());
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        RosterDigest(Wide::from(half))
    }
}

impl fmt::Display for RosterDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
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

    /// The id as bytes, which sort as ids do: those of the transaction, then the digest.
    pub fn to_be_bytes(self) -> [u8; COMMIT_ID_BYTES] {
        let mut bytes = [0; COMMIT_ID_BYTES];
        bytes[..TXN_ID_BYTES].copy_from_slice(&self.txn.to_be_bytes());
        bytes[TXN_ID_BYTES..].copy_from_slice(&self.roster.0.to_be_bytes());
        bytes
    }

    /// The id that has these bytes.
    pub fn from_be_bytes(bytes: [u8; COMMIT_ID_BYTES]) -> Self {
        let mut txn = [0; TXN_ID_BYTES];
        txn.copy_from_slice(&bytes[..TXN_ID_BYTES]);
        CommitId {
            txn: TxnId::from_be_bytes(txn),
            roster: RosterDigest(Wide::from(half(&bytes, TXN_ID_BYTES))),
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
            roster: RosterDigest(Wide::from_u128(hex(text, Some(digest), 32)?)),
        })
    }
}

/// A text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected an id like 00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef (a \
     transaction), or that followed by - and 32 hexadecimal digits (a commit id), all in lower \
     case, got {got:?}"
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
    use super::super::store::StoreId;
    use super::*;

    fn txn() -> TxnId {
        TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(0x00c0_ffee_00c0_ffee_00c0_ffee_00c0_ffee),
            sequence: 42,
            nonce: 0x0123_4567_89ab_cdef,
        }
    }

    fn roster(branches: &[(&str, u64)]) -> Roster {
        let branch = |(name, session): &(&str, u64)| Branch {
            participant: name.parse().unwrap(),
            session: Session(*session),
            store: StoreId::from_u128(1),
        };
        Roster::new(branches.iter().map(branch)).unwrap()
    }

    fn in_store(store: u128) -> Roster {
        Roster::new([Branch {
            participant: "a".parse().unwrap(),
            session: Session(1),
            store: StoreId::from_u128(store),
        }])
        .unwrap()
    }

    #[test]
    fn text_forms_are_stable_and_read_back() {
        assert_eq!(
            txn().to_string(),
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef"
        );
        assert_eq!(txn().to_string().parse(), Ok(txn()));
        let id = CommitId::new(txn(), &roster(&[("ledger", 7), ("stock", 9)]));
        // A golden digest: a change here would make replicas of two versions disagree on names.
        assert_eq!(
            id.to_string(),
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef-a3d89d86d17726f56b7e394b3ddee799"
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
            change(|id| id.roster = RosterDigest(Wide::from_u128(1))),
            change(|id| id.roster = RosterDigest::MAX),
            change(|id| id.txn.nonce += 1),
            change(|id| id.txn.sequence = 0x100),
            change(|id| id.txn.initiator = InitiatorId::from_u128(id.txn.initiator.to_u128() + 1)),
            change(|id| {
                id.txn.initiator = InitiatorId::from_u128(id.txn.initiator.to_u128() + (1 << 64))
            }),
            change(|id| id.txn.initiator = InitiatorId::MAX),
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
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee",
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef-",
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef-0",
            "00000001-00C0FFEE00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef",
            "+0000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef",
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002g-0123456789abcdef",
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
            in_store(2),
            in_store(1 << 64),
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
