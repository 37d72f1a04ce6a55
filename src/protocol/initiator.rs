//! The initiator: begins transactions, asks for commit, learns the outcome by itself.
//!
//! It saves nothing. After a restart it is another initiator, and asks for the ids that its
//! application kept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use super::effects::{Effects, Host, Input, TimerOp};
use super::learn::OutcomeLearner;
use super::message::{BeginCommit, Decision, Message, Question, State, Undecided, Voter};
use super::paxos::{Acceptors, Ballot, ReplicaId};
use super::types::{
    Branch, CommitId, InitiatorId, Outcome, ParticipantName, Peer, Request, Roster, RosterError,
    Session, TxnId,
};

/// What an initiator is told at start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InitiatorConfig {
    /// Drawn at random at start.
    pub id: InitiatorId,
    /// The replicas.
    pub acceptors: Acceptors,
    /// The generation that is open.
    pub generation: u32,
    /// How long to wait for a sign of a commit before the next relay is asked too.
    pub hedge_delay: Duration,
    /// The time between two ticks.
    pub tick: Duration,
    /// Ticks until an unanswered question is asked again; doubled each time.
    pub retry_ticks: u32,
    /// The most ticks between two such questions.
    pub retry_ticks_max: u32,
}

impl InitiatorConfig {
    /// The usual settings.
    pub fn new(id: InitiatorId, acceptors: Acceptors) -> Self {
        InitiatorConfig {
            id,
            acceptors,
            generation: 1,
            hedge_delay: Duration::from_millis(5),
            tick: Duration::from_millis(50),
            retry_ticks: 2,
            retry_ticks_max: 20,
        }
    }
}

/// The timers of an initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InitiatorTimer {
    /// Every [`InitiatorConfig::tick`], while something is open.
    Tick,
    /// The relay of this commit has not been heard of.
    Hedge(CommitId),
}

/// What an application asks of its initiator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InitiatorCommand {
    /// Begin a transaction; answered with [`InitiatorNotice::Begun`].
    Begin,
    /// Commit with these branches.
    Commit {
        /// The transaction.
        txn: TxnId,
        /// The branches, each with the request that travels inside its `Prepare`, if any.
        branches: Vec<(Branch, Option<Request>)>,
        /// How the branches come to prepare.
        prepare: PrepareBy,
        /// How long replicas wait for votes before they start a ballot.
        vote_timeout: Duration,
    },
    /// Commit will not be asked for: these branches may let go.
    Rollback {
        /// The transaction.
        txn: TxnId,
        /// The sessions that work under it.
        branches: Vec<Branch>,
    },
    /// Stop waiting for this transaction; its outcome stays open here. The floor may pass it.
    Abandon(TxnId),
    /// What came of this one? Asks until it is known or [`Abandon`](Self::Abandon)ed.
    Ask(CommitId),
    /// What do the replicas know of this one?
    Inquire(TxnId),
    /// Which sessions of this participant are connected?
    Resolve(ParticipantName),
    /// Hedge after this long from now on; the shell adapts it to what it measures.
    HedgeAfter(Duration),
}

/// How the branches of a transaction come to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrepareBy {
    /// A replica sends `Prepare` to each.
    Relay,
    /// Each prepares as the last step of its own work; they were given the roster with it.
    Itself,
}

/// What an initiator tells its application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InitiatorNotice {
    /// A transaction has begun.
    Begun(TxnId),
    /// No transaction can begin: the sequence is used up. Start with a newly drawn
    /// [`InitiatorId`].
    SequenceExhausted,
    /// Commit was asked for under this id; keep it to ask for the outcome later.
    Asked(CommitId),
    /// Commit cannot be asked for; nothing was sent.
    Refused {
        /// The transaction.
        txn: TxnId,
        /// Why.
        error: CommitError,
    },
    /// The outcome.
    Outcome {
        /// The instance.
        id: CommitId,
        /// What was chosen.
        outcome: Outcome,
    },
    /// No outcome yet, as one replica sees it.
    Undecided {
        /// The replica that says so.
        replica: ReplicaId,
        /// Why.
        undecided: Undecided,
    },
    /// A replica's knowledge of a transaction.
    Status {
        /// The replica.
        replica: ReplicaId,
        /// The transaction.
        txn: TxnId,
        /// Its instances, none if it is unknown there.
        instances: Vec<(CommitId, State)>,
    },
    /// The sessions of a participant that are connected to a replica.
    Resolved {
        /// The replica.
        replica: ReplicaId,
        /// The participant.
        participant: ParticipantName,
        /// Its sessions.
        sessions: Vec<Session>,
    },
}

/// Why commit cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The branches make no roster.
    #[error("{0}")]
    Roster(String),
    /// The transaction was not begun here, or was ended before.
    #[error("transaction {0} is not open at this initiator: it was never begun or has ended")]
    NotOpen(TxnId),
    /// A request is too long.
    #[error("a request has at most {max} bytes, got {got}", max = super::types::REQUEST_BYTES_MAX)]
    RequestTooLong {
        /// Its length.
        got: usize,
    },
    /// Requests travel inside a `Prepare`, and nobody sends one when branches prepare by
    /// themselves.
    #[error("a branch that prepares by itself can be given no request at commit")]
    RequestWithoutRelay,
}

impl From<RosterError> for CommitError {
    fn from(error: RosterError) -> Self {
        CommitError::Roster(error.to_string())
    }
}

/// An initiator. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Initiator {
    config: InitiatorConfig,
    /// The next sequence number; `None` when they are used up.
    next: Option<u32>,
    /// The transactions begun and not ended, by sequence number.
    open: BTreeMap<u32, Phase>,
    /// Questions about any transaction.
    questions: BTreeMap<CommitId, Retry>,
    /// The position of the replica that is asked first.
    relay: usize,
    ticking: Ticking,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Begun,
    Committing(Box<Committing>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Committing {
    begin: BeginCommit,
    prepare: PrepareBy,
    learner: OutcomeLearner,
    relay: usize,
    retry: Retry,
}

/// Counts ticks down to the next try, twice as many each time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Retry {
    patience: u32,
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ticking {
    Yes,
    No,
}

impl Host for Initiator {
    type Config = InitiatorConfig;
    type Record = Infallible;
    type Timer = InitiatorTimer;
    type Command = InitiatorCommand;
    type Notice = InitiatorNotice;

    fn recover(
        config: InitiatorConfig,
        saved: impl IntoIterator<Item = Infallible>,
        _out: &mut Effects<Self>,
    ) -> Self {
        if let Some(record) = saved.into_iter().next() {
            match record {}
        }
        Initiator {
            config,
            next: Some(0),
            open: BTreeMap::new(),
            questions: BTreeMap::new(),
            relay: 0,
            ticking: Ticking::No,
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message {
                from: Peer::Replica(replica),
                message,
            } if self.config.acceptors.contains(replica) => self.on_message(replica, message, out),
            Input::Message { .. } => {}
            Input::Connected(peer) => self.on_connected(&peer, out),
            Input::Disconnected(peer) => self.on_disconnected(&peer, out),
            Input::Timeout(InitiatorTimer::Tick) => self.on_tick(out),
            Input::Timeout(InitiatorTimer::Hedge(id)) => self.on_hedge(id, out),
            Input::Command(command) => self.on_command(command, out),
        }
    }
}

impl Initiator {
    /// The lowest sequence number that this initiator still cares about. It travels with every
    /// `Prepare`, and with a roster that is handed to branches that prepare by themselves.
    pub fn floor(&self) -> u32 {
        let oldest = self.open.keys().next().copied();
        oldest.or(self.next).unwrap_or(u32::MAX)
    }

    fn on_command(&mut self, command: InitiatorCommand, out: &mut Effects<Self>) {
        match command {
            InitiatorCommand::Begin => self.begin(out),
            InitiatorCommand::Commit {
                txn,
                branches,
                prepare,
                vote_timeout,
            } => match self.commit(txn, branches, prepare, vote_timeout, out) {
                Ok(id) => out.notify.push(InitiatorNotice::Asked(id)),
                Err(error) => out.notify.push(InitiatorNotice::Refused { txn, error }),
            },
            InitiatorCommand::Rollback { txn, branches } => self.rollback(txn, branches, out),
            InitiatorCommand::Abandon(txn) => self.abandon(txn, out),
            InitiatorCommand::Ask(id) => {
                let retry = Retry::new(&self.config);
                self.questions.insert(id, retry);
                self.ask(id, out);
                self.tick_while_open(out);
            }
            InitiatorCommand::Inquire(txn) => self.send_to_all(&Message::Inquire { txn }, out),
            InitiatorCommand::Resolve(participant) => {
                self.send_to_all(&Message::Resolve { participant }, out);
            }
            InitiatorCommand::HedgeAfter(delay) => self.config.hedge_delay = delay,
        }
    }

    fn begin(&mut self, out: &mut Effects<Self>) {
        let Some(sequence) = self.next else {
            out.notify.push(InitiatorNotice::SequenceExhausted);
            return;
        };
        self.next = sequence.checked_add(1);
        self.open.insert(sequence, Phase::Begun);
        let txn = TxnId {
            generation: self.config.generation,
            initiator: self.config.id,
            sequence,
        };
        out.notify.push(InitiatorNotice::Begun(txn));
    }

    fn commit(
        &mut self,
        txn: TxnId,
        mut branches: Vec<(Branch, Option<Request>)>,
        prepare: PrepareBy,
        vote_timeout: Duration,
        out: &mut Effects<Self>,
    ) -> Result<CommitId, CommitError> {
        // The roster is fixed once: a second one would be a second instance.
        if !self.is_begun(txn) {
            return Err(CommitError::NotOpen(txn));
        }
        branches.sort_unstable();
        let (branches, requests): (Vec<_>, Vec<_>) = branches.into_iter().unzip();
        let roster = Roster::new(branches)?;
        let requests = check_requests(requests, prepare)?;
        let id = CommitId::new(txn, &roster);
        let committing = Committing {
            begin: BeginCommit {
                id,
                roster,
                requests,
                floor: self.floor(),
                vote_timeout,
            },
            prepare,
            learner: OutcomeLearner::default(),
            relay: self.relay,
            retry: Retry::new(&self.config),
        };
        if prepare == PrepareBy::Relay {
            let relay = self.replica(self.relay);
            out.send(relay, Message::BeginCommit(committing.begin.clone()));
            out.set(InitiatorTimer::Hedge(id), self.config.hedge_delay);
        }
        let phase = Phase::Committing(Box::new(committing));
        self.open.insert(txn.sequence, phase);
        self.tick_while_open(out);
        Ok(id)
    }

    fn rollback(&mut self, txn: TxnId, branches: Vec<Branch>, out: &mut Effects<Self>) {
        if !self.is_begun(txn) {
            let error = CommitError::NotOpen(txn);
            out.notify.push(InitiatorNotice::Refused { txn, error });
            return;
        }
        self.open.remove(&txn.sequence);
        self.send_to_all(&Message::Rollback { txn, branches }, out);
    }

    fn abandon(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        self.questions.retain(|id, _| id.txn != txn);
        if !self.is_mine(txn) {
            return;
        }
        if let Some(Phase::Committing(committing)) = self.open.remove(&txn.sequence) {
            let timer = InitiatorTimer::Hedge(committing.begin.id);
            out.timers.push(TimerOp::Cancel(timer));
        }
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Effects<Self>) {
        match message {
            Message::Phase2b {
                id,
                ballot,
                outcome,
            } => self.on_phase2b(from, id, ballot, outcome, out),
            Message::Decided(Decision { id, outcome, .. }) => self.on_outcome(id, outcome, out),
            Message::Undecided(undecided) => {
                if self.is_asked(&undecided.id) {
                    out.notify.push(InitiatorNotice::Undecided {
                        replica: from,
                        undecided,
                    });
                }
            }
            Message::Status { txn, instances } => out.notify.push(InitiatorNotice::Status {
                replica: from,
                txn,
                instances,
            }),
            Message::Resolved {
                participant,
                sessions,
            } => out.notify.push(InitiatorNotice::Resolved {
                replica: from,
                participant,
                sessions,
            }),
            Message::Busy { id } => self.on_busy(id, out),
            Message::BeginCommit(_)
            | Message::Rollback { .. }
            | Message::Ask(_)
            | Message::Inquire { .. }
            | Message::Resolve { .. }
            | Message::ForceAbort { .. }
            | Message::Prepare(_)
            | Message::LetGo { .. }
            | Message::Vote(_)
            | Message::Applied { .. }
            | Message::Phase1a { .. }
            | Message::Phase1b { .. }
            | Message::Phase2a { .. }
            | Message::Nack { .. }
            | Message::Finish { .. } => {}
        }
    }

    fn on_phase2b(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        let acceptors = self.config.acceptors.clone();
        let Some(committing) = self.committing(id) else {
            return;
        };
        let learner = &mut committing.learner;
        if let Some(outcome) = learner.on_phase2b(&acceptors, from, ballot, outcome) {
            self.on_outcome(id, outcome, out);
        }
    }

    fn on_outcome(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        let was_asked = self.questions.remove(&id).is_some();
        let was_open = self.committing(id).is_some();
        if was_open {
            self.open.remove(&id.txn.sequence);
            out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
        }
        if was_open || was_asked {
            out.notify.push(InitiatorNotice::Outcome { id, outcome });
        }
    }

    /// The relay has too much to do: back off. The next tick that is due asks another one.
    fn on_busy(&mut self, id: CommitId, out: &mut Effects<Self>) {
        let config = self.config.clone();
        if let Some(committing) = self.committing(id) {
            committing.retry.back_off(&config);
            out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
        }
        if let Some(retry) = self.questions.get_mut(&id) {
            retry.back_off(&config);
        }
    }

    /// Nothing was heard within the hedge delay: ask the next replica too, and ask it first from
    /// now on.
    fn on_hedge(&mut self, id: CommitId, out: &mut Effects<Self>) {
        let replicas = self.config.acceptors.len();
        let Some(committing) = self.committing(id) else {
            return;
        };
        let asked = committing.relay;
        committing.relay = (asked + 1) % replicas;
        let (relay, begin) = (committing.relay, committing.begin.clone());
        if self.relay == asked {
            self.relay = relay;
        }
        out.send(self.replica(relay), Message::BeginCommit(begin));
    }

    /// A relay that went away is not waited for.
    fn on_disconnected(&mut self, peer: &Peer, out: &mut Effects<Self>) {
        let hedges: Vec<CommitId> = self
            .open
            .values()
            .filter_map(|phase| match phase {
                Phase::Committing(committing)
                    if committing.prepare == PrepareBy::Relay
                        && self.replica(committing.relay) == *peer =>
                {
                    Some(committing.begin.id)
                }
                Phase::Begun | Phase::Committing(_) => None,
            })
            .collect();
        for id in hedges {
            self.on_hedge(id, out);
        }
        if self.replica(self.relay) == *peer {
            self.relay = (self.relay + 1) % self.config.acceptors.len();
        }
    }

    /// What was sent on an earlier connection may be lost: ask again at the next tick.
    fn on_connected(&mut self, peer: &Peer, out: &mut Effects<Self>) {
        let Peer::Replica(_) = peer else {
            return;
        };
        for phase in self.open.values_mut() {
            match phase {
                Phase::Committing(committing) => committing.retry.patience = 1,
                Phase::Begun => {}
            }
        }
        for retry in self.questions.values_mut() {
            retry.patience = 1;
        }
        self.tick_while_open(out);
    }

    fn on_tick(&mut self, out: &mut Effects<Self>) {
        self.ticking = Ticking::No;
        let config = self.config.clone();
        let mut due = Vec::new();
        for phase in self.open.values_mut() {
            match phase {
                Phase::Committing(committing) => {
                    if committing.retry.is_due(&config) {
                        committing.relay = (committing.relay + 1) % config.acceptors.len();
                        due.push((**committing).clone());
                    }
                }
                Phase::Begun => {}
            }
        }
        for committing in due {
            self.try_again(committing, out);
        }
        let questions = self.questions.iter_mut();
        let asks: Vec<CommitId> = questions
            .filter_map(|(id, retry)| retry.is_due(&config).then_some(*id))
            .collect();
        for id in asks {
            self.ask(id, out);
        }
        self.tick_while_open(out);
    }

    /// A relay that is asked again answers with what it has accepted, and prepares the branches
    /// whose vote it lacks. Without a relay, the question is what makes the replicas answer.
    fn try_again(&self, committing: Committing, out: &mut Effects<Self>) {
        let id = committing.begin.id;
        match committing.prepare {
            PrepareBy::Relay => {
                let relay = self.replica(committing.relay);
                out.send(relay, Message::BeginCommit(committing.begin));
            }
            PrepareBy::Itself => {
                self.send_question(id, committing.begin.vote_timeout, out);
            }
        }
    }

    fn ask(&self, id: CommitId, out: &mut Effects<Self>) {
        self.send_question(id, Duration::ZERO, out);
    }

    fn send_question(&self, id: CommitId, vote_timeout: Duration, out: &mut Effects<Self>) {
        let question = Question {
            id,
            branch: None,
            voter: Voter::Unknown,
            vote_timeout,
        };
        self.send_to_all(&Message::Ask(question), out);
    }

    fn tick_while_open(&mut self, out: &mut Effects<Self>) {
        let committing = |phase: &Phase| matches!(phase, Phase::Committing(_));
        let open = self.open.values().any(committing) || !self.questions.is_empty();
        if open && self.ticking == Ticking::No {
            self.ticking = Ticking::Yes;
            out.set(InitiatorTimer::Tick, self.config.tick);
        }
    }

    fn is_mine(&self, txn: TxnId) -> bool {
        txn.initiator == self.config.id
    }

    fn is_begun(&self, txn: TxnId) -> bool {
        self.is_mine(txn) && self.open.get(&txn.sequence) == Some(&Phase::Begun)
    }

    fn is_asked(&self, id: &CommitId) -> bool {
        let open = self.is_mine(id.txn) && self.open.contains_key(&id.txn.sequence);
        open || self.questions.contains_key(id)
    }

    fn committing(&mut self, id: CommitId) -> Option<&mut Committing> {
        if !self.is_mine(id.txn) {
            return None;
        }
        match self.open.get_mut(&id.txn.sequence)? {
            Phase::Committing(committing) if committing.begin.id == id => Some(committing),
            Phase::Committing(_) | Phase::Begun => None,
        }
    }

    fn replica(&self, index: usize) -> Peer {
        let replica = self.config.acceptors.iter().nth(index);
        Peer::Replica(replica.expect("the index is kept below the number of replicas"))
    }

    fn send_to_all(&self, message: &Message, out: &mut Effects<Self>) {
        for replica in self.config.acceptors.iter() {
            out.send(Peer::Replica(replica), message.clone());
        }
    }
}

impl Retry {
    fn new(config: &InitiatorConfig) -> Self {
        Retry {
            patience: config.retry_ticks.max(1),
            attempts: 0,
        }
    }

    fn back_off(&mut self, config: &InitiatorConfig) {
        self.attempts = self.attempts.saturating_add(1);
        let ticks = config
            .retry_ticks
            .saturating_mul(1 << self.attempts.min(16));
        self.patience = ticks.min(config.retry_ticks_max).max(1);
    }

    /// Counts one tick. When it is time, sets the next.
    fn is_due(&mut self, config: &InitiatorConfig) -> bool {
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.back_off(config);
            return true;
        }
        false
    }
}

fn check_requests(
    requests: Vec<Option<Request>>,
    prepare: PrepareBy,
) -> Result<Vec<Option<Request>>, CommitError> {
    let mut lengths = requests.iter().flatten().map(|request| request.0.len());
    let Some(longest) = lengths.by_ref().max() else {
        return Ok(Vec::new());
    };
    if longest > super::types::REQUEST_BYTES_MAX {
        return Err(CommitError::RequestTooLong { got: longest });
    }
    match prepare {
        PrepareBy::Relay => Ok(requests),
        PrepareBy::Itself => Err(CommitError::RequestWithoutRelay),
    }
}
