//! A service without a store: what is measured is the replicas'.

use std::convert::Infallible;
use std::future::pending;

use paxos_commit::participant::{BranchId, Expiry, Proof, ResourceManager};
use paxos_commit::protocol::participant::InDoubt;
use paxos_commit::protocol::types::{CommitId, ReadOnly, Request, StoreId, TxnId, Vote};

/// A branch with this request is never prepared: its service is at a loss.
#[allow(dead_code, reason = "not every benchmark needs it")]
pub(crate) const AT_A_LOSS: &[u8] = b"at a loss";

/// Votes at once, and keeps nothing.
pub(crate) struct Nothing;

impl ResourceManager for Nothing {
    type Error = Infallible;

    fn store(&self) -> StoreId {
        StoreId::from_u128(1)
    }

    async fn prepare(
        &self,
        _: &BranchId,
        request: Option<Request>,
        _: ReadOnly,
    ) -> Result<Vote, Infallible> {
        if request.is_some_and(|request| request.0.as_ref() == AT_A_LOSS) {
            pending::<()>().await;
        }
        Ok(Vote::Prepared)
    }

    async fn commit(&self, _: &BranchId) -> Result<Proof, Infallible> {
        Ok(Proof::Found)
    }

    async fn rollback(&self, _: &BranchId) -> Result<(), Infallible> {
        Ok(())
    }

    async fn let_go(&self, _: TxnId) {}

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, Infallible> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: &BranchId) -> Result<Expiry, Infallible> {
        Ok(Expiry::NotPrepared)
    }

    async fn settled(&self, _: CommitId, _: &[BranchId]) -> Result<(), Infallible> {
        Ok(())
    }
}
