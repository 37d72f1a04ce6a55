//! Was anything lost, blocked or contradicted?

use std::collections::BTreeMap;

use anyhow::Context;
use paxos_commit::participant::ResourceManager;
use paxos_commit::resource::embedded::{Embedded, Row};

use super::ledger::{ACCOUNTS, OPENING_BALANCE, amount, transfer_key};
use super::load::End;
use super::measure::Measured;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The money in both ledgers, and what it should be.
    pub(super) total: i64,
    pub(super) expected: i64,
    /// Transfers that stand in both ledgers.
    pub(super) in_both: usize,
    /// Acknowledged commits.
    pub(super) acknowledged: usize,
    /// What is wrong.
    pub(super) complaints: Vec<String>,
}

impl Audit {
    pub(super) fn is_clean(&self) -> bool {
        self.complaints.is_empty()
    }
}

pub(super) async fn audit(stores: &[Embedded], measured: &Measured) -> anyhow::Result<Audit> {
    let mut audit = Audit::default();
    let mut transfers: Vec<BTreeMap<Vec<u8>, i64>> = Vec::new();
    for store in stores {
        let snapshot = store.snapshot();
        audit.expected += i64::from(ACCOUNTS) * OPENING_BALANCE;
        audit.total += i64::from(ACCOUNTS) * OPENING_BALANCE;
        for row in snapshot.scan("account/") {
            let Row { value, .. } = row?;
            // What was never touched is not there.
            audit.total += amount(&value)? - OPENING_BALANCE;
        }
        let mut found = BTreeMap::new();
        for row in snapshot.scan("transfer/") {
            let Row { key, value } = row?;
            found.insert(key, amount(&value)?);
        }
        transfers.push(found);
        let in_doubt = store.in_doubt().await?;
        if !in_doubt.is_empty() {
            let text = format!("{} branches are in doubt", in_doubt.len());
            audit.complaints.push(text);
        }
    }
    let [a, b] = &transfers[..] else {
        return Err(anyhow::anyhow!("two ledgers")).context("bug");
    };
    if audit.total != audit.expected {
        let text = format!("the total is {}, not {}", audit.total, audit.expected);
        audit.complaints.push(text);
    }
    for (key, paid) in a {
        let name = String::from_utf8_lossy(key);
        match b.get(key) {
            Some(received) if *received == -paid => audit.in_both += 1,
            Some(received) => audit.complaints.push(format!(
                "{name}: {paid} in one ledger, {received} in the other"
            )),
            None => audit
                .complaints
                .push(format!("{name} is in one ledger only")),
        }
    }
    let only_b = b.keys().filter(|key| !a.contains_key(*key));
    for key in only_b {
        let name = String::from_utf8_lossy(key);
        audit
            .complaints
            .push(format!("{name} is in one ledger only"));
    }
    for moved in &measured.moved {
        let key = transfer_key(moved.number).into_bytes();
        let is_there = a.contains_key(&key);
        match moved.end {
            End::Committed => {
                audit.acknowledged += 1;
                if !is_there {
                    let text = format!("transfer {} was acknowledged and is lost", moved.number);
                    audit.complaints.push(text);
                }
            }
            End::Aborted(_) | End::NotBegun if is_there => {
                let text = format!(
                    "transfer {} was said to be aborted and is there",
                    moved.number
                );
                audit.complaints.push(text);
            }
            End::Aborted(_) | End::NotBegun | End::Unknown(_) => {}
        }
    }
    Ok(audit)
}
