//! Keys and values, to the byte.

use super::layout::{Joining, Transaction, Wrong};
use super::*;
use crate::protocol::types::RosterDigest;

fn keys_and_values(record: &Record) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut written = Vec::new();
    layout::write_transaction(record, |key, value| written.push((key, value)));
    written
}

fn hex(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.concat()
}

fn lowest() -> CommitId {
    let roster = RosterDigest::MIN;
    let txn = id(1, 2).txn;
    CommitId { txn, roster }
}

const ID: &str = "00000001\
                  00000000000000000000000000000007\
                  00000002\
                  0000000000000009\
                  00000000000000000000000000000000";

#[test]
fn golden_bytes() {
    // A change here makes a program that cannot read what the one before has promised.
    let id = lowest();
    let ballot = Ballot::above(0x41, ReplicaId(3)).unwrap();
    let roster = roster(1);
    let record = Record::Vote {
        id,
        index: 5,
        vote: Vote::ReadOnly,
        roster: Some(roster),
    };
    let written = keys_and_values(&record);
    let of_vote: Vec<String> = written.iter().map(|(key, _)| hex(key)).collect();
    assert_eq!(of_vote, [format!("30{ID}02")]);
    let values: Vec<String> = written.iter().map(|(_, value)| hex(value)).collect();
    assert_eq!(
        values,
        ["011f59f95f01066c656467657200000000000000000000000000000000010501"]
    );
    let later = keys_and_values(&Record::Vote {
        id,
        index: 5,
        vote: Vote::ReadOnly,
        roster: None,
    });
    assert_eq!(hex(&later[0].0), format!("30{ID}0405"));
    assert_eq!(hex(&later[0].1), "016a72227801");
    let promise = keys_and_values(&Record::Promise { id, ballot });
    assert_eq!(hex(&promise[0].0), format!("30{ID}03"));
    let expected = format!("30{ID}05000000000000004200000003");
    assert_eq!(hex(&promise[1].0), expected);
    assert_eq!(
        hex(&keys_and_values(&finished(id))[0].0),
        format!("30{ID}01")
    );
    let trace = layout::key_of_u64(Tag::Lsn, 0x1234);
    assert_eq!(hex(&trace), "010000000000001234");
    assert_eq!(hex(&layout::value(&trace, &())), "014273936d");
}

#[test]
fn a_value_under_another_key_or_of_another_version_is_damage() {
    let key = layout::key_of_u64(Tag::Round, 1);
    let other = layout::key_of_u64(Tag::Round, 2);
    let value = layout::value(&key, &7_u64);
    assert_eq!(layout::content(&key, &value), Ok(7_u64));
    let wrong = |key: &[u8], value: &[u8]| layout::content::<u64>(key, value).unwrap_err();
    assert_eq!(wrong(&other, &value), Wrong::Checksum);
    for at in 0..value.len() {
        let mut damaged = value.clone();
        damaged[at] ^= 1;
        assert_eq!(wrong(&key, &damaged), Wrong::Checksum);
    }
    for end in 0..value.len() {
        assert_eq!(wrong(&key, &value[..end]), Wrong::Checksum);
    }
    let newer = of_another_version(&key, &value);
    assert_eq!(wrong(&key, &newer), Wrong::Version(2));
    let longer = layout::value(&key, &(7_u64, 1_u8));
    assert_eq!(wrong(&key, &longer), Wrong::Content);
}

#[test]
fn what_is_cut_is_put_together_or_refused() {
    let content: Vec<u32> = (0..5_000).map(|n| n * 77).collect();
    let pieces = layout::pieces(b"name", &content);
    assert!(pieces.len() > 3);
    let join = |numbers: &[usize]| -> Result<Vec<u32>, Wrong> {
        let mut joining = Joining::default();
        for number in numbers {
            let (key, value) = &pieces[*number];
            joining.add(key, value, *number as u16)?;
        }
        joining.end()
    };
    let all: Vec<usize> = (0..pieces.len()).collect();
    assert_eq!(join(&all), Ok(content));
    assert_eq!(join(&all[..all.len() - 1]), Err(Wrong::Piece));
    assert_eq!(join(&all[1..]), Err(Wrong::Piece));
    assert_eq!(join(&[0, 2]), Err(Wrong::Piece));
    assert_eq!(join(&[]), Err(Wrong::Piece));
}

#[test]
fn of_promises_and_accepts_the_highest_counts() {
    let id = lowest();
    let ballot = |round| Ballot::above(round, ReplicaId(1)).unwrap();
    let accept = |round, outcome| Record::Accept {
        id,
        ballot: ballot(round),
        outcome,
        unapplied: None,
    };
    let promise = |round| Record::Promise {
        id,
        ballot: ballot(round),
    };
    let records = [
        vote(id, 0),
        vote(id, 1),
        promise(0xff),
        promise(1),
        accept(0x100, Outcome::Commit),
        accept(2, Outcome::Abort),
    ];
    let mut written: Vec<_> = records.iter().flat_map(keys_and_values).collect();
    written.sort();
    let mut transaction = Transaction::default();
    for (key, value) in written {
        transaction.add(id, &key, &value).unwrap();
    }
    let expected = [
        vote(id, 0),
        vote(id, 1),
        promise(0xff),
        accept(0x100, Outcome::Commit),
    ];
    assert_eq!(transaction.records, expected);
    assert!(!transaction.is_finished);
}

#[test]
fn a_later_vote_without_the_first_is_refused() {
    let id = lowest();
    let written = keys_and_values(&vote(id, 1));
    let (key, value) = &written[0];
    let mut transaction = Transaction::default();
    assert_eq!(transaction.add(id, key, value), Err(Wrong::FirstVote));
}

#[test]
fn keys_end_where_a_transaction_does() {
    let (one, next) = (id(1, 2), id(1, 3));
    assert!(one < next);
    let end = layout::key_after(one);
    for record in [vote(one, 31), finished(one)] {
        let written = keys_and_values(&record);
        assert!(written.iter().all(|(key, _)| *key < end));
    }
    assert!(end < layout::keys_of(next)[0]);
}
