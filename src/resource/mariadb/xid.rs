//! The names of XA branches.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::participant::BranchId;
use crate::protocol::types::{CommitId, NameError, ParticipantName, RosterDigest, TxnId};

/// Tells our xids from those of all other transaction managers: `PXC1`.
const FORMAT: i64 = 0x5058_4331;

/// A transaction's id and a process.
const GTRID_BYTES: usize = 24;

/// One participant of one cluster in one database.
pub(super) type Owner = [u8; 16];

/// One adapter in one process, drawn at random. The session cannot take its place: the server wants
/// the xid before the work begins, and the adapter learns the session when it is asked to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process(pub(super) [u8; 8]);

/// The name of the work of one transaction in one process:
///
/// ```text
/// format id  0x50584331
/// gtrid      transaction id (16 bytes, big-endian), process (8)
/// bqual      owner (16): half of the SHA-256 of cluster, participant and database
/// ```
///
/// The commit id is not in it, since it is known only at the end of the work: the branch's row says
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Xid {
    pub(super) txn: TxnId,
    pub(super) process: Process,
    owner: Owner,
}

/// As SQL wants it.
impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (txn, process) = (hex(&txn_bytes(self.txn)), hex(&self.process.0));
        write!(f, "X'{txn}{process}',X'{}',{FORMAT}", hex(&self.owner))
    }
}

impl Xid {
    /// The name of the lock that the session of the server has which works for it, as SQL. It goes
    /// with that session, or when the branch has ended on it.
    pub(super) fn lock(&self) -> String {
        let (txn, process) = (hex(&txn_bytes(self.txn)), hex(&self.process.0));
        format!("'paxos-commit/{txn}{process}'")
    }
}

/// The names of one participant's branches.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) participant: ParticipantName,
    pub(super) owner: Owner,
    /// This one.
    pub(super) process: Process,
}

impl Names {
    pub(super) fn new(cluster: &str, participant: &str, database: &str) -> Result<Self, NameError> {
        // The name of a cluster has the same alphabet.
        let cluster: ParticipantName = cluster.parse()?;
        let participant: ParticipantName = participant.parse()?;
        let mut process = [0; 8];
        let drawn = SystemRandom::new().fill(&mut process);
        drawn.expect("the system's random numbers can be read");
        Ok(Names {
            owner: owner(cluster.as_str(), participant.as_str(), database),
            participant,
            process: Process(process),
        })
    }

    pub(super) fn xid(&self, txn: TxnId, process: Process) -> Xid {
        Xid {
            txn,
            process,
            owner: self.owner,
        }
    }

    /// Reads a row of `XA RECOVER FORMAT='RAW'`; none if it is not exactly one of this participant.
    pub(super) fn parse(
        &self,
        (format, gtrid, bqual): (i64, u64, u64),
        data: &[u8],
    ) -> Option<Xid> {
        if format != FORMAT || gtrid != GTRID_BYTES as u64 || bqual != self.owner.len() as u64 {
            return None;
        }
        let (gtrid, bqual) = data.split_at_checked(GTRID_BYTES)?;
        let (txn, process) = gtrid.split_at(16);
        if bqual != self.owner {
            return None;
        }
        let mut id = [0; 32];
        id[..16].copy_from_slice(txn);
        let txn = CommitId::from_be_bytes(id).txn;
        Some(self.xid(txn, Process(process.try_into().ok()?)))
    }

    /// The key of a branch's row, as SQL.
    pub(super) fn key(&self, branch: &BranchId) -> String {
        format!(
            "owner = X'{}' AND commit_id = X'{}' AND session = X'{}'",
            hex(&self.owner),
            hex(&branch.id.to_be_bytes()),
            hex(&branch.branch.session.0.to_be_bytes())
        )
    }

    /// The rows of a process in a transaction, as SQL.
    pub(super) fn rows_of(&self, xid: &Xid) -> String {
        let id = |roster| {
            let txn = xid.txn;
            hex(&CommitId { txn, roster }.to_be_bytes())
        };
        format!(
            "owner = X'{}' AND commit_id BETWEEN X'{}' AND X'{}' AND process = X'{}'",
            hex(&self.owner),
            id(RosterDigest::MIN),
            id(RosterDigest::MAX),
            hex(&xid.process.0)
        )
    }

    /// The row of a branch that this process prepares: its values, as SQL.
    pub(super) fn values(&self, branch: &BranchId) -> String {
        format!(
            "X'{}', X'{}', X'{}', X'{}'",
            hex(&self.owner),
            hex(&branch.id.to_be_bytes()),
            hex(&branch.branch.session.0.to_be_bytes()),
            hex(&self.process.0)
        )
    }
}

fn owner(cluster: &str, participant: &str, database: &str) -> Owner {
    let mut hash = Sha256::new();
    hash.update(b"paxos-commit xid 1\0");
    // None of the first two holds a zero, so no two triples share their bytes.
    for part in [cluster, "\0", participant, "\0", database] {
        hash.update(part.as_bytes());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

fn txn_bytes(txn: TxnId) -> [u8; 16] {
    let roster = RosterDigest::MIN;
    let mut half = [0; 16];
    half.copy_from_slice(&CommitId { txn, roster }.to_be_bytes()[..16]);
    half
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TXN: &str = "00000001-00c0ffee00c0ffee-0000002a";

    fn names(cluster: &str, participant: &str, database: &str) -> Names {
        let mut names = Names::new(cluster, participant, database).unwrap();
        names.process = Process(*b"process1");
        names
    }

    fn data(names: &Names) -> Vec<u8> {
        let txn = txn_bytes(TXN.parse().unwrap());
        [&txn[..], &names.process.0, &names.owner].concat()
    }

    #[test]
    fn a_name_says_everything_and_reads_back() {
        let names = names("shop", "ledger", "money");
        let xid = names.xid(TXN.parse().unwrap(), names.process);
        // A golden name: a change here would orphan what an older program has prepared.
        assert_eq!(
            xid.to_string(),
            "X'0000000100c0ffee00c0ffee0000002a70726f6365737331',\
             X'd8a768c0e60cc31465d971d21da833b1',1347961649"
        );
        assert_eq!(names.parse((FORMAT, 24, 16), &data(&names)), Some(xid));
    }

    #[test]
    fn what_is_not_exactly_a_name_of_this_participant_is_nobodys() {
        let names = names("shop", "ledger", "money");
        let data = data(&names);
        assert_eq!(names.parse((FORMAT + 1, 24, 16), &data), None);
        assert_eq!(names.parse((FORMAT, 16, 24), &data), None);
        assert_eq!(names.parse((FORMAT, 24, 15), &data[..39]), None);
        assert_eq!(names.parse((FORMAT, 24, 16), &data[..39]), None);
        assert_eq!(names.parse((FORMAT, 24, 16), b""), None);
        for (cluster, participant, database) in [
            ("shop2", "ledger", "money"),
            ("shop", "ledger2", "money"),
            ("shop", "ledger", "money2"),
        ] {
            let other = self::names(cluster, participant, database);
            assert_eq!(other.parse((FORMAT, 24, 16), &data), None);
        }
        assert!(Names::new("a/b", "ledger", "money").is_err());
    }
}
