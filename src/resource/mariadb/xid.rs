//! The names of XA branches.

use std::fmt;

use crate::participant::BranchId;
use crate::protocol::types::{
    CommitId, ParticipantName, RosterDigest, StoreId, TXN_ID_BYTES, TxnId,
};
use crate::random::draw_into;
use crate::resource::identity::{Identity, Owner};
use crate::resource::masking::Masking;

/// Tells the adapter's xids from those of all other transaction managers: `PXC2`.
const FORMAT: i64 = 0x5058_4332;

/// A masked transaction id and a process.
const GTRID_BYTES: usize = TXN_ID_BYTES + 8;

/// The identity of a store.
const BQUAL_BYTES: usize = 16;

/// One adapter in one process, drawn at random. The session cannot take its place: the server wants
/// the xid before the work begins, and the adapter learns the session when it is asked to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process(pub(super) [u8; 8]);

/// The name of the work of one transaction in one process:
///
/// ```text
/// format id  0x50584332
/// gtrid      masked transaction id (32 bytes, big-endian), process (8)
/// bqual      identity of the store (16)
/// ```
///
/// The commit id is not in it, since it is known only at the end of the work: the branch's row says
/// it. The store is in it because the key of the masking belongs to the store: with the key of
/// another store, the name would read as another transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Xid {
    masked: [u8; TXN_ID_BYTES],
    process: Process,
    store: StoreId,
    lock: [u8; 16],
}

/// As SQL wants it.
impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (txn, process) = (hex(&self.masked), hex(&self.process.0));
        write!(f, "X'{txn}{process}',X'{}',{FORMAT}", self.store)
    }
}

impl Xid {
    /// The name of the lock that the session of the server has which works for it, as SQL. It goes
    /// with that session, or when the branch has ended on it. Any user of the server can take a lock
    /// of a name that he knows, so the name needs the key.
    pub(super) fn lock(&self) -> String {
        // The name of a lock has at most 64 characters.
        format!("'paxos-commit/{}'", hex(&self.lock))
    }
}

/// The names of one participant's branches in one store.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) participant: ParticipantName,
    pub(super) store: StoreId,
    masking: Masking,
    /// This one.
    pub(super) process: Process,
}

impl Names {
    pub(super) fn new(owner: &Owner, identity: &Identity) -> Self {
        let mut process = [0; 8];
        draw_into(&mut process);
        Names {
            participant: owner.participant.clone(),
            store: identity.store,
            masking: identity.masking(),
            process: Process(process),
        }
    }

    pub(super) fn xid(&self, txn: TxnId, process: Process) -> Xid {
        let lock = [&b"lock"[..], &txn.to_be_bytes(), &process.0];
        Xid {
            masked: self.masking.mask(txn),
            process,
            store: self.store,
            lock: self.masking.digest(&lock),
        }
    }

    /// Reads a row of `XA RECOVER FORMAT='RAW'`; none if it is not exactly one of this participant in
    /// this store.
    pub(super) fn parse(
        &self,
        (format, gtrid, bqual): (i64, u64, u64),
        data: &[u8],
    ) -> Option<Xid> {
        if format != FORMAT || gtrid != GTRID_BYTES as u64 || bqual != BQUAL_BYTES as u64 {
            return None;
        }
        let (gtrid, bqual) = data.split_at_checked(GTRID_BYTES)?;
        let (masked, process) = gtrid.split_at_checked(TXN_ID_BYTES)?;
        if bqual != self.store.to_be_bytes() {
            return None;
        }
        let txn = self.masking.unmask(masked.try_into().ok()?);
        Some(self.xid(txn, Process(process.try_into().ok()?)))
    }

    /// The key of a branch's row, as SQL.
    pub(super) fn key(&self, branch: &BranchId) -> String {
        format!(
            "owner = X'{}' AND commit_id = X'{}' AND session = X'{}'",
            self.store,
            hex(&self.masking.mask_id(branch.id)),
            hex(&branch.branch.session.0.to_be_bytes())
        )
    }

    /// The rows of a process in a transaction, as SQL.
    pub(super) fn rows_of(&self, xid: &Xid) -> String {
        let txn = TxnId::from_be_bytes(xid.masked);
        let id = |roster| hex(&CommitId { txn, roster }.to_be_bytes());
        format!(
            "owner = X'{}' AND commit_id BETWEEN X'{}' AND X'{}' AND process = X'{}'",
            self.store,
            id(RosterDigest::MIN),
            id(RosterDigest::MAX),
            hex(&xid.process.0)
        )
    }

    /// The row of a branch that this process prepares: its values, as SQL.
    pub(super) fn values(&self, branch: &BranchId) -> String {
        format!(
            "X'{}', X'{}', X'{}', X'{}'",
            self.store,
            hex(&self.masking.mask_id(branch.id)),
            hex(&branch.branch.session.0.to_be_bytes()),
            hex(&self.process.0)
        )
    }

    /// The commit id for which a row has these bytes; none if they are too few or too many.
    pub(super) fn id_of(&self, masked: &[u8]) -> Option<CommitId> {
        let masked = masked.try_into().ok()?;
        Some(self.masking.unmask_id(masked))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{Branch, Session};

    const TXN: &str = "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef";

    fn names_in(identity: &Identity) -> Names {
        let owner = Owner::new("shop", "ledger").unwrap();
        let mut names = Names::new(&owner, identity);
        names.process = Process(*b"process1");
        names
    }

    fn names() -> Names {
        names_in(&Identity::fixed())
    }

    fn data(names: &Names) -> Vec<u8> {
        let masked = names.masking.mask(TXN.parse().unwrap());
        let store = names.store.to_be_bytes();
        [&masked[..], &names.process.0, &store].concat()
    }

    #[test]
    fn a_name_says_everything_and_reads_back() {
        let names = names();
        let xid = names.xid(TXN.parse().unwrap(), names.process);
        // A golden name: a change here would orphan what an older program has prepared.
        assert_eq!(
            xid.to_string(),
            "X'0000000100c0ffee00c0ffee00c0ffee00c0ffee0000002a391e5e7b2306917770726f6365737331',\
             X'00112233445566778899aabbccddeeff',1347961650"
        );
        assert_eq!(names.parse((FORMAT, 40, 16), &data(&names)), Some(xid));
        // gtrid and bqual have at most 64 bytes each, the name of a lock at most 64 characters.
        assert_eq!((GTRID_BYTES, BQUAL_BYTES), (40, 16));
        assert_eq!(xid.lock().len(), 45 + 2, "{}", xid.lock());
    }

    #[test]
    fn neither_names_nor_rows_show_a_nonce() {
        let names = names();
        let branch = BranchId {
            id: format!("{TXN}-{:032x}", 9).parse().unwrap(),
            branch: Branch {
                participant: "ledger".parse().unwrap(),
                session: Session(7),
                store: names.store,
            },
        };
        let xid = names.xid(branch.id.txn, names.process);
        let texts = [
            xid.to_string(),
            xid.lock(),
            names.key(&branch),
            names.values(&branch),
            names.rows_of(&xid),
        ];
        for text in texts {
            assert!(!text.contains("0123456789abcdef"), "{text}");
        }
        let masked = names.masking.mask_id(branch.id);
        assert_eq!(names.id_of(&masked), Some(branch.id));
        assert_eq!(names.id_of(&masked[1..]), None);
    }

    #[test]
    fn what_is_not_exactly_a_name_of_this_participant_is_nobodys() {
        let names = names();
        let data = data(&names);
        assert_eq!(names.parse((FORMAT + 1, 40, 16), &data), None);
        assert_eq!(names.parse((FORMAT, 16, 40), &data), None);
        assert_eq!(names.parse((FORMAT, 40, 15), &data[..55]), None);
        assert_eq!(names.parse((FORMAT, 40, 16), &data[..55]), None);
        assert_eq!(names.parse((FORMAT, 40, 16), b""), None);
        // Every participant of every cluster in every database has a store of its own.
        let other = names_in(&Identity::draw());
        assert_eq!(other.parse((FORMAT, 40, 16), &data), None);
        let txn = TXN.parse().unwrap();
        let (lock, others) = (names.xid(txn, names.process), other.xid(txn, names.process));
        assert_ne!(lock.lock(), others.lock());
    }
}
