//! The bytes on disk, for a fuzzer; see `crate::fuzzing`.

use crate::protocol::replica::Record;

use super::identity::Identity;
use super::layout::{self, Tag, Transaction};
use super::{highwater, load};

/// The keys and values of a store: each a length of one byte and the key, a length of two and the
/// content. They get their checksums here, which no fuzzer finds. If the first byte is odd they get
/// none.
pub(crate) fn records(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else {
        return false;
    };
    let pairs = pairs(rest);
    let (transactions, rare): (Vec<_>, Vec<_>) = pairs
        .into_iter()
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, content)| match first % 2 {
            0 => (key.to_vec(), layout::value_of_bytes(key, content)),
            _ => (key.to_vec(), content.to_vec()),
        })
        .partition(|(key, _)| key[0] == Tag::Transaction as u8);
    let rare = load::rare_records(&rare).is_ok_and(|records| !records.is_empty());
    let records = transaction_records(&transactions);
    if let Some(records) = &records {
        let mut again = Vec::new();
        for record in records {
            layout::write_transaction(record, |key, value| again.push((key, value)));
        }
        // One key may be written twice, with the same value.
        again.sort();
        again.dedup();
        assert_eq!(transaction_records(&again).as_ref(), Some(records));
    }
    rare || records.is_some_and(|records| !records.is_empty())
}

/// In the order of the keys, each of which a store holds once.
fn pairs(mut bytes: &[u8]) -> std::collections::BTreeMap<&[u8], &[u8]> {
    let mut pairs = std::collections::BTreeMap::new();
    let mut take = |length_bytes: usize| {
        let (length, rest) = bytes.split_at_checked(length_bytes)?;
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (taken, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(taken)
    };
    while let Some(key) = take(1)
        && let Some(content) = take(2)
    {
        pairs.insert(key, content);
    }
    pairs
}

/// The records of all transactions; None if a start would be refused.
fn transaction_records(pairs: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    let mut current = None;
    let mut transaction = Transaction::default();
    for (key, value) in pairs {
        let id = layout::id_in(key).ok()?;
        if current.replace(id).is_some_and(|before| before != id) {
            records.append(&mut std::mem::take(&mut transaction).records);
        }
        transaction.add(id, key, value).ok()?;
    }
    records.append(&mut transaction.records);
    Some(records)
}

/// An identity file, once as it is, once with the right head before it.
pub(crate) fn identity(bytes: &[u8]) -> bool {
    let sealed = Identity::sealed(bytes);
    let mut read = false;
    for file in [bytes, &sealed] {
        if let Ok(identity) = Identity::from_bytes(file) {
            let again = Identity::from_bytes(&identity.to_bytes());
            assert_eq!(again.ok(), Some(identity));
            read = true;
        }
    }
    read
}

/// A slot of the high-water file, once as it is, once with the right magic and checksum.
pub(crate) fn highwater(bytes: &[u8]) -> bool {
    let read = highwater::complete(bytes);
    if let Some(complete) = read {
        assert_eq!(highwater::complete(&highwater::slot(complete)), read);
    }
    if let Some((number, _)) = bytes.split_first_chunk() {
        let number = u64::from_be_bytes(*number);
        assert_eq!(highwater::complete(&highwater::slot(number)), Some(number));
    }
    read.is_some()
}

/// Real ones, for `records`, `identity` and `highwater`.
#[cfg(test)]
pub(crate) fn seeds() -> [Vec<Vec<u8>>; 3] {
    use crate::protocol::paxos::log::LogRecord;
    use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};
    use crate::protocol::types::{
        BranchSet, CommitId, Configuration, Entry, Generations, Listed, Open, Outcome, Roster,
        TxnId, Unapplied, Vote,
    };

    let configuration: Configuration = Acceptors::new([1, 2, 3].map(ReplicaId)).unwrap().into();
    let txn: TxnId = "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef"
        .parse()
        .unwrap();
    let branches = [
        "a/0000000000000001/00112233445566778899aabbccddeeff",
        "ledger/00000000deadbeef/00112233445566778899aabbccddeeff",
    ];
    let roster = Roster::new(branches.map(|branch| branch.parse().unwrap())).unwrap();
    let id = CommitId::new(txn, &roster);
    let unapplied = Unapplied {
        roster: roster.clone(),
        read_only: BranchSet::of(1),
    };
    let ballot = Ballot::above(0x41, ReplicaId(3)).unwrap();
    let entry = Entry::Open(Open {
        generation: 2,
        configuration: configuration.clone(),
    });
    let vote = |index: u8, vote| Record::Vote {
        id,
        index,
        vote,
        roster: (index == 0).then(|| roster.clone()),
    };
    let mut generations = Generations::genesis(configuration.clone());
    generations.apply(&entry);
    let sets = [
        vec![vote(0, Vote::Prepared), vote(1, Vote::ReadOnly)],
        vec![
            Record::Promise { id, ballot },
            Record::Accept {
                id,
                ballot,
                outcome: Outcome::Commit,
                unapplied: Some(unapplied.clone()),
            },
            Record::Committed {
                id,
                unapplied: unapplied.clone(),
            },
        ],
        vec![Record::Finished {
            id,
            outcome: Outcome::Abort,
        }],
        vec![
            Record::Round { round: 7 },
            Record::Log(LogRecord::Round { round: 8 }),
            Record::Log(LogRecord::Promise { ballot }),
            Record::Log(LogRecord::Accept {
                slot: 3,
                ballot,
                entry,
            }),
            Record::Frozen { generation: 1 },
        ],
        vec![Record::State {
            generations,
            listed: vec![Listed { id, unapplied }],
            stores: Default::default(),
        }],
    ];
    let records = sets.into_iter().map(|set| packed(0, keys_and_values(set)));
    let identity = Identity::new("bank", ReplicaId(1), Some(configuration), [7; 64]).unwrap();
    let slot = highwater::slot(9);
    [
        records.collect(),
        vec![identity.to_bytes()],
        vec![slot.to_vec(), slot[..28].to_vec()],
    ]
}

/// What a store writes for them.
#[cfg(test)]
fn keys_and_values(records: Vec<Record>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut ledger = super::ledger::Ledger::default();
    let mut written = Vec::new();
    for record in records {
        layout::write_transaction(&record, |key, value| written.push((key, value)));
        ledger.apply(record);
    }
    let changes = ledger.take_changes().into_iter();
    written.extend(changes.filter_map(|(key, value)| Some((key, value?))));
    written
}

/// An input for [`records`]. The content is what stands behind version and checksum.
#[cfg(test)]
fn packed(first: u8, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let mut packed = vec![first];
    for (key, value) in pairs {
        let content = &value[5..];
        packed.push(key.len() as u8);
        packed.extend(&key);
        packed.extend((content.len() as u16).to_be_bytes());
        packed.extend(content);
    }
    packed
}
