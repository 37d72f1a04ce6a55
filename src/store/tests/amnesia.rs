//! A store that has less than it once had is refused.

use std::fs::OpenOptions;

use super::*;

/// A store with some saves, closed; the active journal's bytes up to the last that counts.
fn with_saves() -> (TempDir, PathBuf, Vec<u8>) {
    let (folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    for sequence in 1..=20 {
        save(&store, vec![vote(id(1, sequence), 0)]);
    }
    drop(store);
    let mut bytes = fs::read(journal(&dir)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(end + 1);
    (folder, dir, bytes)
}

fn damage(dir: &Path, at: usize, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(journal(dir)).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

fn refusal(dir: &Path) -> OpenError {
    match Store::open(dir) {
        Ok((_, loaded)) => panic!("served with save {}", loaded.lsn),
        Err(error) => error,
    }
}

#[test]
fn a_journal_that_is_damaged_in_the_middle_is_refused_again_and_again() {
    let (_folder, dir, bytes) = with_saves();
    // The first marker in the second half. fjall takes what is behind it for a torn write.
    let trailer = b"FJL\x03";
    let half = bytes.len() / 2;
    let found = bytes[half..].windows(4).position(|four| four == trailer);
    damage(&dir, half + found.unwrap() + 4, &[0xff]);
    for _ in 0..2 {
        let error = refusal(&dir);
        let OpenError::Amnesia { lsn, complete, .. } = error else {
            panic!("{error}");
        };
        assert!(lsn < 20 && complete == 20, "{lsn} of {complete}");
        let text = error.to_string();
        assert!(text.contains("Replace it by one with a new id; never restore it from a backup"));
    }
}

#[test]
fn wherever_a_byte_is_damaged_nothing_that_was_saved_is_missing() {
    let (folder, dir, bytes) = with_saves();
    let step = bytes.len() / 60;
    let mut served = 0;
    for (number, at) in (0..bytes.len()).step_by(step).enumerate() {
        let copied = folder.path().join(number.to_string());
        copy(&dir, &copied);
        damage(&copied, at, &[bytes[at] ^ 0x10]);
        // fjall itself notices some damage, and the store the rest.
        match Store::open(&copied) {
            Ok((_, loaded)) => {
                served += 1;
                assert_eq!((loaded.lsn, loaded.finished.len()), (20, 1));
                assert_eq!(loaded.records.len(), 20);
            }
            Err(error) => drop(error),
        }
    }
    // A damaged sequence number of fjall's, which its checksum does not cover, can be harmless.
    assert!(served < 10, "{served}");
}

#[test]
fn a_journal_that_lost_its_end_is_refused() {
    let (_folder, dir, bytes) = with_saves();
    let file = OpenOptions::new().write(true).open(journal(&dir)).unwrap();
    file.set_len(bytes.len() as u64 - 1).unwrap();
    drop(file);
    let error = refusal(&dir);
    let expected = |error: &OpenError| {
        matches!(
            error,
            OpenError::Amnesia {
                lsn: 19,
                complete: 20,
                ..
            }
        )
    };
    assert!(expected(&error), "{error}");
}

#[test]
fn a_crash_before_the_idle_mark_hides_at_most_the_last_save() {
    let (folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    for sequence in 1..=20 {
        save(&store, vec![vote(id(1, sequence), 0)]);
        let complete = HighWater::read(&dir.join("highwater")).unwrap().unwrap();
        assert!(complete + 1 >= store.lsn(), "{complete}");
    }
    let crashed = folder.path().join("crashed");
    copy(&dir, &crashed);
    let (_, loaded) = Store::open(&crashed).unwrap();
    assert_eq!(loaded.lsn, 20);
}

#[test]
fn the_last_save_is_marked_when_nothing_follows() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![Record::Round { round: 1 }]);
    let path = dir.join("highwater");
    let until = Instant::now() + SURELY;
    while HighWater::read(&path).unwrap() != Some(1) {
        assert!(Instant::now() < until, "never marked");
        std::thread::yield_now();
    }
    drop(store);
}

#[test]
fn an_older_database_under_a_newer_sector_is_refused() {
    let (folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![Record::Round { round: 1 }]);
    drop(store);
    let old = folder.path().join("old");
    copy(&dir.join("database"), &old);
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![Record::Round { round: 2 }]);
    drop(store);
    fs::remove_dir_all(dir.join("database")).unwrap();
    fs::rename(old, dir.join("database")).unwrap();
    let error = refusal(&dir);
    assert!(
        matches!(
            error,
            OpenError::Amnesia {
                lsn: 1,
                complete: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_save_that_is_missing_before_later_ones_is_noticed() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    for round in 1..=9 {
        save(&store, vec![Record::Round { round }]);
    }
    let trace = |lsn| layout::key_of_u64(Tag::Lsn, lsn);
    store.records.remove(trace(4)).unwrap();
    drop(store);
    let error = refusal(&dir);
    assert!(
        matches!(error, OpenError::Hole { missing: 4, .. }),
        "{error}"
    );

    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![Record::Round { round: 1 }]);
    store.records.remove(trace(0)).unwrap();
    drop(store);
    let error = refusal(&dir);
    assert!(
        matches!(error, OpenError::Hole { missing: 0, .. }),
        "{error}"
    );
}
