//! What is saved, and what becomes true once it is.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use fjall::Slice;
use tokio::sync::oneshot;

use crate::participant::BranchId;
use crate::store::committer::{Batch, Failure, Saver};

use super::Store;
use super::disk::name_of;
use super::footprint::Footprint;
use super::locks::Owner;
use super::meta::Served;
use super::state::End;

/// One save. All of it becomes durable, or none.
///
/// A batch may hold the saves of many transactions, and the database does not order the writes of
/// one batch. It need not: a row is written only under an exclusive lock, and a branch is saved only
/// by whoever has claimed it; both last until the save is durable.
pub(super) struct Save {
    pub(super) what: What,
    /// Told when it is durable.
    pub(super) told: Told,
}

/// Who waits until something is durable.
pub(super) enum Told {
    Task(oneshot::Sender<()>),
    /// The thread of a call that is not asynchronous.
    Thread(SyncSender<()>),
}

pub(super) enum What {
    Prepare {
        branch: BranchId,
        record: Vec<u8>,
        footprint: Footprint,
    },
    Commit {
        branch: BranchId,
        owner: Owner,
        footprint: Footprint,
    },
    RollBack {
        branch: BranchId,
        owner: Owner,
        footprint: Footprint,
    },
    Local {
        owner: Owner,
        footprint: Footprint,
    },
    /// These markers are not needed any more.
    Settle {
        markers: Vec<Slice>,
    },
    /// From now on the store keeps the branches of this participant.
    Serve(Served),
}

/// Lives on the committer's thread.
pub(super) struct StoreSaver(pub(super) Arc<Store>);

impl Saver for StoreSaver {
    type Job = Save;

    fn write(&mut self, save: &mut Save, batch: &mut Batch) -> Result<(), Failure> {
        #[cfg(test)]
        drop(self.0.saves.lock());
        let keyspaces = &self.0.keyspaces;
        let apply = |footprint: &Footprint, batch: &mut Batch| {
            for (key, write) in &footprint.writes {
                match write {
                    Some(value) => batch.insert(&keyspaces.data, key.clone(), value.clone()),
                    None => batch.remove(&keyspaces.data, key.clone()),
                }
            }
        };
        match &mut save.what {
            What::Prepare { branch, record, .. } => {
                let record = std::mem::take(record);
                batch.insert(&keyspaces.prepared, &*name_of(branch), record);
            }
            What::Commit {
                branch, footprint, ..
            } => {
                let name = Slice::from(&*name_of(branch));
                apply(footprint, batch);
                batch.remove(&keyspaces.prepared, name.clone());
                batch.insert(&keyspaces.committed, name, b"");
            }
            What::RollBack { branch, .. } => {
                batch.remove(&keyspaces.prepared, &*name_of(branch));
            }
            What::Local { footprint, .. } => apply(footprint, batch),
            What::Settle { markers } => {
                for marker in markers.drain(..) {
                    batch.remove(&keyspaces.committed, marker);
                }
            }
            What::Serve(served) => served.write(keyspaces, batch),
        }
        Ok(())
    }

    fn done(&mut self, save: Save) {
        let mut state = self.0.lock();
        let waiters = match save.what {
            What::Prepare {
                branch, footprint, ..
            } => state.prepared(&branch, footprint),
            What::Commit {
                branch,
                owner,
                footprint,
            }
            | What::RollBack {
                branch,
                owner,
                footprint,
            } => state.finished(&branch, owner, &footprint, End::Over),
            What::Local { owner, footprint } => {
                state.end(owner, &footprint, End::Over);
                Vec::new()
            }
            What::Settle { .. } => Vec::new(),
            What::Serve(served) => {
                state.served = Some(served);
                Vec::new()
            }
        };
        drop(state);
        // The caller may have stopped waiting.
        match save.told {
            Told::Task(told) => drop(told.send(())),
            Told::Thread(told) => drop(told.send(())),
        }
        drop(waiters);
    }
}
