//! The directory: made once, opened by one, refused when it is not right.

use super::*;

fn open(home: &Home) -> Result<Embedded, OpenError> {
    Embedded::open(home.path(), Options::new())
}

fn refusal(home: &Home) -> OpenError {
    open(home).unwrap_err()
}

#[test]
fn a_store_is_made_on_first_use_and_names_its_format() {
    let home = Home::new();
    let identity = home.open().store();
    let format = fs::read_to_string(home.path().join("format")).unwrap();
    let expected = format!("paxos-commit embedded store, format 1\nidentity {identity}\n");
    assert_eq!(format, expected);
    assert_eq!(home.open().store(), identity, "it is drawn once");
    assert_ne!(Home::new().open().store(), identity);
}

#[test]
fn missing_directories_are_made() {
    let home = Home::new();
    let below = home.path().join("one/two/three");
    drop(Embedded::open(&below, Options::new()).unwrap());
    assert!(below.join("format").exists());
}

#[test]
fn a_second_opener_is_refused() {
    let home = Home::new();
    let store = home.open();
    let error = refusal(&home);
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("is open already"), "{error}");
    let clone = store.clone();
    drop(store);
    assert!(matches!(refusal(&home), OpenError::InUse { .. }));
    let work = clone.work_of(txn(1));
    drop(clone);
    assert!(matches!(refusal(&home), OpenError::InUse { .. }));
    drop(work);
    drop(open(&home).unwrap());
}

#[test]
fn a_newer_format_is_refused() {
    let home = Home::new();
    drop(home.open());
    let format = home.path().join("format");
    fs::write(&format, "paxos-commit embedded store, format 2\n").unwrap();
    let error = refusal(&home);
    assert!(
        matches!(
            error,
            OpenError::Newer {
                got: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    for nonsense in ["", "format 1", "paxos-commit embedded store, format one\n"] {
        fs::write(&format, nonsense).unwrap();
        assert!(matches!(refusal(&home), OpenError::NotAStore { .. }));
    }
}

#[test]
fn a_directory_with_something_else_in_it_is_refused() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    fs::write(home.path().join("letter"), "dear").unwrap();
    let error = refusal(&home);
    assert!(
        matches!(&error, OpenError::NotAStore { found, .. } if found == "letter"),
        "{error}"
    );
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_crash_while_it_is_made_leaves_what_the_next_start_completes() {
    // Before the database was complete.
    let home = Home::new();
    fs::create_dir_all(home.path().join("database.new/keyspaces")).unwrap();
    drop(home.open());
    // Before the format file was written.
    for is_locked in [false, true] {
        let home = Home::new();
        fs::create_dir(home.path()).unwrap();
        let database = Database::builder(home.path().join("database"));
        let database = database.open().unwrap();
        for name in ["data", "prepared", "committed", "meta"] {
            database.keyspace(name, Default::default).unwrap();
        }
        drop(database);
        if is_locked {
            fs::write(home.path().join("lock"), "").unwrap();
        }
        fs::write(home.path().join("format.new"), "paxos").unwrap();
        drop(home.open());
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_never_made_again_empty() {
    let filled = || async {
        let home = Home::new();
        home.open().local(|work| work.put("a", "1")).await.unwrap();
        home
    };
    let home = filled().await;
    fs::remove_file(home.path().join("format")).unwrap();
    let error = refusal(&home);
    assert!(
        matches!(&error, OpenError::Damaged { what, .. } if what.contains("format")),
        "{error}"
    );

    let home = filled().await;
    fs::remove_dir_all(home.path().join("database")).unwrap();
    assert!(matches!(refusal(&home), OpenError::Damaged { .. }));
    assert!(!home.path().join("database").exists());

    let home = filled().await;
    let mut lost = 0;
    for entry in fs::read_dir(home.path().join("database")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "jnl") {
            fs::remove_file(path).unwrap();
            lost += 1;
        }
    }
    assert_eq!(lost, 1);
    let error = refusal(&home);
    assert!(
        matches!(&error, OpenError::Damaged { what, .. } if what == "its journal is missing"),
        "{error}"
    );

    for name in ["data", "prepared", "committed", "meta"] {
        let home = filled().await;
        {
            let database = Database::builder(home.path().join("database"))
                .open()
                .unwrap();
            let keyspace = database.keyspace(name, Default::default).unwrap();
            database.delete_keyspace(keyspace).unwrap();
        }
        let error = refusal(&home);
        let text = format!("its keyspace {name} is missing");
        assert!(
            matches!(&error, OpenError::Damaged { what, .. } if *what == text),
            "{error}"
        );
    }
}

/// Writes into a store behind its back.
fn plant(home: &Home, keyspace: &str, key: &[u8], value: &[u8]) {
    let database = Database::builder(home.path().join("database"))
        .open()
        .unwrap();
    let keyspace = database.keyspace(keyspace, Default::default).unwrap();
    keyspace.insert(key, value).unwrap();
}

#[test]
fn what_cannot_be_read_is_refused() {
    let home = Home::new();
    drop(home.open());
    plant(&home, "prepared", b"ledger", b"");
    assert!(matches!(refusal(&home), OpenError::Damaged { .. }));

    let home = Home::new();
    drop(home.open());
    let name = disk::name_of(&branch(1));
    plant(&home, "prepared", name.as_bytes(), b"\x01nonsense");
    let error = refusal(&home);
    assert!(
        matches!(&error, OpenError::Record { key, .. } if *key == name),
        "{error}"
    );

    let home = Home::new();
    drop(home.open());
    plant(&home, "meta", b"opening/1", b"nonsense");
    let error = refusal(&home);
    let text = "an opening cannot be read";
    assert!(
        matches!(&error, OpenError::Damaged { what, .. } if what == text),
        "{error}"
    );

    for (key, value) in [
        ("cluster", "prod"),
        ("participant", "ledger"),
        ("participant", ""),
    ] {
        let home = Home::new();
        drop(home.open());
        plant(&home, "meta", key.as_bytes(), value.as_bytes());
        let error = refusal(&home);
        let text = "the name of its participant is missing or cannot be read";
        assert!(
            matches!(&error, OpenError::Damaged { what, .. } if what == text),
            "{error}"
        );
    }
}

#[test]
fn prepared_branches_that_exclude_each_other_are_refused() {
    let home = Home::new();
    drop(home.open());
    let footprint = footprint::Footprint {
        writes: [("a".into(), None)].into(),
        ..Default::default()
    };
    for sequence in [1, 2] {
        let name = disk::name_of(&branch(sequence));
        let record = footprint.encode(name.as_bytes());
        plant(&home, "prepared", name.as_bytes(), &record);
    }
    let error = refusal(&home);
    assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("have locked a")));
}
