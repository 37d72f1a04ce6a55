//! The store as a whole. Each test says one sentence of the module's documentation.

mod bank;
mod branches;
#[cfg(feature = "conformance")]
mod conformance;
mod history;
mod identity;
mod journals;
mod local;
mod model;
mod opening;
mod requests;
mod settling;
mod working;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::participant::{BranchId, Expiry, Proof, ResourceManager};
use crate::protocol::participant::InDoubt;
use crate::protocol::types::{
    Branch, CommitId, InitiatorId, ReadOnly, Roster, Session, StoreId, TxnId, Vote,
};

pub(super) fn txn(sequence: u32) -> TxnId {
    TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    }
}

/// The branch of session 1 in a transaction of its own.
fn branch(sequence: u32) -> BranchId {
    branch_of(1, sequence)
}

fn branch_of(session: u64, sequence: u32) -> BranchId {
    let branch = Branch {
        participant: "ledger".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    };
    let roster = Roster::new([branch.clone()]).unwrap();
    BranchId {
        id: CommitId::new(txn(sequence), &roster),
        branch,
    }
}

/// A directory with a store, closed or open.
struct Home {
    dir: TempDir,
    options: Options,
}

impl Home {
    fn new() -> Self {
        Home::with(Options::new())
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Home { dir, options }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn open(&self) -> Embedded {
        Embedded::open(self.path(), self.options.clone()).unwrap()
    }

    /// What a crash at this moment would leave.
    fn crash(&self) -> Home {
        let home = Home::with(self.options.clone());
        copy(&self.path(), &home.path());
        home
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to);
        } else if from.extension().is_some_and(|end| end == "jnl") {
            copy_journal(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// A journal is a large file of zeros, written from the front.
fn copy_journal(from: &Path, to: &Path) {
    let mut from = File::open(from).unwrap();
    let mut to = File::create(to).unwrap();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut chunk).unwrap();
        if chunk[..length].iter().all(|byte| *byte == 0) {
            break;
        }
        to.write_all(&chunk[..length]).unwrap();
    }
    to.set_len(from.metadata().unwrap().len()).unwrap();
}

/// Prepares one write.
async fn prepare_put(store: &Embedded, branch: &BranchId, key: &str, value: &str) {
    store.work_of(branch.id.txn).put(key, value).unwrap();
    let vote = store.prepare(branch, None, ReadOnly::Allowed).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
}

/// Commits, with proof.
async fn commit(store: &Embedded, branch: &BranchId) {
    let proof = store.commit(branch).await.unwrap();
    assert_eq!(proof, Proof::Found, "{branch}");
}

/// Work whose failures do not poison it, to try locks with.
fn probe(store: &Embedded, sequence: u32) -> Work {
    Work {
        scope: Scope::Attempt(attempt::Undo::default()),
        ..store.work_of(txn(sequence))
    }
}

fn value(store: &Embedded, key: &str) -> Option<String> {
    let value = store.read(key).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// The key and the holder of a conflict.
fn conflict<T: std::fmt::Debug>(result: Result<T, WorkError>) -> (String, Holder) {
    match result {
        Err(WorkError::Conflict { key, held_by }) => (String::from_utf8(key).unwrap(), held_by),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// A conflict with the transaction of a number.
fn with(key: &str, sequence: u32) -> (String, Holder) {
    (key.to_owned(), Holder::Transaction(txn(sequence)))
}

async fn in_doubt(store: &Embedded) -> Vec<InDoubt> {
    store.in_doubt().await.unwrap()
}

fn markers(store: &Embedded) -> usize {
    store.inner.store.keyspaces.committed.iter().count()
}
