//! Between the initiator's core and its application.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::driver::{Other, Shell};
use crate::protocol::initiator::{
    CommitError as Refusal, Initiator as Core, InitiatorCommand, InitiatorNotice, PrepareBy,
};
use crate::protocol::message::{Message, Undecided};
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{Branch, CommitId, Outcome, ParticipantName, Request, Session, TxnId};
use crate::protocol::{Effects, Host, Input};
use crate::transport::Links;

use super::AbortReason;
use super::directory::Directory;
use super::hedge::Hedge;

/// What an application asks.
pub(super) enum Call {
    /// Begin a transaction. Answered with its id and the floor at that time, or None when the ids
    /// are used up.
    Begin(oneshot::Sender<Option<TxnId>>),
    /// Commit.
    Commit(Commit, oneshot::Sender<Answer>),
    /// The lowest sequence number that matters.
    Floor(oneshot::Sender<u32>),
    /// What came of this one?
    Ask(CommitId, oneshot::Sender<Answer>),
    /// Which sessions of this participant are connected?
    Resolve(ParticipantName, oneshot::Sender<Vec<Session>>),
    /// Nobody waits for this commit any more. Answered with its id, and why there is no outcome, if
    /// it was under way.
    GiveUp(TxnId, oneshot::Sender<Option<(CommitId, String)>>),
    /// Commit will not be asked for.
    Rollback(TxnId, Vec<Branch>),
    /// Which replica is asked first?
    Relay(oneshot::Sender<Option<ReplicaId>>),
    /// Answered when no commit is under way.
    Drain(oneshot::Sender<()>),
}

/// What commit is asked for.
pub(super) struct Commit {
    pub(super) txn: TxnId,
    pub(super) branches: Vec<(Branch, Option<Request>)>,
    pub(super) prepare: PrepareBy,
    pub(super) vote_timeout: Duration,
}

/// What came of a commit or a question.
#[derive(Debug)]
pub(super) enum Answer {
    Refused(Refusal),
    Committed,
    Aborted(AbortReason),
    Forgotten(CommitId),
}

/// A commit or a question under way.
struct Waiting {
    answers: Vec<oneshot::Sender<Answer>>,
    /// Whose branches it has, if it is a commit of this initiator.
    branches: Vec<Branch>,
    since: Instant,
    /// What is heard of why it was aborted.
    reason: AbortReason,
    /// What was told last of why there is no outcome yet.
    undecided: Option<Undecided>,
}

/// Surrounds an initiator.
pub(super) struct InitiatorShell {
    links: Arc<Links>,
    beginning: VecDeque<oneshot::Sender<Option<TxnId>>>,
    /// Commits that were asked for in this turn, in order, until their ids are known.
    asking: BTreeMap<TxnId, (oneshot::Sender<Answer>, Vec<Branch>)>,
    waiting: BTreeMap<CommitId, Waiting>,
    directory: Directory,
    /// A commit has had its outcome in this turn: what was asked for it can be asked again.
    has_outcome: bool,
    draining: Option<oneshot::Sender<()>>,
    hedge: Hedge,
    hedge_after: Option<Duration>,
    /// Transactions that were begun for somebody who has gone.
    unwanted: Vec<TxnId>,
    /// An initiator sends itself nothing, but its driver listens.
    _back: mpsc::UnboundedSender<Input<Core>>,
}

impl InitiatorShell {
    pub(super) fn new(links: Arc<Links>, back: mpsc::UnboundedSender<Input<Core>>) -> Self {
        InitiatorShell {
            links,
            beginning: VecDeque::new(),
            asking: BTreeMap::new(),
            waiting: BTreeMap::new(),
            directory: Directory::default(),
            has_outcome: false,
            draining: None,
            hedge: Hedge::default(),
            hedge_after: None,
            unwanted: Vec::new(),
            _back: back,
        }
    }
}

impl Shell for InitiatorShell {
    type Host = Core;
    type Call = Call;

    fn before(&mut self, _: &mut Core, message: &Message, _: &mut Effects<Core>) {
        let Some((id, reason)) = abort_reason(message) else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(id)
            && waiting.reason == AbortReason::Unknown
        {
            waiting.reason = reason;
        }
    }

    fn call(&mut self, host: &mut Core, call: Call, out: &mut Effects<Core>) {
        let mut step = |command| host.step(Input::Command(command), out);
        match call {
            Call::Begin(answer) => {
                self.beginning.push_back(answer);
                step(InitiatorCommand::Begin);
            }
            Call::Commit(commit, answer) => {
                let Commit {
                    txn,
                    branches,
                    prepare,
                    vote_timeout,
                } = commit;
                let roster = branches.iter().map(|(branch, _)| branch.clone());
                self.asking.insert(txn, (answer, roster.collect()));
                step(InitiatorCommand::Commit {
                    txn,
                    branches,
                    prepare,
                    vote_timeout,
                });
            }
            Call::Floor(answer) => {
                let _ = answer.send(host.floor());
            }
            Call::Ask(id, answer) => {
                self.wait_for(id, answer, Vec::new());
                step(InitiatorCommand::Ask(id));
            }
            Call::Resolve(participant, answer) => {
                if self.directory.find(&participant, answer, Instant::now()) {
                    step(InitiatorCommand::Resolve(participant));
                }
            }
            Call::GiveUp(txn, answer) => {
                // Whoever gives up has closed its end; others may still wait.
                let given_up = self
                    .asking
                    .get(&txn)
                    .is_some_and(|(answer, _)| answer.is_closed());
                if given_up {
                    self.asking.remove(&txn);
                }
                let mut found = None;
                let mut is_waited_for = self.asking.contains_key(&txn);
                self.waiting.retain(|id, waiting| {
                    if id.txn != txn {
                        return true;
                    }
                    waiting.answers.retain(|answer| !answer.is_closed());
                    found = Some((*id, why(waiting.undecided.as_ref())));
                    is_waited_for |= !waiting.answers.is_empty();
                    !waiting.answers.is_empty()
                });
                if !is_waited_for {
                    step(InitiatorCommand::Abandon(txn));
                }
                let _ = answer.send(found);
            }
            Call::Rollback(txn, branches) => step(InitiatorCommand::Rollback { txn, branches }),
            Call::Relay(answer) => {
                let _ = answer.send(host.relay());
            }
            Call::Drain(answer) => self.draining = Some(answer),
        }
    }

    fn other(&mut self, _: &Core, _: Other) {}

    fn release(&mut self, host: &mut Core, out: &mut Effects<Core>, _: Vec<OwnedSemaphorePermit>) {
        let notices = std::mem::take(&mut out.notify);
        for notice in notices {
            self.notify(notice);
        }
        if std::mem::take(&mut self.has_outcome) {
            for participant in self.directory.stale(Instant::now()) {
                host.step(Input::Command(InitiatorCommand::Resolve(participant)), out);
            }
        }
        for txn in self.unwanted.drain(..) {
            host.step(Input::Command(InitiatorCommand::Abandon(txn)), out);
        }
        if let Some(delay) = self.hedge_after.take() {
            host.step(Input::Command(InitiatorCommand::HedgeAfter(delay)), out);
        }
        self.links.send_all(&out.send);
        out.send.clear();
        self.links.learn(host.generations());
        if self.draining.is_some() && self.waiting.is_empty() && self.asking.is_empty() {
            self.draining.take().map(|answer| answer.send(()));
        }
    }
}

impl InitiatorShell {
    fn notify(&mut self, notice: InitiatorNotice) {
        match notice {
            InitiatorNotice::Begun(txn) => {
                let answer = self.beginning.pop_front();
                let told = answer.is_some_and(|answer| answer.send(Some(txn)).is_ok());
                if !told {
                    self.unwanted.push(txn);
                }
            }
            InitiatorNotice::SequenceExhausted => {
                if let Some(answer) = self.beginning.pop_front() {
                    let _ = answer.send(None);
                }
            }
            InitiatorNotice::Asked(id) => {
                if let Some((answer, branches)) = self.asking.remove(&id.txn) {
                    self.wait_for(id, answer, branches);
                }
            }
            InitiatorNotice::Refused { txn, error } => {
                if let Some((answer, _)) = self.asking.remove(&txn) {
                    let _ = answer.send(Answer::Refused(error));
                }
            }
            InitiatorNotice::Outcome { id, outcome } => self.outcome(id, outcome),
            InitiatorNotice::Expired { id } => {
                for answer in self.ended(&id) {
                    let _ = answer.send(Answer::Forgotten(id));
                }
            }
            InitiatorNotice::Undecided { undecided, .. } => {
                if let Some(waiting) = self.waiting.get_mut(&undecided.id) {
                    waiting.undecided = Some(undecided);
                }
            }
            InitiatorNotice::Resolved {
                participant,
                sessions,
                ..
            } => self.directory.told(&participant, sessions, Instant::now()),
            // Nobody asks here: operators do.
            InitiatorNotice::Forgotten { .. } | InitiatorNotice::Status { .. } => {}
        }
    }

    fn outcome(&mut self, id: CommitId, outcome: Outcome) {
        let Some(waiting) = self.waiting.remove(&id) else {
            return;
        };
        self.has_outcome = true;
        match outcome {
            Outcome::Commit => {
                self.hedge_after = self.hedge.took(waiting.since.elapsed());
                self.directory.committed(&waiting.branches);
            }
            Outcome::Abort => {
                self.directory.aborted(&waiting.branches);
                if waiting.reason == AbortReason::Ballot {
                    self.directory.suspect(&waiting.branches);
                }
            }
        }
        for answer in waiting.answers {
            let _ = answer.send(match outcome {
                Outcome::Commit => Answer::Committed,
                Outcome::Abort => Answer::Aborted(waiting.reason),
            });
        }
    }

    fn wait_for(&mut self, id: CommitId, answer: oneshot::Sender<Answer>, branches: Vec<Branch>) {
        let waiting = self.waiting.entry(id).or_insert_with(|| Waiting {
            answers: Vec::new(),
            branches,
            since: Instant::now(),
            reason: AbortReason::Unknown,
            undecided: None,
        });
        waiting.answers.push(answer);
    }

    fn ended(&mut self, id: &CommitId) -> Vec<oneshot::Sender<Answer>> {
        let waiting = self.waiting.remove(id);
        waiting.map_or(Vec::new(), |waiting| waiting.answers)
    }
}

/// Why there is no outcome, as it was told last.
fn why(undecided: Option<&Undecided>) -> String {
    let Some(Undecided {
        missing, silent, ..
    }) = undecided
    else {
        return "no replica has said anything about it".into();
    };
    let names = |of: Vec<String>| of.join(", ");
    let missing = names(missing.iter().map(Branch::to_string).collect());
    let silent = names(silent.iter().map(|id| id.to_string()).collect());
    match (missing.is_empty(), silent.is_empty()) {
        (true, true) => "replicas are deciding it".into(),
        (false, true) => format!("no vote of {missing} so far"),
        (true, false) => format!("replicas {silent} are silent"),
        (false, false) => format!("no vote of {missing} so far; replicas {silent} are silent"),
    }
}

/// Why a transaction is aborted, if that is what a replica says. The core does not care.
fn abort_reason(message: &Message) -> Option<(&CommitId, AbortReason)> {
    if let Message::Phase2b {
        id,
        ballot,
        outcome: Outcome::Abort,
    } = message
    {
        // At ballot 0 it is a vote.
        let reason = match *ballot == Ballot::ZERO {
            true => AbortReason::Vote,
            false => AbortReason::Ballot,
        };
        return Some((id, reason));
    }
    if let Message::Decided(decision) = message
        && decision.outcome == Outcome::Abort
    {
        return Some((&decision.id, AbortReason::Ballot));
    }
    None
}
