//! The store of a replica.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use paxos_commit::protocol::paxos::log::LogRecord;
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, Configuration, Entry, Generations, InitiatorId, Listed, Open,
    Outcome, Roster, Session, Settle, StoreId, TxnId, Unapplied, Vote,
};
use paxos_commit::store::{Identity, Loaded, OpenError, Store};

use super::{Class, Content, Facts, Found, Refusal, Specimen, scratch};
use crate::files;
use crate::harness::Knobs;

/// How many transactions there are in each generation.
const TRANSACTIONS: u32 = 6;

fn configuration() -> Configuration {
    Acceptors::new([1, 2, 3].map(ReplicaId)).unwrap().into()
}

fn roster() -> Roster {
    let branch = |session| Branch {
        participant: "ledger".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    };
    Roster::new([1, 2].map(branch)).unwrap()
}

fn id(generation: u32, sequence: u32) -> CommitId {
    let txn = TxnId {
        generation,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    };
    CommitId::new(txn, &roster())
}

fn ids() -> impl Iterator<Item = CommitId> {
    let generations = [1, 2];
    generations
        .into_iter()
        .flat_map(|generation| (1..=TRANSACTIONS).map(move |sequence| id(generation, sequence)))
}

fn unapplied() -> Unapplied {
    Unapplied {
        roster: roster(),
        read_only: BranchSet::default(),
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(2),
    }
}

/// What a replica saves of transactions of one generation: some finished, some under way.
fn transactions(generation: u32) -> Vec<Record> {
    let vote = |sequence, index, vote| Record::Vote {
        id: id(generation, sequence),
        index,
        vote,
        roster: (index == 0).then(roster),
    };
    let mut records = Vec::new();
    for sequence in 1..=TRANSACTIONS {
        records.push(vote(sequence, 0, Vote::Prepared));
        if sequence != 3 {
            records.push(vote(sequence, 1, Vote::Prepared));
        }
    }
    let of = |sequence| id(generation, sequence);
    let (commit, abort) = (Outcome::Commit, Outcome::Abort);
    records.extend([
        Record::Finished {
            id: of(1),
            outcome: commit,
        },
        Record::Promise {
            id: of(2),
            ballot: ballot(1),
        },
        Record::Promise {
            id: of(3),
            ballot: ballot(1),
        },
        Record::Accept {
            id: of(2),
            ballot: ballot(1),
            outcome: commit,
            unapplied: Some(unapplied()),
        },
        Record::Accept {
            id: of(3),
            ballot: ballot(2),
            outcome: abort,
            unapplied: None,
        },
        Record::Promise {
            id: of(3),
            ballot: ballot(3),
        },
        Record::Committed {
            id: of(2),
            unapplied: unapplied(),
        },
        Record::Finished {
            id: of(3),
            outcome: abort,
        },
    ]);
    records
}

fn open(slot: u64, generation: u32) -> Record {
    let configuration = configuration();
    let entry = Entry::Open(Open {
        generation,
        configuration,
    });
    Record::Chosen { slot, entry }
}

/// The control log: two generations more, and the first is settled with one commit left over.
fn control() -> Vec<Record> {
    let listed = Listed {
        id: id(1, 2),
        unapplied: unapplied(),
    };
    let settle = Entry::Settle(Box::new(Settle {
        after: None,
        through: Generations::last_id(1),
        unfinished: vec![listed],
    }));
    vec![
        Record::Round { round: 1 },
        Record::Log(LogRecord::Round { round: 1 }),
        Record::Log(LogRecord::Promise { ballot: ballot(1) }),
        open(0, 2),
        Record::Log(LogRecord::Accept {
            slot: 1,
            ballot: ballot(2),
            entry: settle.clone(),
        }),
        open(1, 3),
        Record::Round { round: 4 },
        Record::Frozen { generation: 1 },
        Record::Log(LogRecord::Promise { ballot: ballot(5) }),
        Record::Log(LogRecord::Accept {
            slot: 2,
            ballot: ballot(5),
            entry: settle.clone(),
        }),
        Record::Chosen {
            slot: 2,
            entry: settle,
        },
        Record::Log(LogRecord::Round { round: 3 }),
    ]
}

fn reopen(dir: &Path) -> Result<(Store, Loaded), OpenError> {
    let is_in_use = |error: &OpenError| matches!(error, OpenError::InUse { .. });
    files::open_again(|| Store::open(dir), is_in_use)
}

fn save(store: &Store, records: Vec<Record>) {
    let (done, is_done) = channel();
    store.save(records, move |_| done.send(()).unwrap());
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

/// A closed store with all of that, a save for each record: half in tables, half in the journal.
fn made(dir: &Path) -> Vec<Content> {
    let mut identity = Identity::new("bank", ReplicaId(1), Some(configuration()), [7; 64]).unwrap();
    identity.reset_key[9] = 9;
    Store::init(dir, &identity).unwrap();
    let mut saves = transactions(1);
    saves.extend(control());
    let first = saves.len() * 2 / 3;
    saves.extend(transactions(2));
    saves.push(Record::Finished {
        id: id(1, 2),
        outcome: Outcome::Commit,
    });
    let mut history = vec![look(dir).unwrap()];
    for (number, record) in saves.into_iter().enumerate() {
        let (store, _) = reopen(dir).unwrap();
        if number % 8 == 0 {
            store.remember(ReplicaId(2 + number as u32 / 8 % 2), number as u64);
        }
        save(&store, vec![record]);
        drop(store);
        history.push(look(dir).unwrap());
        if number == first {
            files::flush(&dir.join("database"));
        }
    }
    history
}

/// Everything that is known of what a store holds.
fn look(dir: &Path) -> Found {
    let (store, loaded) = reopen(dir).map_err(refusal)?;
    let mut facts = Facts::new();
    facts.insert(format!(
        "{:?} {:?}",
        loaded.identity, loaded.identity.reset_key
    ));
    facts.extend(loaded.peers.iter().map(|peer| format!("peer {peer:?}")));
    facts.extend(loaded.records.iter().map(|record| format!("{record:?}")));
    facts.extend(
        loaded
            .finished
            .iter()
            .map(|known| format!("known {known:?}")),
    );
    for id in ids() {
        let recalled = store.recall(&id).map_err(|error| Refusal {
            kind: "recall",
            text: format!("{}: {error}", dir.display()),
        })?;
        facts.extend(recalled.iter().map(|record| format!("recalled {record:?}")));
    }
    Ok(Content {
        lsn: Some(loaded.lsn),
        facts,
    })
}

fn refusal(error: OpenError) -> Refusal {
    let kind = match &error {
        OpenError::NoIdentity { .. } => "no identity",
        OpenError::DamagedIdentity { .. } => "damaged identity",
        OpenError::NewerFormat { .. } => "newer format",
        OpenError::Missing { .. } => "a part is missing",
        OpenError::Amnesia { .. } => "behind its own sector",
        OpenError::Rotten { .. } => "its files are not as they were written",
        OpenError::Hole { .. } => "a save is missing",
        OpenError::Damaged { .. } => "a damaged record",
        OpenError::Unreadable { .. } => "the database panicked",
        OpenError::Database { .. } => "the database says so",
        OpenError::Io { .. } => "the system says so",
        _ => "other",
    };
    let text = error.to_string();
    Refusal { kind, text }
}

fn specimen(folder: &Path) -> Specimen {
    let dir = folder.join("replica");
    let history = made(&dir);
    Specimen::new(&dir, history, look)
}

const NEVER: [Class; 6] = [
    Class::Older,
    Class::Resurrected,
    Class::Different,
    Class::Unclear,
    Class::Panic,
    Class::Hang,
];

#[test]
fn a_replica_never_serves_from_a_damaged_store() {
    let knobs = Knobs::new(Duration::from_secs(10));
    let mut rng = knobs.rng();
    let folder = scratch();
    let mut specimen = specimen(folder.path());
    let tally = specimen.run(&mut rng, knobs.duration / 2);
    tally.print("replica, stopped in order", &specimen);
    tally.refuse(&NEVER);
    tally.refuse(&[Class::NoticedByPeers]);
    assert!(tally.count(&Class::Refused("the database says so")) > 0);

    // As a crash of the machine right after the last save leaves it: the sector is one behind.
    let last = specimen.history.last().unwrap().lsn.unwrap();
    specimen.set("highwater", sector(last - 1));
    let tally = specimen.run(&mut rng, knobs.duration / 2);
    tally.print("replica, after a crash of the machine", &specimen);
    tally.refuse(&NEVER);
    assert!(tally.count(&Class::Refused("the database says so")) > 0);
}

/// Both slots of the high-water sector.
fn sector(complete: u64) -> Vec<u8> {
    let mut slot = b"paxos-commit hw1".to_vec();
    slot.extend(complete.to_be_bytes());
    let crc = crc32fast::hash(&slot);
    slot.extend(crc.to_be_bytes());
    slot.resize(4096, 0);
    [&slot[..], &slot[..]].concat()
}

#[test]
fn damage_that_was_planted_in_a_replica_is_told_apart() {
    let folder = scratch();
    let mut specimen = specimen(folder.path());
    assert_eq!(specimen.try_after(&|_| {}).0, Class::Same);
    let cut = |dir: &Path| files::cut(&files::journal(&dir.join("database")), 1);
    let behind = specimen.try_after(&cut).0;
    assert_eq!(behind, Class::Refused("behind its own sector"));
    let without = |kind| specimen.try_without(Path::new(kind)).0;
    assert_eq!(without("identity"), Class::Refused("no identity"));
    assert_eq!(without("highwater"), Class::Refused("a part is missing"));

    // A vote, with another checksum; and with the right one for another vote.
    let key = [&[0x30][..], &id(2, 4).to_be_bytes(), &[0x04, 1]].concat();
    let value =
        |content: &[u8], checksum: u32| [&[1][..], &checksum.to_be_bytes(), content].concat();
    // The third of the votes.
    let content = [2];
    let checksum = crc32fast::hash(&[&[1], &key[..], &content].concat());
    for (checksum, expected) in [
        (checksum, Class::Different),
        (checksum ^ 1, Class::Refused("a damaged record")),
    ] {
        let value = value(&content, checksum);
        let row: (&str, &[u8], &[u8]) = ("records", &key, &value);
        let planted = |dir: &Path| files::plant(&dir.join("database"), &[row]);
        let (class, text) = specimen.try_after(&planted);
        assert_eq!(class, expected, "{text}");
    }
    // A number that stands for a round that was used, and was replaced by a higher one, is not told
    // from nothing; a peer's that was replaced is something that was true.
    let last = specimen.history.last().unwrap().lsn.unwrap();
    specimen.set("highwater", sector(last - 1));
    assert_eq!(specimen.try_after(&cut).0, Class::NoticedByPeers);
}
