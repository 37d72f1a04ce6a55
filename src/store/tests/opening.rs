//! What is opened, and what is refused.

use super::*;

fn error(dir: &Path) -> OpenError {
    match Store::open(dir) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_new_store_is_empty_and_knows_whose_it_is() {
    let (_folder, dir) = new_store();
    let (store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.identity, identity());
    assert_eq!((loaded.lsn, loaded.records), (0, Vec::new()));
    assert!(loaded.peers.is_empty() && loaded.finished.is_empty());
    assert_eq!((store.lsn(), store.pending()), (0, 0));
    assert!(store.disk_bytes().unwrap() > 0);
}

#[test]
fn init_wants_a_directory_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    Store::init(folder.path(), &identity()).unwrap();
    let again = Store::init(folder.path(), &identity()).unwrap_err();
    assert!(matches!(again, InitError::NotEmpty { .. }), "{again}");
    let (_store, _) = Store::open(folder.path()).unwrap();
    let in_use = Store::init(folder.path(), &identity()).unwrap_err();
    assert!(matches!(in_use, InitError::InUse { .. }), "{in_use}");
}

#[test]
fn opening_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("replica");
    let absent = error(&dir);
    assert!(matches!(absent, OpenError::NoIdentity { .. }), "{absent}");
    assert!(absent.to_string().contains("`paxos-commit cluster new`"));
    assert!(!dir.exists());
    fs::create_dir(&dir).unwrap();
    let empty = error(&dir);
    assert!(matches!(empty, OpenError::NoIdentity { .. }), "{empty}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn an_init_that_was_cut_short_is_no_replica() {
    let (_folder, dir) = new_store();
    fs::rename(dir.join("identity"), dir.join("identity.new")).unwrap();
    let refused = error(&dir);
    assert!(matches!(refused, OpenError::NoIdentity { .. }), "{refused}");
    let again = Store::init(&dir, &identity()).unwrap_err();
    assert!(
        again
            .to_string()
            .contains("if an earlier attempt was cut short")
    );
}

#[test]
fn one_directory_has_one_process() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    let second = error(&dir);
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    drop(store);
    drop(Store::open(&dir).unwrap());
}

#[test]
fn an_identity_without_its_store_is_a_refusal() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 7] = [
        ("high-water sector", |dir| {
            fs::remove_file(dir.join("highwater")).unwrap();
        }),
        ("readable high-water sector", |dir| {
            fs::write(dir.join("highwater"), vec![0; 8192]).unwrap();
        }),
        ("whole database", |dir| {
            fs::remove_dir_all(dir.join("database")).unwrap();
        }),
        ("whole database", |dir| {
            fs::remove_file(dir.join("database/version")).unwrap();
        }),
        ("whole database", |dir| {
            fs::remove_dir_all(dir.join("database/keyspaces")).unwrap();
        }),
        ("journal", |dir| fs::remove_file(journal(dir)).unwrap()),
        ("keyspace", |dir| {
            fs::remove_dir_all(dir.join("database/keyspaces/1")).unwrap();
        }),
    ];
    for (what, lose) in losses {
        let (_folder, dir) = new_store();
        lose(&dir);
        for _ in 0..2 {
            let refused = error(&dir);
            let expected = format!("has an identity and no {what}:");
            assert!(refused.to_string().contains(&expected), "{refused}");
        }
    }
}

#[test]
fn a_keyspace_whose_files_are_gone_is_neither_made_again_nor_deleted() {
    let (_folder, dir) = new_store();
    let keyspace = dir.join("database/keyspaces/1");
    fs::remove_file(keyspace.join("current")).unwrap();
    let refused = error(&dir);
    assert!(matches!(refused, OpenError::Rotten { .. }), "{refused}");
    assert!(keyspace.join("v0").exists());
}

#[test]
fn a_damaged_identity_is_a_refusal_and_a_newer_one_names_both_versions() {
    let (_folder, dir) = new_store();
    let path = dir.join("identity");
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, &damaged).unwrap();
    let refused = error(&dir);
    assert!(
        matches!(refused, OpenError::DamagedIdentity { .. }),
        "{refused}"
    );

    let mut newer = whole;
    let line = newer.iter().position(|byte| *byte == b'\n').unwrap();
    newer[line + 4] = 2;
    fs::write(&path, &newer).unwrap();
    let refused = error(&dir).to_string();
    assert!(refused.contains("has format 2, and this program knows formats up to 1"));
}

#[test]
fn a_damaged_record_is_named() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![vote(id(1, 1), 0)]);
    let mut keys = Vec::new();
    layout::write_transaction(&vote(id(1, 1), 0), |key, _| keys.push(key));
    let key = keys.pop().unwrap();
    let mut value = store.records.get(&key).unwrap().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    store.records.insert(&key, value).unwrap();
    let unread = store.recall(&id(1, 1)).unwrap_err();
    assert!(matches!(unread, RecallError::Damaged(_)), "{unread}");
    drop(store);
    let OpenError::Damaged { record, .. } = error(&dir) else {
        panic!("it was opened")
    };
    let hex: Vec<String> = key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record.key, hex.concat());
    assert_eq!(record.reason, "its checksum does not match");
}

/// The counter-example: "is damaged ... Replace it by one with a new id". The replica was healthy, and
/// the program was the older one.
#[test]
fn a_record_of_another_version_is_reported_as_that() {
    let (_folder, dir) = new_store();
    let (store, _) = Store::open(&dir).unwrap();
    save(&store, vec![vote(id(1, 1), 0)]);
    let mut keys = Vec::new();
    layout::write_transaction(&vote(id(1, 1), 0), |key, _| keys.push(key));
    let key = keys.pop().unwrap();
    let value = store.records.get(&key).unwrap().unwrap();
    let newer = of_another_version(&key, &value);
    store.records.insert(&key, newer).unwrap();
    let unread = store.recall(&id(1, 1)).unwrap_err();
    assert!(
        matches!(
            unread,
            RecallError::Version {
                got: 2,
                known: 1,
                ..
            }
        ),
        "{unread}"
    );
    drop(store);
    let refused = error(&dir);
    assert!(
        matches!(
            refused,
            OpenError::RecordVersion {
                got: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
    assert!(!refused.must_be_replaced());
    let text = refused.to_string();
    assert!(
        !text.contains("eplace") && !text.contains("may have lost"),
        "{text}"
    );
}

#[test]
fn a_key_that_is_never_written_is_a_refusal() {
    for key in [&[0x03][..], &[0x15, 1], &[0x31], &[0x30, 1, 2], &[0x10, 1]] {
        let (_folder, dir) = new_store();
        let (store, _) = Store::open(&dir).unwrap();
        store.records.insert(key, b"?").unwrap();
        drop(store);
        assert!(matches!(error(&dir), OpenError::Damaged { .. }), "{key:?}");
    }
}
