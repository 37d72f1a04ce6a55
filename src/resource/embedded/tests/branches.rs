//! Prepare, commit, roll back, expire: once, again, and across restarts.

use super::*;
use crate::protocol::participant::Owner;

#[tokio::test]
async fn a_prepared_branch_shows_nothing_until_it_commits() {
    let home = Home::new();
    let store = home.open();
    prepare_put(&store, &branch(1), "a", "1").await;
    assert_eq!(value(&store, "a"), None);
    assert_eq!(conflict(store.work_of(txn(2)).get("a")), with("a", 1));
    commit(&store, &branch(1)).await;
    assert_eq!(value(&store, "a"), some("1"));
    assert_eq!(store.locks(), 0);
}

#[tokio::test]
async fn what_returns_is_durable() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).put("a", "1").unwrap();
    assert_eq!(in_doubt(&home.crash().open()).await, []);
    store
        .prepare(&branch(1), None, ReadOnly::Allowed)
        .await
        .unwrap();
    let crashed = home.crash();
    assert_eq!(in_doubt(&crashed.open()).await.len(), 1);
    commit(&store, &branch(1)).await;
    let crashed = home.crash();
    let after = crashed.open();
    assert_eq!(
        (value(&after, "a"), in_doubt(&after).await),
        (some("1"), vec![])
    );
    prepare_put(&store, &branch(2), "a", "2").await;
    store.rollback(&branch(2)).await.unwrap();
    let crashed = home.crash();
    let after = crashed.open();
    assert_eq!(
        (value(&after, "a"), in_doubt(&after).await),
        (some("1"), vec![])
    );
}

#[tokio::test]
async fn every_call_may_come_again() {
    let home = Home::new();
    let mut store = home.open();
    prepare_put(&store, &branch(1), "a", "1").await;
    prepare_put(&store, &branch(2), "b", "2").await;
    prepare_put(&store, &branch(3), "c", "3").await;
    for round in 0..6 {
        if round < 3 {
            let vote = store.prepare(&branch(1), None, ReadOnly::Allowed).await;
            assert_eq!(vote.unwrap(), Vote::Prepared);
        } else {
            commit(&store, &branch(1)).await;
            store.rollback(&branch(2)).await.unwrap();
            let expiry = store.expire(&branch(3)).await.unwrap();
            let first = round == 3;
            assert_eq!(expiry == Expiry::RolledBack, first);
            // What committed stays committed, whoever else is wrong.
            store.rollback(&branch(1)).await.unwrap();
            assert_eq!(store.expire(&branch(1)).await.unwrap(), Expiry::NotPrepared);
            assert_eq!(value(&store, "a"), some("1"));
            assert_eq!(value(&store, "b"), None);
            assert_eq!(value(&store, "c"), None);
        }
        if round % 2 == 1 {
            drop(store);
            store = home.open();
        }
    }
    assert_eq!(markers(&store), 1);
}

#[tokio::test]
async fn a_commit_without_proof_is_missing() {
    let home = Home::new();
    let store = home.open();
    let proof = async |branch: &BranchId| store.commit(branch).await.unwrap();
    assert_eq!(proof(&branch(1)).await, Proof::Missing);
    // Work that was never prepared is no proof, nor is another session's commit.
    store.work_of(txn(2)).put("a", "1").unwrap();
    assert_eq!(proof(&branch(2)).await, Proof::Missing);
    prepare_put(&store, &branch(3), "b", "1").await;
    commit(&store, &branch(3)).await;
    let other = BranchId {
        id: branch(3).id,
        ..branch_of(2, 3)
    };
    assert_eq!(proof(&other).await, Proof::Missing);
    store.rollback(&branch(2)).await.unwrap();
    assert_eq!(proof(&branch(2)).await, Proof::Missing);
    assert_eq!(value(&store, "a"), None);
}

#[tokio::test]
async fn a_branch_that_changed_nothing_is_read_only_where_that_is_allowed() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).get("a").unwrap();
    store.work_of(txn(1)).scan("b").unwrap();
    for _ in 0..2 {
        let vote = store.prepare(&branch(1), None, ReadOnly::Allowed).await;
        assert_eq!(vote.unwrap(), Vote::ReadOnly);
        assert_eq!((store.locks(), in_doubt(&store).await), (0, vec![]));
    }
    store.work_of(txn(2)).get("a").unwrap();
    store.work_of(txn(2)).scan("b").unwrap();
    let vote = store.prepare(&branch(2), None, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
    drop(store);
    let store = home.open();
    assert_eq!(conflict(probe(&store, 3).put("a", "1")), with("a", 2));
    assert_eq!(conflict(probe(&store, 3).put("b/1", "1")), with("b/1", 2));
    commit(&store, &branch(2)).await;
    commit(&store, &branch(2)).await;
    assert_eq!(store.locks(), 0);
}

#[tokio::test]
async fn after_a_restart_prepared_branches_hold_their_locks() {
    let home = Home::new();
    let store = home.open();
    let work = store.work_of(txn(1));
    work.put("written", "1").unwrap();
    work.delete("deleted").unwrap();
    work.get("read").unwrap();
    work.scan("scanned/").unwrap();
    work.get("both").unwrap();
    work.put("both", "1").unwrap();
    store
        .prepare(&branch(1), None, ReadOnly::Allowed)
        .await
        .unwrap();
    let crashed = home.crash();
    drop((work, store));
    for home in [crashed, home] {
        let store = home.open();
        let new = probe(&store, 2);
        for key in ["written", "deleted", "both"] {
            assert_eq!(conflict(new.get(key)), with(key, 1));
        }
        for key in ["read", "scanned/1"] {
            assert_eq!(conflict(new.put(key, "1")), with(key, 1));
            new.get(key).unwrap();
        }
        new.scan("scanned/").unwrap();
        new.put("free", "1").unwrap();
        store.let_go(txn(2)).await;
        // Not the branch that stands prepared.
        store.let_go(txn(1)).await;
        assert_eq!(store.locks(), 5);
        commit(&store, &branch(1)).await;
        assert_eq!(store.locks(), 0);
        assert_eq!(value(&store, "both"), some("1"));
    }
}

#[tokio::test]
async fn work_that_is_not_prepared_does_not_survive() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).put("a", "1").unwrap();
    drop(store);
    let store = home.open();
    assert_eq!((value(&store, "a"), store.locks()), (None, 0));
}

#[tokio::test]
async fn owners_of_earlier_processes_are_gone() {
    let home = Home::new();
    let store = home.open();
    prepare_put(&store, &branch_of(1, 1), "a", "1").await;
    drop(store);
    let store = home.open();
    prepare_put(&store, &branch_of(2, 2), "b", "1").await;
    let found = in_doubt(&store).await;
    let of = |session, sequence, owner| InDoubt {
        id: branch_of(session, sequence).id,
        session: Session(session),
        owner,
    };
    assert_eq!(found, [of(1, 1, Owner::Gone), of(2, 2, Owner::Unknown)]);
}

#[tokio::test]
async fn two_sessions_in_one_transaction_are_two_branches() {
    let home = Home::new();
    let store = home.open();
    prepare_put(&store, &branch_of(1, 1), "a", "1").await;
    drop(store);
    let store = home.open();
    let second = branch_of(2, 1);
    // The same transaction, but another branch: it does not see what is not its own.
    assert_eq!(conflict(probe(&store, 1).get("a")), with("a", 1));
    prepare_put(&store, &second, "b", "1").await;
    store.rollback(&branch_of(1, 1)).await.unwrap();
    assert_eq!(in_doubt(&store).await.len(), 1);
    commit(&store, &second).await;
    assert_eq!((value(&store, "a"), value(&store, "b")), (None, some("1")));
}

#[tokio::test]
async fn a_branch_votes_in_one_instance_only() {
    let home = Home::new();
    let store = home.open();
    prepare_put(&store, &branch(1), "a", "1").await;
    let other = BranchId {
        id: branch_of(2, 1).id,
        ..branch(1)
    };
    let vote = store.prepare(&other, None, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
    store.rollback(&other).await.unwrap();
    commit(&store, &branch(1)).await;
    assert_eq!(value(&store, "a"), some("1"));
}

#[tokio::test]
async fn rollback_lets_go_of_work_that_was_not_prepared() {
    let home = Home::new();
    let store = home.open();
    store.work_of(txn(1)).put("a", "1").unwrap();
    assert_eq!(store.expire(&branch(1)).await.unwrap(), Expiry::NotPrepared);
    assert_eq!(store.locks(), 1);
    store.rollback(&branch(1)).await.unwrap();
    assert_eq!(store.locks(), 0);
    let vote = store.prepare(&branch(1), None, ReadOnly::Allowed).await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
}

#[tokio::test]
async fn a_prepare_that_comes_after_its_rollback_aborts() {
    let home = Home::new();
    let store = home.open();
    store.rollback(&branch(1)).await.unwrap();
    let vote = store.prepare(&branch(1), None, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
    assert_eq!(in_doubt(&store).await, []);
}

/// Polls once; whether it waits for something.
fn waits<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.poll(&mut context).is_pending()
}

#[tokio::test]
async fn what_comes_while_a_branch_is_prepared_waits_for_it() {
    let home = Home::new();
    let store = home.open();
    let branch = branch(1);
    store.work_of(branch.id.txn).put("a", "1").unwrap();
    let mut prepare = Box::pin(store.prepare(&branch, None, ReadOnly::Allowed));
    let mut again = Box::pin(store.prepare(&branch, None, ReadOnly::Allowed));
    let mut rollback = Box::pin(store.rollback(&branch));
    let mut expire = Box::pin(store.expire(&branch));
    {
        let _held_up = store.inner.store.saves.lock().unwrap();
        assert!(waits(prepare.as_mut()) && waits(again.as_mut()));
        assert!(waits(rollback.as_mut()) && waits(expire.as_mut()));
        assert_eq!(store.inner.store.lock().in_doubt(), []);
    }
    assert_eq!(prepare.await.unwrap(), Vote::Prepared);
    assert_eq!(again.await.unwrap(), Vote::Prepared);
    let (rollback, expire) = tokio::join!(rollback, expire);
    // Whichever came first did it.
    assert!(rollback.is_ok() && expire.is_ok());
    assert_eq!((store.locks(), in_doubt(&store).await), (0, vec![]));
    assert_eq!(value(&store, "a"), None);
}

#[tokio::test]
async fn what_comes_while_a_branch_is_committed_waits_for_it() {
    let home = Home::new();
    let store = home.open();
    let branch = branch(1);
    prepare_put(&store, &branch, "a", "1").await;
    let mut commit = Box::pin(store.commit(&branch));
    let mut again = Box::pin(store.commit(&branch));
    let mut expire = Box::pin(store.expire(&branch));
    {
        let _held_up = store.inner.store.saves.lock().unwrap();
        assert!(waits(commit.as_mut()) && waits(again.as_mut()) && waits(expire.as_mut()));
        // Not durable: not visible, and nobody else's.
        assert_eq!(value(&store, "a"), None);
        assert_eq!(conflict(store.work_of(txn(2)).get("a")), with("a", 1));
    }
    commit.await.unwrap();
    again.await.unwrap();
    assert_eq!(expire.await.unwrap(), Expiry::NotPrepared);
    assert_eq!(value(&store, "a"), some("1"));
}

#[tokio::test]
async fn who_stops_waiting_does_not_stop_what_is_saved() {
    let home = Home::new();
    let store = home.open();
    let branch = branch(1);
    store.work_of(branch.id.txn).put("a", "1").unwrap();
    {
        let _held_up = store.inner.store.saves.lock().unwrap();
        assert!(waits(
            Box::pin(store.prepare(&branch, None, ReadOnly::Allowed)).as_mut()
        ));
    }
    // The next save comes after it. The branch surfaces.
    store.local(|work| work.put("b", "1")).await.unwrap();
    assert_eq!(in_doubt(&store).await.len(), 1);
    {
        let _held_up = store.inner.store.saves.lock().unwrap();
        assert!(waits(Box::pin(store.rollback(&branch)).as_mut()));
        // Who waited for it is gone before it is done.
        assert!(waits(Box::pin(store.rollback(&branch)).as_mut()));
    }
    store.rollback(&branch).await.unwrap();
    assert_eq!((store.locks(), in_doubt(&store).await), (0, vec![]));
}

#[tokio::test]
async fn closing_saves_what_was_asked_for_and_wakes_those_who_wait() {
    let home = Home::new();
    let store = home.open();
    let branch = branch(1);
    store.work_of(branch.id.txn).put("a", "1").unwrap();
    let mut prepare = Box::pin(store.prepare(&branch, None, ReadOnly::Allowed));
    let mut rollback = Box::pin(store.rollback(&branch));
    let closing = {
        let _held_up = store.inner.store.saves.lock().unwrap();
        assert!(waits(prepare.as_mut()) && waits(rollback.as_mut()));
        let store = store.clone();
        let closing = std::thread::spawn({
            let store = store.clone();
            move || store.close()
        });
        while !store.inner.store.lock().is_closed {
            std::thread::yield_now();
        }
        closing
    };
    assert_eq!(prepare.await.unwrap(), Vote::Prepared);
    assert!(matches!(rollback.await, Err(BranchError::Closed)));
    closing.join().unwrap();
    drop(store);
    assert_eq!(in_doubt(&home.open()).await.len(), 1);
}
