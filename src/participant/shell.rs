//! Between a session and what surrounds it: the network, the service, the resource manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::driver::{Other, Shell};
use crate::protocol::message::{Message, Prepare};
use crate::protocol::participant::{Participant as Session, ParticipantCommand, ParticipantNotice};
use crate::protocol::types::{CommitId, Outcome, TxnId};
use crate::protocol::{Effects, Host, Input};
use crate::transport::Links;

use super::branch::BranchError;
use super::resource_manager::ResourceManager;
use super::working::Worker;

/// What a service asks of its session.
pub(super) enum Call {
    /// Work begins under a transaction.
    Begin(TxnId, oneshot::Sender<Result<(), BranchError>>),
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
    pub(super) beginning: BTreeMap<TxnId, Vec<oneshot::Sender<Result<(), BranchError>>>>,
    /// The transactions under which work has begun, as far as it has not ended.
    pub(super) begun: BTreeSet<TxnId>,
    /// Who waits for an outcome.
    pub(super) waiting: BTreeMap<CommitId, Vec<oneshot::Sender<Outcome>>>,
    /// Who waits until nothing is under way.
    pub(super) draining: Option<oneshot::Sender<()>>,
    /// Nothing new begins.
    pub(super) stopping: bool,
}

impl<R: ResourceManager> Shell for SessionShell<R> {
    type Host = Session;
    type Call = Call;

    fn before(&mut self, _: &mut Session, _: &Message, _: &mut Effects<Session>) {}

    fn call(&mut self, host: &mut Session, call: Call, out: &mut Effects<Session>) {
        let mut step = |command| host.step(Input::Command(command), out);
        match call {
            Call::Begin(_, answer) if self.stopping => {
                let _ = answer.send(Err(BranchError::Stopping));
            }
            Call::Begin(txn, answer) => {
                self.beginning.entry(txn).or_default().push(answer);
                step(ParticipantCommand::Begin(txn));
            }
            Call::Give(command) => step(command),
            Call::Prepare(prepare, answer) => {
                let id = prepare.id;
                step(ParticipantCommand::Prepare(prepare));
                match host.end_of(&id) {
                    None => self.waiting.entry(id).or_default().push(answer),
                    // It came to its end before: aborted because of another branch, for example.
                    Some(Some(outcome)) => drop(answer.send(outcome)),
                    Some(None) => {}
                }
            }
            Call::Drain(answer) => {
                self.stopping = true;
                self.draining = Some(answer);
            }
            Call::LetGo => {
                for txn in std::mem::take(&mut self.begun) {
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
                self.begun.insert(txn);
                self.began(txn, || Ok(()));
            }
            ParticipantNotice::Refused(txn) => {
                self.began(txn, || Err(BranchError::Over(txn)));
            }
            ParticipantNotice::Outcome { id, outcome } => {
                for answer in self.waiting.remove(&id).unwrap_or_default() {
                    let _ = answer.send(outcome);
                }
            }
            // Whoever waits is told that nobody can tell.
            ParticipantNotice::Forgotten { id } => drop(self.waiting.remove(&id)),
            ParticipantNotice::Settled { through } => {
                self.waiting.retain(|id, _| *id > through);
                self.worker.settled(through);
            }
        }
    }

    fn began(&mut self, txn: TxnId, result: impl Fn() -> Result<(), BranchError>) {
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
            for txn in std::mem::take(&mut self.begun) {
                self.worker.let_go(txn);
            }
        }
    }
}
