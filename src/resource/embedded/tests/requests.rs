//! Requests that travel inside a prepare.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::protocol::types::Request;

fn request(text: &str) -> Option<Request> {
    Some(Request(text.as_bytes().into()))
}

/// `put key value`, or something that goes wrong.
fn handle(work: &Work, request: &Request) -> Result<(), RequestError> {
    let text = std::str::from_utf8(&request.0)?;
    let mut words = text.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("put"), Some(key), Some(value)) => Ok(work.put(key, value)?),
        (Some("get"), Some(key), None) => {
            work.get(key)?;
            Ok(())
        }
        (Some("fail"), Some(key), None) => {
            work.put(key, "never")?;
            Err("it was told to fail".into())
        }
        (Some("panic"), Some(key), None) => {
            work.put(key, "never")?;
            panic!("it was told to panic");
        }
        _ => Err(format!("what is {text}?").into()),
    }
}

fn home() -> Home {
    Home::with(Options::new().requests(handle))
}

#[tokio::test]
async fn a_request_is_work_of_its_branch() {
    let home = home();
    let store = home.open();
    // Without any work before, and after some.
    store.work_of(txn(2)).put("b", "2").unwrap();
    for (sequence, text) in [(1, "put a 1"), (2, "put c 3")] {
        let vote = store
            .prepare(&branch(sequence), request(text), ReadOnly::Forbidden)
            .await;
        assert_eq!(vote.unwrap(), Vote::Prepared);
        assert_eq!(value(&store, "a"), (sequence == 2).then(|| "1".into()));
        commit(&store, &branch(sequence)).await;
    }
    assert_eq!(value(&store, "a"), some("1"));
    assert_eq!(value(&store, "b"), some("2"));
    assert_eq!(value(&store, "c"), some("3"));
}

#[tokio::test]
async fn a_request_that_is_refused_aborts_the_branch_and_lets_go_of_everything() {
    let home = home();
    let store = home.open();
    store.work_of(txn(9)).put("held", "").unwrap();
    for (sequence, text) in ["fail a", "panic a", "nonsense", "put held 1", "put  1"]
        .iter()
        .enumerate()
    {
        let branch = branch(sequence as u32);
        store.work_of(branch.id.txn).put("before", "1").unwrap();
        let vote = store
            .prepare(&branch, request(text), ReadOnly::Forbidden)
            .await;
        assert_eq!(vote.unwrap(), Vote::Aborted, "{text}");
        assert_eq!(store.locks(), 1, "{text}");
        // Said again, it is what it was.
        let vote = store
            .prepare(&branch, request("put a 1"), ReadOnly::Forbidden)
            .await;
        assert_eq!(vote.unwrap(), Vote::Aborted, "{text}");
        store.rollback(&branch).await.unwrap();
        assert_eq!(store.commit(&branch).await.unwrap(), Proof::Missing);
    }
    assert_eq!(in_doubt(&store).await, []);
    assert_eq!(store.snapshot().scan("").count(), 0);
}

#[tokio::test]
async fn a_request_runs_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let options = Options::new().requests(move |work, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(work.put("a", "1")?)
    });
    let home = Home::with(options);
    let store = home.open();
    for _ in 0..3 {
        let vote = store
            .prepare(&branch(1), request(""), ReadOnly::Forbidden)
            .await;
        assert_eq!(vote.unwrap(), Vote::Prepared);
    }
    commit(&store, &branch(1)).await;
    let vote = store
        .prepare(&branch(1), request(""), ReadOnly::Forbidden)
        .await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_request_that_only_reads_keeps_its_locks_where_it_must() {
    let home = home();
    let store = home.open();
    let vote = store
        .prepare(&branch(1), request("get a"), ReadOnly::Forbidden)
        .await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
    assert_eq!(conflict(probe(&store, 2).put("a", "1")), with("a", 1));
    commit(&store, &branch(1)).await;
    store.work_of(txn(2)).put("a", "1").unwrap();
}

#[tokio::test]
async fn a_store_without_a_handler_refuses_requests() {
    let home = Home::new();
    let store = home.open();
    let vote = store
        .prepare(&branch(1), request("put a 1"), ReadOnly::Forbidden)
        .await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
    assert_eq!(store.locks(), 0);
}
