//! A coordinator replica: acceptor, learner and recovering leader of every transaction.
//!
//! | file | role |
//! |---|---|
//! | `acceptor` | one instance's acceptor; ballot 0 belongs to the votes |
//! | `recovery` | ballots above 0 that this replica leads |
//! | `instance` | what is kept of a transaction under way |
//! | `voting` | the normal case: begin, prepare, vote, report |
//! | `ballots` | recovery: phase 1 and 2, in batches |
//! | `settling` | decided: tell everyone, until all have applied it |
//! | `asking` | questions, forced abort, the directory of sessions |
//!
//! The replica has one timer, a tick. Each instance counts ticks down to the moment when something
//! must be done about it, so that whatever is due at the same tick travels in one batch.

mod acceptor;
mod asking;
mod ballots;
mod instance;
mod recovery;
mod settling;
#[cfg(test)]
mod tests;
mod voting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effects::{Effects, Host, Input};
use super::message::{Message, Unapplied};
use super::paxos::{Acceptors, Ballot, ReplicaId};
use super::types::{
    CommitId, Outcome, ParticipantName, Peer, Roster, RosterDigest, Session, TxnId, Vote,
};

use instance::{Instance, Phase};
use recovery::Recovery;
use voting::on_rollback;

/// What a replica is told at start. Ticks are multiples of `tick`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaConfig {
    /// The replica's name.
    pub id: ReplicaId,
    /// All replicas, this one among them.
    pub acceptors: Acceptors,
    /// The time between two ticks.
    pub tick: Duration,
    /// Vote timeouts shorter than this are lengthened, so that no initiator can make every
    /// transaction end in a ballot.
    pub vote_timeout_min: Duration,
    /// Vote timeouts longer than this are shortened, so that nothing waits for ever.
    pub vote_timeout_max: Duration,
    /// Ticks between the first ballots of replicas next to each other: the first one's will do.
    pub stagger_ticks: u32,
    /// Ticks until a replica that has accepted Commit at ballot 0 asks the others whether it is
    /// chosen, when no branch has said that it applied it.
    pub exchange_ticks: u32,
    /// Ticks until an unanswered ballot is tried again; doubled at each attempt.
    pub retry_ticks: u32,
    /// The most ticks between two ballots.
    pub retry_ticks_max: u32,
    /// Ticks until a commit that was not applied is pushed to its branches; doubled at each push.
    pub push_ticks: u32,
    /// The most ticks between two pushes.
    pub push_ticks_max: u32,
    /// Past so many undecided transactions, new ones are answered with `Busy`.
    pub undecided_max: usize,
}

impl ReplicaConfig {
    /// The usual settings.
    pub fn new(id: ReplicaId, acceptors: Acceptors) -> Self {
        ReplicaConfig {
            id,
            acceptors,
            tick: Duration::from_millis(50),
            vote_timeout_min: Duration::from_secs(1),
            vote_timeout_max: Duration::from_secs(600),
            stagger_ticks: 2,
            exchange_ticks: 10,
            retry_ticks: 4,
            retry_ticks_max: 100,
            push_ticks: 10,
            push_ticks_max: 200,
            undecided_max: 100_000,
        }
    }
}

/// What a replica saves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Record {
    /// A branch's vote, held at ballot 0.
    Vote {
        /// The instance.
        id: CommitId,
        /// The branch's position in the roster.
        index: u8,
        /// Its vote.
        vote: Vote,
        /// The roster, with the first vote of an instance.
        roster: Option<Roster>,
    },
    /// A promise.
    Promise {
        /// The instance.
        id: CommitId,
        /// The ballot promised.
        ballot: Ballot,
    },
    /// An outcome accepted at a ballot above 0.
    Accept {
        /// The instance.
        id: CommitId,
        /// The ballot.
        ballot: Ballot,
        /// The outcome.
        outcome: Outcome,
        /// Whom to tell, with Commit.
        unapplied: Option<Unapplied>,
    },
    /// Commit was chosen and some branch has not applied it, where votes alone do not show it.
    Committed {
        /// The instance.
        id: CommitId,
        /// Whom to tell.
        unapplied: Unapplied,
    },
    /// Decided, and nobody waits for it any more.
    Finished {
        /// The instance.
        id: CommitId,
        /// The outcome.
        outcome: Outcome,
    },
    /// A round was used for a ballot.
    Round {
        /// The round.
        round: u64,
    },
}

/// The timers of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaTimer {
    /// Every [`ReplicaConfig::tick`].
    Tick,
}

/// What the user of a replica can ask of it: nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaCommand {}

/// What a replica tells its user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaNotice {
    /// A message was dropped because its sender may not say that, or because it makes no sense.
    Rejected {
        /// Who sent it.
        from: Peer,
        /// Why.
        reason: Rejection,
    },
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// Its kind is never sent to a replica, or not by such a peer.
    NotFromSuchAPeer,
    /// The roster is not the one that the commit id names.
    WrongRoster,
    /// The sender does not stand in the roster.
    NotInRoster,
    /// The transaction belongs to another initiator.
    NotItsInitiator,
    /// The ballot belongs to another replica, or is ballot 0, which belongs to the votes.
    NotItsBallot,
    /// A replica proposed two values at one ballot.
    BallotUsedTwice,
    /// A batch or a list is longer than its limit.
    TooLong,
}

/// A coordinator replica. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    config: ReplicaConfig,
    instances: BTreeMap<CommitId, Instance>,
    /// How many of `instances` are undecided.
    undecided: usize,
    /// What nobody waits for any more.
    finished: BTreeMap<CommitId, Outcome>,
    recovery: Recovery,
    /// The sessions that are connected, by participant.
    directory: BTreeMap<ParticipantName, BTreeSet<Session>>,
}

impl Host for Replica {
    type Config = ReplicaConfig;
    type Record = Record;
    type Timer = ReplicaTimer;
    type Command = ReplicaCommand;
    type Notice = ReplicaNotice;

    fn recover(
        config: ReplicaConfig,
        saved: impl IntoIterator<Item = Record>,
        out: &mut Effects<Self>,
    ) -> Self {
        assert!(
            config.acceptors.contains(config.id),
            "a replica is one of the acceptors"
        );
        out.set(ReplicaTimer::Tick, config.tick);
        let mut replica = Replica {
            recovery: Recovery::new(config.id, config.acceptors.clone()),
            config,
            instances: BTreeMap::new(),
            undecided: 0,
            finished: BTreeMap::new(),
            directory: BTreeMap::new(),
        };
        replica.restore(saved);
        replica
    }

    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message { from, message } => {
                if let Err(reason) = self.on_message(&from, message, out) {
                    out.notify.push(ReplicaNotice::Rejected { from, reason });
                }
            }
            Input::Connected(peer) => self.on_connected(peer),
            Input::Disconnected(peer) => self.on_disconnected(&peer),
            Input::Timeout(ReplicaTimer::Tick) => self.on_tick(out),
            Input::Command(command) => match command {},
        }
    }
}

impl Replica {
    /// The instances whose outcome is not known here, oldest first.
    pub fn undecided(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.in_phase(Phase::Undecided)
    }

    /// The commits that some branch has not said that it applied, oldest first.
    pub fn unapplied(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.in_phase(Phase::Committed)
    }

    /// The outcome of `id`, if it is known here.
    pub fn outcome(&self, id: &CommitId) -> Option<Outcome> {
        // What is under way first: it is what most messages are about, and there is little of it.
        match self.instances.get(id).map(|instance| instance.phase) {
            Some(Phase::Undecided) => None,
            Some(Phase::Committed) => Some(Outcome::Commit),
            None => self.finished.get(id).copied(),
        }
    }

    fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &CommitId> + '_ {
        let instances = self.instances.iter();
        instances
            .filter(move |(_, instance)| instance.phase == phase)
            .map(|(id, _)| id)
    }

    fn on_message(
        &mut self,
        from: &Peer,
        message: Message,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        match (from, message) {
            (Peer::Session(_), Message::Vote(vote)) => self.on_vote(from, vote, out),
            (Peer::Session(branch), Message::Applied { id, branch: of }) => {
                self.on_applied(branch, id, &of, out)
            }
            (Peer::Initiator(_), Message::BeginCommit(begin)) => self.on_begin(from, begin, out),
            (
                Peer::Initiator(owner),
                Message::Rollback {
                    txn,
                    branches,
                    floor,
                },
            ) => on_rollback(*owner, txn, branches, floor, out),
            (_, Message::Ask(question)) => self.on_ask(from, question, out),
            (_, Message::Inquire { txn }) => self.on_inquire(from, txn, out),
            (_, Message::Resolve { participant }) => self.on_resolve(from, participant, out),
            (Peer::Operator(_), Message::ForceAbort { id }) => self.on_force_abort(from, id, out),
            (Peer::Replica(replica), message) => self.on_peer_message(*replica, message, out),
            (_, _) => Err(Rejection::NotFromSuchAPeer),
        }
    }

    fn on_peer_message(
        &mut self,
        from: ReplicaId,
        message: Message,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if !self.config.acceptors.contains(from) {
            return Err(Rejection::NotFromSuchAPeer);
        }
        match message {
            Message::Phase1a { ballot, ids } => self.on_phase1a(from, ballot, ids, out),
            Message::Phase1b { ballot, reports } => self.on_phase1b(from, ballot, reports, out),
            Message::Phase2a { ballot, proposals } => self.on_phase2a(from, ballot, proposals, out),
            Message::Phase2b {
                id,
                ballot,
                outcome,
            } => self.on_phase2b(from, id, ballot, outcome, out),
            Message::Nack { ballot, refused } => self.on_nack(ballot, refused),
            Message::Decided(decision) => self.on_decided(decision, out),
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
            | Message::Finish { .. }
            | Message::Undecided(_)
            | Message::Status { .. }
            | Message::Resolved { .. }
            | Message::Busy { .. } => Err(Rejection::NotFromSuchAPeer),
        }
    }

    fn on_tick(&mut self, out: &mut Effects<Self>) {
        out.set(ReplicaTimer::Tick, self.config.tick);
        let mut undecided = Vec::new();
        let mut unapplied = Vec::new();
        for (id, instance) in &mut self.instances {
            instance.patience = instance.patience.saturating_sub(1);
            if instance.patience == 0 {
                match instance.phase {
                    Phase::Undecided => undecided.push(*id),
                    Phase::Committed => unapplied.push(*id),
                }
            }
        }
        self.resolve(undecided, out);
        self.push(unapplied, out);
    }

    /// Rebuilds the state from records in any order.
    fn restore(&mut self, saved: impl IntoIterator<Item = Record>) {
        // Votes name their branch by its position, so rosters come first.
        let (mut votes, mut finished) = (Vec::new(), Vec::new());
        for record in saved {
            match record {
                Record::Vote {
                    id,
                    index,
                    vote,
                    roster,
                } => {
                    self.restored(id, roster);
                    votes.push((id, usize::from(index), vote));
                }
                Record::Promise { id, ballot } => {
                    self.restored(id, None).acceptor.restore_promise(ballot);
                    self.recovery.on_round(ballot.round);
                }
                Record::Accept {
                    id,
                    ballot,
                    outcome,
                    unapplied,
                } => {
                    let instance = self.restored(id, None);
                    instance.acceptor.restore_accept(ballot, outcome);
                    if let Some(unapplied) = unapplied {
                        instance.take(&unapplied);
                    }
                    self.recovery.on_round(ballot.round);
                }
                Record::Committed { id, unapplied } => {
                    let instance = self.restored(id, None);
                    instance.take(&unapplied);
                    instance.phase = Phase::Committed;
                }
                Record::Finished { id, outcome } => finished.push((id, outcome)),
                Record::Round { round } => self.recovery.restore_round(round),
            }
        }
        for (id, index, vote) in votes {
            self.restore_vote(id, index, vote);
        }
        self.finished.extend(finished);
        self.settle_restored();
    }

    fn restored(&mut self, id: CommitId, roster: Option<Roster>) -> &mut Instance {
        let patience = self.vote_ticks(self.config.vote_timeout_min);
        let instance = self.instances.entry(id);
        let instance = instance.or_insert_with(|| Instance::new(None, patience));
        if instance.roster.is_none() {
            instance.roster = roster;
        }
        instance
    }

    fn restore_vote(&mut self, id: CommitId, index: usize, vote: Vote) {
        let instance = self.restored(id, None);
        let roster = instance.roster.clone();
        let roster = roster.filter(|roster| index < roster.len());
        // The roster was saved with or before the vote. To go on without the one or the other would
        // be to forget what may have been told.
        let roster = roster.unwrap_or_else(|| {
            panic!(
                "{id}: the store has a vote and not its roster: it lost a record and kept a later \
                 one; replace this replica, do not restart it"
            )
        });
        instance.acceptor.restore_vote(&roster, index, vote);
    }

    /// Drops what is finished, and settles what the votes alone decide.
    fn settle_restored(&mut self) {
        let (finished, config) = (&mut self.finished, &self.config);
        self.instances.retain(|id, instance| {
            // One Aborted at ballot 0 is final; so is one acceptance where one is a majority.
            if instance.acceptor.holds_aborted() {
                finished.insert(*id, Outcome::Abort);
            }
            let accepted = instance.acceptor.accepted().map(|(_, outcome)| outcome);
            if config.acceptors.majority() == 1 {
                match accepted {
                    Some(Outcome::Commit) => instance.phase = Phase::Committed,
                    Some(Outcome::Abort) => drop(finished.insert(*id, Outcome::Abort)),
                    None => {}
                }
            }
            if instance.phase == Phase::Committed {
                instance.patience = config.push_ticks;
                if instance.is_applied() {
                    finished.insert(*id, Outcome::Commit);
                }
            }
            !finished.contains_key(id)
        });
        let undecided = |instance: &&Instance| instance.phase == Phase::Undecided;
        self.undecided = self.instances.values().filter(undecided).count();
    }

    /// Ticks until this replica starts a ballot: the timeout, then its turn.
    fn vote_ticks(&self, vote_timeout: Duration) -> u32 {
        let (min, max) = (self.config.vote_timeout_min, self.config.vote_timeout_max);
        let timeout = vote_timeout.min(max).max(min).as_nanos();
        let ticks = timeout.div_ceil(self.config.tick.as_nanos().max(1));
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        ticks.saturating_add(self.turn_ticks()).max(1)
    }

    /// Ticks that this replica waits for those before it in the configuration.
    fn turn_ticks(&self) -> u32 {
        let index = self.config.acceptors.index_of(self.config.id);
        let index = index.map_or(0, |index| index as u32);
        self.config.stagger_ticks.saturating_mul(index)
    }

    /// The instance `id`, made if it is new here.
    fn instance(&mut self, id: CommitId, patience: u32) -> &mut Instance {
        self.instances.entry(id).or_insert_with(|| {
            self.undecided += 1;
            Instance::new(None, patience)
        })
    }

    /// Whether a transaction that is new here cannot be taken on.
    fn is_busy(&self, id: &CommitId) -> bool {
        self.undecided >= self.config.undecided_max && !self.instances.contains_key(id)
    }

    /// The commit ids of `txn`.
    fn of_txn(txn: TxnId) -> std::ops::RangeInclusive<CommitId> {
        let id = |roster| CommitId { txn, roster };
        id(RosterDigest::MIN)..=id(RosterDigest::MAX)
    }
}
