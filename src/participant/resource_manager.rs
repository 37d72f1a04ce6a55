//! What a service's store must be able to do.

use std::error::Error;
use std::fmt;
use std::future::Future;

use crate::protocol::participant::InDoubt;
use crate::protocol::types::{
    Branch, CommitId, Opening, ParticipantName, ReadOnly, Request, StoreId, TxnId, Vote,
};

/// The name of a branch once commit was asked for: to be written with everything that is prepared
/// under it, since two sessions of one participant may stand in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId {
    /// The transaction and the digest of its roster.
    pub id: CommitId,
    /// The participant and its session. Not always the one that runs now.
    pub branch: Branch,
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.branch, self.id)
    }
}

/// What became of a branch whose outcome is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stood prepared, and is rolled back now, durably.
    RolledBack,
    /// It does not stand prepared: it was finished before.
    NotPrepared,
}

/// What a store found when it was told to commit a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The branch is committed, durably: it stood prepared, or the marker that its own commit wrote
    /// is there.
    Found,
    /// Neither the branch nor its marker is there. Nothing was changed. The participant asks the
    /// replicas; no waiting turns this into a success.
    Missing,
}

/// A store that takes part in transactions: prepares, and later commits or rolls back.
///
/// A [`Participant`](super::Participant) calls it; several branches at a time, but for one branch
/// one call after another. What a call returns `Ok` for is durable, and every call may
/// come again after it was done. An error of `commit`, `rollback` or `expire` is tried again until
/// there is none: nothing else can be done, since the outcome stands.
///
/// The calls are tasks of the runtime. A call may wait as long as it must, but a call that blocks its
/// thread holds up every other branch of the process: hand work that blocks to `spawn_blocking`.
pub trait ResourceManager: Send + Sync + 'static {
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// A session of this participant begins, with a certificate of this cluster. The session calls this
    /// first, and ends if it fails. A store that keeps the branches of another participant or cluster
    /// must refuse: its branches would be asked about in the wrong place, and rolled back because they
    /// are not known there.
    ///
    /// # Errors
    /// When the store keeps the branches of another participant: the error says of which one.
    fn serves(&self, cluster: &str, participant: &ParticipantName) -> Result<(), Self::Error> {
        let _ = (cluster, participant);
        Ok(())
    }

    /// The identity of the store: drawn at random when the store is created, kept inside it, the
    /// same for as long as it exists. A physical copy of the store keeps it.
    fn store(&self) -> StoreId;

    /// The openings of the store that it remembers, this one last, for a store that can have only one
    /// process at a time and counts its openings: durably, before this one is told. None for a store
    /// that does not count.
    ///
    /// A store that does not remember the opening that worked last is an older copy of itself: it is
    /// turned away. (A resource manager that wraps another one must pass this on.)
    fn openings(&self) -> Vec<Opening> {
        Vec::new()
    }

    /// Runs the request, if there is one, and makes the branch durable, its name with it: after
    /// this both `commit` and `rollback` must be possible, in this process and in a later one.
    ///
    /// `Ok(Vote::Prepared)` says so; `Ok(Vote::ReadOnly)`, where `read_only` allows it, that the
    /// branch changed nothing and has let go of its locks; `Ok(Vote::Aborted)` that it cannot, and
    /// has let go of everything. After an error the participant votes `Aborted` and calls
    /// [`rollback`](Self::rollback); if the branch surfaces as prepared all the same, it is found
    /// among those [in doubt](Self::in_doubt).
    fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> impl Future<Output = Result<Vote, Self::Error>> + Send;

    /// Commits a prepared branch.
    ///
    /// A branch that does not stand prepared counts as committed only with [proof](Proof): the
    /// marker that its own commit wrote. The settled horizon proves nothing. (Counter-example: an
    /// empty store takes the horizon for proof, and a commit that waits for the right store is
    /// lost.)
    fn commit(&self, branch: &BranchId) -> impl Future<Output = Result<Proof, Self::Error>> + Send;

    /// Rolls a branch back, prepared or not, and lets go of its work. One that is not there is
    /// rolled back.
    fn rollback(&self, branch: &BranchId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Lets go of the work under a transaction that was never asked to prepare in this session.
    fn let_go(&self, txn: TxnId) -> impl Future<Output = ()> + Send;

    /// The branches that stand prepared, this session's own among them.
    fn in_doubt(&self) -> impl Future<Output = Result<Vec<InDoubt>, Self::Error>> + Send;

    /// The outcome of the branch is forgotten: if it stands prepared it is to be rolled back.
    fn expire(&self, branch: &BranchId)
    -> impl Future<Output = Result<Expiry, Self::Error>> + Send;

    /// Everything up to `through` is settled, and of this participant's branches only `listed` may
    /// still be told to commit: the markers of all other commits up to `through` are to be deleted.
    /// An older call that comes late says nothing about ids above its own `through`.
    fn settled(
        &self,
        through: CommitId,
        listed: &[BranchId],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
