//! What a restart finds is what [`Records`] says must be kept.

use std::collections::{BTreeMap, BTreeSet};

use super::history::History;
use super::*;
use crate::protocol::replica::Records;

const SEEDS: u64 = 250;
const STEPS: usize = 60;

fn id_of(record: &Record) -> Option<CommitId> {
    layout::id_of(record)
}

/// What must be loaded, and which transactions are left out because they are finished.
fn expected(model: &Records) -> (Vec<Record>, BTreeSet<CommitId>) {
    let is_finished = |record: &Record| matches!(record, Record::Finished { .. });
    let finished = model.iter().filter(is_finished);
    let finished: BTreeSet<CommitId> = finished.filter_map(|record| id_of(&record)).collect();
    let is_live = |record: &Record| id_of(record).is_none_or(|id| !finished.contains(&id));
    (sorted(model.iter().filter(is_live).collect()), finished)
}

fn highest(model: &Records) -> BTreeMap<(u32, InitiatorId), u32> {
    let mut highest = BTreeMap::new();
    for CommitId { txn, .. } in model.iter().filter_map(|record| id_of(&record)) {
        let of = highest.entry((txn.generation, txn.initiator)).or_default();
        *of = txn.sequence.max(*of);
    }
    highest
}

/// Everything that can be asked of an open store agrees with the model.
fn check(store: &Store, loaded: Loaded, model: &Records, seed: u64) {
    let (records, finished) = expected(model);
    assert_eq!(sorted(loaded.records), records, "seed {seed}");
    assert_eq!(loaded.finished, highest(model), "seed {seed}");
    check_recall(store, model, &finished, seed);
}

fn check_recall(store: &Store, model: &Records, finished: &BTreeSet<CommitId>, seed: u64) {
    for id in finished {
        let recalled = store.recall(id).unwrap();
        let of = |record: &&Record| matches!(record, Record::Finished { .. });
        assert_eq!(recalled.iter().filter(of).count(), 1, "seed {seed}: {id}");
    }
    for record in model.iter() {
        let Some(id) = id_of(&record) else { continue };
        assert!(store.recall(&id).unwrap().contains(&record), "seed {seed}");
        let of_txn = store.recall_txn(id.txn).unwrap();
        assert!(of_txn.contains(&record), "seed {seed}");
    }
    // What is settled is gone at once, whether or not it was removed yet.
    for id in model.listed() {
        assert_eq!(store.recall(id).unwrap(), [], "seed {seed}: {id}");
    }
}

#[test]
fn a_restart_finds_what_the_specification_keeps() {
    for seed in 0..SEEDS {
        let (_folder, dir) = new_store_in_memory();
        let mut history = History::new(seed);
        let mut rng = fastrand::Rng::with_seed(!seed);
        let (mut store, _) = Store::open(&dir).unwrap();
        let mut lsn = 0;
        for _ in 0..STEPS {
            // Some are merged, and some are saves of their own.
            let records = history.step();
            if rng.bool() {
                store.save(records, |_| {});
            } else {
                save(&store, records);
            }
            if rng.u32(0..30) == 0 {
                // From the journal into a table.
                save(&store, Vec::new());
                store.records.rotate_memtable_and_wait().unwrap();
            }
            if rng.u32(0..20) == 0 {
                save(&store, Vec::new());
                let (_, finished) = expected(&history.model);
                check_recall(&store, &history.model, &finished, seed);
                drop(store);
                let opened = Store::open(&dir).unwrap();
                assert!(lsn <= opened.1.lsn);
                lsn = opened.1.lsn;
                check(&opened.0, opened.1, &history.model, seed);
                store = opened.0;
            }
        }
        store.close();
        drop(store);
        let (store, loaded) = Store::open(&dir).unwrap();
        check(&store, loaded, &history.model, seed);
    }
}

#[test]
fn a_crash_leaves_what_was_saved() {
    for seed in 0..10 {
        let (folder, dir) = new_store_in_memory();
        let mut history = History::new(1_000 + seed);
        let (store, _) = Store::open(&dir).unwrap();
        for round in 0..4 {
            for _ in 0..STEPS {
                store.save(history.step(), |_| {});
            }
            save(&store, Vec::new());
            let crashed = folder.path().join(format!("crashed-{round}"));
            copy(&dir, &crashed);
            let (after, loaded) = Store::open(&crashed).unwrap();
            assert_eq!(loaded.lsn, store.lsn());
            check(&after, loaded, &history.model, seed);
        }
    }
}

#[test]
fn the_comparison_can_fail() {
    let (_folder, dir) = new_store_in_memory();
    let (store, _) = Store::open(&dir).unwrap();
    let mut model = Records::new(Some(configuration()));
    for record in [vote(id(1, 1), 0), Record::Round { round: 3 }] {
        model.apply(record);
    }
    save(&store, vec![vote(id(1, 1), 0)]);
    drop(store);
    let (_, loaded) = Store::open(&dir).unwrap();
    assert_ne!(sorted(loaded.records), expected(&model).0);
}
