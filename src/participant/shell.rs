//! Between a session and what surrounds it: the network, the service, the resource manager.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::driver::{Other, Shell};
use crate::protocol::message::{Message, Prepare};
use crate::protocol::participant::{
    NotEntered, Participant as Session, ParticipantCommand, ParticipantNotice, Refusal, Standing,
};
use crate::protocol::types::{CommitId, Outcome, TxnId};
use crate::protocol::{Effects, Host, Input};
use crate::transport::Links;

use super::branch::BranchError;
use super::resource_manager::ResourceManager;
use super::working::Worker;

/// Answers a service that begins to work: from now on, and for as long as the session keeps the
/// other end, work may be done under the branch.
type Begun = oneshot::Sender<Result<Weak<()>, BranchError>>;

/// What a service asks of its session.
pub(super) enum Call {
    /// Work begins under a transaction.
    Begin(TxnId, Begun),
    /// The branch is given up, or can only abort.
    Give(ParticipantCommand),
    /// Prepare now; what comes of it?
    Prepare(Prepare, oneshot::Sender<Outcome>),
    /// Nothing new begins. Answered when nothing is under way any more.
    Drain(oneshot::Sender<()>),
    /// What was never asked to prepare lets go.
    LetGo,
}

/// Surrounds a session.
pub(super) struct SessionShell<R: ResourceManager> {
    pub(super) links: Arc<Links>,
    pub(super) worker: Worker<R>,
    pub(super) back: mpsc::UnboundedSender<Input<Session>>,
    /// Who waits to begin.
    pub(super) beginning: BTreeMap<TxnId, Vec<Begun>>,
    /// The transactions under which work has begun, as far as it has not ended. What is dropped
    /// here closes the branch for work; that comes before the resource manager is called, so that
    /// no lock is taken after the call which releases them.
    pub(super) begun: BTreeMap<TxnId, Arc<()>>,
    /// Who waits for an outcome.
    pub(super) waiting: BTreeMap<CommitId, Vec<oneshot::Sender<Outcome>>>,
    /// Who waits until nothing is under way.
    pub(super) draining: Option<oneshot::Sender<()>>,
    /// Whether the session may work.
    pub(super) standing: watch::Sender<Standing>,
    /// The session's.
    pub(super) tick: Duration,
}

impl<R: ResourceManager> Shell for SessionShell<R> {
    type Host = Session;
    type Call = Call;

    fn before(&mut self, _: &mut Session, _: &Message, _: &mut Effects<Session>) {}

    fn call(&mut self, host: &mut Session, call: Call, out: &mut Effects<Session>) {
        let mut step = |command| host.step(Input::Command(command), out);
        match call {
            Call::Begin(txn, answer) => {
                self.beginning.entry(txn).or_default().push(answer);
                step(ParticipantCommand::Begin(txn));
            }
            Call::Give(command) => step(command),
            Call::Prepare(prepare, answer) => {
                let id = prepare.id;
                step(ParticipantCommand::Prepare(prepare));
                match host.end_of(&id) {
                    // It may not prepare: nothing will come of it here.
                    None if !host.remembers(id.txn) => {}
                    None => self.waiting.entry(id).or_default().push(answer),
                    // It came to its end before: aborted because of another branch, for example.
                    Some(Some(outcome)) => drop(answer.send(outcome)),
                    Some(None) => {}
                }
            }
            Call::Drain(answer) => {
                step(ParticipantCommand::Stop);
                self.draining = Some(answer);
            }
            Call::LetGo => {
                for txn in std::mem::take(&mut self.begun).into_keys() {
                    step(ParticipantCommand::Rollback(txn));
                }
            }
        }
    }

    fn other(&mut self, _: &Session, _: Other) {}

    fn release(
        &mut self,
        host: &mut Session,
        out: &mut Effects<Session>,
        _: Vec<OwnedSemaphorePermit>,
    ) {
        self.links.send_all(&out.send);
        out.send.clear();
        for notice in out.notify.drain(..) {
            self.notify(notice);
        }
        // Clients dial whom the generations name.
        self.links.learn(host.generations());
        if self.draining.is_some()
            && host.is_idle()
            && let Some(answer) = self.draining.take()
        {
            let _ = answer.send(());
        }
    }
}

impl<R: ResourceManager> SessionShell<R> {
    fn notify(&mut self, notice: ParticipantNotice) {
        match notice {
            ParticipantNotice::Prepare {
                id,
                request,
                read_only,
            } => {
                self.begun.remove(&id.txn);
                self.worker.prepare(id, request, read_only, &self.back);
            }
            ParticipantNotice::Finish {
                id,
                branch,
                outcome,
            } => self.worker.finish(id, branch, outcome, &self.back),
            ParticipantNotice::Expired { id, branch } => {
                self.worker.expire(id, branch, &self.back);
            }
            ParticipantNotice::LetGo(txn) => {
                self.begun.remove(&txn);
                self.worker.let_go(txn);
            }
            ParticipantNotice::Began(txn) => {
                let open = Arc::downgrade(self.begun.entry(txn).or_default());
                self.began(txn, || Ok(open.clone()));
            }
            ParticipantNotice::Refused { txn, why } => {
                let me = self.worker.me.clone();
                self.began(txn, || {
                    Err(match why {
                        Refusal::Over => BranchError::Over(txn),
                        Refusal::NotOpen => BranchError::NotOpen(txn),
                        Refusal::TooMany => BranchError::TooMany(txn),
                        Refusal::NotEntered(standing) => {
                            let me = me.clone();
                            NotEntered { me, standing }.into()
                        }
                        Refusal::Stopping => BranchError::Stopping,
                    })
                });
            }
            ParticipantNotice::Outcome { id, outcome } => {
                for answer in self.waiting.remove(&id).unwrap_or_default() {
                    let _ = answer.send(outcome);
                }
            }
            // Whoever waits is told that nobody can tell.
            ParticipantNotice::Forgotten { id } => drop(self.waiting.remove(&id)),
            ParticipantNotice::Settled { through, listed } => {
                self.waiting.retain(|id, _| *id > through);
                self.worker.settled(through, listed);
            }
            ParticipantNotice::Unproven { id, branch } => {
                metrics::counter!("paxos_commit_unproven_total").increment(1);
                tracing::error!(
                    %id,
                    %branch,
                    "this store was told to commit a branch, and has neither the branch nor a \
                     marker: if another store holds it, start the service on that store; if it is \
                     lost, repair the data and release the commit with `paxos-commit txn release`"
                );
            }
            ParticipantNotice::Contradicted { id, branch } => {
                metrics::counter!("paxos_commit_contradicted_total").increment(1);
                let Some(unlogged) = self.links.alarms.may_log("contradicted") else {
                    return;
                };
                tracing::error!(
                    %id,
                    %branch,
                    unlogged,
                    "this branch rolled back what other branches commit: a participant of the \
                     transaction said different things to different replicas; repair the data"
                );
            }
            ParticipantNotice::Unasked { txn, age_ticks } => self.warn_unasked(txn, age_ticks),
            ParticipantNotice::Stands(standing) => self.stands(standing),
        }
    }

    fn stands(&mut self, standing: Standing) {
        match standing {
            Standing::Entered | Standing::Asking => {}
            Standing::OtherStore { .. } => tracing::error!("{}", self.not_entered(standing)),
            Standing::OldOpening { .. } | Standing::TooManyNames => {
                tracing::error!("{}", self.not_entered(standing));
                // Nothing comes of it any more: the callers that wait are told that it is unknown.
                self.waiting.clear();
                self.begun.clear();
            }
        }
        self.standing.send_replace(standing);
    }

    fn not_entered(&self, standing: Standing) -> NotEntered {
        let me = self.worker.me.clone();
        NotEntered { me, standing }
    }

    fn warn_unasked(&self, txn: TxnId, age_ticks: u32) {
        tracing::warn!(
            participant = %self.worker.me.participant,
            %txn,
            age_s = (self.tick * age_ticks).as_secs_f64(),
            "work ended and is discarded: no process asked to commit it or to roll it back. Its \
             caller has crashed, or it has not enlisted the branch: hand the ticket of the branch \
             back to the caller, and enlist it before commit"
        );
        metrics::counter!("paxos_commit_work_unasked_total").increment(1);
    }

    fn began(&mut self, txn: TxnId, result: impl Fn() -> Result<Weak<()>, BranchError>) {
        for answer in self.beginning.remove(&txn).unwrap_or_default() {
            let _ = answer.send(result());
        }
    }
}

/// A session that ends without an order lets go of the work that was never asked to prepare: its
/// resource manager may outlive it, and serve the next session of the same process. That one knows
/// nothing of the work, and whoever begins it again there must not find it half done.
impl<R: ResourceManager> Drop for SessionShell<R> {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the work with it.
        if Handle::try_current().is_ok() {
            for (txn, open) in std::mem::take(&mut self.begun) {
                drop(open);
                self.worker.let_go(txn);
            }
        }
    }
}
