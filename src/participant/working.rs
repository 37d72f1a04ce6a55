//! The resource manager's work, each piece in a task of its own.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::protocol::Input;
use crate::protocol::participant::{Participant as Session, ParticipantCommand};
use crate::protocol::types::{Branch, CommitId, Outcome, ReadOnly, Request, TxnId, Vote};

use crate::store::committer::text_of;

use super::resource_manager::{BranchId, Expiry, ResourceManager};

/// The pause before what failed is tried again: doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

type Back = mpsc::UnboundedSender<Input<Session>>;

/// Has a resource manager work for one session.
pub(super) struct Worker<R> {
    pub(super) resource_manager: Arc<R>,
    /// This session.
    pub(super) me: Branch,
}

impl<R: ResourceManager> Worker<R> {
    pub(super) fn prepare(
        &self,
        id: CommitId,
        request: Option<Request>,
        read_only: ReadOnly,
        back: &Back,
    ) {
        let (manager, back) = (self.resource_manager.clone(), back.clone());
        let branch = BranchId {
            id,
            branch: self.me.clone(),
        };
        tokio::spawn(async move {
            let preparing = async { manager.prepare(&branch, request, read_only).await };
            let vote = match attempt(preparing).await {
                Ok(vote) => vote,
                Err(error) => {
                    // A prepare whose result is unknown votes Aborted, and is rolled back when it
                    // surfaces.
                    tracing::warn!(%branch, error, "a prepare failed: the branch votes to abort");
                    let rolling_back = async { manager.rollback(&branch).await };
                    if let Err(error) = attempt(rolling_back).await {
                        tracing::warn!(%branch, error, "rollback failed; found in doubt later");
                    }
                    Vote::Aborted
                }
            };
            answer(&back, ParticipantCommand::Prepared { id, vote });
        });
    }

    pub(super) fn finish(&self, id: CommitId, branch: Branch, outcome: Outcome, back: &Back) {
        let (manager, back) = (self.resource_manager.clone(), back.clone());
        tokio::spawn(async move {
            let of = BranchId { id, branch };
            let (manager, branch) = (&manager, &of);
            let finishing = || async move {
                match outcome {
                    Outcome::Commit => manager.commit(branch).await,
                    Outcome::Abort => manager.rollback(branch).await,
                }
            };
            until_done(&of, "commit or rollback", finishing).await;
            let BranchId { id, branch } = of;
            answer(&back, ParticipantCommand::Finished { id, branch });
        });
    }

    pub(super) fn expire(&self, id: CommitId, branch: Branch, back: &Back) {
        let (manager, back) = (self.resource_manager.clone(), back.clone());
        tokio::spawn(async move {
            let of = BranchId { id, branch };
            let (manager, expired) = (&manager, &of);
            let expiring = || async move { manager.expire(expired).await };
            let expiry = until_done(&of, "roll back if prepared", expiring).await;
            let BranchId { id, branch } = of;
            answer(
                &back,
                match expiry {
                    Expiry::RolledBack => ParticipantCommand::Finished { id, branch },
                    Expiry::NotPrepared => ParticipantCommand::NotPrepared { id, branch },
                },
            );
        });
    }

    pub(super) fn let_go(&self, txn: TxnId) {
        let manager = self.resource_manager.clone();
        tokio::spawn(async move { manager.let_go(txn).await });
    }

    pub(super) fn settled(&self, through: CommitId) {
        let manager = self.resource_manager.clone();
        tokio::spawn(async move {
            // The next horizon drops what this one could not.
            if let Err(error) = manager.settled(through).await {
                tracing::warn!(%error, "markers of settled commits were not dropped");
            }
        });
    }
}

/// One call: if it panics, that is an error like any other, and no branch hangs because of it. (It
/// must stand in an `async` block: what it does before it returns a future is polled then, too.)
async fn attempt<T, E: std::error::Error>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    let mut call = pin!(call);
    // Whatever a panic leaves half done is the resource manager's; the call is not polled again.
    let caught =
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            },
        );
    match caught.await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!(
            "the resource manager panicked: {}",
            text_of(panic.as_ref())
        )),
    }
}

/// Tries for ever: the outcome stands, and nobody else can apply it.
async fn until_done<T, E, F>(of: &BranchId, what: &str, mut again: impl FnMut() -> F) -> T
where
    E: std::error::Error,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = RETRY_MIN;
    loop {
        match attempt(again()).await {
            Ok(done) => return done,
            Err(error) => {
                tracing::warn!(branch = %of, error, "{what} failed; trying again in {pause:?}");
                metrics::counter!("paxos_commit_resource_manager_errors_total").increment(1);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

fn answer(back: &Back, command: ParticipantCommand) {
    // The session may be gone by now; the next one finds the branch in doubt.
    let _ = back.send(Input::Command(command));
}
