//! Saves: their order, their numbers, and what goes along with them.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender};

use super::*;

/// Holds the saving thread in a `then` until the answer is dropped.
fn hold(store: &Store) -> Sender<()> {
    let (reached, is_reached) = channel();
    let (release, is_released): (Sender<()>, Receiver<()>) = channel();
    store.save(Vec::new(), move |_| {
        reached.send(()).unwrap();
        let _ = is_released.recv();
    });
    is_reached.recv_timeout(SURELY).unwrap();
    release
}

#[test]
fn what_waits_is_one_save_with_one_number() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    let held = hold(&store);
    let (tell, told) = channel();
    for sequence in 0..100 {
        let tell = tell.clone();
        let records = if sequence % 4 == 0 {
            Vec::new()
        } else {
            vec![vote(id(1, sequence), 0)]
        };
        store.save(records, move |_| tell.send(sequence).unwrap());
    }
    assert_eq!((store.pending(), store.lsn()), (101, 0));
    drop(held);
    let order: Vec<u32> = told.iter().take(100).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    assert_eq!((store.lsn(), store.stats().saves), (1, 1));
    save(&store, vec![Record::Round { round: 1 }]);
    assert_eq!(store.lsn(), 2);
    save(&store, Vec::new());
    assert_eq!(store.lsn(), 2, "nothing to write is no save");
    store.close();
    assert_eq!(store.pending(), 0);
}

#[test]
fn everything_is_visible_when_it_is_told() {
    let (_folder, dir) = new_store();
    let store = Arc::new(Store::open(&dir).unwrap().0);
    let (tell, told) = channel();
    for sequence in 0..200 {
        let (there, tell) = (Arc::clone(&store), tell.clone());
        let id = id(1, sequence);
        let lsn = store.lsn();
        store.save(vec![vote(id, 0), vote(id, 1)], move |_| {
            let records = there.recall(&id).unwrap();
            tell.send((records.len(), there.lsn() > lsn)).unwrap();
        });
    }
    assert!(told.iter().take(200).all(|told| told == (2, true)));
    assert_eq!(store.recall(&id(1, 200)).unwrap(), []);
    assert_eq!(store.recall_txn(id(1, 199).txn).unwrap().len(), 2);
}

#[test]
fn peers_are_remembered_at_once_and_saved_along() {
    let (folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    store.remember(ReplicaId(2), 7);
    store.remember(ReplicaId(2), 5);
    store.remember(ReplicaId(3), 1);
    assert_eq!(store.remembered(ReplicaId(2)), Some(7), "never back");
    save(&store, Vec::new());
    assert_eq!(store.lsn(), 0, "no save for them alone");
    save(&store, vec![Record::Round { round: 1 }]);
    store.remember(ReplicaId(3), 9);
    let crashed = folder.path().join("crashed");
    copy(&dir, &crashed);
    let (_, loaded) = Store::open(&crashed).unwrap();
    let expected = |lsns: [(u32, u64); 2]| lsns.map(|(id, lsn)| (ReplicaId(id), lsn)).into();
    assert_eq!(loaded.peers, expected([(2, 7), (3, 1)]));
    store.close();
    drop(store);
    let (_, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.peers, expected([(2, 7), (3, 9)]));
    assert_eq!(loaded.lsn, 2);
}

#[test]
fn closing_saves_what_was_asked_for_and_is_told_of_each() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    for sequence in 0..1_000 {
        let count = Arc::clone(&count);
        let then = move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        store.save(vec![vote(id(1, sequence), 0)], then);
    }
    store.close();
    assert_eq!(count.load(Ordering::Relaxed), 1_000);
    drop(store);
    let (_, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.records.len(), 1_000);
    assert_eq!(
        HighWater::read(&dir.join("highwater")).unwrap(),
        Some(loaded.lsn)
    );
}

#[test]
fn a_panic_on_the_saving_thread_is_fatal() {
    let (_folder, dir) = new_store();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let config = StoreConfig {
        on_fatal: Arc::new(move |fatal| tell.lock().unwrap().send(fatal).unwrap()),
        ..StoreConfig::default()
    };
    let (store, _) = Store::open_with(&dir, config).unwrap();
    store.save(Vec::new(), |_| panic!("a bug"));
    let fatal = told.recv_timeout(SURELY).unwrap();
    let whose = format!("of replica 1 in {}", dir.display());
    assert_eq!(fatal.store, whose);
    assert_eq!(fatal.cause, "its thread panicked: a bug");
}

/// All keys of transactions.
fn transactions(store: &Store) -> usize {
    store.records.prefix(layout::key(Tag::Transaction)).count()
}

fn until(condition: impl Fn() -> bool) {
    let until = Instant::now() + SURELY;
    while !condition() {
        assert!(Instant::now() < until, "it never came to that");
        std::thread::yield_now();
    }
}

/// Generation 1 is closed, and has this many transactions, all but the last
/// finished; the last is committed.
fn closed(store: &Store, count: u32) {
    let mut records = vec![open(0, 2), open(1, 3)];
    for sequence in 1..=count {
        records.push(vote(id(1, sequence), 0));
        if sequence < count {
            records.push(finished(id(1, sequence)));
        }
    }
    save(store, records);
}

#[test]
fn what_is_settled_is_swept() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    closed(&store, 5_000);
    save(&store, vec![vote(id(2, 1), 0)]);
    assert_eq!(transactions(&store), 2 * 5_000 - 1 + 1);
    let last = id(1, 5_000);
    save(&store, vec![settle(last, vec![listed(last)])]);
    assert_eq!(store.recall(&last).unwrap(), [], "gone at once");
    until(|| transactions(&store) == 1);
    assert_eq!(store.recall(&id(2, 1)).unwrap(), [vote(id(2, 1), 0)]);
    assert_eq!(store.lsn(), 3, "sweeping is no save");
}

#[test]
fn a_sweep_that_was_cut_short_goes_on_after_a_restart() {
    let (folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    closed(&store, 2_000);
    let last = id(1, 2_000);
    let held = hold(&store);
    let (release, is_released): (Sender<()>, Receiver<()>) = channel();
    let (reached, is_reached) = channel();
    store.save(vec![settle(last, vec![listed(last)])], move |_| {
        reached.send(()).unwrap();
        let _ = is_released.recv();
    });
    drop(held);
    is_reached.recv_timeout(SURELY).unwrap();
    // The horizon has moved, and nothing is removed yet but what that save took along: a few.
    let crashed = folder.path().join("crashed");
    copy(&dir, &crashed);
    drop(release);
    let (store, loaded) = Store::open(&crashed).unwrap();
    let [Record::State { listed: list, .. }] = &loaded.records[..] else {
        panic!("{:?}", loaded.records)
    };
    assert_eq!(*list, [listed(last)]);
    assert!(loaded.finished.is_empty());
    until(|| transactions(&store) == 0);
    let swept = || store.records.get(layout::key(Tag::Swept)).unwrap().unwrap();
    let last_key = layout::key_after(last);
    let (_, last_key) = last_key.split_last().unwrap();
    assert!(swept().windows(last_key.len()).any(|part| part == last_key));

    // What it has passed is not searched again.
    let [key, ..] = layout::keys_of(id(1, 1));
    store.records.insert(&key, "left there").unwrap();
    drop(store);
    let (store, _) = Store::open(&crashed).unwrap();
    save(&store, vec![vote(id(2, 1), 0)]);
    assert!(store.records.contains_key(&key).unwrap());
}

#[test]
fn a_replica_that_is_never_idle_sweeps_too() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    closed(&store, 3_000);
    let mut held = hold(&store);
    let records = vec![settle(id(1, 3_000), Vec::new())];
    store.save(records, |_| {});
    // From now on something always waits.
    for sequence in 1..=120 {
        let next = {
            let (reached, is_reached) = channel();
            let (release, is_released): (Sender<()>, Receiver<()>) = channel();
            let records = (0..30).map(|n| vote(id(2, 30 * sequence + n), 0)).collect();
            store.save(records, move |_| {
                reached.send(()).unwrap();
                let _ = is_released.recv();
            });
            drop(held);
            is_reached.recv_timeout(SURELY).unwrap();
            release
        };
        held = next;
    }
    assert_eq!(transactions(&store), 3_600);
    drop(held);
}

#[test]
fn the_list_is_that_of_the_log() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![open(0, 2), open(1, 3), vote(id(1, 1), 0)]);
    save(&store, vec![finished(id(1, 1)), vote(id(1, 2), 0)]);
    // One is finished on disk, one in the very batch that settles it, and one is not.
    let list = vec![listed(id(1, 1)), listed(id(1, 2)), listed(id(1, 3))];
    let ids: Vec<CommitId> = list.iter().map(|listed| listed.id).collect();
    assert!(ids.is_sorted());
    let last = ids[2];
    save(&store, vec![finished(id(1, 2)), settle(last, list)]);
    drop(store);
    let (store, loaded) = Store::open(&dir).unwrap();
    let Some(Record::State { listed: kept, .. }) = loaded.records.first() else {
        panic!("{:?}", loaded.records)
    };
    assert_eq!(kept.len(), 3);
    // Nothing but an entry of the log makes it shorter.
    let unlist = Entry::Unlist { ids: ids.clone() };
    save(&store, vec![finished(last)]);
    save(
        &store,
        vec![Record::Chosen {
            slot: 3,
            entry: unlist,
        }],
    );
    drop(store);
    let (_, loaded) = Store::open(&dir).unwrap();
    let [Record::State { listed: kept, .. }] = &loaded.records[..] else {
        panic!("{:?}", loaded.records)
    };
    assert_eq!(*kept, []);
}

#[test]
fn no_value_is_long() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    let name = |n: u64| format!("{n:0>64}").parse().unwrap();
    let longest = Roster::new((0..32).map(|n| Branch {
        participant: name(n),
        session: Session(u64::MAX),
        store: StoreId::from_u128(1),
    }))
    .unwrap();
    let unapplied = Unapplied {
        roster: longest.clone(),
        read_only: BranchSet::default(),
    };
    let list: Vec<Listed> = (1..=256)
        .map(|sequence| Listed {
            id: id(1, sequence),
            unapplied: unapplied.clone(),
        })
        .collect();
    let last = id(1, 256);
    let ballot = Ballot::above(1, ReplicaId(1)).unwrap();
    let Record::Chosen { slot, entry } = settle(last, list) else {
        panic!("a Settle is chosen")
    };
    let accept = Record::Log(crate::protocol::paxos::log::LogRecord::Accept {
        slot,
        ballot,
        entry: entry.clone(),
    });
    let vote = Record::Vote {
        id: id(2, 1),
        index: 0,
        vote: Vote::Prepared,
        roster: Some(longest),
    };
    let chosen = Record::Chosen { slot, entry };
    save(
        &store,
        vec![open(0, 2), open(1, 3), vote, accept.clone(), chosen],
    );
    let lengths = store
        .records
        .iter()
        .map(|guard| guard.into_inner().unwrap());
    let longest = lengths.map(|(key, value)| key.len() + value.len()).max();
    assert!(longest.unwrap() < 4096, "{longest:?}");
    drop(store);
    let (_, loaded) = Store::open(&dir).unwrap();
    assert!(loaded.records.contains(&accept));
}
