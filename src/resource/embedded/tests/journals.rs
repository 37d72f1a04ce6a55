//! Journals that were rotated, or torn when the power went.

use super::*;

const SECTOR: usize = 512;

async fn put(store: &Embedded, key: &str, value: &[u8]) {
    store.local(|work| work.put(key, value)).await.unwrap();
}

/// The journals, from the oldest on.
fn journals(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path().join("database")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut journals: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "jnl"))
        .collect();
    journals.sort();
    journals
}

#[tokio::test]
async fn a_store_with_several_journals_opens() {
    let home = Home::new();
    let value = vec![b'x'; VALUE_BYTES_MAX];
    let count = 160 * 1024 * 1024 / VALUE_BYTES_MAX;
    let mut store = home.open();
    let mut opened_with_several = 0;
    for number in 0..count {
        // Another keyspace, of which the oldest journal holds what is in no table.
        prepare_put(&store, &branch(number as u32), &format!("p/{number}"), "1").await;
        put(&store, &format!("row/{number}"), &value).await;
        put(&store, "last", number.to_string().as_bytes()).await;
        if number % 16 == 15 {
            drop(store);
            opened_with_several += usize::from(journals(&home).len() > 1);
            store = home.open();
            let last = store.read("last").unwrap().unwrap();
            assert_eq!(last, number.to_string().as_bytes());
        }
    }
    assert!(opened_with_several > 0, "no journal was ever rotated");
}

/// Any one of its sectors is not there. It was never acknowledged, so the store comes back without
/// it, and with all that was before.
#[tokio::test]
async fn a_torn_batch_at_the_end_of_a_journal_is_no_damage() {
    let home = Home::new();
    let store = home.open();
    put(&store, "before", &[b'x'; 3_000]).await;
    let journal = journals(&home).pop().unwrap();
    let mut before = fs::read(&journal).unwrap();
    put(&store, "last", &[b'x'; 3_000]).await;
    let mut after = fs::read(&journal).unwrap();
    drop(store);
    // Whole sectors. A journal that was just made is longer, and zeros to its end.
    let size = after.len().next_multiple_of(SECTOR);
    before.resize(size, 0);
    after.resize(size, 0);
    let changed: Vec<usize> = (0..size).filter(|at| before[*at] != after[*at]).collect();
    let (first, last) = (changed[0] / SECTOR, changed[changed.len() - 1] / SECTOR);
    assert!(last - first >= 3_000 / SECTOR, "{first} to {last}");
    for sector in first..=last {
        let mut torn = after.clone();
        let bytes = sector * SECTOR..(sector + 1) * SECTOR;
        torn[bytes.clone()].copy_from_slice(&before[bytes]);
        fs::write(&journal, &torn).unwrap();
        let store = home.open();
        assert!(store.read("before").unwrap().is_some(), "{sector}");
        assert_eq!(store.read("last").unwrap(), None, "{sector}");
        drop(store);
    }
}
