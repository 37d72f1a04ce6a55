//! The initiator: begins transactions, asks for commit, learns the outcome by itself.
//!
//! It saves nothing. After a restart it is another initiator, and asks for the ids that its
//! application kept.
//!
//! | file | what |
//! |---|---|
//! | `committing` | begin, commit, abandon; learn the outcome |
//! | `planning` | plan; roll back, with a ballot if a plan was handed out |
//! | `retrying` | hedge, back off, ask again; questions |

mod committing;
mod planning;
mod retrying;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use super::effects::{Effects, Host, Input};
use super::message::{Decision, Message, State, Undecided};
use super::paxos::{Acceptors, ReplicaId};
use super::types::{
    Branch, CommitId, Configuration, Generations, InitiatorId, Outcome, ParticipantName, Peer,
    REQUEST_BYTES_MAX, Request, RosterError, TxnId,
};

use committing::Phase;
use retrying::{Asking, Ticking, Wanted};

/// What an initiator is told at start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InitiatorConfig {
    /// Drawn at random at start.
    pub id: InitiatorId,
    /// The generations, as a replica announced them when the connection came up.
    pub generations: Generations,
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
    /// The usual settings, with a new cluster.
    pub fn new(id: InitiatorId, genesis: impl Into<Configuration>) -> Self {
        InitiatorConfig::joining(id, Generations::genesis(genesis.into()))
    }

    /// The usual settings, with a cluster that has these generations.
    pub fn joining(id: InitiatorId, generations: Generations) -> Self {
        InitiatorConfig {
            id,
            generations,
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
    Begin {
        /// Drawn at random: it makes the id of the transaction one that cannot be guessed.
        nonce: u64,
    },
    /// Fix the roster, because a plan is handed to branches that prepare by themselves. Answered
    /// with [`InitiatorNotice::Planned`]. From then on, only an outcome ends the transaction.
    Plan {
        /// The transaction.
        txn: TxnId,
        /// The branches.
        branches: Vec<Branch>,
        /// How long replicas wait for votes before they start a ballot.
        vote_timeout: Duration,
    },
    /// Commit with these branches.
    Commit {
        /// The transaction.
        txn: TxnId,
        /// The branches, each with the request that travels inside its `Prepare`, if any. Of a
        /// planned transaction, the branches and the vote timeout are those of the plan.
        branches: Vec<(Branch, Option<Request>)>,
        /// How the branches come to prepare.
        prepare: PrepareBy,
        /// How long replicas wait for votes before they start a ballot.
        vote_timeout: Duration,
    },
    /// Roll back. If no plan was handed out and commit was not asked for, these branches release
    /// their work and nothing else happens. Otherwise replicas decide by a ballot, and the outcome
    /// is told, even if it is commit.
    Rollback {
        /// The transaction.
        txn: TxnId,
        /// The sessions that work under it.
        branches: Vec<Branch>,
    },
    /// Stop waiting for this transaction; its outcome stays open here. The floor may pass it.
    Abandon(TxnId),
    /// What came of this one? Asks until the outcome is known.
    Ask(CommitId),
    /// Roll this one back by a ballot; the outcome that the ballot reached is told. It may be a
    /// transaction of an earlier run of the same name.
    ForceAbort(CommitId),
    /// Stop asking because of [`Ask`](Self::Ask) or [`ForceAbort`](Self::ForceAbort). A transaction
    /// that is open here stays open.
    StopAsking(CommitId),
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
    /// The roster is fixed, and the transaction will be decided under this id.
    Planned(CommitId),
    /// Commit was asked for under this id; keep it to ask for the outcome later.
    Asked(CommitId),
    /// Commit cannot be asked for; nothing was sent. Never said of a transaction that is planned or
    /// whose commit was asked for.
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
    /// The outcome is forgotten: the generation of the transaction is settled. It was aborted, or it
    /// was committed and every branch has applied it; no replica remembers which of the two.
    Expired {
        /// The instance.
        id: CommitId,
    },
    /// A replica knows nothing of a transaction any more: it ended long ago.
    Forgotten {
        /// The replica.
        replica: ReplicaId,
        /// The transaction.
        txn: TxnId,
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
        /// What would stand in a roster for each of its sessions.
        branches: Vec<Branch>,
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
    #[error("a request has at most {max} bytes, got {got}", max = REQUEST_BYTES_MAX)]
    RequestTooLong {
        /// Its length.
        got: usize,
    },
    /// Requests travel inside a `Prepare`, and no relay sends one when branches prepare by
    /// themselves.
    #[error("a branch that prepares by itself can be given no request at commit")]
    RequestWithoutRelay,
    /// The transaction has been open for so long that replicas no longer accept it. No plan was
    /// handed out and commit was not asked for, so nothing happened.
    #[error(
        "transaction {0} began in a generation that is closed by now: roll it back and do it again"
    )]
    GenerationClosed(TxnId),
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
    questions: BTreeMap<CommitId, Asking>,
    generations: Generations,
    /// The position, in the configuration of a transaction, of the replica that is asked first.
    relay: usize,
    /// The replicas that did not answer in time, or went away, and were not heard of since: they are
    /// asked first only if all are like that. What is asked is the same, so this is about time only.
    silent: BTreeSet<ReplicaId>,
    ticking: Ticking,
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
            generations: config.generations.clone(),
            config,
            next: Some(0),
            open: BTreeMap::new(),
            questions: BTreeMap::new(),
            relay: 0,
            silent: BTreeSet::new(),
            ticking: Ticking::No,
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            // A replica that is new here tells which generation it belongs to.
            Input::Message {
                from: Peer::Replica(_),
                message: Message::Announce(generations),
            } => self.on_generations(generations),
            Input::Message {
                from: Peer::Replica(replica),
                message,
            } if self.generations.contains(replica) => {
                self.silent.remove(&replica);
                self.on_message(replica, message, out);
            }
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

    /// The replica that is asked first to have branches prepared.
    pub fn relay(&self) -> Option<ReplicaId> {
        let acceptors = self.generations.in_force()?.acceptors();
        acceptors.iter().nth(self.relay_from(self.relay, acceptors))
    }

    /// The position of the first replica from `start` on that is not silent; that of `start` if all
    /// are.
    fn relay_from(&self, start: usize, acceptors: &Acceptors) -> usize {
        let count = acceptors.len();
        let mut positions = (start..start + count).map(|position| position % count);
        let answers = |position: &usize| {
            let replica = acceptors.iter().nth(*position);
            replica.is_some_and(|replica| !self.silent.contains(&replica))
        };
        positions.find(answers).unwrap_or(start % count)
    }

    /// What it knows of generations.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    fn on_command(&mut self, command: InitiatorCommand, out: &mut Effects<Self>) {
        match command {
            InitiatorCommand::Begin { nonce } => self.begin(nonce, out),
            InitiatorCommand::Commit {
                txn,
                branches,
                prepare,
                vote_timeout,
            } => {
                if let Err(error) = self.commit(txn, branches, prepare, vote_timeout, out) {
                    out.notify.push(InitiatorNotice::Refused { txn, error });
                }
            }
            InitiatorCommand::Plan {
                txn,
                branches,
                vote_timeout,
            } => match self.plan(txn, branches, vote_timeout) {
                Ok(id) => out.notify.push(InitiatorNotice::Planned(id)),
                Err(error) => out.notify.push(InitiatorNotice::Refused { txn, error }),
            },
            InitiatorCommand::Rollback { txn, branches } => self.rollback(txn, branches, out),
            InitiatorCommand::Abandon(txn) => self.abandon(txn, out),
            InitiatorCommand::Ask(id) => self.begin_asking(id, Wanted::Outcome, out),
            InitiatorCommand::ForceAbort(id) => self.begin_asking(id, Wanted::Ballot, out),
            InitiatorCommand::StopAsking(id) => drop(self.questions.remove(&id)),
            InitiatorCommand::Inquire(txn) => {
                self.send_to_all(Some(txn), &Message::Inquire { txn }, out);
            }
            InitiatorCommand::Resolve(participant) => {
                self.send_to_all(None, &Message::Resolve { participant }, out);
            }
            InitiatorCommand::HedgeAfter(delay) => self.config.hedge_delay = delay,
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
                branches,
            } => out.notify.push(InitiatorNotice::Resolved {
                replica: from,
                participant,
                branches,
            }),
            Message::Busy { id } => self.on_busy(id, out),
            Message::NotOpen { generations, .. } => self.on_generations(generations),
            Message::Expired { id, .. } => self.on_expired(id, out),
            Message::Forgotten { txn } => out
                .notify
                .push(InitiatorNotice::Forgotten { replica: from, txn }),
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
            | Message::Finish { .. }
            | Message::Announce(_)
            | Message::Log(_)
            | Message::Freeze { .. }
            | Message::Frozen { .. }
            | Message::Collect { .. }
            | Message::Collected { .. }
            | Message::Fetch { .. }
            | Message::State { .. }
            | Message::Present { .. }
            | Message::Admission { .. }
            | Message::Enter { .. }
            | Message::Gone { .. }
            | Message::Restored { .. }
            | Message::Probe { .. }
            | Message::Probed { .. }
            | Message::Named { .. }
            | Message::Reconfigure { .. }
            | Message::Release { .. }
            | Message::Disputed { .. }
            | Message::Contradicted { .. }
            | Message::Unproven { .. }
            | Message::List { .. }
            | Message::ListPage(_)
            | Message::Declined(_) => {}
        }
    }

    fn is_asked(&self, id: &CommitId) -> bool {
        self.commit_id(id.txn) == Some(*id) || self.questions.contains_key(id)
    }

    /// A replica announces the generations: new transactions begin in the latest.
    fn on_generations(&mut self, generations: Generations) {
        if self.generations.is_older_than(&generations) {
            self.generations = generations;
        }
    }

    /// To the replicas that decide, or know, what comes of `txn`; without one, to those in force.
    fn send_to_all(&self, txn: Option<TxnId>, message: &Message, out: &mut Effects<Self>) {
        let in_force = self.generations.in_force().map(Configuration::acceptors);
        let acceptors = txn.and_then(|txn| self.generations.who_knows(txn));
        let acceptors = acceptors.or(in_force);
        for replica in acceptors.into_iter().flat_map(Acceptors::iter) {
            out.send(Peer::Replica(replica), message.clone());
        }
    }
}
