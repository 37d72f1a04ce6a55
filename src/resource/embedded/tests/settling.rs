//! Markers, and when they go.

use super::*;

async fn committed(store: &Embedded, sequences: std::ops::Range<u32>) {
    for sequence in sequences {
        prepare_put(store, &branch(sequence), "a", "1").await;
        commit(store, &branch(sequence)).await;
    }
}

#[tokio::test]
async fn markers_up_to_the_horizon_are_dropped() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..5).await;
    assert_eq!(markers(&store), 4);
    store.settled(branch(2).id, &[]).await.unwrap();
    assert_eq!(markers(&store), 2);
    store.settled(branch(1).id, &[]).await.unwrap();
    assert_eq!(markers(&store), 2);
    store.settled(branch(9).id, &[]).await.unwrap();
    assert_eq!(markers(&store), 0);
}

#[tokio::test]
async fn more_markers_than_one_save_drops() {
    let home = Home::new();
    let store = home.open();
    let names = MARKERS_PER_SAVE as u32 * 2 + 7;
    {
        // Behind its back: commits would take long.
        let database = store.inner.store.database.clone();
        let mut batch = database.batch();
        for sequence in 0..names {
            let name = disk::name_of(&branch(sequence));
            batch.insert(&store.inner.store.keyspaces.committed, &*name, b"");
        }
        batch.commit().unwrap();
    }
    let listed: Vec<BranchId> = (0..names).step_by(3).map(branch).collect();
    store.settled(branch(names - 2).id, &listed).await.unwrap();
    let kept = listed.len() + usize::from(!(names - 1).is_multiple_of(3));
    assert_eq!(markers(&store), kept);
    store.settled(branch(names - 2).id, &[]).await.unwrap();
    assert_eq!(markers(&store), 1);
}

/// No waiting makes a commit without proof a success.
#[tokio::test]
async fn the_horizon_proves_nothing() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..3).await;
    prepare_put(&store, &branch(3), "b", "3").await;
    store.settled(branch(3).id, &[branch(1)]).await.unwrap();
    for store in [store, home.crash().open()] {
        commit(&store, &branch(1)).await;
        assert_eq!(store.commit(&branch(2)).await.unwrap(), Proof::Missing);
        // What stands prepared below the horizon commits, and has its marker.
        commit(&store, &branch(3)).await;
        commit(&store, &branch(3)).await;
        assert_eq!(value(&store, "b"), some("3"));
        assert_eq!(store.commit(&branch(4)).await.unwrap(), Proof::Missing);
        assert_eq!(markers(&store), 2);
        store.settled(branch(2).id, &[]).await.unwrap();
        assert_eq!(markers(&store), 1);
    }
}

#[tokio::test]
async fn an_empty_store_of_the_same_name_commits_nothing() {
    let (right, empty) = (Home::new(), Home::new());
    let (right, empty) = (right.open(), empty.open());
    prepare_put(&right, &branch(1), "a", "1").await;
    empty.settled(branch(9).id, &[branch(1)]).await.unwrap();
    empty.settled(branch(9).id, &[]).await.unwrap();
    assert_eq!(empty.commit(&branch(1)).await.unwrap(), Proof::Missing);
    assert_eq!(in_doubt(&empty).await, []);
    assert_eq!(empty.expire(&branch(1)).await.unwrap(), Expiry::NotPrepared);
    empty.rollback(&branch(1)).await.unwrap();
    assert_eq!(empty.commit(&branch(1)).await.unwrap(), Proof::Missing);
    commit(&right, &branch(1)).await;
    assert_eq!(value(&right, "a"), some("1"));
}

#[tokio::test]
async fn markers_of_listed_branches_stay_until_they_are_off_the_list() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..6).await;
    // A branch of another session in the same transaction is another branch.
    let other = BranchId {
        id: branch(3).id,
        ..branch_of(2, 3)
    };
    let listed = [branch(2), branch(4), branch(5), other];
    store.settled(branch(5).id, &listed).await.unwrap();
    for store in [store, home.crash().open()] {
        for sequence in 1..6 {
            let proof = store.commit(&branch(sequence)).await.unwrap();
            let is_listed = [2, 4, 5].contains(&sequence);
            assert_eq!(proof == Proof::Found, is_listed, "{sequence}");
        }
        // An older list says nothing about later ids.
        store.settled(branch(3).id, &[]).await.unwrap();
        assert_eq!(markers(&store), 2);
        commit(&store, &branch(4)).await;
        store.settled(branch(5).id, &[branch(5)]).await.unwrap();
        assert_eq!(markers(&store), 1);
        commit(&store, &branch(5)).await;
    }
}

#[tokio::test]
async fn a_rollback_of_a_committed_branch_changes_nothing() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..2).await;
    store.work_of(txn(2)).put("b", "2").unwrap();
    for _ in 0..2 {
        store.rollback(&branch(1)).await.unwrap();
        assert_eq!(store.expire(&branch(1)).await.unwrap(), Expiry::NotPrepared);
        store.let_go(branch(1).id.txn).await;
        assert_eq!(value(&store, "a"), some("1"));
        commit(&store, &branch(1)).await;
        store.settled(branch(2).id, &[branch(1)]).await.unwrap();
    }
    assert_eq!(markers(&store), 1);
    let store = home.crash().open();
    store.rollback(&branch(1)).await.unwrap();
    assert_eq!(value(&store, "a"), some("1"));
    commit(&store, &branch(1)).await;
    // Nor is it prepared once more.
    let vote = store.prepare(&branch(1), None, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Aborted);
}

#[tokio::test]
async fn prepared_branches_stay_and_abandoned_work_goes() {
    let home = Home::new();
    let store = home.open();
    prepare_put(&store, &branch(1), "a", "1").await;
    let abandoned = store.work_of(txn(2));
    abandoned.put("b", "1").unwrap();
    let under_way = store.work_of(txn(5));
    under_way.put("c", "1").unwrap();
    store.settled(branch(5).id, &[]).await.unwrap();
    assert!(matches!(abandoned.get("b"), Err(WorkError::Ended)));
    // Another roster of this transaction may not be settled.
    under_way.get("c").unwrap();
    assert_eq!(store.locks(), 2);
    assert_eq!(in_doubt(&store).await.len(), 1);
    store.settled(branch(6).id, &[]).await.unwrap();
    assert!(matches!(under_way.get("c"), Err(WorkError::Ended)));
}

#[tokio::test]
async fn horizons_told_at_once_do_not_cross() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..9).await;
    let (three, eight, five) = (branch(3).id, branch(8).id, branch(5).id);
    let all = tokio::join!(
        store.settled(three, &[]),
        store.settled(eight, &[]),
        store.settled(five, &[])
    );
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok());
    assert_eq!(markers(&store), 0);
    drop(store);
    let proof = home.open().commit(&branch(8)).await;
    assert_eq!(proof.unwrap(), Proof::Missing);
}

/// The store forgets old ends. Late work is refused all the same, by its session: see
/// [`Embedded::work`].
#[tokio::test]
async fn ends_are_remembered_up_to_a_limit_and_late_work_is_refused_beyond_it() {
    let home = Home::new();
    let store = home.open();
    let last = ENDED_MAX as u32 + 1;
    for sequence in 1..=last {
        store.let_go(txn(sequence)).await;
    }
    let ended = |work: Work| assert!(matches!(work.put("a", "1"), Err(WorkError::Ended)));
    ended(store.work_of(txn(2)));
    // Its end is forgotten here, and its session has closed it.
    ended(store.join(txn(1), || false));
    assert_eq!(store.locks(), 0);
    // Work of which no session was told ends with the horizon.
    store.work_of(txn(1)).put("a", "1").unwrap();
    assert_eq!(store.locks(), 1);
    store.settled(branch(2).id, &[]).await.unwrap();
    assert_eq!(store.locks(), 0);
}
