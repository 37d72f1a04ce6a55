//! Each check sees the wrong that it is there for.

use super::super::evidence::Ledger;
use super::*;

fn branch(ledger: &str, account: u32, amount: i64) -> Branch {
    Branch {
        ledger: ledger.into(),
        account,
        amount,
    }
}

fn asking(number: u64, branches: &[Branch]) -> Line {
    Line::Asking {
        number,
        id: format!("id-{number}"),
        branches: branches.to_vec(),
    }
}

fn heard(number: u64, outcome: Heard) -> Line {
    Line::Heard { number, outcome }
}

/// Transfer 1 is committed, 2 aborted, 3 forgotten when somebody asked, and there.
fn clean() -> Evidence {
    let journal = vec![
        asking(1, &[branch("a", 7, 5), branch("b", 8, -5)]),
        heard(1, Heard::Committed),
        asking(2, &[branch("a", 7, 1), branch("b", 8, -1)]),
        Line::Unknown {
            number: 2,
            error: "late".into(),
        },
        heard(2, Heard::Aborted),
        asking(3, &[branch("a", 7, 2), branch("b", 9, -2)]),
        heard(3, Heard::Forgotten),
    ];
    let a = Ledger {
        accounts: [(7, 1_007)].into(),
        transfers: [(1, 5), (3, 2)].into(),
        ..Ledger::default()
    };
    let b = Ledger {
        accounts: [(8, 995), (9, 998)].into(),
        transfers: [(1, -5), (3, -2)].into(),
        ..Ledger::default()
    };
    Evidence {
        journals: [("initiator-1".to_owned(), journal)].into(),
        asked: vec![(1, Heard::Committed), (3, Heard::Forgotten)],
        ledgers: [("a".to_owned(), a), ("b".to_owned(), b)].into(),
        listed: Vec::new(),
    }
}

/// What the auditor says when the evidence was tampered with.
fn found(tamper: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = clean();
    tamper(&mut evidence);
    audit(&evidence).violations
}

fn ledger<'e>(evidence: &'e mut Evidence, name: &str) -> &'e mut Ledger {
    evidence.ledgers.get_mut(name).unwrap()
}

fn journal(evidence: &mut Evidence) -> &mut Vec<Line> {
    evidence.journals.get_mut("initiator-1").unwrap()
}

#[test]
fn nothing_is_wrong_with_a_clean_run() {
    let expected = Audit {
        transfers: 3,
        committed: 1,
        aborted: 1,
        late: 1,
        forgotten: 1,
        violations: Vec::new(),
    };
    assert_eq!(audit(&clean()), expected);
}

#[test]
fn a_transfer_in_one_ledger_only_is_torn() {
    let found = found(|evidence| {
        ledger(evidence, "b").transfers.remove(&3);
        ledger(evidence, "b").accounts.remove(&9);
    });
    assert_eq!(
        found,
        [
            "transfer 3: torn, in 1 of 2 ledgers: {\"a\"}",
            "money was made or lost: 2"
        ]
    );
}

#[test]
fn an_acknowledged_commit_that_is_nowhere_is_lost() {
    let found = found(|evidence| {
        for name in ["a", "b"] {
            ledger(evidence, name).transfers.remove(&1);
        }
        ledger(evidence, "a").accounts.insert(7, 1_002);
        ledger(evidence, "b").accounts.insert(8, 1_000);
    });
    assert_eq!(
        found,
        ["transfer 1: lost, an acknowledged commit is not there"]
    );
}

#[test]
fn an_acknowledged_abort_must_not_be_there() {
    let tamper = |evidence: &mut Evidence| {
        ledger(evidence, "a").transfers.insert(2, 1);
        ledger(evidence, "b").transfers.insert(2, -1);
        ledger(evidence, "a").accounts.insert(7, 1_008);
        ledger(evidence, "b").accounts.insert(8, 994);
    };
    let there = ["transfer 2: an acknowledged abort is there"];
    assert_eq!(found(tamper), there);
    // Nor what was refused.
    let refused = found(|evidence| {
        tamper(evidence);
        journal(evidence)[4] = heard(2, Heard::Refused);
    });
    assert_eq!(refused, there);
}

#[test]
fn two_who_heard_different_outcomes_are_found() {
    let in_the_journal = found(|evidence| journal(evidence).push(heard(1, Heard::Aborted)));
    let text = "transfer 1: contradicted, initiator-1 heard committed, initiator-1 heard Aborted";
    assert!(
        in_the_journal.contains(&text.to_owned()),
        "{in_the_journal:?}"
    );
    let at_the_end = found(|evidence| evidence.asked.push((2, Heard::Committed)));
    let text =
        "transfer 2: contradicted, who asked at the end heard committed, initiator-1 heard Aborted";
    assert!(at_the_end.contains(&text.to_owned()), "{at_the_end:?}");
}

#[test]
fn a_question_that_was_never_answered_is_a_block() {
    let found = found(|evidence| {
        journal(evidence).remove(4);
    });
    assert_eq!(found, ["transfer 2: blocked, nobody was told its outcome"]);
}

#[test]
fn a_transfer_with_another_amount_is_found() {
    let found = found(|evidence| {
        ledger(evidence, "a").transfers.insert(1, 6);
    });
    assert_eq!(
        found,
        [
            "transfer 1: a holds 6, not 5",
            "transfer 1: torn, in 1 of 2 ledgers: {\"b\"}"
        ]
    );
}

#[test]
fn a_transfer_that_nobody_asked_for_is_found() {
    let found = found(|evidence| {
        ledger(evidence, "a").transfers.insert(9, 0);
        evidence.ledgers.insert("c".into(), Ledger::default());
        ledger(evidence, "c").transfers.insert(1, 5);
    });
    assert_eq!(
        found,
        [
            "transfer 9: nobody asked a for it",
            "transfer 1: nobody asked c for it"
        ]
    );
}

#[test]
fn a_request_that_ran_twice_is_found() {
    let found = found(|evidence| {
        ledger(evidence, "a").accounts.insert(7, 1_012);
        ledger(evidence, "b").accounts.insert(8, 990);
    });
    assert_eq!(
        found,
        [
            "a: account 7 holds 1012, its transfers make 1007",
            "b: account 8 holds 990, its transfers make 995"
        ]
    );
}

#[test]
fn money_that_was_made_and_an_account_that_is_gone_are_found() {
    let made = found(|evidence| {
        ledger(evidence, "a").accounts.insert(3, 1_001);
    });
    assert_eq!(
        made,
        [
            "a: account 3 holds 1001, its transfers make 1000",
            "money was made or lost: 1"
        ]
    );
    let gone = found(|evidence| {
        ledger(evidence, "b").accounts.remove(&9);
    });
    assert_eq!(
        gone,
        ["b: account 9 is missing", "money was made or lost: 2"]
    );
}

#[test]
fn what_has_not_come_to_its_end_is_found() {
    let found = found(|evidence| {
        evidence.listed.push("id-4".into());
        ledger(evidence, "a").in_doubt = 2;
        ledger(evidence, "b").locks = 1;
    });
    assert_eq!(
        found,
        [
            "id-4: still undecided or not applied",
            "a: 2 branches are in doubt",
            "b: 1 rows are locked"
        ]
    );
}
