//! What a start reads.

use std::collections::BTreeMap;
use std::ops::Bound;

use fjall::Keyspace;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::paxos::log::LogRecord;
use crate::protocol::replica::Record;
use crate::protocol::types::{
    CommitId, Configuration, Entered, Entry, Generations, InitiatorId, Listed, ParticipantName,
    Unapplied,
};

use super::error::RecallError;
use super::layout::{self, Joining, KeyReader, Tag, Transaction, Wrong};
use super::ledger::Ledger;

/// How many saves have left their number as a key: a hole among them is noticed. A save that is not
/// yet in a table of the database, but only in its journal, is among them: a memtable has room for
/// some 30,000 of the smallest saves, and seldom are there more than two.
pub(super) const TRACES: u64 = 128 * 1024;

/// What is in a store.
#[derive(Default)]
pub(super) struct Found {
    pub(super) lsn: u64,
    pub(super) peers: BTreeMap<ReplicaId, u64>,
    pub(super) ledger: Ledger,
    /// How far the dead keys are removed.
    pub(super) swept: Option<Vec<u8>>,
    pub(super) records: Vec<Record>,
    pub(super) highest: BTreeMap<(u32, InitiatorId), u32>,
}

/// Why nothing can be made of it.
pub(super) enum LoadError {
    Unreadable(RecallError),
    /// A save is missing.
    Hole {
        missing: u64,
    },
}

impl<E: Into<RecallError>> From<E> for LoadError {
    fn from(error: E) -> Self {
        LoadError::Unreadable(error.into())
    }
}

/// Goes through a store once. What is settled is not looked at, and of what is finished no more than
/// one transaction at a time is held.
pub(super) fn load(
    keyspace: &Keyspace,
    genesis: Option<Configuration>,
) -> Result<Found, LoadError> {
    let mut found = Found {
        lsn: last_save(keyspace)?,
        ..Found::default()
    };
    found.ledger.generations = genesis.map(Generations::genesis).unwrap_or_default();
    let rare = Rare::read(keyspace, &mut found)?;
    rare.into_records(&mut found);
    let horizon = found.ledger.generations.horizon();
    let start = match horizon {
        Some(horizon) => layout::key_after(horizon),
        None => layout::key(Tag::Transaction),
    };
    read_transactions(keyspace, &start, &mut found)?;
    Ok(found)
}

/// The last save, and that none is missing before it.
fn last_save(keyspace: &Keyspace) -> Result<u64, LoadError> {
    let traces = keyspace.prefix(layout::key(Tag::Lsn)).rev();
    let mut last = None;
    let mut lowest = None;
    for guard in traces.take(TRACES as usize) {
        let (key, value) = guard.into_inner().map_err(RecallError::from)?;
        let number = checked(&key, || {
            let mut reader = KeyReader::new(&key)?;
            let number = reader.u64()?;
            reader.end()?;
            let () = layout::content(&key, &value)?;
            Ok(number)
        })?;
        if let Some(next) = lowest
            && number + 1 != next
        {
            let missing = next - 1;
            return Err(LoadError::Hole { missing });
        }
        lowest = Some(number);
        last = last.or(Some(number));
    }
    let (Some(last), Some(lowest)) = (last, lowest) else {
        let key = layout::key(Tag::Lsn);
        return Err(RecallError::new(&key, Wrong::Missing).into());
    };
    if lowest != (last + 1).saturating_sub(TRACES) {
        let missing = lowest - 1;
        return Err(LoadError::Hole { missing });
    }
    Ok(last)
}

/// Runs `read`, and says whose fault it is when something is wrong.
fn checked<T>(key: &[u8], read: impl FnOnce() -> Result<T, Wrong>) -> Result<T, RecallError> {
    read().map_err(|wrong| RecallError::new(key, wrong))
}

/// A content in pieces, of which only the last in order counts.
struct Latest<T> {
    name: Vec<u8>,
    joining: Joining,
    value: Option<T>,
}

impl<T: serde::de::DeserializeOwned> Latest<T> {
    fn new() -> Self {
        Latest {
            name: Vec::new(),
            joining: Joining::default(),
            value: None,
        }
    }

    /// The piece's number ends the key; what stands before is the name of the whole.
    fn add(&mut self, key: &[u8], value: &[u8], number: u16) -> Result<(), RecallError> {
        let name = &key[..key.len() - size_of::<u16>()];
        if name != self.name {
            self.end()?;
            self.name = name.to_vec();
        }
        checked(key, || self.joining.add(key, value, number))
    }

    fn end(&mut self) -> Result<(), RecallError> {
        let joining = std::mem::take(&mut self.joining);
        if !self.name.is_empty() {
            self.value = Some(checked(&self.name, || joining.end())?);
        }
        Ok(())
    }
}

/// What is not a transaction's, as far as the ledger does not hold it.
struct Rare {
    accept: Latest<Entry>,
    generations: Latest<Generations>,
    listed: BTreeMap<CommitId, Unapplied>,
    stores: Vec<(ParticipantName, Entered)>,
}

impl Rare {
    fn new() -> Self {
        Rare {
            accept: Latest::new(),
            generations: Latest::new(),
            listed: BTreeMap::new(),
            stores: Vec::new(),
        }
    }

    fn read(keyspace: &Keyspace, found: &mut Found) -> Result<Self, RecallError> {
        let mut rare = Rare::new();
        let (start, end) = (layout::key(Tag::Peer), layout::key(Tag::Transaction));
        for guard in keyspace.range(start..end) {
            let (key, value) = guard.into_inner()?;
            rare.add(&key, &value, found)?;
        }
        rare.end(found)?;
        Ok(rare)
    }

    /// All of it was read.
    fn end(&mut self, found: &mut Found) -> Result<(), RecallError> {
        self.accept.end()?;
        self.generations.end()?;
        if let Some(generations) = self.generations.value.take() {
            found.ledger.generations = generations;
        }
        found.ledger.stores = self.stores.drain(..).collect();
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8], found: &mut Found) -> Result<(), RecallError> {
        let mut reader = checked(key, || KeyReader::new(key))?;
        let ledger = &mut found.ledger;
        let empty = || layout::content::<()>(key, value);
        match checked(key, || Tag::of(key))? {
            Tag::Peer => checked(key, || {
                let lsn = layout::content(key, value)?;
                found.peers.insert(ReplicaId(reader.u32()?), lsn);
                reader.end()
            }),
            Tag::Round => checked(key, || {
                ledger.round = ledger.round.max(reader.u64()?);
                reader.end().and_then(|()| empty())
            }),
            Tag::LogRound => checked(key, || {
                ledger.log_round = ledger.log_round.max(reader.u64()?);
                reader.end().and_then(|()| empty())
            }),
            Tag::LogPromise => checked(key, || {
                ledger.log_promise = ledger.log_promise.max(Some(reader.ballot()?));
                reader.end().and_then(|()| empty())
            }),
            Tag::LogAccept => {
                let number = checked(key, || {
                    ledger.log_accept = Some((reader.u64()?, reader.ballot()?));
                    let number = reader.piece()?;
                    reader.end().map(|()| number)
                })?;
                ledger.accept_keys.push(key.to_vec());
                self.accept.add(key, value, number)
            }
            Tag::Frozen => checked(key, || {
                ledger.frozen.insert(reader.u32()?);
                reader.end().and_then(|()| empty())
            }),
            Tag::Generations => {
                let number = checked(key, || {
                    reader.u64()?;
                    let number = reader.piece()?;
                    reader.end().map(|()| number)
                })?;
                ledger.generations_keys.push(key.to_vec());
                self.generations.add(key, value, number)
            }
            Tag::Listed => checked(key, || {
                let id = reader.id()?;
                ledger.listed.insert(id);
                self.listed.insert(id, layout::content(key, value)?);
                reader.end()
            }),
            Tag::Disputed => checked(key, || {
                ledger.disputed.insert(reader.id()?);
                reader.end().and_then(|()| empty())
            }),
            Tag::Store => checked(key, || {
                let name = reader.name()?;
                self.stores.push((name, layout::content(key, value)?));
                Ok(())
            }),
            Tag::Swept => checked(key, || {
                found.swept = Some(layout::content(key, value)?);
                reader.end()
            }),
            // The range that is read ends before them.
            Tag::Lsn | Tag::Transaction => checked(key, || Err(Wrong::Key)),
        }
    }

    fn into_records(self, found: &mut Found) {
        let ledger = &found.ledger;
        let records = &mut found.records;
        if ledger.generations.slot() > 0 {
            let listed = self.listed.into_iter();
            records.push(Record::State {
                generations: ledger.generations.clone(),
                listed: listed
                    .map(|(id, unapplied)| Listed { id, unapplied })
                    .collect(),
                stores: ledger.stores.clone(),
            });
        }
        let disputed = ledger.disputed.iter();
        records.extend(disputed.map(|id| Record::Disputed { id: *id }));
        if ledger.round > 0 {
            let round = ledger.round;
            records.push(Record::Round { round });
        }
        if ledger.log_round > 0 {
            let round = ledger.log_round;
            records.push(Record::Log(LogRecord::Round { round }));
        }
        if let Some(ballot) = ledger.log_promise {
            records.push(Record::Log(LogRecord::Promise { ballot }));
        }
        if let (Some((slot, ballot)), Some(entry)) = (ledger.log_accept, self.accept.value) {
            records.push(Record::Log(LogRecord::Accept {
                slot,
                ballot,
                entry,
            }));
        }
        let frozen = ledger.frozen.iter().copied();
        records.extend(frozen.map(|generation| Record::Frozen { generation }));
    }
}

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
/// What a start makes of these keys and values, in order, none of which is a transaction's.
pub(super) fn rare_records(pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<Record>, RecallError> {
    let mut found = Found::default();
    let mut rare = Rare::new();
    for (key, value) in pairs {
        rare.add(key, value, &mut found)?;
    }
    rare.end(&mut found)?;
    rare.into_records(&mut found);
    Ok(found.records)
}

/// Takes note of a transaction of which all was read.
fn add_transaction(id: CommitId, transaction: &mut Transaction, found: &mut Found) {
    let highest = found.highest.entry((id.txn.generation, id.txn.initiator));
    let highest = highest.or_default();
    *highest = id.txn.sequence.max(*highest);
    let mut transaction = std::mem::take(transaction);
    if !transaction.is_finished {
        found.records.append(&mut transaction.records);
    }
}

fn read_transactions(
    keyspace: &Keyspace,
    start: &[u8],
    found: &mut Found,
) -> Result<(), RecallError> {
    let mut current = None;
    let mut transaction = Transaction::default();
    let range = (Bound::Included(start), Bound::Unbounded);
    for guard in keyspace.range::<&[u8], _>(range) {
        let (key, value) = guard.into_inner()?;
        let id = checked(&key, || layout::id_in(&key))?;
        if let Some(before) = current.replace(id)
            && before != id
        {
            add_transaction(before, &mut transaction, found);
        }
        checked(&key, || transaction.add(id, &key, &value))?;
    }
    if let Some(last) = current {
        add_transaction(last, &mut transaction, found);
    }
    Ok(())
}

/// All records of an instance.
///
/// That there are none costs three looks into filters, and no disk; that there are some, one search
/// in each table that may have them.
pub(super) fn recall(keyspace: &Keyspace, id: CommitId) -> Result<Vec<Record>, RecallError> {
    for key in layout::keys_of(id) {
        if keyspace.contains_key(key)? {
            let prefix = layout::key_of_id(Tag::Transaction, id);
            return recall_all(keyspace, &prefix, |_| true);
        }
    }
    Ok(Vec::new())
}

/// All records of live instances under a prefix of the keys of transactions.
pub(super) fn recall_all(
    keyspace: &Keyspace,
    prefix: &[u8],
    is_live: impl Fn(&CommitId) -> bool,
) -> Result<Vec<Record>, RecallError> {
    let mut records = Vec::new();
    let mut current = None;
    let mut transaction = Transaction::default();
    for guard in keyspace.prefix(prefix) {
        let (key, value) = guard.into_inner()?;
        let id = checked(&key, || layout::id_in(&key))?;
        // What is settled is being swept away, key by key: what is left of it may make no sense.
        if !is_live(&id) {
            continue;
        }
        if current.replace(id).is_some_and(|before| before != id) {
            records.append(&mut std::mem::take(&mut transaction).records);
        }
        checked(&key, || transaction.add(id, &key, &value))?;
    }
    records.append(&mut transaction.records);
    Ok(records)
}
