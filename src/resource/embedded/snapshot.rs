//! Reading all committed rows as of one moment.

use std::sync::Arc;

use fjall::Readable;

use super::Store;
use super::error::ReadError;
use super::work::Row;

/// The committed rows of a store as of one moment: of each transaction all local effects, or none.
///
/// What is overwritten later is kept on disk until the snapshot is dropped, so drop it soon.
pub struct Snapshot {
    // Dropped before the store that it reads.
    snapshot: fjall::Snapshot,
    store: Arc<Store>,
}

impl Snapshot {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Snapshot {
            snapshot: store.database.snapshot(),
            store,
        }
    }

    /// The value of a row; `None` if it is not there.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self.snapshot.get(&self.store.keyspaces.data, key)?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// The rows that start with `prefix`, in the order of their keys; all rows if it is empty.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Rows {
        let data = &self.store.keyspaces.data;
        Rows {
            rows: self.snapshot.prefix(data, prefix),
            _store: Arc::clone(&self.store),
        }
    }
}

/// Rows in the order of their keys. An error says that the disk cannot be read.
pub struct Rows {
    rows: fjall::Iter,
    /// Keeps the directory locked while it is read.
    _store: Arc<Store>,
}

impl Iterator for Rows {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?.into_inner();
        let row = row.map(|(key, value)| Row::new(&key, &value));
        Some(row.map_err(ReadError::from))
    }
}
