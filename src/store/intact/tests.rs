//! Each kind of damage, and what is none.

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tempfile::TempDir;

use super::*;

/// A database with four batches in its journal, and where each ends.
fn database() -> (TempDir, PathBuf, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    let journal = folder.path().join("0.jnl");
    let database = Database::builder(folder.path()).open().unwrap();
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
    let rows = rows.unwrap();
    for value in ["one", "two", "three", "four"] {
        rows.insert("key", value).unwrap();
        database.persist(PersistMode::SyncData).unwrap();
        let bytes = fs::read(&journal).unwrap();
        ends.push(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    }
    drop((rows, database));
    // Most of the zeros behind it.
    let file = File::options().write(true).open(&journal).unwrap();
    file.set_len(ends[3] as u64 + 9_000).unwrap();
    (folder, journal, ends)
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= bit;
    fs::write(path, bytes).unwrap();
}

fn says(folder: &TempDir, forced: Forced, expected: &str) {
    match check(folder.path(), forced) {
        Err(Damage::Rotten(text)) => assert!(text.contains(expected), "{text}"),
        other => panic!("expected {expected}, got {other:?}"),
    }
}

#[test]
fn what_was_written_is_intact_also_when_its_end_is_torn() {
    let (folder, journal, ends) = database();
    for forced in [Forced::Each, Forced::Some] {
        check(folder.path(), forced).unwrap();
    }
    let whole = fs::read(&journal).unwrap();
    for torn in ends[2]..ends[3] {
        // Cut off, and overwritten with zeros.
        fs::write(&journal, &whole[..torn]).unwrap();
        check(folder.path(), Forced::Each).unwrap();
        let mut zeros = whole.clone();
        zeros[torn..ends[3]].fill(0);
        fs::write(&journal, &zeros).unwrap();
        check(folder.path(), Forced::Each).unwrap();
    }
}

#[test]
fn numbers_of_batches_rise() {
    let (folder, journal, ends) = database();
    // The number of the second batch stands behind its tag and its count.
    let number = ends[0] + 1 + 4;
    for byte in 1..8 {
        flip(&journal, number + byte, 1);
        says(&folder, Forced::Some, "has a batch out of order");
        flip(&journal, number + byte, 1);
    }
    // In the last one even a high number changes nothing, unless it is one of fjall's own.
    let number = ends[2] + 1 + 4;
    flip(&journal, number + 5, 1);
    check(folder.path(), Forced::Each).unwrap();
    flip(&journal, number + 7, 0x80);
    says(&folder, Forced::Each, "has a batch out of order");
}

#[test]
fn damage_before_whole_batches_is_no_torn_end() {
    let (folder, journal, ends) = database();
    for at in [0, ends[0] - 1, ends[0], ends[2] - 1] {
        flip(&journal, at, 0x10);
        says(&folder, Forced::Each, "is damaged in the middle");
        // Here the numbers of saves say it.
        check(folder.path(), Forced::Some).unwrap();
        flip(&journal, at, 0x10);
    }
}

#[test]
fn lengths_that_contradict_each_other_are_noticed() {
    let (folder, journal, _) = database();
    // Tag, count and number of the batch; tag, kind, compression, keyspace, length of the key.
    let length = 13 + 1 + 1 + 1 + 8 + 2;
    flip(&journal, length, 4);
    says(
        &folder,
        Forced::Some,
        "has a length that contradicts another",
    );
}

#[test]
fn a_last_batch_that_misses_a_sector_is_cut_off_and_no_other() {
    let (folder, journal, _) = database();
    let before = fs::metadata(&journal).unwrap().len();
    {
        let database = Database::builder(folder.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
        rows.unwrap().insert("long", [b'x'; 3_000]).unwrap();
        database.persist(PersistMode::SyncData).unwrap();
    }
    let whole = fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let value = whole
        .windows(9)
        .position(|bytes| bytes == [b'x'; 9])
        .unwrap();
    let sector = value.next_multiple_of(512);
    assert!(sector + 512 < end && end < before as usize + 4_000);
    for forced in [Forced::Each, Forced::Some] {
        let mut torn = whole.clone();
        torn[sector..sector + 512].fill(0);
        fs::write(&journal, &torn).unwrap();
        check(folder.path(), forced).unwrap();
        let cut = fs::metadata(&journal).unwrap().len() as usize;
        assert!(cut < value && value - cut < 64, "{cut} {value}");
        let database = Database::builder(folder.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
        let rows = rows.unwrap();
        assert_eq!(rows.get("key").unwrap().as_deref(), Some(&b"four"[..]));
        assert_eq!(rows.get("long").unwrap(), None);
        drop((rows, database));

        // A flipped bit is no torn sector: fjall refuses it.
        let mut rotten = whole.clone();
        rotten[sector] ^= 1;
        fs::write(&journal, &rotten).unwrap();
        check(folder.path(), forced).unwrap();
        assert_eq!(fs::metadata(&journal).unwrap().len(), whole.len() as u64);
        assert!(Database::builder(folder.path()).open().is_err());

        // Nor is anything cut off that whole batches follow.
        let mut followed = torn.clone();
        let first = followed[..64].to_vec();
        followed.truncate(end);
        followed.extend(first);
        followed.extend(&whole[..end]);
        fs::write(&journal, &followed).unwrap();
        match forced {
            Forced::Each => says(&folder, forced, "is damaged in the middle"),
            Forced::Some => check(folder.path(), forced).unwrap(),
        }
        assert_eq!(fs::metadata(&journal).unwrap().len(), followed.len() as u64);
    }
}

#[test]
fn a_list_of_tables_is_what_it_was() {
    for name in ["current", "v0"] {
        let (folder, _, _) = database();
        let path = folder.path().join("keyspaces/1").join(name);
        let length = fs::metadata(&path).unwrap().len() as usize;
        for at in 0..length {
            flip(&path, at, 2);
            let found = check(folder.path(), Forced::Some);
            assert!(matches!(found, Err(Damage::Rotten(_))), "{name} {at}");
            flip(&path, at, 2);
        }
    }
}

#[test]
fn a_row_that_looks_like_a_batch_is_none() {
    let (folder, journal, ends) = database();
    // What ends a batch without items, and what a journal holds, as somebody's value.
    let mut fake = vec![START];
    fake.extend(0_u32.to_le_bytes());
    fake.extend(77_u64.to_le_bytes());
    fake.push(END);
    fake.extend(Xxh3::new().digest().to_le_bytes());
    fake.extend(TRAILER);
    let old = fs::read(&journal).unwrap()[..ends[1]].to_vec();
    let value = [&fake[..], &old, &[b'x'; 600]].concat();
    {
        let database = Database::builder(folder.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
        rows.unwrap().insert("fake", value).unwrap();
        database.persist(PersistMode::SyncData).unwrap();
    }
    let mut whole = fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The end of the batch was never written.
    whole.truncate(end - 300);
    fs::write(&journal, &whole).unwrap();
    check(folder.path(), Forced::Each).unwrap();
}

#[test]
fn a_journal_that_another_follows_is_whole() {
    let (folder, journal, ends) = database();
    let whole = fs::read(&journal).unwrap();
    let next = folder.path().join("1.jnl");
    fs::write(&next, []).unwrap();
    check(folder.path(), Forced::Some).unwrap();
    for (at, bit) in [(ends[2], 0x10), (ends[3] - 1, 1), (ends[3] + 5, 1)] {
        flip(&journal, at, bit);
        for forced in [Forced::Each, Forced::Some] {
            says(&folder, forced, "is damaged in the middle");
        }
        flip(&journal, at, bit);
    }
    assert!(whole == fs::read(&journal).unwrap());
}

#[test]
fn a_keyspace_that_would_be_deleted_is_refused() {
    let (folder, _, _) = database();
    fs::remove_file(folder.path().join("keyspaces/1/current")).unwrap();
    says(&folder, Forced::Some, "current is missing");
}
