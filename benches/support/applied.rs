//! A resource manager that tells when it has applied a commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use paxos_commit::participant::{BranchId, Expiry, Proof, ResourceManager};
use paxos_commit::protocol::participant::InDoubt;
use paxos_commit::protocol::types::{
    CommitId, ParticipantName, ReadOnly, Request, StoreId, TxnId, Vote,
};
use tokio::sync::Semaphore;

/// Who waits for what to be applied.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<TxnId, Arc<Semaphore>>>);

impl Waiting {
    /// To be called before commit is asked for.
    pub(crate) fn wait_for(self: &Arc<Self>, txn: TxnId) -> Applied {
        let count = Arc::new(Semaphore::new(0));
        self.held().insert(txn, count.clone());
        Applied {
            txn,
            count,
            waiting: self.clone(),
        }
    }

    fn tell(&self, txn: TxnId) {
        if let Some(count) = self.held().get(&txn) {
            count.add_permits(1);
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<TxnId, Arc<Semaphore>>> {
        self.0.lock().expect("nobody panics with it in hand")
    }
}

/// Somebody who waits for a transaction to be applied.
pub(crate) struct Applied {
    txn: TxnId,
    count: Arc<Semaphore>,
    waiting: Arc<Waiting>,
}

impl Applied {
    /// Until both branches are committed.
    pub(crate) async fn both(self) {
        let both = self.count.acquire_many(2).await;
        drop(both.expect("it is never closed"));
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        self.waiting.held().remove(&self.txn);
    }
}

/// Does what another one does, and tells when it has committed.
pub(crate) struct Telling<R> {
    manager: R,
    waiting: Arc<Waiting>,
}

impl<R> Telling<R> {
    pub(crate) fn new(manager: R, waiting: &Arc<Waiting>) -> Self {
        Telling {
            manager,
            waiting: waiting.clone(),
        }
    }
}

impl<R: ResourceManager> ResourceManager for Telling<R> {
    type Error = R::Error;

    fn store(&self) -> StoreId {
        self.manager.store()
    }

    fn serves(&self, cluster: &str, participant: &ParticipantName) -> Result<(), R::Error> {
        self.manager.serves(cluster, participant)
    }

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, R::Error> {
        self.manager.prepare(branch, request, read_only).await
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, R::Error> {
        self.manager.commit(branch).await?;
        self.waiting.tell(branch.id.txn);
        Ok(Proof::Found)
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), R::Error> {
        self.manager.rollback(branch).await
    }

    async fn let_go(&self, txn: TxnId) {
        self.manager.let_go(txn).await;
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, R::Error> {
        self.manager.in_doubt().await
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, R::Error> {
        self.manager.expire(branch).await
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), R::Error> {
        self.manager.settled(through, listed).await
    }
}
