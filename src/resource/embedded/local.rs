//! Transactions of one store alone.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::{Holder, LocalError, WorkError};
use super::locks::Owner;
use super::save::{Told, What};
use super::state::Role;
use super::work::Work;
use super::{Embedded, Store};

impl Embedded {
    /// A transaction of this store alone: `work` reads and writes, with the same locks as any other,
    /// and when it returns `Ok` its writes are committed; they are durable when this returns.
    ///
    /// `work` runs on the calling task and must not wait for anything. If this future is dropped
    /// before it is ready, the transaction has been committed, is being committed, or was never
    /// begun.
    ///
    /// # Errors
    /// The error of `work`; then nothing was changed. On [`WorkError::Conflict`] try again.
    pub async fn local<T, E>(
        &self,
        work: impl FnOnce(&Work) -> Result<T, E>,
    ) -> Result<T, LocalError<E>> {
        let (told, durable) = oneshot::channel();
        let value = {
            let store = &self.inner.store;
            let owner = {
                let mut state = store.lock();
                if state.is_closed {
                    return Err(LocalError::Closed);
                }
                state.begin(Holder::Local)
            };
            let local = Local { store, owner };
            let handle = Work::new(Arc::clone(store), owner, Role::Service);
            let value = work(&handle).map_err(LocalError::Work)?;
            let buffer = {
                let mut state = store.lock();
                match state.work(owner, Role::Service).err() {
                    None => {}
                    Some(WorkError::Closed) => return Err(LocalError::Closed),
                    Some(_) => return Err(LocalError::Poisoned),
                }
                state.take_work(owner)
            };
            drop(local);
            let buffer = buffer.expect("only its own local transaction takes this work");
            self.submit(
                What::Local {
                    owner,
                    footprint: buffer.footprint,
                },
                Told::Task(told),
            );
            value
        };
        durable.await.map_err(|_| LocalError::Closed)?;
        Ok(value)
    }
}

/// A local transaction whose work runs: if it fails, or panics, its locks are let go.
struct Local<'s> {
    store: &'s Store,
    owner: Owner,
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        self.store.lock().drop_work(self.owner);
    }
}
