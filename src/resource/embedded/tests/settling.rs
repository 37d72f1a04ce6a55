//! Markers, and when they go.

use super::*;

async fn committed(store: &Embedded, sequences: std::ops::Range<u32>) {
    for sequence in sequences {
        prepare_put(store, &branch(sequence), "a", "1").await;
        store.commit(&branch(sequence)).await.unwrap();
    }
}

#[tokio::test]
async fn markers_up_to_the_horizon_are_dropped() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..5).await;
    assert_eq!(markers(&store), 4);
    store.settled(branch(2).id).await.unwrap();
    assert_eq!(markers(&store), 2);
    store.settled(branch(1).id).await.unwrap();
    assert_eq!(markers(&store), 2);
    store.settled(branch(9).id).await.unwrap();
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
    store.settled(branch(names - 2).id).await.unwrap();
    assert_eq!(markers(&store), 1);
}

#[tokio::test]
async fn below_the_horizon_what_is_not_prepared_has_had_its_outcome() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..3).await;
    prepare_put(&store, &branch(3), "b", "3").await;
    store.settled(branch(3).id).await.unwrap();
    // A commit that was applied long ago is told again; another one only now.
    for store in [store, home.crash().open()] {
        store.commit(&branch(1)).await.unwrap();
        store.commit(&branch(3)).await.unwrap();
        store.commit(&branch(3)).await.unwrap();
        assert_eq!(value(&store, "b"), some("3"));
        assert!(matches!(
            store.commit(&branch(4)).await,
            Err(BranchError::NoProof { .. })
        ));
        assert_eq!(markers(&store), 1);
        // Its marker goes with the next horizon, or when the same one is told again.
        store.settled(branch(2).id).await.unwrap();
        assert_eq!(markers(&store), 0);
    }
}

#[tokio::test]
async fn prepared_branches_stay_and_abandoned_work_goes() {
    let home = Home::new();
    let store = home.open();
    prepare_put(&store, &branch(1), "a", "1").await;
    let abandoned = store.work(txn(2));
    abandoned.put("b", "1").unwrap();
    let under_way = store.work(txn(5));
    under_way.put("c", "1").unwrap();
    store.settled(branch(5).id).await.unwrap();
    assert!(matches!(abandoned.get("b"), Err(WorkError::Ended)));
    // Another roster of this transaction may not be settled.
    under_way.get("c").unwrap();
    assert_eq!(store.locks(), 2);
    assert_eq!(in_doubt(&store).await.len(), 1);
    store.settled(branch(6).id).await.unwrap();
    assert!(matches!(under_way.get("c"), Err(WorkError::Ended)));
}

#[tokio::test]
async fn horizons_told_at_once_do_not_cross() {
    let home = Home::new();
    let store = home.open();
    committed(&store, 1..9).await;
    let (three, eight, five) = (branch(3).id, branch(8).id, branch(5).id);
    let all = tokio::join!(
        store.settled(three),
        store.settled(eight),
        store.settled(five)
    );
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok());
    assert_eq!(markers(&store), 0);
    drop(store);
    home.open().commit(&branch(8)).await.unwrap();
}

#[tokio::test]
async fn ends_are_remembered_up_to_a_limit_and_later_work_goes_with_the_horizon() {
    let home = Home::new();
    let store = home.open();
    let last = ENDED_MAX as u32 + 1;
    for sequence in 1..=last {
        store.let_go(txn(sequence)).await;
    }
    assert!(matches!(
        store.work(txn(2)).put("a", "1"),
        Err(WorkError::Ended)
    ));
    // Nobody will prepare this, nor let it go.
    store.work(txn(1)).put("a", "1").unwrap();
    assert_eq!(store.locks(), 1);
    store.settled(branch(2).id).await.unwrap();
    assert_eq!(store.locks(), 0);
}
