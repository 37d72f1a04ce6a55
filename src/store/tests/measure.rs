//! How fast it is: `cargo test --release --lib store::tests::measure -- --ignored --nocapture`.

use super::*;

/// How long this thread ran, whatever else the machine does.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn ids(count: u32) -> impl Iterator<Item = CommitId> {
    (1..=count).map(|sequence| id(1, sequence))
}

#[test]
#[ignore = "a measurement"]
fn saves() {
    for what in ["new", "reopened"] {
        let (_folder, dir) = new_store();
        let (mut store, _) = Store::open(&dir).unwrap();
        if what == "reopened" {
            save(&store, vec![vote(id(9, 1), 0)]);
            drop(store);
            store = Store::open(&dir).unwrap().0;
        }
        let mut times: Vec<Duration> = ids(3_000)
            .map(|id| {
                let start = Instant::now();
                save(&store, vec![vote(id, 1)]);
                start.elapsed()
            })
            .collect();
        times.sort();
        let at = |percent: usize| times[times.len() * percent / 100];
        let (low, median, high) = (at(5), at(50), at(99));
        eprintln!("{what}: one record per save: {low:?}, median {median:?}, 99 % {high:?}");
        for batch in [32, 128] {
            let mut sequence = 10_000;
            let mut times = Vec::new();
            for _ in 0..2_000 {
                let records = (0..batch).map(|n| vote(id(1, sequence + n), 1)).collect();
                sequence += batch;
                let start = Instant::now();
                save(&store, records);
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            let [low, median] = [5, 50].map(|percent| times[times.len() * percent / 100]);
            let rate = |time: f64| f64::from(batch) / time;
            let (high, usual) = (rate(low), rate(median));
            eprintln!("{what}: {batch} per save: {high:.0} records/s, median {usual:.0}");
        }
        let stats = store.stats();
        eprintln!("{what}: mean save {} us", stats.total_us / stats.saves);
    }
}

#[test]
#[ignore = "a measurement"]
fn lookups() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    const COUNT: u32 = 500_000;
    let start = Instant::now();
    for sequence in (1..=COUNT).map(|n| 2 * n) {
        let id = id(1, sequence);
        store.save(vec![vote(id, 0), vote(id, 1), finished(id)], |_| {});
    }
    save(&store, Vec::new());
    eprintln!("saved {COUNT} transactions in {:?}", start.elapsed());
    for (what, odd) in [("absent", 1), ("present", 0)] {
        let mut rng = fastrand::Rng::with_seed(1);
        let ids: Vec<CommitId> = (0..100_000)
            .map(|_| id(1, 2 * rng.u32(1..COUNT) + odd))
            .collect();
        let (start, ran) = (Instant::now(), cpu());
        for id in &ids {
            assert_eq!(store.recall(id).unwrap().is_empty(), odd == 1);
        }
        let (all, ran) = (start.elapsed() / 100_000, (cpu() - ran) / 100_000);
        eprintln!("{what}: {all:?} per lookup, {ran:?} of the processor");
    }
    eprintln!("{} bytes on disk", store.disk_bytes().unwrap());
    drop(store);
    let start = Instant::now();
    let (store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.records.len(), 0);
    eprintln!("opened in {:?}", start.elapsed());
    save(&store, vec![open(0, 2), open(1, 3)]);
    save(&store, vec![settle(id(1, 3 * COUNT), Vec::new())]);
    let start = Instant::now();
    let mut longest = Duration::default();
    let [key, ..] = layout::keys_of(id(1, 2 * COUNT));
    while store.records.contains_key(&key).unwrap() {
        let start = Instant::now();
        save(&store, vec![vote(id(2, 1), 0)]);
        longest = longest.max(start.elapsed());
    }
    eprintln!(
        "swept in {:?}, longest save meanwhile {longest:?}",
        start.elapsed()
    );
}
