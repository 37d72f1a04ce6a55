//! What a service's store must be able to do.

use std::error::Error;
use std::fmt;
use std::future::Future;

use crate::protocol::participant::InDoubt;
use crate::protocol::types::{Branch, CommitId, ParticipantName, ReadOnly, Request, TxnId, Vote};

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

/// A store that takes part in transactions: prepares, and later commits or rolls back.
///
/// A [`Participant`](super::Participant) calls it; several branches at a time, but for one branch
/// one call after another. What a call returns `Ok` for is durable, and every call may
/// come again after it was done. An error of `commit`, `rollback` or `expire` is tried again until
/// there is none: nothing else can be done, since the outcome stands.
pub trait ResourceManager: Send + Sync + 'static {
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// A session of this participant begins, with a certificate of this cluster: asked before anything
    /// else, and an error refuses it. Who keeps branches of several apart by name, and was given other
    /// names than these, would ask the wrong cluster about them, and roll back what that one does not
    /// know.
    ///
    /// # Errors
    /// When it keeps the branches of somebody else.
    fn serves(&self, cluster: &str, participant: &ParticipantName) -> Result<(), Self::Error> {
        let _ = (cluster, participant);
        Ok(())
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
    /// A branch that is not there counts as committed only with proof: a marker that its own commit
    /// wrote, or that its id is up to the [settled](Self::settled) horizon, since then another
    /// session has seen it to its end. Without proof this is an error.
    fn commit(&self, branch: &BranchId) -> impl Future<Output = Result<(), Self::Error>> + Send;

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

    /// Everything up to this id is settled: the markers of commits up to there may be dropped.
    fn settled(&self, through: CommitId) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
