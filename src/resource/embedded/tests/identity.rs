//! What a store knows about itself: its identity, its openings, and whose branches it keeps.

use super::*;

fn refusal(home: &Home) -> OpenError {
    Embedded::open(home.path(), Options::new()).unwrap_err()
}

#[test]
fn a_store_keeps_its_identity_and_another_store_has_another() {
    let home = Home::new();
    let identity = home.open().store();
    assert_eq!(home.open().store(), identity);
    assert_ne!(Home::new().open().store(), identity);
    // A new store in an emptied directory is another store.
    fs::remove_dir_all(home.path()).unwrap();
    assert_ne!(home.open().store(), identity);
}

#[test]
fn a_copy_of_the_directory_keeps_the_identity() {
    let home = Home::new();
    let identity = home.open().store();
    let copy = home.crash();
    assert_eq!(copy.open().store(), identity);
    assert_eq!(home.open().store(), identity);
}

#[test]
fn a_store_without_an_identity_is_refused() {
    let home = Home::new();
    drop(home.open());
    let path = home.path().join("format");
    let right = fs::read_to_string(&path).unwrap();
    let (format, identity) = right.split_once('\n').unwrap();
    for text in [
        format.to_owned(),
        format!("{format}\nidentity \n"),
        format!("{format}\n{}\n", identity.trim().to_uppercase()),
        format!("{format}\n{}", &identity[..identity.len() - 2]),
    ] {
        fs::write(&path, &text).unwrap();
        let error = refusal(&home).to_string();
        let expected = "its file format has no identity: expected a second line";
        assert!(error.contains(expected), "{text:?}: {error}");
        assert!(error.contains("nothing was changed"), "{text:?}: {error}");
    }
    fs::write(&path, &right).unwrap();
    drop(home.open());
}

fn number_of(store: &Embedded) -> u64 {
    store.openings().last().unwrap().number
}

#[tokio::test]
async fn each_opening_has_a_number_of_its_own() {
    let home = Home::new();
    for number in 1..4 {
        let store = home.open();
        assert_eq!(number_of(&store), number);
        // It is durable before it is told: a crash at once does not lose it.
        assert_eq!(number_of(&home.crash().open()), number + 1);
        store.local(|work| work.put("a", "1")).await.unwrap();
    }
}

#[test]
fn a_refused_opening_changes_nothing() {
    let home = Home::new();
    let store = home.open();
    assert!(matches!(refusal(&home), OpenError::InUse { .. }));
    drop(store);
    assert_eq!(number_of(&home.open()), 2);
}

#[test]
fn an_older_copy_does_not_remember_the_openings_after_it() {
    let home = Home::new();
    let first = home.open().openings();
    let copy = home.crash();
    let second = home.open().openings();
    assert_eq!(second[..1], first[..]);
    let third = home.open().openings();
    assert_eq!(third[..2], second[..]);
    // Its own second opening is another one.
    let of_copy = copy.open().openings();
    assert_eq!((of_copy.len(), &of_copy[..1]), (2, &first[..]));
    assert!(!third.contains(&of_copy[1]));
}

#[test]
fn a_store_serves_one_participant() {
    let home = Home::new();
    let name = |text: &str| text.parse().unwrap();
    let store = home.open();
    store.serves("prod", &name("ledger")).unwrap();
    store.serves("prod", &name("ledger")).unwrap();
    // Durable before the participant goes on.
    for store in [home.crash().open(), store] {
        for (cluster, participant) in [("prod", "audit"), ("test", "ledger")] {
            let error = store.serves(cluster, &name(participant)).unwrap_err();
            let text = format!(
                "this store keeps the branches of participant ledger of cluster prod, and the \
                 certificate is one of participant {participant} of cluster {cluster}: open the \
                 store in a directory of its own, or connect with a certificate of participant \
                 ledger of cluster prod"
            );
            assert_eq!(error.to_string(), text);
        }
        store.serves("prod", &name("ledger")).unwrap();
    }
}

#[test]
fn of_two_participants_that_come_at_once_one_is_served() {
    let home = Home::new();
    let store = home.open();
    let serve = |name: &'static str| {
        let store = store.clone();
        std::thread::spawn(move || store.serves("prod", &name.parse().unwrap()).is_ok())
    };
    let served = ["ledger", "audit", "stock"].map(serve);
    let served = served.map(|thread| thread.join().unwrap());
    assert_eq!(served.iter().filter(|is_served| **is_served).count(), 1);
}

#[test]
fn a_closed_store_serves_no_participant() {
    let home = Home::new();
    let store = home.open();
    store.close();
    let served = store.serves("prod", &"ledger".parse().unwrap());
    assert!(matches!(served, Err(BranchError::Closed)));
}
