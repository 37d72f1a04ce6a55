//! Participants, their sessions, and the rosters that they stand in.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::id::RosterDigest;
use super::limited::limited;
use super::recent::Recent;
use super::store::StoreId;

/// The most branches that one transaction can have.
pub const ROSTER_MAX: usize = 32;

/// The longest name of a participant, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The name of a participant: 1 to [`NAME_BYTES_MAX`] of `a-z A-Z 0-9 . _ -`, because it stands in
/// certificates and in the names of prepared transactions inside databases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParticipantName(Arc<str>);

impl ParticipantName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ParticipantName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(NameError::Length { bytes: text.len() });
        }
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        match text.bytes().position(|byte| !allowed(&byte)) {
            None => Ok(ParticipantName(text.into())),
            // All before it is ASCII, so a character begins there.
            Some(at) => Err(NameError::Character {
                character: text[at..].chars().next().unwrap_or_default(),
            }),
        }
    }
}

impl Serialize for ParticipantName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ParticipantName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = ParticipantName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a participant's name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ParticipantName, E> {
                thread_local! {
                    static NAMES: RefCell<Recent<ParticipantName>> =
                        const { RefCell::new(Recent::new()) };
                }
                let last = text.bytes().last().unwrap_or(0);
                let is_it = |known: &ParticipantName| known.as_str() == text;
                let make = || text.parse().map_err(E::custom);
                Recent::get_or_make(&NAMES, text.len() + usize::from(last), is_it, make)
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

impl fmt::Display for ParticipantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no name of a participant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty or too long.
    #[error("a participant's name has 1 to {NAME_BYTES_MAX} bytes, got {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// It holds a character that cannot stand in certificates and databases.
    #[error("a participant's name is made of a-z A-Z 0-9 . _ -, got {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
}

/// One run of one participant process, drawn at random when it starts.
///
/// A restart is a new session: it knows nothing of what the old one voted, so it never votes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session(pub u64);

/// One session's part in a transaction, and the address to which its messages go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Branch {
    /// The participant.
    pub participant: ParticipantName,
    /// The session; only it votes for this branch.
    pub session: Session,
    /// The store that holds the branch; only sessions of this store finish it.
    pub store: StoreId,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Branch {
            participant,
            session,
            store,
        } = self;
        write!(f, "{participant}/{:016x}/{store}", session.0)
    }
}

impl FromStr for Branch {
    type Err = BranchTextError;

    fn from_str(text: &str) -> Result<Self, BranchTextError> {
        let error = || BranchTextError { got: text.into() };
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or_else(error);
        let (participant, session, store) = (part()?, part()?, part()?);
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if session.len() != 16 || !session.bytes().all(lower) || parts.next().is_some() {
            return Err(error());
        }
        Ok(Branch {
            participant: participant.parse().map_err(|_| error())?,
            session: Session(u64::from_str_radix(session, 16).map_err(|_| error())?),
            store: store.parse().map_err(|_| error())?,
        })
    }
}

/// A text that is no branch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected a branch like ledger/00000000deadbeef/00112233445566778899aabbccddeeff, got {got:?}"
)]
pub struct BranchTextError {
    /// The text.
    pub got: String,
}

/// The branches of one transaction, sorted, fixed once by the initiator when it asks for commit.
#[derive(Clone)]
pub struct Roster(Arc<Sorted>);

struct Sorted {
    branches: Vec<Branch>,
    /// Computed when it is asked for.
    digest: OnceLock<RosterDigest>,
}

impl Roster {
    /// Makes a roster.
    ///
    /// # Errors
    /// When there is no branch, more than [`ROSTER_MAX`], or one stands twice.
    pub fn new(branches: impl IntoIterator<Item = Branch>) -> Result<Self, RosterError> {
        let mut branches: Vec<Branch> = branches.into_iter().collect();
        branches.sort_unstable();
        if branches.is_empty() || branches.len() > ROSTER_MAX {
            return Err(RosterError::Count {
                got: branches.len(),
            });
        }
        match branches.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(RosterError::Twice {
                branch: pair[0].clone(),
            }),
            None => Ok(Roster(Arc::new(Sorted {
                branches,
                digest: OnceLock::new(),
            }))),
        }
    }

    /// What it is called in the names of instances.
    pub(super) fn digest(&self) -> RosterDigest {
        *self.0.digest.get_or_init(|| RosterDigest::compute(self))
    }

    fn branches(&self) -> &[Branch] {
        &self.0.branches
    }

    /// How many branches there are.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.branches().len()
    }

    /// The position of `branch` in the sorted order.
    pub fn index_of(&self, branch: &Branch) -> Option<usize> {
        // Sessions are drawn at random and names look alike: most others differ in the session.
        let is_it = |entry: &Branch| entry.session == branch.session && entry == branch;
        self.branches().iter().position(is_it)
    }

    /// The branches in order.
    pub fn iter(&self) -> impl Iterator<Item = &Branch> + '_ {
        self.branches().iter()
    }

    /// The branches at the positions in `set`, in order.
    pub fn select(&self, set: BranchSet) -> impl Iterator<Item = &Branch> + '_ {
        let entries = self.branches().iter().enumerate();
        entries
            .filter(move |(index, _)| set.contains(*index))
            .map(|(_, branch)| branch)
    }

    /// The set of all positions.
    pub fn all(&self) -> BranchSet {
        BranchSet(u32::MAX >> (ROSTER_MAX - self.len()))
    }
}

impl PartialEq for Roster {
    fn eq(&self, other: &Roster) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.branches() == other.branches()
    }
}

impl Eq for Roster {}

impl PartialOrd for Roster {
    fn partial_cmp(&self, other: &Roster) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Roster {
    fn cmp(&self, other: &Roster) -> Ordering {
        self.branches().cmp(other.branches())
    }
}

impl Hash for Roster {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.branches().hash(state);
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roster").field(&self.branches()).finish()
    }
}

impl Serialize for Roster {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.branches().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Roster {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        thread_local! {
            static ROSTERS: RefCell<Recent<Roster>> = const { RefCell::new(Recent::new()) };
        }
        let branches: Vec<Branch> = limited::<_, _, ROSTER_MAX>(deserializer)?;
        let sessions = branches.iter().map(|branch| branch.session.0);
        let hint = sessions.fold(0, u64::wrapping_add) as usize;
        // Whoever has sorted them sends them sorted.
        let is_it = |known: &Roster| known.branches() == branches;
        let make = || Roster::new(branches.iter().cloned()).map_err(de::Error::custom);
        Recent::get_or_make(&ROSTERS, hint, is_it, make)
    }
}

/// Why a roster was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RosterError {
    /// No branch, or too many.
    #[error("a transaction has 1 to {ROSTER_MAX} branches, got {got}")]
    Count {
        /// How many were given.
        got: usize,
    },
    /// A branch stands twice.
    #[error("branch {branch} is enlisted twice")]
    Twice {
        /// The branch.
        branch: Branch,
    },
}

/// A set of branches of one roster, by position.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BranchSet(u32);

impl BranchSet {
    /// The set of one position.
    ///
    /// # Panics
    /// When `index` is no position of any roster.
    pub fn of(index: usize) -> Self {
        assert!(index < ROSTER_MAX, "no roster is that long");
        BranchSet(1 << index)
    }

    /// The positions in either set.
    #[must_use]
    pub fn union(self, other: BranchSet) -> Self {
        BranchSet(self.0 | other.0)
    }

    /// The positions in this set and not in `other`.
    #[must_use]
    pub fn minus(self, other: BranchSet) -> Self {
        BranchSet(self.0 & !other.0)
    }

    /// Whether the position is in the set.
    pub fn contains(self, index: usize) -> bool {
        index < ROSTER_MAX && self.0 & (1 << index) != 0
    }

    /// Whether every position of `other` is in this set.
    pub fn covers(self, other: BranchSet) -> bool {
        other.minus(self).is_empty()
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many positions are in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(name: &str, session: u64) -> Branch {
        Branch {
            participant: name.parse().unwrap(),
            session: Session(session),
            store: StoreId::from_u128(1),
        }
    }

    #[test]
    fn names_have_a_limit_and_an_alphabet() {
        assert!("ledger-2.eu_west".parse::<ParticipantName>().is_ok());
        assert!(
            "x".repeat(NAME_BYTES_MAX)
                .parse::<ParticipantName>()
                .is_ok()
        );
        let long = "x".repeat(NAME_BYTES_MAX + 1).parse::<ParticipantName>();
        assert_eq!(long, Err(NameError::Length { bytes: 65 }));
        let empty = "".parse::<ParticipantName>();
        assert_eq!(empty, Err(NameError::Length { bytes: 0 }));
        for (text, character) in [("a/b", '/'), ("é", 'é'), ("a b", ' ')] {
            let error = text.parse::<ParticipantName>();
            assert_eq!(error, Err(NameError::Character { character }));
        }
    }

    #[test]
    fn a_branch_has_one_text_form() {
        let one = branch("ledger", 0xdead_beef);
        let text = "ledger/00000000deadbeef/00000000000000000000000000000001";
        assert_eq!(one.to_string(), text);
        assert_eq!(one.to_string().parse(), Ok(one));
        for text in [
            "",
            "ledger",
            "ledger/",
            "ledger/00000000deadbeef",
            "/00000000deadbeef/00000000000000000000000000000001",
            "ledger/00000000DEADBEEF/00000000000000000000000000000001",
            "ledger/00000000deadbeef/0000000000000000000000000000000",
            "ledger/00000000deadbeef/00000000000000000000000000000001/",
        ] {
            let error = text.parse::<Branch>().unwrap_err();
            assert_eq!(error, BranchTextError { got: text.into() });
        }
    }

    #[test]
    fn rosters_are_sorted_and_hold_each_branch_once() {
        let roster = Roster::new([branch("b", 1), branch("a", 2), branch("a", 1)]).unwrap();
        let order: Vec<_> = roster.iter().cloned().collect();
        assert_eq!(order, [branch("a", 1), branch("a", 2), branch("b", 1)]);
        assert_eq!(roster.index_of(&branch("a", 2)), Some(1));
        assert_eq!(roster.index_of(&branch("b", 2)), None);
        let in_another_store = Branch {
            store: StoreId::from_u128(2),
            ..branch("a", 2)
        };
        assert_eq!(roster.index_of(&in_another_store), None);
        let twice = Roster::new([branch("a", 1), branch("a", 1)]).unwrap_err();
        assert_eq!(
            twice.to_string(),
            "branch a/0000000000000001/00000000000000000000000000000001 is enlisted twice"
        );
    }

    #[test]
    fn rosters_have_a_limit() {
        let of = |n: usize| Roster::new((0..n).map(|i| branch("a", i as u64)));
        assert_eq!(of(0), Err(RosterError::Count { got: 0 }));
        assert_eq!(of(33), Err(RosterError::Count { got: 33 }));
        let full = of(ROSTER_MAX).unwrap();
        assert_eq!(full.all().len(), ROSTER_MAX);
        assert!(full.all().contains(31) && !full.all().contains(32));
    }

    #[test]
    fn sets_of_branches() {
        let roster = Roster::new((0..3).map(|i| branch("a", i))).unwrap();
        let some = BranchSet::of(0).union(BranchSet::of(2));
        assert!(roster.all().covers(some) && !some.covers(roster.all()));
        assert_eq!(roster.all().minus(some), BranchSet::of(1));
        assert_eq!(some.len(), 2);
        assert!(!some.is_empty() && some.minus(some).is_empty());
        let selected: Vec<u64> = roster.select(some).map(|b| b.session.0).collect();
        assert_eq!(selected, [0, 2]);
    }
}
