//! Work under a transaction: reads and writes with locks.

use std::collections::BTreeMap;
use std::sync::Arc;

use fjall::Slice;

use crate::protocol::types::StoreId;

use super::Store;
use super::attempt::Undo;
use super::error::WorkError;
use super::footprint::Footprint;
use super::locks::{Locks, Owner};
use super::state::{Buffer, Role, State};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// The most rows that one transaction writes.
pub const WRITES_MAX: usize = 16 * 1024;

/// The most bytes, keys and values together, that one transaction writes.
pub const WRITE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most rows and prefixes that one transaction reads. (The rows of a scan count as one.)
pub const READS_MAX: usize = 16 * 1024;

/// The most rows that one scan returns.
pub const SCAN_ROWS_MAX: usize = 64 * 1024;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: Vec<u8>,
    /// At most [`VALUE_BYTES_MAX`] bytes.
    pub value: Vec<u8>,
}

impl Row {
    pub(super) fn new(key: &[u8], value: &[u8]) -> Self {
        Row {
            key: key.to_vec(),
            value: value.to_vec(),
        }
    }
}

/// A handle of the work of one branch in this store.
///
/// All handles of one branch share its reads, writes and locks. Dropping a handle does nothing: the
/// work belongs to the branch, and ends with it. From the moment when the branch is asked to
/// prepare, every operation answers [`WorkError::Ended`].
///
/// **An operation that fails poisons the branch**, as in SQL: it can only vote `Aborted`. See
/// [`WorkError`]; and [`attempt`](Self::attempt) for what may fail.
///
/// The operations do not wait for any lock. They read memory, and, where the store's cache misses,
/// the disk.
pub struct Work {
    pub(super) store: Arc<Store>,
    pub(super) owner: Owner,
    pub(super) role: Role,
    pub(super) scope: Scope,
}

/// What a failure of a handle's operation means.
pub(super) enum Scope {
    /// The branch can only abort.
    Branch,
    /// The attempt is undone, if the caller gives it up.
    Attempt(Undo),
    /// Every operation fails: the branch is one of another store.
    OtherStore { expected: StoreId, got: StoreId },
}

impl Work {
    pub(super) fn new(store: Arc<Store>, owner: Owner, role: Role) -> Self {
        Work {
            store,
            owner,
            role,
            scope: Scope::Branch,
        }
    }

    /// The value of a row, as this transaction sees it; `None` if it is not there.
    ///
    /// Nobody else writes the row until the transaction ends.
    ///
    /// # Errors
    /// [`WorkError::Conflict`] if another transaction writes the row.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, WorkError> {
        self.judged(self.read_row(key.as_ref()))
    }

    fn read_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, WorkError> {
        let key = checked_key(key)?;
        {
            let mut state = self.store.lock();
            let (buffer, locks) = self.enter(&mut state)?;
            if let Some(write) = buffer.footprint.writes.get(&key) {
                return Ok(write.as_ref().map(|value| value.to_vec()));
            }
            if !buffer.footprint.reads.contains(&key) {
                check_reads(&buffer.footprint)?;
                if let Err(held) = locks.share(self.owner, &key) {
                    return Err(state.conflict(&held));
                }
                buffer.footprint.reads.insert(key.clone());
            }
        }
        let value = self.read(|store| store.committed(&key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Sets a row. Nobody else reads or writes it until the transaction ends.
    ///
    /// # Errors
    /// [`WorkError::Conflict`] if another transaction reads or writes the row, or has scanned a
    /// prefix of its key.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), WorkError> {
        let value = value.as_ref();
        let bytes = value.len();
        self.judged(match bytes <= VALUE_BYTES_MAX {
            true => self.write(key.as_ref(), Some(value.into())),
            false => Err(WorkError::Value { bytes }),
        })
    }

    /// Deletes a row, there or not. Nobody else reads or writes it until the transaction ends.
    ///
    /// # Errors
    /// [`WorkError::Conflict`] if another transaction reads or writes the row, or has scanned a
    /// prefix of its key.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), WorkError> {
        self.judged(self.write(key.as_ref(), None))
    }

    /// The rows that start with `prefix`, in the order of their keys, as this transaction sees
    /// them. An empty prefix is that of all rows.
    ///
    /// Nobody else writes such a row, nor adds one, until the transaction ends.
    ///
    /// # Errors
    /// [`WorkError::Conflict`] if another transaction writes such a row.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<Row>, WorkError> {
        self.judged(self.read_rows(prefix.as_ref()))
    }

    fn read_rows(&self, prefix: &[u8]) -> Result<Vec<Row>, WorkError> {
        if prefix.len() > KEY_BYTES_MAX {
            let bytes = prefix.len();
            return Err(WorkError::Key { bytes });
        }
        let prefix = Slice::from(prefix);
        let own = {
            let mut state = self.store.lock();
            let (buffer, locks) = self.enter(&mut state)?;
            if !buffer.footprint.prefixes.contains(&prefix) {
                check_reads(&buffer.footprint)?;
                if let Err(held) = locks.share_prefix(self.owner, &prefix) {
                    return Err(state.conflict(&held));
                }
                buffer.footprint.prefixes.insert(prefix.clone());
            }
            let from = buffer.footprint.writes.range(prefix.clone()..);
            from.take_while(|(key, _)| key.starts_with(&prefix))
                .map(|(key, write)| (key.clone(), write.clone()))
                .collect::<Vec<_>>()
        };
        // One more than may be returned, and one more for each row that this transaction deletes.
        let rows_max = SCAN_ROWS_MAX + own.len() + 1;
        let committed = self.read(|store| store.committed_under(&prefix, rows_max))?;
        let mut rows = BTreeMap::from_iter(committed);
        for (key, write) in own {
            match write {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        if rows.len() > SCAN_ROWS_MAX {
            return Err(WorkError::TooManyRows);
        }
        let rows = rows.iter().map(|(key, value)| Row::new(key, value));
        Ok(rows.collect())
    }

    fn write(&self, key: &[u8], value: Option<Slice>) -> Result<(), WorkError> {
        let key = checked_key(key)?;
        let bytes_of = |key: &Slice, value: &Option<Slice>| {
            key.len() + value.as_ref().map_or(0, |value| value.len())
        };
        let mut state = self.store.lock();
        let (buffer, locks) = self.enter(&mut state)?;
        let writes = &mut buffer.footprint.writes;
        let before = writes.get(&key).map(|value| bytes_of(&key, value));
        let count = writes.len() + usize::from(before.is_none());
        let bytes = buffer.bytes - before.unwrap_or(0) + bytes_of(&key, &value);
        if count > WRITES_MAX || bytes > WRITE_BYTES_MAX {
            return Err(WorkError::TooManyWrites);
        }
        if let Err(held) = locks.exclude(self.owner, &key) {
            return Err(state.conflict(&held));
        }
        let before = writes.insert(key.clone(), value);
        buffer.bytes = bytes;
        if let Scope::Attempt(undo) = &self.scope {
            undo.remember(key, before);
        }
        Ok(())
    }

    /// Reads what a lock protects, and looks whether the lock is still there after that: the branch
    /// may have ended meanwhile, and others may have written.
    fn read<T>(&self, read: impl FnOnce(&Store) -> fjall::Result<T>) -> Result<T, WorkError> {
        let read = read(&self.store);
        let mut state = self.store.lock();
        self.enter(&mut state)?;
        read.map_err(WorkError::Read)
    }

    /// The buffer of this work, and the lock table.
    fn enter<'s>(
        &self,
        state: &'s mut State,
    ) -> Result<(&'s mut Buffer, &'s mut Locks), WorkError> {
        match self.scope {
            Scope::Branch | Scope::Attempt(_) => state.work(self.owner, self.role),
            Scope::OtherStore { expected, got } => Err(WorkError::OtherStore { expected, got }),
        }
    }

    /// What the failure of an operation means for the branch.
    ///
    /// A read counts like a write: its caller has no data, and what it writes instead is a guess.
    fn judged<T>(&self, result: Result<T, WorkError>) -> Result<T, WorkError> {
        let poisons = match (&result, &self.scope) {
            (Ok(_), _) => false,
            // The disk failed: no data of this branch can be trusted.
            (Err(WorkError::Read(_)), _) => true,
            (Err(_), Scope::Branch) => true,
            (Err(_), Scope::Attempt(_) | Scope::OtherStore { .. }) => false,
        };
        if poisons {
            self.store.lock().poison(self.owner);
        }
        result
    }
}

fn checked_key(key: &[u8]) -> Result<Slice, WorkError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(WorkError::Key { bytes: key.len() });
    }
    Ok(key.into())
}

fn check_reads(footprint: &Footprint) -> Result<(), WorkError> {
    if footprint.reads.len() + footprint.prefixes.len() >= READS_MAX {
        return Err(WorkError::TooManyReads);
    }
    Ok(())
}
