//! The store as a whole.

mod amnesia;
mod bytes;
mod equivalence;
mod history;
mod opening;
mod saving;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use tempfile::TempDir;

use super::layout::Tag;
use super::*;
use crate::protocol::paxos::{Acceptors, Ballot};
use crate::protocol::types::{
    Branch, BranchSet, Configuration, Entry, Listed, Open, Outcome, Roster, Session, Settle,
    StoreId, Unapplied, Vote,
};

/// How long a test waits for something that must come.
const SURELY: Duration = Duration::from_secs(60);

fn configuration() -> Configuration {
    Acceptors::new([1, 2, 3].map(ReplicaId)).unwrap().into()
}

fn identity() -> Identity {
    Identity::new("test", ReplicaId(1), Some(configuration()), [7; 64]).unwrap()
}

/// A directory with a new store in it.
fn new_store() -> (TempDir, PathBuf) {
    new_store_in(tempfile::tempdir().unwrap())
}

/// The same in memory, where there is such a file system: for tests with thousands of saves, which
/// do not ask what a disk does.
fn new_store_in_memory() -> (TempDir, PathBuf) {
    new_store_in(tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()))
}

fn new_store_in(folder: TempDir) -> (TempDir, PathBuf) {
    let dir = folder.path().join("replica");
    Store::init(&dir, &identity()).unwrap();
    (folder, dir)
}

fn roster(branches: u64) -> Roster {
    Roster::new((0..branches).map(|session| Branch {
        participant: "ledger".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    }))
    .unwrap()
}

fn id(generation: u32, sequence: u32) -> CommitId {
    let txn = TxnId {
        generation,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    };
    CommitId::new(txn, &roster(2))
}

fn vote(id: CommitId, index: u8) -> Record {
    Record::Vote {
        id,
        index,
        vote: Vote::Prepared,
        roster: (index == 0).then(|| roster(2)),
    }
}

fn finished(id: CommitId) -> Record {
    let outcome = Outcome::Commit;
    Record::Finished { id, outcome }
}

fn listed(id: CommitId) -> Listed {
    let (roster, read_only) = (roster(2), BranchSet::default());
    Listed {
        id,
        unapplied: Unapplied { roster, read_only },
    }
}

fn open(slot: u64, generation: u32) -> Record {
    let configuration = configuration();
    let entry = Entry::Open(Open {
        generation,
        configuration,
    });
    Record::Chosen { slot, entry }
}

/// Settles the first part of generation 1; generations 2 and 3 were slots 0 and 1.
fn settle(through: CommitId, unfinished: Vec<Listed>) -> Record {
    let entry = Entry::Settle(Box::new(Settle {
        after: None,
        through,
        unfinished,
    }));
    Record::Chosen { slot: 2, entry }
}

/// Saves, and waits until it is durable.
fn save(store: &Store, records: Vec<Record>) {
    let (done, is_done) = channel();
    store.save(records, move |_| done.send(()).unwrap());
    is_done.recv_timeout(SURELY).unwrap();
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort();
    records
}

/// What a crash would leave, more or less: the files as they are, whoever is writing.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
            continue;
        }
        // A file may be gone by now.
        let Ok(bytes) = fs::read(entry.path()) else {
            continue;
        };
        let file = File::create_new(target).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (number, block) in bytes.chunks(4096).enumerate() {
            // Journals are 64 MiB of nothing.
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, number as u64 * 4096).unwrap();
            }
        }
    }
}

/// The active journal.
fn journal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("database")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    let journals = paths.filter(|path| path.extension().is_some_and(|it| it == "jnl"));
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>();
    journals.max_by_key(|path| number(path).unwrap()).unwrap()
}

/// A value as a program writes it that has another version of values.
fn of_another_version(key: &[u8], value: &[u8]) -> Vec<u8> {
    let (version, payload) = (value[0] + 1, &value[layout::HEADER_BYTES..]);
    let checksum = layout::checksum(version, key, payload);
    [&[version], &checksum[..], payload].concat()
}
