//! Money moves between accounts, from many tasks at once: none is made and none is lost, whenever
//! the process ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::protocol::types::Request;

const ACCOUNTS: u32 = 12;
const EACH: i64 = 1_000;

/// A request is from, to, and the amount, a byte each.
fn transfer(work: &Work, request: &Request) -> Result<(), RequestError> {
    let [from, to, amount] = request.0[..] else {
        return Err("expected three bytes".into());
    };
    let balance = |account: u8| -> Result<i64, RequestError> {
        let text = work
            .get(format!("account/{account:02}"))?
            .ok_or("no such account")?;
        Ok(String::from_utf8(text)?.parse()?)
    };
    let (rich, poor) = (balance(from)?, balance(to)?);
    if rich < i64::from(amount) {
        return Err("not enough money".into());
    }
    work.put(
        format!("account/{from:02}"),
        (rich - i64::from(amount)).to_string(),
    )?;
    work.put(
        format!("account/{to:02}"),
        (poor + i64::from(amount)).to_string(),
    )?;
    Ok(())
}

fn total(rows: impl Iterator<Item = Row>) -> i64 {
    let balances = rows.map(|row| String::from_utf8(row.value).unwrap());
    balances
        .map(|balance| balance.parse::<i64>().unwrap())
        .sum()
}

fn audit(store: &Embedded) -> i64 {
    total(store.snapshot().scan("account/").map(Result::unwrap))
}

/// What was decided, and what has returned.
#[derive(Default)]
struct Told {
    commits: BTreeSet<u32>,
    applied: BTreeSet<u32>,
}

async fn transfers(store: Embedded, task: u32, told: Arc<Mutex<Told>>) {
    let mut rng = fastrand::Rng::with_seed(u64::from(task));
    for round in 0..60 {
        let sequence = task * 1_000 + round;
        let branch = branch(sequence);
        let (from, to) = (rng.u8(0..ACCOUNTS as u8), rng.u8(0..ACCOUNTS as u8 - 1));
        let to = if to == from { ACCOUNTS as u8 - 1 } else { to };
        let request = Request([from, to, rng.u8(1..100)].into());
        let vote = store
            .prepare(&branch, Some(request), ReadOnly::Forbidden)
            .await;
        match vote.unwrap() {
            Vote::Prepared if rng.u32(0..4) > 0 => {
                told.lock().unwrap().commits.insert(sequence);
                commit(&store, &branch).await;
                told.lock().unwrap().applied.insert(sequence);
            }
            Vote::Prepared | Vote::Aborted => store.rollback(&branch).await.unwrap(),
            Vote::ReadOnly => panic!("it was forbidden"),
        }
        let work = |work: &Work| work.scan("account/");
        if let Ok(rows) = store.local(work).await {
            assert_eq!(total(rows.into_iter()), i64::from(ACCOUNTS) * EACH);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn money_is_neither_made_nor_lost() {
    let home = Home::with(Options::new().requests(transfer));
    let store = home.open();
    let all = i64::from(ACCOUNTS) * EACH;
    let load = |work: &Work| {
        let mut accounts = 0..ACCOUNTS;
        accounts.try_for_each(|account| work.put(format!("account/{account:02}"), EACH.to_string()))
    };
    store.local(load).await.unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let tasks: Vec<_> = (0..8)
        .map(|task| tokio::spawn(transfers(store.clone(), task, Arc::clone(&told))))
        .collect();
    let mut crashes = 0;
    while tasks.iter().any(|task| !task.is_finished()) || crashes == 0 {
        assert_eq!(audit(&store), all);
        let applied = told.lock().unwrap().applied.clone();
        let crashed = home.crash();
        let commits = told.lock().unwrap().commits.clone();
        let after = crashed.open();
        assert_eq!(audit(&after), all);
        for found in in_doubt(&after).await {
            let sequence = found.id.txn.sequence;
            assert!(!applied.contains(&sequence), "a commit was lost");
            if commits.contains(&sequence) {
                commit(&after, &branch(sequence)).await;
            } else {
                after.rollback(&branch(sequence)).await.unwrap();
            }
            assert_eq!(audit(&after), all);
        }
        for sequence in applied {
            commit(&after, &branch(sequence)).await;
        }
        assert_eq!((after.locks(), audit(&after)), (0, all));
        crashes += 1;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let applied = told.lock().unwrap().applied.len();
    assert!(applied > 0, "nothing was committed");
    assert_eq!((audit(&store), store.locks()), (all, 0));
    assert_eq!(markers(&store), applied);
}

/// The test above can fail: a transfer that forgets one side is seen.
#[tokio::test]
async fn an_audit_sees_money_that_is_made() {
    let home = Home::with(Options::new().requests(transfer));
    let store = home.open();
    store
        .local(|work| work.put("account/00", "5"))
        .await
        .unwrap();
    assert_eq!(audit(&store), 5);
    store
        .local(|work| work.put("account/01", "1"))
        .await
        .unwrap();
    assert_ne!(audit(&store), 5);
}
