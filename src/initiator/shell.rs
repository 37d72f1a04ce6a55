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
use crate::protocol::types::{Branch, CommitId, Outcome, ParticipantName, Request, TxnId};
use crate::protocol::{Effects, Host, Input};
use crate::random::draw;
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
    /// Fix the roster, because a plan is handed out. Answered with the id under which the
    /// transaction will be decided.
    Plan {
        txn: TxnId,
        branches: Vec<Branch>,
        vote_timeout: Duration,
        answer: oneshot::Sender<Result<CommitId, Refusal>>,
    },
    /// What came of this one?
    Ask(CommitId, oneshot::Sender<Answer>),
    /// Roll this one back by a ballot. What came of it?
    ForceAbort(CommitId, oneshot::Sender<Answer>),
    /// Which sessions of this participant are connected?
    Resolve(ParticipantName, oneshot::Sender<Vec<Branch>>),
    /// The caller stops waiting. Answered with the id, and why there is no outcome, if it was in
    /// flight.
    GiveUp(GivenUp, oneshot::Sender<Option<(CommitId, String)>>),
    /// Roll back: by a ballot, if a plan was handed out.
    Rollback(TxnId, Vec<Branch>, oneshot::Sender<Answer>),
    /// Which replica is asked first?
    Relay(oneshot::Sender<Option<ReplicaId>>),
    /// Answered when no commit is under way.
    Drain(oneshot::Sender<()>),
}

/// What a caller stops waiting for.
#[derive(Clone, Copy, Debug)]
pub(super) enum GivenUp {
    /// The end of a transaction that it holds.
    Transaction(TxnId),
    /// The answer to a question. The transaction itself may be held elsewhere and stays open.
    Question(CommitId),
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

/// A commit, a rollback or a question in flight.
struct Waiting {
    answers: Vec<oneshot::Sender<Answer>>,
    /// Whose branches it has, if it is a commit of this initiator.
    branches: Vec<Branch>,
    /// When it was asked for. None of a planned transaction: its branches may have voted before.
    since: Option<Instant>,
    /// What is heard of why it was aborted.
    reason: AbortReason,
    /// What was told last of why there is no outcome yet.
    undecided: Option<Undecided>,
    goes_on: GoesOn,
}

/// Whether a question is asked on when no caller waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoesOn {
    /// It ends with its last caller.
    WhileWaitedFor,
    /// The rollback of a planned transaction: until the outcome is known.
    UntilDecided,
}

/// Surrounds an initiator.
pub(super) struct InitiatorShell {
    links: Arc<Links>,
    beginning: VecDeque<oneshot::Sender<Option<TxnId>>>,
    /// Commits that were asked for in this turn, in order, until their ids are known.
    asking: BTreeMap<TxnId, (oneshot::Sender<Answer>, Vec<Branch>)>,
    waiting: BTreeMap<CommitId, Waiting>,
    /// Plans that were asked for in this turn.
    planning: BTreeMap<TxnId, oneshot::Sender<Result<CommitId, Refusal>>>,
    /// The transactions that are planned and for which nothing else was asked, with what is heard
    /// of why they were aborted.
    planned: BTreeMap<CommitId, AbortReason>,
    directory: Directory,
    /// A commit has had its outcome in this turn: what was asked for it can be asked again.
    has_outcome: bool,
    draining: Option<oneshot::Sender<()>>,
    hedge: Hedge,
    hedge_after: Option<Duration>,
    /// Transactions that were begun for a caller that did not wait.
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
            planning: BTreeMap::new(),
            planned: BTreeMap::new(),
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
        let waiting = self.waiting.get_mut(id).map(|waiting| &mut waiting.reason);
        let heard = waiting.or_else(|| self.planned.get_mut(id));
        if let Some(heard) = heard
            && *heard == AbortReason::Unknown
        {
            *heard = reason;
        }
    }

    fn call(&mut self, host: &mut Core, call: Call, out: &mut Effects<Core>) {
        let mut step = |command| host.step(Input::Command(command), out);
        match call {
            Call::Begin(answer) => {
                self.beginning.push_back(answer);
                step(InitiatorCommand::Begin { nonce: draw() });
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
            Call::Plan {
                txn,
                branches,
                vote_timeout,
                answer,
            } => {
                self.planning.insert(txn, answer);
                step(InitiatorCommand::Plan {
                    txn,
                    branches,
                    vote_timeout,
                });
            }
            Call::Ask(id, answer) => {
                self.wait_for(id, answer, Vec::new());
                step(InitiatorCommand::Ask(id));
            }
            Call::ForceAbort(id, answer) => {
                self.wait_for(id, answer, Vec::new());
                step(InitiatorCommand::ForceAbort(id));
            }
            Call::Resolve(participant, answer) => {
                if self.directory.find(&participant, answer, Instant::now()) {
                    step(InitiatorCommand::Resolve(participant));
                }
            }
            Call::GiveUp(what, answer) => {
                let found = match what {
                    GivenUp::Transaction(txn) => self.give_up(txn, host, out),
                    GivenUp::Question(id) => self.stop_asking(id, host, out),
                };
                let _ = answer.send(found);
            }
            Call::Rollback(txn, branches, answer) => {
                self.rolls_back(host.commit_id(txn), answer);
                let command = InitiatorCommand::Rollback { txn, branches };
                host.step(Input::Command(command), out);
            }
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
    /// A rollback is asked for, of the instance `id` if a plan was handed out.
    fn rolls_back(&mut self, id: Option<CommitId>, answer: oneshot::Sender<Answer>) {
        let Some(id) = id else {
            // No branch was asked to prepare, and none will be.
            let _ = answer.send(Answer::Aborted(AbortReason::Rollback));
            return;
        };
        // Without its branches: no session is suspected because of a rollback.
        let waiting = self.wait_for(id, answer, Vec::new());
        waiting.goes_on = GoesOn::UntilDecided;
    }

    /// The holder of a transaction stops waiting for its end.
    fn give_up(
        &mut self,
        txn: TxnId,
        host: &mut Core,
        out: &mut Effects<Core>,
    ) -> Option<(CommitId, String)> {
        // A caller that gives up has closed its end; others may still wait.
        let asking = self.asking.get(&txn);
        if asking.is_some_and(|(answer, _)| answer.is_closed()) {
            self.asking.remove(&txn);
        }
        let mut is_waited_for = self.asking.contains_key(&txn);
        let ids = self.waiting.keys().filter(|id| id.txn == txn).copied();
        let mut found = None;
        for id in ids.collect::<Vec<_>>() {
            found = self.leave(id).map(|why| (id, why));
            is_waited_for |= self.waiting.contains_key(&id);
        }
        if !is_waited_for {
            host.step(Input::Command(InitiatorCommand::Abandon(txn)), out);
        }
        found
    }

    /// A caller that asked a question stops waiting for the answer.
    fn stop_asking(
        &mut self,
        id: CommitId,
        host: &mut Core,
        out: &mut Effects<Core>,
    ) -> Option<(CommitId, String)> {
        let found = self.leave(id).map(|why| (id, why));
        if !self.waiting.contains_key(&id) {
            host.step(Input::Command(InitiatorCommand::StopAsking(id)), out);
        }
        found
    }

    /// Removes the callers that have gone. Answers why there is no outcome yet.
    fn leave(&mut self, id: CommitId) -> Option<String> {
        let problems = self.links.problems.summary();
        let waiting = self.waiting.get_mut(&id)?;
        let mut why = why(waiting.undecided.as_ref());
        if !problems.is_empty() {
            why.push_str(&format!("; not reached: {problems}"));
        }
        waiting.answers.retain(|answer| !answer.is_closed());
        if waiting.answers.is_empty() && waiting.goes_on == GoesOn::WhileWaitedFor {
            self.waiting.remove(&id);
        }
        Some(why)
    }

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
            InitiatorNotice::Planned(id) => {
                // If the holder of the transaction has gone, its end has been asked for.
                if let Some(answer) = self.planning.remove(&id.txn)
                    && answer.send(Ok(id)).is_ok()
                {
                    self.planned.entry(id).or_insert(AbortReason::Unknown);
                }
            }
            InitiatorNotice::Asked(id) => {
                if let Some((answer, branches)) = self.asking.remove(&id.txn) {
                    self.wait_for(id, answer, branches);
                }
            }
            InitiatorNotice::Refused { txn, error } => {
                if let Some(answer) = self.planning.remove(&txn) {
                    let _ = answer.send(Err(error));
                } else if let Some((answer, _)) = self.asking.remove(&txn) {
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
                branches,
                ..
            } => self.directory.told(&participant, branches, Instant::now()),
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
                if let Some(since) = waiting.since {
                    self.hedge_after = self.hedge.took(since.elapsed());
                }
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

    fn wait_for(
        &mut self,
        id: CommitId,
        answer: oneshot::Sender<Answer>,
        branches: Vec<Branch>,
    ) -> &mut Waiting {
        let heard = self.planned.remove(&id);
        let waiting = self.waiting.entry(id).or_insert_with(|| Waiting {
            answers: Vec::new(),
            branches,
            since: heard.is_none().then(Instant::now),
            reason: heard.unwrap_or(AbortReason::Unknown),
            undecided: None,
            goes_on: GoesOn::WhileWaitedFor,
        });
        waiting.answers.push(answer);
        waiting
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
