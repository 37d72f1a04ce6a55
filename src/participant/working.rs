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

use super::resource_manager::{BranchId, Expiry, Proof, ResourceManager};

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
                    Outcome::Abort => manager.rollback(branch).await.map(|()| Proof::Found),
                }
            };
            let finished = until_done(&of, "commit or rollback", &back, finishing).await;
            let Some(proof) = finished else { return };
            let BranchId { id, branch } = of;
            answer(
                &back,
                match proof {
                    Proof::Found => ParticipantCommand::Finished { id, branch },
                    Proof::Missing => ParticipantCommand::NotProven { id, branch },
                },
            );
        });
    }

    pub(super) fn expire(&self, id: CommitId, branch: Branch, back: &Back) {
        let (manager, back) = (self.resource_manager.clone(), back.clone());
        tokio::spawn(async move {
            let of = BranchId { id, branch };
            let (manager, expired) = (&manager, &of);
            let expiring = || async move { manager.expire(expired).await };
            let expiry = until_done(&of, "roll back if prepared", &back, expiring).await;
            let Some(expiry) = expiry else { return };
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

    pub(super) fn settled(&self, through: CommitId, listed: Vec<(CommitId, Branch)>) {
        let manager = self.resource_manager.clone();
        let listed = listed.into_iter();
        let listed: Vec<BranchId> = listed.map(|(id, branch)| BranchId { id, branch }).collect();
        tokio::spawn(async move {
            // The next horizon drops what this one could not.
            if let Err(error) = manager.settled(through, &listed).await {
                tracing::warn!(%error, "markers of settled commits were not dropped");
            }
        });
    }
}

/// One call: if it panics, that is an error like any other, and no branch hangs because of it. (It
/// must stand in an `async` block: what it does before it returns a future is polled then, too.)
pub(super) async fn attempt<T, E: std::error::Error>(
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

/// Tries as long as its session lives: the outcome stands, and nobody else applies it meanwhile. None
/// when the session has ended; the next one finds the branch in doubt.
async fn until_done<T, E, F>(
    of: &BranchId,
    what: &str,
    back: &Back,
    mut again: impl FnMut() -> F,
) -> Option<T>
where
    E: std::error::Error,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = RETRY_MIN;
    loop {
        match attempt(again()).await {
            Ok(done) => return Some(done),
            Err(error) => {
                tracing::warn!(branch = %of, error, "{what} failed; trying again in {pause:?}");
                metrics::counter!("paxos_commit_resource_manager_errors_total").increment(1);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = back.closed() => return None,
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

fn answer(back: &Back, command: ParticipantCommand) {
    // The session may be gone by now; the next one finds the branch in doubt.
    let _ = back.send(Input::Command(command));
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::protocol::participant::InDoubt;
    use crate::protocol::types::{InitiatorId, Roster, Session as Number};

    use super::*;
    use crate::protocol::types::StoreId;

    /// Whatever takes longer hangs.
    const LONG: Duration = Duration::from_secs(30);

    /// Its database is away.
    struct Away;

    type Failed = std::io::Result<()>;

    fn away() -> Failed {
        Err(std::io::Error::other("the database is away"))
    }

    impl ResourceManager for Away {
        type Error = std::io::Error;

        fn store(&self) -> StoreId {
            StoreId::from_u128(1)
        }

        async fn prepare(
            &self,
            _: &BranchId,
            _: Option<Request>,
            _: ReadOnly,
        ) -> Result<Vote, Self::Error> {
            away().map(|()| Vote::Aborted)
        }

        async fn commit(&self, _: &BranchId) -> Result<Proof, Self::Error> {
            away().map(|()| Proof::Found)
        }

        async fn rollback(&self, _: &BranchId) -> Failed {
            away()
        }

        async fn let_go(&self, _: TxnId) {}

        async fn in_doubt(&self) -> Result<Vec<InDoubt>, Self::Error> {
            away().map(|()| Vec::new())
        }

        async fn expire(&self, _: &BranchId) -> Result<Expiry, Self::Error> {
            away().map(|()| Expiry::NotPrepared)
        }

        async fn settled(&self, _: CommitId, _: &[BranchId]) -> Failed {
            away()
        }
    }

    /// What is tried again and again ends with the session: a service that begins another session
    /// does not pile them up, and lets go of its database.
    #[tokio::test]
    async fn nothing_is_tried_again_for_a_session_that_has_ended() {
        let me = Branch {
            participant: "ledger".parse().unwrap(),
            session: Number(1),
            store: StoreId::from_u128(1),
        };
        let txn = TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(1),
            sequence: 1,
            nonce: 9,
        };
        let id = CommitId::new(txn, &Roster::new([me.clone()]).unwrap());
        let manager = Arc::new(Away);
        let worker = Worker {
            resource_manager: manager.clone(),
            me: me.clone(),
        };
        let (back, session) = mpsc::unbounded_channel();
        worker.finish(id, me.clone(), Outcome::Commit, &back);
        worker.expire(id, me, &back);
        drop((worker, session));
        let begun = Instant::now();
        while Arc::strong_count(&manager) > 1 {
            assert!(begun.elapsed() < LONG, "it is tried for ever");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
