//! What is saved, and what becomes true once it is.

use std::sync::Arc;

use fjall::Slice;
use tokio::sync::oneshot;

use crate::participant::BranchId;
use crate::protocol::types::CommitId;
use crate::store::committer::{Batch, Failure, Saver};

use super::Store;
use super::disk::{SETTLED, name_of};
use super::footprint::Footprint;
use super::locks::Owner;
use super::state::End;

/// One save. All of it becomes durable, or none.
///
/// A batch may hold the saves of many transactions, and the database does not order the writes of
/// one batch. It need not: a row is written only under an exclusive lock, and a branch is saved only
/// by whoever has claimed it; both last until the save is durable.
pub(super) struct Save {
    pub(super) what: What,
    /// Told when it is durable.
    pub(super) told: oneshot::Sender<()>,
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
    Settle {
        through: CommitId,
        markers: Vec<Slice>,
    },
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
            What::Settle { through, markers } => {
                batch.insert(&keyspaces.meta, SETTLED, &*through.to_string());
                for marker in markers.drain(..) {
                    batch.remove(&keyspaces.committed, marker);
                }
            }
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
            What::Settle { through, .. } => {
                state.settled = state.settled.max(Some(through));
                Vec::new()
            }
        };
        drop(state);
        // Whoever asked may have gone; then nobody needs to be told.
        let _ = save.told.send(());
        drop(waiters);
    }
}
