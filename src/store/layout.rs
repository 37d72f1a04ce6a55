//! Keys and values, byte by byte; [the module's page](super) has the table.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::replica::Record;
use crate::protocol::types::{
    CommitId, Outcome, ParticipantName, Roster, TXN_ID_BYTES, TxnId, Unapplied, Vote,
};

/// The version of a value, its first byte.
pub(super) const VALUE_VERSION: u8 = 1;

/// The version, and the checksum.
pub(super) const HEADER_BYTES: usize = 5;

/// As long as most values are at most.
const VALUE_BYTES_USUAL: usize = 64;

/// The longest piece of a value that is cut. Whole values are shorter than 4 KiB anyway.
const PIECE_BYTES_MAX: usize = 2 * 1024;

/// What a key is about, its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Lsn = 0x01,
    Peer = 0x02,
    Round = 0x10,
    LogRound = 0x11,
    LogPromise = 0x12,
    LogAccept = 0x13,
    Frozen = 0x14,
    Generations = 0x20,
    Listed = 0x21,
    Swept = 0x22,
    Disputed = 0x23,
    Store = 0x24,
    Transaction = 0x30,
}

impl Tag {
    const ALL: [Tag; 13] = [
        Tag::Lsn,
        Tag::Peer,
        Tag::Round,
        Tag::LogRound,
        Tag::LogPromise,
        Tag::LogAccept,
        Tag::Frozen,
        Tag::Generations,
        Tag::Listed,
        Tag::Swept,
        Tag::Disputed,
        Tag::Store,
        Tag::Transaction,
    ];

    pub(super) fn of(key: &[u8]) -> Result<Self, Wrong> {
        let first = *key.first().ok_or(Wrong::Key)?;
        let known = Tag::ALL.into_iter().find(|tag| *tag as u8 == first);
        known.ok_or(Wrong::Key)
    }
}

/// What a record of a transaction says; the byte after the id.
const FINISHED: u8 = 0x01;
const ROSTER: u8 = 0x02;
const BALLOT: u8 = 0x03;
const VOTE: u8 = 0x04;
const PROMISE: u8 = 0x05;
const ACCEPT: u8 = 0x06;
const COMMITTED: u8 = 0x07;

/// The first byte that follows an id in no key.
const AFTER_KINDS: u8 = 0x08;

/// One of these is there if anything is.
///
/// Whether a key is in a table its filter tells in a fraction of a microsecond; that there is none in
/// a *range* takes a search in every table. So what a transaction can begin with leaves a key that can
/// be named: the first vote, and a ballot a key of its own.
const KINDS_NAMED: [u8; 3] = [FINISHED, ROSTER, BALLOT];

/// What is wrong with a key or value that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("no such key is ever written")]
    Key,
    #[error("its checksum does not match")]
    Checksum,
    #[error("its version is {0}, this program knows {VALUE_VERSION}")]
    Version(u8),
    #[error("its content cannot be decoded")]
    Content,
    #[error("a piece of it is missing")]
    Piece,
    #[error("the first vote of its transaction is missing")]
    FirstVote,
    #[error("it is missing")]
    Missing,
}

/// A key under construction.
pub(super) fn key(tag: Tag) -> Vec<u8> {
    vec![tag as u8]
}

pub(super) fn key_of_u32(tag: Tag, number: u32) -> Vec<u8> {
    [&[tag as u8][..], &number.to_be_bytes()].concat()
}

pub(super) fn key_of_u64(tag: Tag, number: u64) -> Vec<u8> {
    [&[tag as u8][..], &number.to_be_bytes()].concat()
}

pub(super) fn key_of_promise(ballot: Ballot) -> Vec<u8> {
    [&[Tag::LogPromise as u8][..], &ballot_bytes(ballot)].concat()
}

pub(super) fn key_of_accept(slot: u64, ballot: Ballot) -> Vec<u8> {
    let slot = slot.to_be_bytes();
    [
        &[Tag::LogAccept as u8][..],
        &slot[..],
        &ballot_bytes(ballot),
    ]
    .concat()
}

pub(super) fn key_of_name(tag: Tag, name: &ParticipantName) -> Vec<u8> {
    [&[tag as u8][..], name.as_str().as_bytes()].concat()
}

pub(super) fn key_of_id(tag: Tag, id: CommitId) -> Vec<u8> {
    [&[tag as u8][..], &id.to_be_bytes()].concat()
}

/// What the keys of all records of a transaction begin with, whatever its roster.
pub(super) fn prefix_of_txn(txn: TxnId) -> Vec<u8> {
    let roster = crate::protocol::types::RosterDigest::MIN;
    let mut prefix = key_of_id(Tag::Transaction, CommitId { txn, roster });
    prefix.truncate(1 + TXN_ID_BYTES);
    prefix
}

/// The first key that is greater than all keys of transactions up to `id`.
pub(super) fn key_after(id: CommitId) -> Vec<u8> {
    key_of_record(id, AFTER_KINDS, &[])
}

fn key_of_record(id: CommitId, kind: u8, rest: &[u8]) -> Vec<u8> {
    [
        &[Tag::Transaction as u8][..],
        &id.to_be_bytes(),
        &[kind],
        rest,
    ]
    .concat()
}

fn ballot_bytes(ballot: Ballot) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&ballot.round.to_be_bytes());
    bytes[8..].copy_from_slice(&ballot.replica.0.to_be_bytes());
    bytes
}

/// Reads a key from its front to its end.
pub(super) struct KeyReader<'k>(&'k [u8]);

impl<'k> KeyReader<'k> {
    /// Past the tag.
    pub(super) fn new(key: &'k [u8]) -> Result<Self, Wrong> {
        Ok(KeyReader(key.get(1..).ok_or(Wrong::Key)?))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Wrong::Key)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Wrong> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Wrong> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    pub(super) fn ballot(&mut self) -> Result<Ballot, Wrong> {
        Ok(Ballot {
            round: self.u64()?,
            replica: ReplicaId(self.u32()?),
        })
    }

    pub(super) fn id(&mut self) -> Result<CommitId, Wrong> {
        Ok(CommitId::from_be_bytes(self.take()?))
    }

    /// All that is left.
    pub(super) fn name(&mut self) -> Result<ParticipantName, Wrong> {
        let bytes = std::mem::take(&mut self.0);
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::Key)?;
        text.parse().map_err(|_| Wrong::Key)
    }

    pub(super) fn piece(&mut self) -> Result<u16, Wrong> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    pub(super) fn end(self) -> Result<(), Wrong> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Wrong::Key)
        }
    }
}

/// The checksum covers the key too: a value that stands under another's key is damage.
pub(super) fn checksum(version: u8, key: &[u8], payload: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[version]);
    crc.update(key);
    crc.update(payload);
    crc.finalize().to_be_bytes()
}

pub(super) fn value_of_bytes(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
    value.push(VALUE_VERSION);
    value.extend_from_slice(&checksum(VALUE_VERSION, key, payload));
    value.extend_from_slice(payload);
    value
}

fn payload_of<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], Wrong> {
    let (header, payload) = value
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(Wrong::Checksum)?;
    let [version, crc @ ..] = header;
    if *crc != checksum(*version, key, payload) {
        return Err(Wrong::Checksum);
    }
    if *version != VALUE_VERSION {
        return Err(Wrong::Version(*version));
    }
    Ok(payload)
}

/// The value for `key`.
pub(super) fn value<T: Serialize + ?Sized>(key: &[u8], content: &T) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE_BYTES_USUAL);
    value.extend_from_slice(&[VALUE_VERSION, 0, 0, 0, 0]);
    let mut value = extended(value, content);
    let (header, payload) = value.split_at_mut(HEADER_BYTES);
    header[1..].copy_from_slice(&checksum(VALUE_VERSION, key, payload));
    value
}

fn encoded<T: Serialize + ?Sized>(content: &T) -> Vec<u8> {
    extended(Vec::with_capacity(VALUE_BYTES_USUAL), content)
}

fn extended<T: Serialize + ?Sized>(bytes: Vec<u8>, content: &T) -> Vec<u8> {
    postcard::to_extend(content, bytes)
        .expect("records are plain data, which postcard always encodes")
}

/// What stands under `key`.
pub(super) fn content<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Wrong> {
    decoded(payload_of(key, value)?)
}

fn decoded<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Wrong> {
    match postcard::take_from_bytes(payload) {
        Ok((content, [])) => Ok(content),
        Ok((_, _)) | Err(_) => Err(Wrong::Content),
    }
}

/// Keys and values of a content that may be long, cut into pieces. Each key ends with the number of
/// its piece, each value begins with how many there are.
pub(super) fn pieces<T: Serialize>(prefix: &[u8], content: &T) -> Vec<(Vec<u8>, Vec<u8>)> {
    let whole = encoded(content);
    let cut = whole.chunks(PIECE_BYTES_MAX);
    let count = u16::try_from(cut.len()).expect("no record has 128 MiB");
    let piece = |(number, bytes): (u16, &[u8])| {
        let key = [prefix, &number.to_be_bytes()].concat();
        let value = value_of_bytes(&key, &[&count.to_be_bytes()[..], bytes].concat());
        (key, value)
    };
    (0..).zip(cut).map(piece).collect()
}

/// A content put together from its pieces, in order.
#[derive(Default)]
pub(super) struct Joining {
    bytes: Vec<u8>,
    count: u16,
    next: u16,
}

impl Joining {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8], number: u16) -> Result<(), Wrong> {
        let payload = payload_of(key, value)?;
        let (count, bytes) = payload.split_first_chunk().ok_or(Wrong::Content)?;
        let count = u16::from_be_bytes(*count);
        if number != self.next || (number > 0 && count != self.count) {
            return Err(Wrong::Piece);
        }
        self.count = count;
        self.next = self.next.checked_add(1).ok_or(Wrong::Piece)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn end<T: DeserializeOwned>(self) -> Result<T, Wrong> {
        if self.next == 0 || self.next != self.count {
            return Err(Wrong::Piece);
        }
        decoded(&self.bytes)
    }
}

/// Keys of one of which at least there is a value, if there is any record of `id`.
pub(super) fn keys_of(id: CommitId) -> [Vec<u8>; 3] {
    KINDS_NAMED.map(|kind| key_of_record(id, kind, &[]))
}

/// Whose record it is, if it is one of a transaction.
pub(super) fn id_of(record: &Record) -> Option<CommitId> {
    match record {
        Record::Vote { id, .. }
        | Record::Promise { id, .. }
        | Record::Accept { id, .. }
        | Record::Committed { id, .. }
        | Record::Finished { id, .. } => Some(*id),
        Record::Disputed { .. }
        | Record::Round { .. }
        | Record::Log(_)
        | Record::Frozen { .. }
        | Record::Chosen { .. }
        | Record::State { .. } => None,
    }
}

/// Hands the keys and values of a record of a transaction to `put`; none for the ledger's.
pub(super) fn write_transaction(record: &Record, mut put: impl FnMut(Vec<u8>, Vec<u8>)) {
    match record {
        // One key for both: there is one first vote.
        Record::Vote {
            id,
            index,
            vote,
            roster: Some(roster),
        } => write(id, ROSTER, &[], &(roster, index, vote), put),
        Record::Vote {
            id,
            index,
            vote,
            roster: None,
        } => write(id, VOTE, &[*index], vote, put),
        Record::Promise { id, ballot } => {
            write(id, BALLOT, &[], &(), &mut put);
            write(id, PROMISE, &ballot_bytes(*ballot), &(), put);
        }
        Record::Accept {
            id,
            ballot,
            outcome,
            unapplied,
        } => {
            write(id, BALLOT, &[], &(), &mut put);
            let content = (outcome, unapplied);
            write(id, ACCEPT, &ballot_bytes(*ballot), &content, put);
        }
        Record::Committed { id, unapplied } => {
            write(id, BALLOT, &[], &(), &mut put);
            write(id, COMMITTED, &[], unapplied, put);
        }
        Record::Finished { id, outcome } => write(id, FINISHED, &[], outcome, put),
        Record::Disputed { .. }
        | Record::Round { .. }
        | Record::Log(_)
        | Record::Frozen { .. }
        | Record::Chosen { .. }
        | Record::State { .. } => {}
    }
}

fn write<T: Serialize>(
    id: &CommitId,
    kind: u8,
    rest: &[u8],
    content: &T,
    mut put: impl FnMut(Vec<u8>, Vec<u8>),
) {
    let key = key_of_record(*id, kind, rest);
    let value = value(&key, content);
    put(key, value);
}

/// The id that a key of a transaction begins with.
pub(super) fn id_in(key: &[u8]) -> Result<CommitId, Wrong> {
    match Tag::of(key)? {
        Tag::Transaction => KeyReader::new(key)?.id(),
        Tag::Lsn
        | Tag::Peer
        | Tag::Round
        | Tag::LogRound
        | Tag::LogPromise
        | Tag::LogAccept
        | Tag::Frozen
        | Tag::Generations
        | Tag::Listed
        | Tag::Swept
        | Tag::Disputed
        | Tag::Store => Err(Wrong::Key),
    }
}

/// The records of one transaction, from its keys in order.
#[derive(Default)]
pub(super) struct Transaction {
    /// Of promises and accepts the highest alone counts, and comes last.
    pub(super) records: Vec<Record>,
    pub(super) is_finished: bool,
}

impl Transaction {
    /// Takes the next key, which is one of `id`.
    pub(super) fn add(&mut self, id: CommitId, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let mut reader = KeyReader::new(key)?;
        reader.id()?;
        let [kind] = reader.take()?;
        let payload = payload_of(key, value)?;
        match kind {
            FINISHED => {
                let outcome: Outcome = decoded(payload)?;
                self.is_finished = true;
                self.records.push(Record::Finished { id, outcome });
            }
            ROSTER => {
                let (roster, index, vote): (Roster, u8, Vote) = decoded(payload)?;
                self.records.push(Record::Vote {
                    id,
                    index,
                    vote,
                    roster: Some(roster),
                });
            }
            BALLOT => decoded(payload)?,
            VOTE => {
                let [index] = reader.take()?;
                let is_vote = |record: &Record| matches!(record, Record::Vote { .. });
                if !self.records.iter().any(is_vote) {
                    return Err(Wrong::FirstVote);
                }
                self.records.push(Record::Vote {
                    id,
                    index,
                    vote: decoded(payload)?,
                    roster: None,
                });
            }
            PROMISE => {
                let ballot = reader.ballot()?;
                let () = decoded(payload)?;
                let older = |record: &mut Record| matches!(record, Record::Promise { .. });
                self.records.pop_if(older);
                self.records.push(Record::Promise { id, ballot });
            }
            ACCEPT => {
                let ballot = reader.ballot()?;
                let (outcome, unapplied): (Outcome, Option<Unapplied>) = decoded(payload)?;
                let older = |record: &mut Record| matches!(record, Record::Accept { .. });
                self.records.pop_if(older);
                self.records.push(Record::Accept {
                    id,
                    ballot,
                    outcome,
                    unapplied,
                });
            }
            COMMITTED => {
                let unapplied: Unapplied = decoded(payload)?;
                self.records.push(Record::Committed { id, unapplied });
            }
            0x00 | AFTER_KINDS.. => return Err(Wrong::Key),
        }
        reader.end()
    }
}
