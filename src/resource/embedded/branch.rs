//! Branches: prepare, commit, roll back, and what is asked about them.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};

use fjall::Slice;
use tokio::sync::oneshot;

use crate::participant::{BranchId, Expiry, Proof, ResourceManager};
use crate::protocol::participant::InDoubt;
use crate::protocol::types::{
    CommitId, Opening, ParticipantName, ReadOnly, Request, StoreId, TxnId, Vote,
};

use super::Embedded;
use super::disk::{end_of, name_of};
use super::error::BranchError;
use super::footprint::Footprint;
use super::locks::Owner;
use super::meta::Served;
use super::save::{Told, What};
use super::state::{Claim, End, Health, Preparing, Role};
use super::work::Work;

/// How many markers one save drops.
pub const MARKERS_PER_SAVE: usize = 1024;

/// What there is to prepare.
enum Prepared {
    /// Changes, or reads whose locks must outlive this process.
    Footprint(Footprint),
    Vote(Vote),
}

impl ResourceManager for Embedded {
    type Error = BranchError;

    fn serves(&self, cluster: &str, participant: &ParticipantName) -> Result<(), BranchError> {
        self.serve(Served {
            cluster: cluster.to_owned(),
            participant: participant.clone(),
        })
    }

    fn store(&self) -> StoreId {
        self.inner.identity
    }

    fn openings(&self) -> Vec<Opening> {
        self.inner.openings.clone()
    }

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, BranchError> {
        let owner = loop {
            let woken = match self.open_state()?.prepare(branch) {
                Preparing::Mine(owner) => break owner,
                Preparing::Wait(woken) => woken,
                Preparing::Prepared => return Ok(Vote::Prepared),
                Preparing::Ended(End::ReadOnly) if read_only == ReadOnly::Allowed => {
                    return Ok(Vote::ReadOnly);
                }
                Preparing::Ended(_) | Preparing::Elsewhere => {
                    tracing::info!(%branch, "aborts: its transaction is over, or in another instance");
                    return Ok(Vote::Aborted);
                }
            };
            let _ = woken.await;
        };
        // From here to the save nothing waits: a caller who goes away leaves nothing half done.
        match self.run(branch, owner, request, read_only) {
            Prepared::Vote(vote) => Ok(vote),
            Prepared::Footprint(footprint) => {
                let record = footprint.encode(name_of(branch).as_bytes());
                let branch = branch.clone();
                self.save(What::Prepare {
                    branch,
                    record,
                    footprint,
                })
                .await?;
                Ok(Vote::Prepared)
            }
        }
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, BranchError> {
        match self.claim(branch).await? {
            Some((owner, footprint)) => {
                let branch = branch.clone();
                self.save(What::Commit {
                    branch,
                    owner,
                    footprint,
                })
                .await?;
            }
            None => return self.proof_of(branch),
        }
        Ok(Proof::Found)
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), BranchError> {
        match self.claim(branch).await? {
            Some((owner, footprint)) => self.roll_back(branch, owner, footprint).await,
            None => {
                // Remembered, so that a prepare that comes after it finds no work.
                self.open_state()?.let_go(branch.id.txn);
                Ok(())
            }
        }
    }

    async fn let_go(&self, txn: TxnId) {
        self.inner.store.lock().let_go(txn);
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, BranchError> {
        Ok(self.open_state()?.in_doubt())
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, BranchError> {
        match self.claim(branch).await? {
            Some((owner, footprint)) => {
                self.roll_back(branch, owner, footprint).await?;
                Ok(Expiry::RolledBack)
            }
            None => Ok(Expiry::NotPrepared),
        }
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), BranchError> {
        self.open_state()?.let_go_settled(through);
        let listed: Arc<BTreeSet<String>> = Arc::new(listed.iter().map(name_of).collect());
        let mut after = None;
        loop {
            let listed = Arc::clone(&listed);
            let markers = self.markers(after, through, listed).await?;
            let is_last = markers.len() < MARKERS_PER_SAVE;
            let Some(last) = markers.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            self.save(What::Settle { markers }).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

impl Embedded {
    /// Runs the request, and finds out what there is to prepare. Blocks for no longer than the
    /// request reads.
    fn run(
        &self,
        branch: &BranchId,
        owner: Owner,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Prepared {
        let refused = request.and_then(|request| self.refusal(owner, &request));
        let mut state = self.inner.store.lock();
        let buffer = state.take_work(owner);
        let buffer = buffer.expect("only its own prepare takes the work of a branch");
        let is_poisoned = buffer.health == Health::Poisoned;
        let footprint = buffer.footprint;
        let (vote, end) = match refused {
            Some(reason) => {
                tracing::info!(%branch, reason, "aborts: its request was refused");
                (Vote::Aborted, End::Over)
            }
            None if is_poisoned => {
                tracing::info!(%branch, "aborts: an operation of its work failed");
                (Vote::Aborted, End::Over)
            }
            None if footprint.writes.is_empty() && read_only == ReadOnly::Allowed => {
                (Vote::ReadOnly, End::ReadOnly)
            }
            None => return Prepared::Footprint(footprint),
        };
        let waiters = state.finished(branch, owner, &footprint, end);
        drop(state);
        drop(waiters);
        Prepared::Vote(vote)
    }

    /// Runs a request; says why it was refused, if it was.
    fn refusal(&self, owner: Owner, request: &Request) -> Option<String> {
        let Some(handler) = &self.inner.requests else {
            return Some("a request came, and the store was opened without a handler".into());
        };
        let work = Work::new(Arc::clone(&self.inner.store), owner, Role::Request);
        // A handler that panics must not leave its locks behind.
        match catch_unwind(AssertUnwindSafe(|| handler(&work, request))) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("its handler panicked".into()),
        }
    }

    /// Takes a prepared branch, once nobody else is at it.
    async fn claim(&self, branch: &BranchId) -> Result<Option<(Owner, Footprint)>, BranchError> {
        loop {
            let woken = match self.open_state()?.claim(branch) {
                Claim::Mine(owner, footprint) => return Ok(Some((owner, footprint))),
                Claim::NotPrepared => return Ok(None),
                Claim::Wait(woken) => woken,
            };
            let _ = woken.await;
        }
    }

    async fn roll_back(
        &self,
        branch: &BranchId,
        owner: Owner,
        footprint: Footprint,
    ) -> Result<(), BranchError> {
        let branch = branch.clone();
        self.save(What::RollBack {
            branch,
            owner,
            footprint,
        })
        .await
    }

    /// Whether the marker of a branch that does not stand prepared is there. No other thing proves
    /// its commit.
    fn proof_of(&self, branch: &BranchId) -> Result<Proof, BranchError> {
        let committed = &self.inner.store.keyspaces.committed;
        if committed.contains_key(name_of(branch))? {
            return Ok(Proof::Found);
        }
        tracing::info!(%branch, "no proof of its commit: neither the branch nor its marker is here");
        Ok(Proof::Missing)
    }

    /// The first markers up to `through` that come after one, without those of `listed`.
    async fn markers(
        &self,
        after: Option<Slice>,
        through: CommitId,
        listed: Arc<BTreeSet<String>>,
    ) -> Result<Vec<Slice>, BranchError> {
        let store = Arc::clone(&self.inner.store);
        // It may read much that was deleted before.
        let markers = tokio::task::spawn_blocking(move || {
            let end = Slice::from(end_of(through).as_str());
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let all = store
                .keyspaces
                .committed
                .range((from, Bound::Excluded(end)));
            let names = all.map(|marker| marker.key());
            let is_listed =
                |name: &Slice| std::str::from_utf8(name).is_ok_and(|name| listed.contains(name));
            let names = names.filter(|name| !name.as_ref().is_ok_and(is_listed));
            let names = names.take(MARKERS_PER_SAVE);
            names.collect::<fjall::Result<Vec<Slice>>>()
        });
        match markers.await {
            Ok(markers) => Ok(markers?),
            // The runtime is shutting down.
            Err(_) => Err(BranchError::Closed),
        }
    }

    /// A participant connects: the first one is saved, and every other one is refused.
    fn serve(&self, got: Served) -> Result<(), BranchError> {
        // One after another: two that come at the same time must not both be the first.
        let serving = self.inner.serving.lock();
        let _serving = serving.unwrap_or_else(PoisonError::into_inner);
        let served = self.open_state()?.served.clone();
        match served {
            Some(expected) if expected == got => Ok(()),
            Some(expected) => Err(BranchError::OtherParticipant { expected, got }),
            None => {
                let (told, durable) = sync_channel(1);
                self.submit(What::Serve(got), Told::Thread(told));
                durable.recv().map_err(|_| BranchError::Closed)
            }
        }
    }

    /// Saves, and returns when it is durable. Who stops waiting does not stop the save.
    pub(super) async fn save(&self, what: What) -> Result<(), BranchError> {
        let (told, durable) = oneshot::channel();
        self.submit(what, Told::Task(told));
        durable.await.map_err(|_| BranchError::Closed)
    }

    /// The state, while the store is open.
    fn open_state(&self) -> Result<super::StateGuard<'_>, BranchError> {
        let state = self.inner.store.lock();
        if state.is_closed {
            return Err(BranchError::Closed);
        }
        Ok(state)
    }
}
