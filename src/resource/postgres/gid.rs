//! The names of prepared transactions.

use sha2::{Digest, Sha256};

use crate::participant::BranchId;
use crate::protocol::types::{Branch, CommitId, ParticipantName, Session, StoreId, TxnId};
use crate::resource::base32;
use crate::resource::identity::{Identity, Owner};
use crate::resource::masking::{Masking, highest_masked};

/// The longest name that PostgreSQL takes.
const GID_BYTES_MAX: usize = 199;

/// What every name starts with: the product, and the version of this format.
const FORMAT: &str = "paxos-commit/2";

/// A longer name of a cluster or a participant is shortened to its beginning and a digest.
const WHOLE_BYTES_MAX: usize = 40;
const BEGINNING_BYTES: usize = 15;
const DIGEST_BYTES: usize = 12;

/// How many hexadecimal digits of the store's identity a name has.
const STORE_DIGITS: usize = 8;

/// The names of the branches of one participant of one cluster in one store:
///
/// ```text
/// paxos-commit/2/<cluster>/<participant>/<store>/<masked commit id>/<session>
/// ```
///
/// The store is the first 8 digits of its identity. Masked commit id (48 bytes) and session (8 bytes)
/// are base32hex (RFC 4648, section 7) in lower case, without padding, so names sort as ids do, up to
/// the sequence. A name of a cluster or a participant with more than 40 bytes is its first 15, `~`,
/// and the first 12 bytes of its SHA-256 in hexadecimal.
///
/// The store is in the name because the key of the masking belongs to the store. (Counter-example:
/// the row with the identity and the key is lost, and a new row is drawn. With the new key an old
/// name reads as a transaction that no replica knows; the replicas answer that it is forgotten, and a
/// branch that waits for its commit is rolled back.)
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) participant: ParticipantName,
    pub(super) store: StoreId,
    masking: Masking,
    family: String,
    prefix: String,
}

impl Names {
    pub(super) fn new(owner: &Owner, identity: &Identity) -> Self {
        let (cluster, participant) = (short(&owner.cluster), short(&owner.participant));
        let family = format!("{FORMAT}/{cluster}/{participant}/");
        let store = &identity.store.to_string()[..STORE_DIGITS];
        Names {
            participant: owner.participant.clone(),
            store: identity.store,
            masking: identity.masking(),
            prefix: format!("{family}{store}/"),
            family,
        }
    }

    /// What the names of this participant start with, whatever the store.
    pub(super) fn family(&self) -> &str {
        &self.family
    }

    /// What all names of this store start with, and none of any other participant or cluster.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn name_of(&self, branch: &BranchId) -> String {
        let name = self.compose(branch.id, branch.branch.session);
        debug_assert!(name.len() <= GID_BYTES_MAX, "{name}");
        name
    }

    /// The branch that has this name; none if it is not exactly as it would be written here.
    pub(super) fn branch_of(&self, name: &str) -> Option<BranchId> {
        let rest = name.strip_prefix(&self.prefix)?;
        let (id, session) = rest.split_once('/')?;
        let id = self.masking.unmask_id(base32::read(id)?);
        let session = Session(u64::from_be_bytes(base32::read(session)?));
        let branch = Branch {
            participant: self.participant.clone(),
            session,
            store: self.store,
        };
        Some(BranchId { id, branch })
    }

    /// A name that comes after those of all branches up to `through`, byte by byte. Some of the names
    /// before it may be of branches above `through`: those that differ from it in the nonce only.
    pub(super) fn end_of(&self, through: CommitId) -> String {
        // `0` follows `/`.
        format!("{}{}0", self.prefix, base32::text(&highest_masked(through)))
    }

    /// What marks the local transaction of a branch in its session: nothing that other roles could
    /// read the nonce from.
    pub(super) fn mark_of(&self, txn: TxnId) -> String {
        base32::text(&self.masking.mask(txn))
    }

    fn compose(&self, id: CommitId, session: Session) -> String {
        let id = base32::text(&self.masking.mask_id(id));
        let session = base32::text(&session.0.to_be_bytes());
        format!("{}{id}/{session}", self.prefix)
    }
}

fn short(name: &ParticipantName) -> String {
    let name = name.as_str();
    if name.len() <= WHOLE_BYTES_MAX {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest[..DIGEST_BYTES]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    // No name holds a `~`.
    format!("{}~{digest}", &name[..BEGINNING_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::RosterDigest;

    fn names(cluster: &str, participant: &str) -> Names {
        let owner = Owner::new(cluster, participant).unwrap();
        Names::new(&owner, &Identity::fixed())
    }

    fn branch(participant: &str, sequence: u32, session: u64) -> BranchId {
        let initiator = "00c0ffee00c0ffee00c0ffee00c0ffee";
        let id = format!(
            "00000001-{initiator}-{sequence:08x}-0123456789abcdef-{:032x}",
            9
        );
        BranchId {
            id: id.parse().unwrap(),
            branch: Branch {
                participant: participant.parse().unwrap(),
                session: Session(session),
                store: Identity::fixed().store,
            },
        }
    }

    #[test]
    fn a_name_says_everything_and_reads_back() {
        let names = names("shop", "ledger");
        let of = branch("ledger", 0x2a, 7);
        let name = names.name_of(&of);
        // A golden name: a change here would orphan what an older program has prepared.
        assert_eq!(
            name,
            "paxos-commit/2/shop/ledger/00112233/\
             00000080o3vus060vvn01g7vto0c1vve00000ahp3pf7m8o6i5rg000000000000000000000000i/000000000000e"
        );
        assert_eq!(names.branch_of(&name), Some(of));
    }

    #[test]
    fn the_longest_names_fit_and_stay_apart() {
        let long = "x".repeat(64);
        let other = format!("{}y", "x".repeat(63));
        let whole = "x".repeat(WHOLE_BYTES_MAX);
        let mut of = branch(&long, u32::MAX, u64::MAX);
        of.id = CommitId {
            txn: TxnId::last_of(u32::MAX),
            roster: RosterDigest::MAX,
        };
        let names = self::names(&long, &long);
        let name = names.name_of(&of);
        assert_eq!(name.len(), 197, "{name}");
        assert_eq!(names.branch_of(&name), Some(of));
        let longest = self::names(&whole, &whole);
        let longest = longest.name_of(&branch(&whole, u32::MAX, u64::MAX));
        assert!(longest.len() <= GID_BYTES_MAX, "{longest}");
        for (cluster, participant) in [(&long, &other), (&other, &long)] {
            let others = self::names(cluster, participant);
            assert_ne!(others.prefix(), names.prefix());
            assert_eq!(others.branch_of(&name), None);
        }
    }

    #[test]
    fn a_name_shows_no_nonce_and_belongs_to_one_store() {
        let (names, of) = (names("shop", "ledger"), branch("ledger", 0x2a, 7));
        let (name, mark) = (names.name_of(&of), names.mark_of(of.id.txn));
        // The nonce from the ninth of its bits on: five bits are one digit.
        let plain = base32::text(&of.id.to_be_bytes());
        assert!(!name.contains(&plain[40..50]), "{name}");
        assert!(!mark.contains(&plain[40..50]), "{mark}");
        let owner = Owner::new("shop", "ledger").unwrap();
        let others = Names::new(&owner, &Identity::draw());
        assert_eq!(others.family(), names.family());
        assert_ne!(others.name_of(&of), name);
        assert_eq!(others.branch_of(&name), None);
    }

    #[test]
    fn what_is_not_exactly_a_name_is_nobodys() {
        let names = names("shop", "ledger");
        let name = names.name_of(&branch("ledger", 1, 0xab));
        let session = base32::text(&0xab_u64.to_be_bytes());
        let (start, end) = (names.prefix().len(), name.len() - session.len());
        assert_eq!(name[end..], session);
        for wrong in [
            "",
            names.prefix(),
            &name[1..],
            &name[..name.len() - 1],
            &format!("{name} "),
            &format!("{name}/"),
            &name.replace("/shop/", "/shop2/"),
            &name.replace("/ledger/", "/ledger2/"),
            &name.replace("/00112233/", "/00112234/"),
            &format!("{}{}", names.prefix(), name[start..].to_uppercase()),
            &format!("{}+{}", &name[..end], &session[1..]),
            &format!("{}{}", &name[..end], &session[1..]),
        ] {
            assert_eq!(names.branch_of(wrong), None, "{wrong}");
        }
        assert!(Owner::new("a/b", "ledger").is_err());
        assert!(Owner::new("shop", "it's").is_err());
    }

    #[test]
    fn the_end_of_an_id_lies_between_its_sequence_and_the_next() {
        let names = names("shop", "ledger");
        let mut of = branch("ledger", 3, u64::MAX);
        let end = names.end_of(of.id);
        let mut next = branch("ledger", 4, 0);
        for nonce in [0, 9, u64::MAX] {
            (of.id.txn.nonce, next.id.txn.nonce) = (nonce, nonce);
            assert!(names.name_of(&of) < end);
            assert!(end < names.name_of(&next));
        }
    }
}
