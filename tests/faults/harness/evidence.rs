//! What a user could see after a run: what initiators were told, what ledgers hold, what the tools
//! say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use paxos_commit::participant::ResourceManager;
use paxos_commit::resource::embedded::{Embedded, Options};
use serde::Deserialize;

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// The initiators' journals.
    pub(crate) journals: BTreeMap<String, Vec<Line>>,
    /// What others heard who asked at the end.
    pub(crate) asked: Vec<(u64, Heard)>,
    pub(crate) ledgers: BTreeMap<String, Ledger>,
    /// What `txn list` still shows, when all processes are up and have had time.
    pub(crate) listed: Vec<String>,
}

/// A line of an initiator's journal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Line {
    /// Commit was going to be asked for.
    Asking {
        number: u64,
        id: String,
        branches: Vec<Branch>,
    },
    /// It was told an outcome.
    Heard { number: u64, outcome: Heard },
    /// It was told nothing in time.
    Unknown { number: u64, error: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Heard {
    Committed,
    Aborted,
    Forgotten,
    /// Commit was not asked for, said the initiator.
    Refused,
}

/// What one ledger was to do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Branch {
    pub(crate) ledger: String,
    pub(crate) account: u32,
    pub(crate) amount: i64,
}

/// A ledger's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Those that were ever touched.
    pub(crate) accounts: BTreeMap<u32, i64>,
    /// Which transfers it says it did, and how much came.
    pub(crate) transfers: BTreeMap<u64, i64>,
    /// Branches in doubt.
    pub(crate) in_doubt: usize,
    /// Rows that are locked.
    pub(crate) locks: usize,
}

/// Reads a journal. A kill may have left half a line, which nobody was told.
pub(crate) fn read_journal(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    lines.filter_map(Result::ok).collect()
}

/// Reads a ledger's store, as its service would.
pub(crate) async fn read_ledger(data: &Path) -> Ledger {
    let store = Embedded::open(data, Options::new()).unwrap();
    let snapshot = store.snapshot();
    let mut ledger = Ledger {
        in_doubt: store.in_doubt().await.unwrap().len(),
        locks: store.locks(),
        ..Ledger::default()
    };
    for row in snapshot.scan("") {
        let row = row.unwrap();
        let key = String::from_utf8(row.key).unwrap();
        let value: i64 = String::from_utf8(row.value).unwrap().parse().unwrap();
        match key.split_once('/') {
            Some(("account", account)) => {
                ledger.accounts.insert(account.parse().unwrap(), value);
            }
            Some(("transfer", number)) => {
                ledger.transfers.insert(number.parse().unwrap(), value);
            }
            _ => panic!("{}: {key} is no row of a ledger", data.display()),
        }
    }
    drop(snapshot);
    tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
    ledger
}
