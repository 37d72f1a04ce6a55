//! Was anything lost, blocked or contradicted? Reads [`Evidence`], and knows nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Branch, Evidence, Heard, Line};

#[cfg(test)]
mod tests;

/// What is in each account at the beginning.
const OPENING_BALANCE: i64 = 1_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Transfers for which commit was asked.
    pub(crate) transfers: usize,
    /// Of those, that some initiator was told to be committed.
    pub(crate) committed: usize,
    pub(crate) aborted: usize,
    /// Whose answer did not come in time at first.
    pub(crate) late: usize,
    /// Of which nobody heard an outcome, since it was forgotten when the question came.
    pub(crate) forgotten: usize,
    /// What is wrong.
    pub(crate) violations: Vec<String>,
}

/// One transfer, and all that was heard of it.
#[derive(Default)]
struct Transfer<'e> {
    branches: &'e [Branch],
    heard: Vec<(&'e str, Heard)>,
    late: bool,
}

impl Transfer<'_> {
    /// Refused means that commit was not asked for: then it must not be there.
    fn verdict(&self) -> Option<bool> {
        let mut verdicts = self.heard.iter().filter_map(|(_, heard)| match heard {
            Heard::Committed => Some(true),
            Heard::Aborted | Heard::Refused => Some(false),
            Heard::Forgotten => None,
        });
        verdicts.next_back()
    }
}

/// Judges a run after which everything is up and has had time to finish.
pub(crate) fn audit(evidence: &Evidence) -> Audit {
    let transfers = gather(evidence);
    let mut audit = Audit {
        transfers: transfers.len(),
        ..Audit::default()
    };
    let mut wrong = Vec::new();
    for (number, transfer) in &transfers {
        audit.late += usize::from(transfer.late);
        match transfer.verdict() {
            Some(true) => audit.committed += 1,
            Some(false) => audit.aborted += 1,
            None if transfer.heard.is_empty() => {
                wrong.push(format!(
                    "transfer {number}: blocked, nobody was told its outcome"
                ));
            }
            None => audit.forgotten += 1,
        }
        told_the_same(*number, transfer, &mut wrong);
        all_or_nothing(*number, transfer, evidence, &mut wrong);
    }
    nothing_else(&transfers, evidence, &mut wrong);
    balances(&transfers, evidence, &mut wrong);
    finished(evidence, &mut wrong);
    audit.violations = wrong;
    audit
}

fn gather(evidence: &Evidence) -> BTreeMap<u64, Transfer<'_>> {
    let mut transfers: BTreeMap<u64, Transfer> = BTreeMap::new();
    for (name, journal) in &evidence.journals {
        for line in journal {
            match line {
                Line::Asking {
                    number, branches, ..
                } => transfers.entry(*number).or_default().branches = branches,
                Line::Heard { number, outcome } => {
                    let transfer = transfers.entry(*number).or_default();
                    transfer.heard.push((name, *outcome));
                }
                Line::Unknown { number, .. } => transfers.entry(*number).or_default().late = true,
            }
        }
    }
    for (number, outcome) in &evidence.asked {
        let transfer = transfers.entry(*number).or_default();
        transfer.heard.push(("who asked at the end", *outcome));
    }
    transfers
}

/// Two askers never hear different outcomes.
fn told_the_same(number: u64, transfer: &Transfer, wrong: &mut Vec<String>) {
    let of = |committed: bool| {
        transfer.heard.iter().find(|(_, heard)| match heard {
            Heard::Committed => committed,
            Heard::Aborted | Heard::Refused => !committed,
            Heard::Forgotten => false,
        })
    };
    if let (Some((one, _)), Some((other, heard))) = (of(true), of(false)) {
        wrong.push(format!(
            "transfer {number}: contradicted, {one} heard committed, {other} heard {heard:?}"
        ));
    }
}

/// A transfer is in all its ledgers or in none, and that is what was said.
fn all_or_nothing(number: u64, transfer: &Transfer, evidence: &Evidence, wrong: &mut Vec<String>) {
    let mut present = BTreeSet::new();
    for Branch { ledger, amount, .. } in transfer.branches {
        let found = evidence.ledgers.get(ledger);
        match found.and_then(|found| found.transfers.get(&number)) {
            Some(found) if found == amount => {
                present.insert(ledger);
            }
            Some(found) => wrong.push(format!(
                "transfer {number}: {ledger} holds {found}, not {amount}"
            )),
            None => {}
        }
    }
    let (there, all) = (present.len(), transfer.branches.len());
    if there != 0 && there != all {
        wrong.push(format!(
            "transfer {number}: torn, in {there} of {all} ledgers: {present:?}"
        ));
    }
    match transfer.verdict() {
        Some(true) if there == 0 => {
            wrong.push(format!(
                "transfer {number}: lost, an acknowledged commit is not there"
            ));
        }
        Some(false) if there > 0 => {
            wrong.push(format!("transfer {number}: an acknowledged abort is there"));
        }
        _ => {}
    }
}

/// Nothing is in a ledger that nobody asked for.
fn nothing_else(transfers: &BTreeMap<u64, Transfer>, evidence: &Evidence, wrong: &mut Vec<String>) {
    for (name, ledger) in &evidence.ledgers {
        for number in ledger.transfers.keys() {
            let asked = transfers.get(number).is_some_and(|transfer| {
                let mut branches = transfer.branches.iter();
                branches.any(|branch| branch.ledger == *name)
            });
            if !asked {
                wrong.push(format!("transfer {number}: nobody asked {name} for it"));
            }
        }
    }
}

/// Totals are conserved, and each account holds what its transfers make: none ran twice.
fn balances(transfers: &BTreeMap<u64, Transfer>, evidence: &Evidence, wrong: &mut Vec<String>) {
    let mut total = 0;
    for (name, ledger) in &evidence.ledgers {
        let mut expected: BTreeMap<u32, i64> = BTreeMap::new();
        for number in ledger.transfers.keys() {
            let branches = transfers.get(number).map_or(&[][..], |of| of.branches);
            for branch in branches.iter().filter(|branch| branch.ledger == *name) {
                *expected.entry(branch.account).or_insert(OPENING_BALANCE) += branch.amount;
            }
        }
        for (account, balance) in &ledger.accounts {
            total += balance - OPENING_BALANCE;
            let expected = expected.remove(account).unwrap_or(OPENING_BALANCE);
            if *balance != expected {
                wrong.push(format!(
                    "{name}: account {account} holds {balance}, its transfers make {expected}"
                ));
            }
        }
        if let Some((account, _)) = expected.first_key_value() {
            wrong.push(format!("{name}: account {account} is missing"));
        }
    }
    if total != 0 {
        wrong.push(format!("money was made or lost: {total}"));
    }
}

/// Nothing is undecided, unapplied, in doubt or locked.
fn finished(evidence: &Evidence, wrong: &mut Vec<String>) {
    for id in &evidence.listed {
        wrong.push(format!("{id}: still undecided or not applied"));
    }
    for (name, ledger) in &evidence.ledgers {
        if ledger.in_doubt > 0 {
            wrong.push(format!("{name}: {} branches are in doubt", ledger.in_doubt));
        }
        if ledger.locks > 0 {
            wrong.push(format!("{name}: {} rows are locked", ledger.locks));
        }
    }
}
