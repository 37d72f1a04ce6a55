//! Work: reads, writes, locks, limits.

use super::*;

fn rows(rows: &[(&str, &str)]) -> Vec<Row> {
    let row = |(key, value): &(&str, &str)| Row {
        key: key.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
    };
    rows.iter().map(row).collect()
}

async fn store_with(home: &Home, rows: &[(&str, &str)]) -> Embedded {
    let store = home.open();
    let load = |work: &Work| {
        rows.iter()
            .try_for_each(|(key, value)| work.put(key, value))
    };
    store.local(load).await.unwrap();
    store
}

#[tokio::test]
async fn a_transaction_sees_its_own_writes_and_nobody_else_does() {
    let home = Home::new();
    let store = store_with(&home, &[("a", "1"), ("b", "2")]).await;
    let work = store.work_of(txn(1));
    work.put("a", "9").unwrap();
    work.delete("b").unwrap();
    work.put("c", "3").unwrap();
    assert_eq!(work.get("a").unwrap().unwrap(), b"9");
    assert_eq!(work.get("b").unwrap(), None);
    assert_eq!(work.scan("").unwrap(), rows(&[("a", "9"), ("c", "3")]));
    assert_eq!(value(&store, "a"), some("1"));
    let snapshot = store.snapshot().scan("").map(Result::unwrap);
    assert_eq!(
        snapshot.collect::<Vec<_>>(),
        rows(&[("a", "1"), ("b", "2")])
    );
}

#[tokio::test]
async fn all_handles_of_a_transaction_share_its_work_and_dropping_one_does_nothing() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).put("a", "1").unwrap();
    let again = store.clone().work_of(txn(1));
    assert_eq!(again.get("a").unwrap().unwrap(), b"1");
    drop(again);
    assert_eq!(conflict(store.work_of(txn(2)).get("a")), with("a", 1));
}

#[tokio::test]
async fn readers_share_and_a_sole_reader_may_write() {
    let home = Home::new();
    let store = store_with(&home, &[("a", "1")]).await;
    let (one, two) = (probe(&store, 1), probe(&store, 2));
    one.get("a").unwrap();
    two.get("a").unwrap();
    assert_eq!(conflict(one.put("a", "2")), with("a", 2));
    assert_eq!(conflict(two.delete("a")), with("a", 1));
    store.let_go(txn(2)).await;
    one.put("a", "2").unwrap();
    assert_eq!(conflict(store.work_of(txn(3)).get("a")), with("a", 1));
}

#[tokio::test]
async fn a_row_that_is_not_there_is_locked_as_well() {
    let home = Home::new();
    let store = home.open();
    assert_eq!(store.work_of(txn(1)).get("a").unwrap(), None);
    assert_eq!(conflict(store.work_of(txn(2)).put("a", "1")), with("a", 1));
}

#[tokio::test]
async fn a_scan_sees_no_phantoms() {
    let home = Home::new();
    let store = store_with(&home, &[("a/1", "1"), ("b/1", "1")]).await;
    let scanner = probe(&store, 1);
    assert_eq!(scanner.scan("a/").unwrap(), rows(&[("a/1", "1")]));
    let other = probe(&store, 2);
    assert_eq!(conflict(other.put("a/2", "2")), with("a/2", 1));
    assert_eq!(conflict(other.delete("a/1")), with("a/1", 1));
    let local = store.local(|work| work.put("a/3", "3")).await;
    assert!(matches!(
        local,
        Err(LocalError::Work(WorkError::Conflict { .. }))
    ));
    other.put("b/1", "2").unwrap();
    assert_eq!(conflict(scanner.scan("")), with("b/1", 2));
    // The scanner itself may write there, and sees it.
    scanner.put("a/2", "2").unwrap();
    let both = rows(&[("a/1", "1"), ("a/2", "2")]);
    assert_eq!(scanner.scan("a/").unwrap(), both);
}

#[tokio::test]
async fn an_attempt_that_fails_leaves_the_rest_of_the_work_as_it_was() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).put("a", "1").unwrap();
    let two = store.work_of(txn(2));
    two.put("b", "2").unwrap();
    let attempt = two.attempt(|two| {
        two.put("b", "3")?;
        two.put("c", "3")?;
        two.put("a", "3")
    });
    assert_eq!(conflict(attempt), with("a", 1));
    // The lock of the row that is not written any more is released.
    store.work_of(txn(3)).put("c", "4").unwrap();
    let vote = store.prepare(&branch(2), None, ReadOnly::Allowed).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
    commit(&store, &branch(2)).await;
    assert_eq!((value(&store, "a"), value(&store, "b")), (None, some("2")));
}

#[tokio::test]
async fn a_failed_operation_poisons_its_branch() {
    type Operation = fn(&Work) -> Result<(), WorkError>;
    let operations: [(&str, Operation); 7] = [
        ("put of a locked row", |work| work.put("a", "2")),
        ("delete of a locked row", |work| work.delete("a")),
        ("read of a locked row", |work| work.get("a").map(drop)),
        ("scan of a locked row", |work| work.scan("").map(drop)),
        ("put without a key", |work| work.put("", "2")),
        ("read without a key", |work| work.get("").map(drop)),
        ("put of a value that is too long", |work| {
            work.put("c", vec![0; VALUE_BYTES_MAX + 1])
        }),
    ];
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(100)).put("a", "1").unwrap();
    for (sequence, (what, operation)) in (1..).zip(operations) {
        let work = store.work_of(txn(sequence));
        work.put("b", "2").unwrap();
        // The caller ignores the error.
        operation(&work).unwrap_err();
        let next = work.put("b", "3");
        assert!(matches!(next, Err(WorkError::Poisoned)), "{what}: {next:?}");
        let vote = store
            .prepare(&branch(sequence), None, ReadOnly::Allowed)
            .await;
        assert_eq!(vote.unwrap(), Vote::Aborted, "{what}");
        assert_eq!(store.locks(), 1, "{what}");
        let local = store.local(|work| {
            work.put("b", "2")?;
            drop(operation(work));
            Ok::<(), WorkError>(())
        });
        assert!(matches!(local.await, Err(LocalError::Poisoned)), "{what}");
    }
    assert_eq!((value(&store, "b"), store.locks()), (None, 1));
}

#[tokio::test]
async fn attempts_nest_and_are_undone_after_a_panic_too() {
    let home = Home::new();
    let store = store_with(&home, &[("kept", "0")]).await;
    let work = store.work_of(txn(1));
    work.get("kept").unwrap();
    let rows = || work.scan("").map(|rows| rows.len());
    let given_up = work.attempt(|outer| {
        outer.put("a", "1")?;
        outer.attempt(|inner| {
            inner.put("a", "2")?;
            inner.delete("kept")
        })?;
        assert_eq!(outer.get("a")?.as_deref(), Some(&b"2"[..]));
        Err::<(), _>(WorkError::TooManyRows)
    });
    assert!(given_up.is_err());
    assert_eq!(rows().unwrap(), 1);
    let panics = std::panic::AssertUnwindSafe(|| {
        work.attempt(|work| -> Result<(), WorkError> {
            work.put("a", "1")?;
            panic!("a bug of the service");
        })
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(rows().unwrap(), 1);
    work.attempt(|work| work.put("a", "3")).unwrap();
    // The row that was read, and deleted in an attempt, is locked as a row that was read.
    assert_eq!(probe(&store, 2).get("kept").unwrap().unwrap(), b"0");
    assert_eq!(conflict(probe(&store, 2).put("kept", "1")), with("kept", 1));
    store.let_go(txn(2)).await;
    let vote = store.prepare(&branch(1), None, ReadOnly::Allowed).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
    commit(&store, &branch(1)).await;
    assert_eq!(
        (value(&store, "a"), value(&store, "kept")),
        (some("3"), some("0"))
    );
    assert_eq!(store.locks(), 0);
}

#[tokio::test]
async fn work_ends_when_the_transaction_is_prepared_or_let_go() {
    let home = Home::new();
    let store = home.open();
    let early = store.work_of(txn(1));
    prepare_put(&store, &branch(1), "a", "1").await;
    let ended = |result| assert!(matches!(result, Err(WorkError::Ended)));
    for work in [&early, &store.work_of(txn(1))] {
        ended(work.put("b", "1"));
        ended(work.get("b").map(drop));
        ended(work.scan("").map(drop));
        ended(work.delete("b"));
    }
    commit(&store, &branch(1)).await;
    ended(early.put("b", "1"));
    ended(store.work_of(txn(1)).put("b", "1"));

    let late = store.work_of(txn(2));
    store.let_go(txn(2)).await;
    ended(late.put("b", "1"));
    // The service got its branch, the participant let it go, and only then the work begins: nobody
    // would ever end it.
    ended(store.work_of(txn(2)).put("b", "1"));
    store.let_go(txn(3)).await;
    ended(store.work_of(txn(3)).put("b", "1"));
    assert_eq!(store.locks(), 0);
}

#[tokio::test]
async fn limits_are_told() {
    let home = Home::new();
    let store = home.open();
    let work = probe(&store, 1);
    let long = vec![b'k'; KEY_BYTES_MAX + 1];
    for key in [&b""[..], &long] {
        let bytes = key.len();
        let text = format!("a key has 1 to 1024 bytes, got {bytes}");
        assert_eq!(work.get(key).unwrap_err().to_string(), text);
        assert_eq!(work.put(key, "").unwrap_err().to_string(), text);
        assert_eq!(work.delete(key).unwrap_err().to_string(), text);
    }
    assert!(matches!(work.scan(&long), Err(WorkError::Key { .. })));
    work.put(&long[1..], "").unwrap();
    let large = vec![0; VALUE_BYTES_MAX + 1];
    assert!(
        matches!(work.put("v", &large), Err(WorkError::Value { bytes }) if bytes == large.len())
    );
    for row in 0..(WRITE_BYTES_MAX / VALUE_BYTES_MAX - 1) as u32 {
        work.put(row.to_be_bytes(), &large[1..]).unwrap();
    }
    assert!(matches!(
        work.put("v", &large[1..]),
        Err(WorkError::TooManyWrites)
    ));
    // To write a row again is not to write more.
    work.put(0_u32.to_be_bytes(), &large[2..]).unwrap();
    work.put("v", "").unwrap();
}

#[tokio::test]
async fn a_transaction_writes_and_reads_so_many_rows() {
    let home = Home::new();
    let store = home.open();
    let work = probe(&store, 1);
    let key = |row: usize| (row as u32).to_be_bytes();
    for row in 0..WRITES_MAX {
        work.put(key(row), "").unwrap();
    }
    assert!(matches!(
        work.put("more", ""),
        Err(WorkError::TooManyWrites)
    ));
    work.put(key(0), "again").unwrap();
    let reader = probe(&store, 2);
    for row in 0..READS_MAX {
        reader.get(key(WRITES_MAX + row)).unwrap();
    }
    assert!(matches!(reader.get("more"), Err(WorkError::TooManyReads)));
    assert!(matches!(reader.scan("more"), Err(WorkError::TooManyReads)));
    reader.get(key(WRITES_MAX)).unwrap();
    // The largest that can be prepared is.
    let vote = store.prepare(&branch(1), None, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
    let vote = store.prepare(&branch(2), None, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
    drop((work, reader, store));
    let store = home.open();
    assert_eq!(store.locks(), WRITES_MAX + READS_MAX);
    commit(&store, &branch(1)).await;
    store.rollback(&branch(2)).await.unwrap();
    assert_eq!(store.locks(), 0);
    assert_eq!(store.snapshot().scan("").count(), WRITES_MAX);
}

#[tokio::test]
async fn a_scan_returns_so_many_rows() {
    let home = Home::new();
    let store = home.open();
    for part in 0..=(SCAN_ROWS_MAX / WRITES_MAX) {
        let key = |row: usize| format!("{part}/{row}");
        let load = |work: &Work| (0..WRITES_MAX).try_for_each(|row| work.put(key(row), ""));
        store.local(load).await.unwrap();
    }
    let work = probe(&store, 1);
    assert!(matches!(work.scan(""), Err(WorkError::TooManyRows)));
    for row in 0..WRITES_MAX {
        work.delete(format!("0/{row}")).unwrap();
    }
    assert_eq!(work.scan("").unwrap().len(), SCAN_ROWS_MAX);
}

#[tokio::test]
async fn work_that_could_not_read_the_disk_can_only_abort() {
    let home = Home::new();
    let store = home.open();
    let work = store.work_of(txn(1));
    work.put("a", "1").unwrap();
    let fail = |fails| {
        let flag = &store.inner.store.reads_fail;
        flag.store(fails, std::sync::atomic::Ordering::Relaxed);
    };
    fail(true);
    assert!(matches!(work.get("b"), Err(WorkError::Read(_))));
    fail(false);
    assert!(matches!(work.get("b"), Err(WorkError::Poisoned)));
    assert!(matches!(
        store.work_of(txn(1)).put("b", ""),
        Err(WorkError::Poisoned)
    ));
    let vote = store.prepare(&branch(1), None, ReadOnly::Allowed).await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
    assert_eq!(store.locks(), 0);
    assert_eq!(in_doubt(&store).await, []);

    let work = store.work_of(txn(2));
    fail(true);
    assert!(matches!(work.scan(""), Err(WorkError::Read(_))));
    fail(false);
    assert!(matches!(work.scan(""), Err(WorkError::Poisoned)));
}
