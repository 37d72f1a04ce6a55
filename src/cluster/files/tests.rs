//! Files of a cluster.

use super::*;
use crate::config::{ReplicaSettings, load_access};

fn member(id: u32) -> Member {
    Member {
        id: ReplicaId(id),
        address: format!("host{id}:7401").parse().unwrap(),
    }
}

fn create(folder: &Path, addresses: [&str; 3]) -> Result<ClusterFiles, FilesError> {
    let members = (1..).zip(addresses).map(|(id, address)| Member {
        id: ReplicaId(id),
        address: address.parse().expect(address),
    });
    ClusterFiles::create(folder, "c".parse().expect("a name"), members.collect())
}

#[test]
fn replicas_listen_where_they_can_be_reached() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = ["[::1]:7401", "[2001:db8::1]:7402", "one.example:7403"];
    let files = create(folder.path(), addresses).unwrap();
    let listens = [1, 2, 3].map(|id| {
        let file = files.replica_file(ReplicaId(id));
        let settings = ReplicaSettings::load(&file).unwrap();
        settings.listen.to_string()
    });
    assert_eq!(listens, ["[::1]:7401", "[::]:7402", "[::]:7403"]);
}

#[test]
fn nothing_is_written_for_addresses_that_nobody_can_dial() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    for wrong in ["http://three:7401", "three:0", "three", "::1", "one:7401"] {
        let error = create(&dir, ["one:7401", "two:7401", wrong]).expect_err(wrong);
        let text = error.to_string();
        assert!(text.starts_with("expected"), "{wrong}: {text}");
        assert!(!dir.exists(), "{wrong}");
    }
}

#[test]
fn identities_are_told_of_a_change_and_keep_what_was_changed_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let members = (1..=3).map(member).collect();
    let name = "c".parse().unwrap();
    let mut files = ClusterFiles::create(folder.path(), name, members).unwrap();
    let ledger = files.issue(Role::Participant("ledger".parse().unwrap()));
    let ledger = ledger.unwrap();
    let shop = files
        .issue(Role::Initiator("shop".parse().unwrap()))
        .unwrap();
    // Somebody keeps the key elsewhere.
    let elsewhere = folder.path().join("elsewhere.key");
    fs::rename(ledger.with_file_name("participant.key"), &elsewhere).unwrap();
    let text = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, text.replace("participant.key", "../elsewhere.key")).unwrap();

    let after: Vec<Member> = [2, 3, 4].map(member).into();
    let mut changed = vec![ledger.clone(), shop.clone()];
    changed.sort();
    let rewritten = files.set_members(after.clone()).unwrap();
    assert_eq!(rewritten.changed, changed);
    assert!(rewritten.failed.is_empty());
    // A file that cannot be read is reported, not passed over.
    let unreadable = files.issue(Role::Operator("x".parse().unwrap())).unwrap();
    fs::write(&unreadable, [0xff]).unwrap();
    let rewritten = files.set_members(after.clone()).unwrap();
    let [error] = &rewritten.failed[..] else {
        panic!("{rewritten:?}");
    };
    assert!(error.to_string().contains(unreadable.to_str().unwrap()));
    for path in [ledger, shop] {
        assert_eq!(load_access(&path).unwrap().replicas, after);
    }
    let opened = ClusterFiles::open(folder.path()).unwrap();
    assert_eq!(opened.members(), after);
}

/// One that joins is tuned as the others are. It is noted until it has joined, and its folder is whole
/// or not there: an attempt that was cut short is made again.
#[test]
fn a_replica_that_joins_has_the_settings_of_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let members: Vec<Member> = (1..=3).map(member).collect();
    let name = "c".parse().unwrap();
    let mut files = ClusterFiles::create(folder.path(), name, members.clone()).unwrap();
    let first = files.replica_file(ReplicaId(1));
    let text = fs::read_to_string(&first).unwrap();
    let text = text.replace("data = ", "http = \"127.0.0.1:9401\"\ndata = ");
    fs::write(&first, text + "\n[tuning]\ngrace_s = 7\n").unwrap();
    fs::create_dir(folder.path().join("replica-4.new")).unwrap();
    let made = files.add_replica(&member(4), Some(ReplicaId(1))).unwrap();
    let settings = ReplicaSettings::load(&made).unwrap();
    assert_eq!(settings.tuning.grace.as_secs(), 7);
    assert_eq!(settings.http, Some("127.0.0.1:9401".parse().unwrap()));
    assert_eq!(settings.access.replicas, members);
    let mut files = ClusterFiles::open(folder.path()).unwrap();
    assert_eq!(files.joining(), [member(4)]);
    assert_eq!(files.add_replica(&member(4), None).unwrap(), made, "again");
    let after: Vec<Member> = [2, 3, 4].map(member).into();
    files.set_members(after).unwrap();
    assert_eq!(files.joining(), []);
    // Where its settings cannot be read there is no replica, until they can.
    let right = fs::read_to_string(&first).unwrap();
    fs::write(&first, "[tuning").unwrap();
    for _ in 0..2 {
        files
            .add_replica(&member(6), Some(ReplicaId(1)))
            .unwrap_err();
        assert!(!files.replica_file(ReplicaId(6)).exists());
    }
    fs::write(&first, right).unwrap();
    let made = files.add_replica(&member(6), Some(ReplicaId(1))).unwrap();
    let settings = ReplicaSettings::load(&made).unwrap();
    assert_eq!(settings.tuning.grace.as_secs(), 7);
    files.forget_joining(ReplicaId(6)).unwrap();
    // Another one never joins.
    files.add_replica(&member(5), None).unwrap();
    files.forget_joining(ReplicaId(5)).unwrap();
    assert!(!folder.path().join("replica-5").exists());
    assert_eq!(ClusterFiles::open(folder.path()).unwrap().joining(), []);
}
