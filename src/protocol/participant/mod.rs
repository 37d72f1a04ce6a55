//! A participant's session: it votes for its own branches, once each, and sees them to their end.
//!
//! | file | what |
//! |---|---|
//! | `branch` | the states of a branch of this session |
//! | `voting` | begin, prepare, vote, let go |
//! | `finishing` | learn the outcome, apply it, say so; branches in doubt |
//! | `forgetting` | floors and generations: what may be forgotten |
//!
//! The session saves nothing itself. What must survive it is the resource manager's: branches that
//! it prepared. They are listed to the next session (`InDoubt`), which asks about each and guesses
//! none. What a session voted it remembers until the initiator's floor, or the settled horizon, has
//! passed the transaction; a new session votes for no branch but its own, so it needs no memory of what the old one said.

mod branch;
mod finishing;
mod forgetting;
#[cfg(test)]
mod tests;
mod voting;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use super::effects::{Effects, Host, Input};
use super::message::{Message, Prepare};
use super::paxos::{Acceptors, ReplicaId};
use super::types::{
    Branch, CommitId, Configuration, Generations, InitiatorId, Outcome, Peer, ReadOnly, Request,
    Roster, Session, TxnId, Vote,
};

use branch::{Phase, Wait};
use forgetting::Floor;

/// What a session is told at start. Ticks are multiples of `tick`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParticipantConfig {
    /// The participant's name, and the session drawn at random at start.
    pub me: Branch,
    /// The generations, as a replica announced them when the connection came up.
    pub generations: Generations,
    /// The time between two ticks.
    pub tick: Duration,
    /// Ticks until a vote or a question that was not answered is sent again; doubled each time.
    pub retry_ticks: u32,
    /// The most ticks between two of them.
    pub retry_ticks_max: u32,
    /// Ticks after which a branch that was never asked to prepare lets go: nobody will ask. This
    /// is how long the work of a transaction may take.
    pub work_ticks_max: u32,
}

impl ParticipantConfig {
    /// The usual settings, with a new cluster.
    pub fn new(me: Branch, genesis: impl Into<Configuration>) -> Self {
        ParticipantConfig::joining(me, Generations::genesis(genesis.into()))
    }

    /// The usual settings, with a cluster that has these generations.
    pub fn joining(me: Branch, generations: Generations) -> Self {
        ParticipantConfig {
            me,
            generations,
            tick: Duration::from_millis(50),
            retry_ticks: 4,
            retry_ticks_max: 40,
            work_ticks_max: 1_200,
        }
    }
}

/// The timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantTimer {
    /// Every [`ParticipantConfig::tick`].
    Tick,
}

/// What a service or its resource manager tells its session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantCommand {
    /// Work begins under this transaction. Answered with [`ParticipantNotice::Began`] or
    /// [`ParticipantNotice::Refused`].
    Begin(TxnId),
    /// The work failed, or its connection broke: the branch can only vote `Aborted`.
    Poison(TxnId),
    /// The service gives the branch up before it has voted.
    Rollback(TxnId),
    /// The work is done and the whole roster known: prepare without being asked.
    ///
    /// `read_only` must be [`ReadOnly::Forbidden`] unless the caller knows that the work of the
    /// transaction has ended in *every* branch: a read lock that is let go while another branch
    /// still works breaks isolation.
    Prepare(Prepare),
    /// The answer to [`ParticipantNotice::Prepare`]. A prepare whose result is unknown is
    /// [`Vote::Aborted`]; if it surfaces after all, it stands among the branches in doubt.
    Prepared {
        /// The instance.
        id: CommitId,
        /// What to vote.
        vote: Vote,
    },
    /// The answer to [`ParticipantNotice::Finish`]: it is durable.
    Finished {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// The other answer to [`ParticipantNotice::Expired`]: it does not stand prepared.
    NotPrepared {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// The branches that stand prepared in the resource manager, found at start or later.
    InDoubt(Vec<InDoubt>),
}

/// One prepared branch that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InDoubt {
    /// The instance, as written when the branch was prepared.
    pub id: CommitId,
    /// The session that prepared it.
    pub session: Session,
    /// What is known of that session.
    pub owner: Owner,
}

/// What is known of the session that prepared a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// It may live, in another process.
    Unknown,
    /// It is certainly gone: the store admits one process at a time.
    Gone,
}

/// What a session asks of the resource manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantNotice {
    /// Run the request, if there is one, and make the branch durable; answer
    /// [`ParticipantCommand::Prepared`].
    Prepare {
        /// The instance; to be written with the branch.
        id: CommitId,
        /// Work to run first.
        request: Option<Request>,
        /// Whether `ReadOnly` may be answered.
        read_only: ReadOnly,
    },
    /// Commit or roll back this branch, durably; answer [`ParticipantCommand::Finished`].
    Finish {
        /// The instance.
        id: CommitId,
        /// The branch, not always of this session.
        branch: Branch,
        /// What to do.
        outcome: Outcome,
    },
    /// The transaction came to its end long ago, and its end is forgotten: if this branch still
    /// stands prepared, roll it back and answer [`ParticipantCommand::Finished`]; if not, another
    /// session saw it to its end, and the answer is [`ParticipantCommand::NotPrepared`].
    Expired {
        /// The instance.
        id: CommitId,
        /// The branch, not always of this session.
        branch: Branch,
    },
    /// Let go of work that was never prepared. Needs no answer.
    LetGo(TxnId),
    /// The answer to [`ParticipantCommand::Begin`]: work may go on under this transaction, which has
    /// begun now or before. Needs no answer.
    Began(TxnId),
    /// No work can begin under this transaction: it is being prepared, or over, or forgotten. What
    /// stands prepared is not touched. Needs no answer.
    Refused(TxnId),
    /// The outcome of a branch of this session.
    Outcome {
        /// The instance.
        id: CommitId,
        /// The outcome.
        outcome: Outcome,
    },
    /// A branch of this session came to its end by another session; which end is forgotten.
    Forgotten {
        /// The instance.
        id: CommitId,
    },
    /// Everything up to this id is settled. A branch up to there that no longer stands prepared has
    /// had its outcome: the marker that proves it may be dropped. Needs no answer.
    Settled {
        /// The horizon.
        through: CommitId,
    },
}

/// A participant's session. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Participant {
    config: ParticipantConfig,
    /// The branches of this session.
    branches: BTreeMap<TxnId, Phase>,
    /// Branches of other sessions of this participant, and of this one's that it has forgotten.
    others: BTreeMap<(CommitId, Session), Wait>,
    /// The lowest sequence number that each initiator still cares about.
    floors: BTreeMap<InitiatorId, Floor>,
    generations: Generations,
}

impl Host for Participant {
    type Config = ParticipantConfig;
    type Record = Infallible;
    type Timer = ParticipantTimer;
    type Command = ParticipantCommand;
    type Notice = ParticipantNotice;

    fn recover(
        config: ParticipantConfig,
        saved: impl IntoIterator<Item = Infallible>,
        out: &mut Effects<Self>,
    ) -> Self {
        if let Some(record) = saved.into_iter().next() {
            match record {}
        }
        out.set(ParticipantTimer::Tick, config.tick);
        Participant {
            generations: config.generations.clone(),
            config,
            branches: BTreeMap::new(),
            others: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            // A replica that is new here tells which generation it belongs to.
            Input::Message {
                from: Peer::Replica(_),
                message: Message::Announce(generations),
            } => self.on_generations(generations, out),
            Input::Message {
                from: Peer::Replica(replica),
                message,
            } if self.generations.contains(replica) => self.on_message(replica, message, out),
            Input::Message { .. } => {}
            Input::Connected(Peer::Replica(replica)) if self.generations.contains(replica) => {
                self.on_connected(replica, out);
            }
            Input::Connected(_) | Input::Disconnected(_) => {}
            Input::Timeout(ParticipantTimer::Tick) => self.on_tick(out),
            Input::Command(command) => self.on_command(command, out),
        }
    }
}

impl Participant {
    /// The branches of this session that have voted `Prepared` and do not know the outcome.
    pub fn in_doubt(&self) -> impl Iterator<Item = CommitId> + '_ {
        self.branches.values().filter_map(|phase| match phase {
            Phase::Voted(voted) if voted.vote == Vote::Prepared => Some(voted.id),
            Phase::Voted(_)
            | Phase::Working(_)
            | Phase::Preparing(_)
            | Phase::Applying { .. }
            | Phase::Expiring { .. }
            | Phase::Done(_) => None,
        })
    }

    /// Whether nothing is under way: no work, no vote without outcome, no outcome to apply.
    pub fn is_idle(&self) -> bool {
        let done = |phase: &Phase| match phase {
            Phase::Done(_) => true,
            Phase::Voted(voted) => voted.vote == Vote::ReadOnly,
            Phase::Working(_)
            | Phase::Preparing(_)
            | Phase::Applying { .. }
            | Phase::Expiring { .. } => false,
        };
        self.others.is_empty() && self.branches.values().all(done)
    }

    /// What came of `id`, if this session remembers its branch's end: the outcome, or nothing, if
    /// another session saw it to its end, or it is too old to be told.
    pub fn end_of(&self, id: &CommitId) -> Option<Option<Outcome>> {
        match self.branches.get(&id.txn) {
            Some(Phase::Done(branch::Done::Applied { id: of, outcome })) if of == id => {
                Some(Some(*outcome))
            }
            Some(Phase::Done(branch::Done::Applied { .. } | branch::Done::Forgotten { .. })) => {
                Some(None)
            }
            Some(Phase::Done(branch::Done::LetGo)) => None,
            Some(
                Phase::Working(_)
                | Phase::Preparing(_)
                | Phase::Voted(_)
                | Phase::Applying { .. }
                | Phase::Expiring { .. },
            ) => None,
            None if self.is_below_floor(id.txn) => Some(None),
            None => None,
        }
    }

    /// How many transactions this session remembers.
    pub fn remembered(&self) -> usize {
        self.branches.len()
    }

    /// Of how many initiators this session remembers the floor.
    pub fn initiators_remembered(&self) -> usize {
        self.floors.len()
    }

    /// What it knows of generations.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    fn on_command(&mut self, command: ParticipantCommand, out: &mut Effects<Self>) {
        match command {
            ParticipantCommand::Begin(txn) => self.begin(txn, out),
            ParticipantCommand::Poison(txn) => self.poison(txn),
            ParticipantCommand::Rollback(txn) => self.let_go(txn, out),
            ParticipantCommand::Prepare(prepare) => self.prepare(None, prepare, out),
            ParticipantCommand::Prepared { id, vote } => self.on_prepared(id, vote, out),
            ParticipantCommand::Finished { id, branch } => self.on_finished(id, branch, out),
            ParticipantCommand::NotPrepared { id, branch } => {
                self.on_not_prepared(id, branch, out);
            }
            ParticipantCommand::InDoubt(found) => self.on_in_doubt(found, out),
        }
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Effects<Self>) {
        match message {
            Message::Prepare(prepare) => self.prepare(Some(from), prepare, out),
            Message::LetGo { txn, floor } => {
                self.let_go(txn, out);
                self.raise_floor(txn, floor);
            }
            Message::Phase2b {
                id,
                ballot,
                outcome,
            } => self.on_phase2b(from, id, ballot, outcome, out),
            Message::Finish {
                id,
                branch,
                outcome,
            } => self.on_finish(from, id, branch, outcome, out),
            Message::Busy { id } => self.on_busy(id),
            Message::NotOpen { generations, .. } => self.on_generations(generations, out),
            Message::Expired {
                id,
                branch: Some(branch),
            } => self.on_expired(id, branch, out),
            Message::BeginCommit(_)
            | Message::Rollback { .. }
            | Message::Ask(_)
            | Message::Inquire { .. }
            | Message::Resolve { .. }
            | Message::ForceAbort { .. }
            | Message::Vote(_)
            | Message::Applied { .. }
            | Message::Phase1a { .. }
            | Message::Phase1b { .. }
            | Message::Phase2a { .. }
            | Message::Nack { .. }
            | Message::Decided(_)
            | Message::Undecided(_)
            | Message::Status { .. }
            | Message::Resolved { .. }
            | Message::Announce(_)
            | Message::Expired { branch: None, .. }
            | Message::Forgotten { .. }
            | Message::Log(_)
            | Message::Freeze { .. }
            | Message::Frozen { .. }
            | Message::Collect { .. }
            | Message::Collected { .. }
            | Message::Fetch { .. }
            | Message::State { .. }
            | Message::Reconfigure { .. }
            | Message::Release { .. }
            | Message::Declined(_) => {}
        }
    }

    /// To the replicas that decide, or know, what comes of `txn`.
    fn send_to_all(&self, txn: TxnId, message: &Message, out: &mut Effects<Self>) {
        let acceptors = self.generations.who_knows(txn);
        for replica in acceptors.into_iter().flat_map(Acceptors::iter) {
            out.send(Peer::Replica(replica), message.clone());
        }
    }

    /// A branch has come to its end; it is remembered as long as the initiator cares.
    fn done(&mut self, txn: TxnId, done: branch::Done) {
        if self.is_below_floor(txn) {
            self.branches.remove(&txn);
        } else {
            self.branches.insert(txn, Phase::Done(done));
        }
    }

    fn is_mine(&self, branch: &Branch) -> bool {
        *branch == self.config.me
    }

    fn stands_in(&self, roster: &Roster) -> bool {
        roster.index_of(&self.config.me).is_some()
    }
}
