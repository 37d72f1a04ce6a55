//! The names of prepared transactions.

use sha2::{Digest, Sha256};

use crate::participant::BranchId;
use crate::protocol::types::{Branch, CommitId, NameError, ParticipantName, Session};

/// The longest that PostgreSQL takes.
const GID_BYTES_MAX: usize = 199;

/// What every name starts with: whose it is, and the version of this format.
const FORMAT: &str = "paxos-commit/1";

/// A longer name stands for itself by its beginning and a digest.
const WHOLE_BYTES_MAX: usize = 48;
const BEGINNING_BYTES: usize = 15;

/// The names of the branches of one participant of one cluster:
///
/// ```text
/// paxos-commit/1/<cluster>/<participant>/<commit id>/<session>
/// ```
///
/// Commit id and session are hexadecimal digits of fixed length, so names sort as ids do. A name of
/// a cluster or a participant with more than 48 bytes is its first 15, `~`, and half of its SHA-256.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) participant: ParticipantName,
    prefix: String,
}

impl Names {
    pub(super) fn new(cluster: &str, participant: &str) -> Result<Self, NameError> {
        // The name of a cluster has the same alphabet.
        let cluster: ParticipantName = cluster.parse()?;
        let participant: ParticipantName = participant.parse()?;
        let prefix = format!("{FORMAT}/{}/{}/", short(&cluster), short(&participant));
        Ok(Names {
            participant,
            prefix,
        })
    }

    /// What all of its names start with, and none of any other participant or cluster.
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
        let id: CommitId = id.parse().ok()?;
        let session = u64::from_str_radix(session, 16).ok().map(Session)?;
        let branch = Branch {
            participant: self.participant.clone(),
            session,
        };
        (self.compose(id, session) == name).then_some(BranchId { id, branch })
    }

    /// The first name that comes after those of all branches up to `through`, byte by byte.
    pub(super) fn end_of(&self, through: CommitId) -> String {
        // `0` follows `/`.
        format!("{}{through}0", self.prefix)
    }

    fn compose(&self, id: CommitId, session: Session) -> String {
        format!("{}{id}/{:016x}", self.prefix, session.0)
    }
}

fn short(name: &ParticipantName) -> String {
    let name = name.as_str();
    if name.len() <= WHOLE_BYTES_MAX {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
    // No name holds a `~`.
    format!("{}~{digest}", &name[..BEGINNING_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(participant: &str, sequence: u32, session: u64) -> BranchId {
        let id = format!("00000001-00c0ffee00c0ffee-{sequence:08x}-{:032x}", 9);
        BranchId {
            id: id.parse().unwrap(),
            branch: Branch {
                participant: participant.parse().unwrap(),
                session: Session(session),
            },
        }
    }

    #[test]
    fn a_name_says_everything_and_reads_back() {
        let names = Names::new("shop", "ledger").unwrap();
        let of = branch("ledger", 0x2a, 7);
        let name = names.name_of(&of);
        // A golden name: a change here would orphan what an older program has prepared.
        assert_eq!(
            name,
            "paxos-commit/1/shop/ledger/00000001-00c0ffee00c0ffee-0000002a-\
             00000000000000000000000000000009/0000000000000007"
        );
        assert_eq!(names.branch_of(&name), Some(of));
    }

    #[test]
    fn the_longest_names_fit_and_stay_apart() {
        let long = "x".repeat(64);
        let other = format!("{}y", "x".repeat(63));
        let names = Names::new(&long, &long).unwrap();
        let name = names.name_of(&branch(&long, u32::MAX, u64::MAX));
        assert!(name.len() <= GID_BYTES_MAX, "{}", name.len());
        assert_eq!(
            names.branch_of(&name),
            Some(branch(&long, u32::MAX, u64::MAX))
        );
        for (cluster, participant) in [(&long, &other), (&other, &long)] {
            let others = Names::new(cluster, participant).unwrap();
            assert_ne!(others.prefix(), names.prefix());
            assert_eq!(others.branch_of(&name), None);
        }
    }

    #[test]
    fn what_is_not_exactly_a_name_is_nobodys() {
        let names = Names::new("shop", "ledger").unwrap();
        let name = names.name_of(&branch("ledger", 1, 0xab));
        for wrong in [
            "",
            "paxos-commit/1/shop/ledger/",
            &name[1..],
            &name[..name.len() - 1],
            &format!("{name} "),
            &format!("{name}/"),
            &name.replace("/shop/", "/shop2/"),
            &name.replace("/ledger/", "/ledger2/"),
            &name.replace("ab", "AB"),
            &name.replace("/00000000000000ab", "/+0000000000000ab"),
            &name.replace("/00000000000000ab", "/ab"),
        ] {
            assert_eq!(names.branch_of(wrong), None, "{wrong}");
        }
        assert!(Names::new("a/b", "ledger").is_err());
        assert!(Names::new("shop", "it's").is_err());
    }

    #[test]
    fn the_end_of_an_id_lies_between_it_and_the_next() {
        let names = Names::new("shop", "ledger").unwrap();
        let end = names.end_of(branch("ledger", 3, 0).id);
        assert!(names.name_of(&branch("ledger", 3, u64::MAX)) < end);
        assert!(end < names.name_of(&branch("ledger", 4, 0)));
    }
}
