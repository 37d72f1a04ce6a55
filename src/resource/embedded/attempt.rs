//! Work that may fail without poisoning its branch.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fjall::Slice;

use super::work::{Scope, Work};

/// What a row that a branch wrote was set to by the branch before: none if it had not written it.
type Before = Option<Option<Slice>>;

/// The rows that an attempt wrote, as they were when it began.
#[derive(Default)]
pub(super) struct Undo(Mutex<BTreeMap<Slice, Before>>);

impl Undo {
    /// The first write of a row counts.
    pub(super) fn remember(&self, key: Slice, before: Before) {
        if let Entry::Vacant(entry) = self.rows().entry(key) {
            entry.insert(before);
        }
    }

    fn take(&self) -> BTreeMap<Slice, Before> {
        std::mem::take(&mut *self.rows())
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Slice, Before>> {
        // A map of bytes: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Does work that may fail, like a savepoint of SQL: if `work` returns an error, all its writes
    /// are undone, and the branch goes on as before.
    ///
    /// Only what `work` does with the handle that it is given belongs to the attempt. Inside of it
    /// a failed operation does not poison the branch; `work` decides what the failure means, by what
    /// it returns. Locks of rows that were read are kept until the branch ends. An error of the disk
    /// ([`WorkError::Read`](super::WorkError::Read)) poisons the branch all the same.
    ///
    /// ```
    /// # use paxos_commit::resource::embedded::{Embedded, LocalError, Options, Work, WorkError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), LocalError<WorkError>> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let store = Embedded::open(dir.path(), Options::new()).expect("a store");
    /// // Takes the first seat that no other transaction has locked.
    /// let take = |work: &Work| {
    ///     for seat in ["seat/1", "seat/2"] {
    ///         match work.attempt(|work| work.put(seat, "taken")) {
    ///             Err(WorkError::Conflict { .. }) => continue,
    ///             done => return done,
    ///         }
    ///     }
    ///     Ok(())
    /// };
    /// store.local(take).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error of `work`.
    pub fn attempt<T, E>(&self, work: impl FnOnce(&Work) -> Result<T, E>) -> Result<T, E> {
        let scope = match self.scope {
            Scope::Branch | Scope::Attempt(_) => Scope::Attempt(Undo::default()),
            Scope::OtherStore { expected, got } => Scope::OtherStore { expected, got },
        };
        let attempt = Attempt(Work {
            store: Arc::clone(&self.store),
            owner: self.owner,
            role: self.role,
            scope,
        });
        let result = work(&attempt.0);
        if result.is_ok() {
            attempt.keep(self);
        }
        result
    }
}

/// Undone when it is dropped, after a panic too, unless it was kept.
struct Attempt(Work);

impl Attempt {
    fn keep(self, outer: &Work) {
        let Scope::Attempt(undo) = &self.0.scope else {
            return;
        };
        let written = undo.take();
        // An outer attempt that is given up undoes this one, too.
        if let Scope::Attempt(outer) = &outer.scope {
            for (key, before) in written {
                outer.remember(key, before);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Scope::Attempt(undo) = &self.0.scope {
            let rows = undo.take();
            if !rows.is_empty() {
                self.0.store.lock().undo(self.0.owner, rows);
            }
        }
    }
}
