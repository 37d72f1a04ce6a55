//! A participant's session: it votes for its own branches, once each, and sees them to their end.
//!
//! | file | what |
//! |---|---|
//! | `branch` | the states of a branch of this session |
//! | `presenting`, `standing` | whether this session may work |
//! | `branches` | on whose account they are remembered |
//! | `voting` | begin, prepare, vote, let go |
//! | `early` | begin in a generation of which the session has not heard |
//! | `finishing` | learn the outcome, apply it, say so; branches in doubt |
//! | `forgetting` | floors and generations: what may be forgotten |
//! | `listing` | which markers the store must keep |
//! | `proving` | a commit of which the store has no proof |
//! | `config`, `vocabulary` | settings; commands and notices |
//!
//! The session saves nothing itself. What must survive it is the resource manager's: branches that
//! it prepared. They are listed to the next session (`InDoubt`), which asks about each and guesses
//! none. What a session voted it remembers until the initiator's floor, or the settled horizon, has
//! passed the transaction; a new session votes for no branch but its own, so it needs no memory of what the old one said.

mod branch;
mod branches;
mod config;
mod early;
mod finishing;
mod forgetting;
mod listing;
mod presenting;
mod proving;
mod standing;
#[cfg(test)]
mod tests;
mod vocabulary;
mod voting;

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::effects::{Effects, Host, Input};
use super::message::Message;
use super::paxos::{Acceptors, ReplicaId};
use super::types::{
    Branch, CommitId, Generations, InitiatorId, Outcome, Peer, Roster, Session, TxnId, Vote,
};

use branch::{Phase, Wait};
use branches::Branches;
use early::Early;
use forgetting::Floor;
use listing::Reading;
use presenting::Presence;

pub use config::ParticipantConfig;
pub use standing::{NotEntered, Standing};
pub use vocabulary::{
    InDoubt, Owner, ParticipantCommand, ParticipantNotice, ParticipantTimer, Refusal,
};

/// A participant's session. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Participant {
    config: ParticipantConfig,
    /// The branches of this session.
    branches: Branches,
    /// Transactions that are to begin in a generation of which this session has not heard.
    early: Early,
    /// Nothing new begins.
    stopping: bool,
    /// Branches of other sessions of this participant, and of this one's that it has forgotten.
    others: BTreeMap<(CommitId, Session), Wait>,
    /// The lowest sequence number that each initiator still cares about.
    floors: BTreeMap<InitiatorId, Floor>,
    generations: Generations,
    /// Whether it may work.
    presence: Presence,
    /// The list that is being read, so that markers can be deleted.
    reading: Option<Reading>,
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
            presence: Presence::new(config.retry_ticks_max),
            branches: Branches::new(config.remembered_max, config.strangers_max),
            config,
            early: Early::default(),
            stopping: false,
            others: BTreeMap::new(),
            floors: BTreeMap::new(),
            reading: None,
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        if !self.presence.standing().finishes() {
            self.step_outside(input, out);
            return;
        }
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
            Input::Disconnected(Peer::Replica(replica)) => self.forget_answer(replica),
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

    /// How many transactions this session remembers, those among them that wait to begin.
    pub fn remembered(&self) -> usize {
        self.branches.len() + self.early.len()
    }

    /// About how many branches of other sessions it asks, or waits for its resource manager.
    pub fn others_remembered(&self) -> usize {
        self.others.len()
    }

    /// Of how many initiators this session remembers the floor.
    pub fn initiators_remembered(&self) -> usize {
        self.floors.len()
    }

    /// Whether this session has a branch of `txn`, or had one that it remembers.
    pub fn remembers(&self, txn: TxnId) -> bool {
        self.branches.get(&txn).is_some()
    }

    /// The transactions of which this session remembers a branch.
    #[doc(hidden)]
    pub fn transactions(&self) -> impl Iterator<Item = &TxnId> + '_ {
        self.branches.keys()
    }

    /// The floor of this initiator, as far as this session was told.
    #[doc(hidden)]
    pub fn floor_of(&self, initiator: InitiatorId) -> u32 {
        let floor = self.floors.get(&initiator);
        floor.map_or(0, |floor| floor.sequence())
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
            ParticipantCommand::NotProven { id, branch } => self.on_not_proven(id, branch, out),
            ParticipantCommand::NotPrepared { id, branch } => {
                self.on_not_prepared(id, branch, out);
            }
            ParticipantCommand::InDoubt(found) => self.on_in_doubt(found, out),
            ParticipantCommand::Stop => self.stop(out),
        }
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Effects<Self>) {
        match message {
            Message::Prepare(prepare) => self.prepare(Some(from), prepare, out),
            Message::LetGo { txn, floor } => {
                self.let_go(txn, out);
                self.raise_floor(txn, floor);
            }
            Message::Status { txn, instances } => self.on_status(txn, &instances, out),
            Message::Forgotten { txn } => self.on_forgotten(txn, out),
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
            Message::Disputed { id, branch } => self.on_disputed(id, branch, out),
            Message::ListPage(listing) => self.on_listing(from, *listing, out),
            Message::Admission { slot, admission } => {
                self.on_admission(from, slot, admission, out);
            }
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
            | Message::Resolved { .. }
            | Message::Announce(_)
            | Message::Expired { branch: None, .. }
            | Message::Log(_)
            | Message::Freeze { .. }
            | Message::Frozen { .. }
            | Message::Collect { .. }
            | Message::Collected { .. }
            | Message::Fetch { .. }
            | Message::State { .. }
            | Message::Reconfigure { .. }
            | Message::Release { .. }
            | Message::Contradicted { .. }
            | Message::Unproven { .. }
            | Message::List { .. }
            | Message::Present { .. }
            | Message::Enter { .. }
            | Message::Gone { .. }
            | Message::Restored { .. }
            | Message::Probe { .. }
            | Message::Probed { .. }
            | Message::Named { .. }
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

    /// Whether this session can finish the branch: it is in its store.
    fn is_of_this_store(&self, branch: &Branch) -> bool {
        let me = &self.config.me;
        branch.participant == me.participant && branch.store == me.store
    }

    fn is_mine(&self, branch: &Branch) -> bool {
        *branch == self.config.me
    }

    fn stands_in(&self, roster: &Roster) -> bool {
        roster.index_of(&self.config.me).is_some()
    }
}
