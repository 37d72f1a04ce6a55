//! Transactions of this store alone, and reads without locks.

use std::panic::AssertUnwindSafe;

use super::*;

#[tokio::test]
async fn a_local_transaction_is_durable_when_it_returns() {
    let home = Home::new();
    let store = home.open();
    let put = |work: &Work| {
        work.put("a", "1")?;
        work.put("b", "2")?;
        work.delete("b")
    };
    store.local(put).await.unwrap();
    let crashed = home.crash();
    assert_eq!(store.locks(), 0);
    let store = crashed.open();
    assert_eq!((value(&store, "a"), value(&store, "b")), (some("1"), None));
}

#[tokio::test]
async fn one_that_fails_or_panics_leaves_nothing_behind() {
    let home = Home::new();
    let store = home.open();
    let fail = |work: &Work| {
        work.put("a", "1").unwrap();
        work.scan("b").unwrap();
        Err::<(), _>("no")
    };
    let failed = store.local(fail).await;
    assert!(matches!(failed, Err(LocalError::Work("no"))));
    assert_eq!(store.locks(), 0);
    let panics = store.local(|work: &Work| -> Result<(), WorkError> {
        work.put("a", "1")?;
        panic!("a bug of the service");
    });
    let mut panics = Box::pin(panics);
    let poll = AssertUnwindSafe(|| {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        panics.as_mut().poll(&mut context).is_ready()
    });
    assert!(std::panic::catch_unwind(poll).is_err());
    assert_eq!(store.locks(), 0);
    assert_eq!(value(&store, "a"), None);
}

#[tokio::test]
async fn it_meets_the_locks_of_others_and_they_meet_its_own() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).put("a", "1").unwrap();
    let put = |work: &Work| {
        work.put("b", "1")?;
        assert_eq!(
            conflict(store.work_of(txn(2)).get("b")),
            ("b".into(), Holder::Local)
        );
        work.put("a", "1")
    };
    let error = store.local(put).await.unwrap_err();
    let text = format!(
        "transaction {} has locked \"a\": abort and try again",
        txn(1)
    );
    assert_eq!(error.to_string(), text);
    assert_eq!(value(&store, "b"), None);
}

#[tokio::test]
async fn one_that_could_not_read_the_disk_does_not_commit() {
    let home = Home::new();
    let store = home.open();
    let flag = &store.inner.store.reads_fail;
    let ignore = |work: &Work| {
        work.put("a", "1")?;
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(work.get("b"), Err(WorkError::Read(_))));
        flag.store(false, std::sync::atomic::Ordering::Relaxed);
        Ok::<(), WorkError>(())
    };
    let result = store.local(ignore).await;
    assert!(matches!(result, Err(LocalError::Poisoned)));
    assert_eq!((value(&store, "a"), store.locks()), (None, 0));
}

#[tokio::test]
async fn who_stops_waiting_does_not_stop_the_save() {
    let home = Home::new();
    let store = home.open();
    let mut put = Box::pin(store.local(|work| work.put("a", "1")));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    {
        let _held_up = store.inner.store.saves.lock().unwrap();
        assert!(put.as_mut().poll(&mut context).is_pending());
        drop(put);
    }
    // The next save comes after it.
    store.local(|work| work.put("b", "1")).await.unwrap();
    assert_eq!((value(&store, "a"), store.locks()), (some("1"), 0));
}

#[tokio::test]
async fn a_snapshot_does_not_move() {
    let home = Home::new();
    let store = home.open();
    store.local(|work| work.put("a", "1")).await.unwrap();
    let before = store.snapshot();
    store.local(|work| work.put("a", "2")).await.unwrap();
    store.local(|work| work.put("b", "2")).await.unwrap();
    assert_eq!(before.get("a").unwrap().unwrap(), b"1");
    assert_eq!(before.scan("").count(), 1);
    assert_eq!(store.snapshot().scan("").count(), 2);
    assert_eq!(store.snapshot().scan("b").count(), 1);
    // Reads take no locks.
    assert_eq!(store.locks(), 0);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let home = Home::new();
    let store = home.open();
    let work = store.work_of(txn(1));
    work.put("a", "1").unwrap();
    prepare_put(&store, &branch(2), "b", "1").await;
    store.clone().close();
    store.close();
    assert!(matches!(work.get("a"), Err(WorkError::Closed)));
    assert!(matches!(
        store.work_of(txn(3)).get("a"),
        Err(WorkError::Closed)
    ));
    let local = store.local(|work| work.put("c", "1")).await;
    assert!(matches!(local, Err(LocalError::Closed)));
    let prepared = store.prepare(&branch(1), None, ReadOnly::Allowed).await;
    assert!(matches!(prepared, Err(BranchError::Closed)));
    assert!(matches!(
        store.commit(&branch(2)).await,
        Err(BranchError::Closed)
    ));
    assert!(matches!(
        store.rollback(&branch(2)).await,
        Err(BranchError::Closed)
    ));
    assert!(matches!(
        store.expire(&branch(2)).await,
        Err(BranchError::Closed)
    ));
    assert!(matches!(store.in_doubt().await, Err(BranchError::Closed)));
    assert!(matches!(
        store.settled(branch(2).id, &[]).await,
        Err(BranchError::Closed)
    ));
    drop((work, store));
    assert_eq!(in_doubt(&home.open()).await.len(), 1);
}
