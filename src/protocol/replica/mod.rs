//! A coordinator replica: acceptor, learner and recovering leader of every transaction.
//!
//! | file | role |
//! |---|---|
//! | `acceptor` | one instance's acceptor; ballot 0 belongs to the votes |
//! | `recovery` | ballots above 0 that this replica leads |
//! | `instance` | what is kept of a transaction under way |
//! | `voting` | the normal case: begin, prepare, vote, report |
//! | `admitting` | whether something new is taken on when there is much already |
//! | `ballots` | recovery: phase 1 and 2, in batches |
//! | `settling` | decided: tell everyone, until all have applied it |
//! | `asking` | questions, forced abort, the directory of sessions |
//! | `control` | its part in the control log, and what the entries come to |
//! | `opening` | leading the log: new generations, changes of the membership |
//! | `freezing` | the last ballot of a generation, as its replicas see it |
//! | `forgetting` | the last ballot of a generation, as its leader sees it; what is dropped |
//! | `stores` | which store may work under a participant's name |
//! | `listing` | the settled commits that wait for a branch; how the list becomes shorter |
//! | `catching_up` | the state of the log, from one replica to another |
//! | `evicting`, `stored` | what is finished leaves the memory, and comes back when it is asked for |
//! | `vocabulary` | commands, notices, and why a message was dropped |
//! | `config`, `record`, `restoring` | settings; what is saved; back from there |
//! | `status` | what a status page shows |
//!
//! The replica has one timer, a tick. Each instance counts ticks down to the moment when something
//! must be done about it, so that whatever is due at the same tick travels in one batch.
//!
//! # What is finished leaves the memory
//!
//! A finished transaction must be remembered until its generation is settled, which can be millions
//! of them; but hardly anybody asks. So the store keeps them, and the memory what is under way. Who
//! drives a replica does this, in this order:
//!
//! 1. At start it [recovers](Host::recover) from the records of what is not finished, and its first
//!    input is [`ReplicaCommand::Stored`], noted from the ids of all that is
//!    ([`Record::is_final`]).
//! 2. Before each message it reads from the store what [`Replica::unknown`] names, and if there are
//!    any records, gives them to the replica with [`ReplicaCommand::Recall`]. It saves and sends
//!    nothing.
//! 3. When a save begins it notes [`Replica::finished`]; when that save, and with it all earlier
//!    ones, is durable, it gives those ids to [`ReplicaCommand::Evict`]. Some may stay longer: those
//!    who are late with a message about them need no look at the disk then. One that was recalled is
//!    evicted in the same way; if no step waits for a save, that is at once.
//!
//! A host that is never told to evict anything does the same, with more memory.
//!
//! **Why a forgotten recall is no small matter.** Transaction 7 is aborted and finished at replicas
//! 1, 2 and 3, by a ballot that found b's vote missing, and evicted. Now b's `Prepared`, which was
//! on its way all the time, arrives everywhere, and a's comes a second time. To replicas that know
//! nothing of 7 it is a new transaction: they hold both votes, accept Commit at ballot 0, and tell
//! it to b, while a has rolled back. With the recall they answer Abort.
//!
//! **And why one must be durable before it is evicted.** Between the two a recall finds older
//! records: votes that are held, a promise that is missing. The replica would go back behind what it
//! is about to save.

mod acceptor;
mod admitting;
mod asking;
mod ballots;
mod catching_up;
mod config;
mod control;
mod evicting;
mod forgetting;
mod freezing;
mod instance;
mod listing;
mod membership;
mod opening;
mod record;
mod recovery;
mod restoring;
mod settling;
mod status;
mod stored;
mod stores;
#[cfg(test)]
mod tests;
mod vocabulary;
mod voting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::effects::{Effects, Host, Input};
use super::message::Message;
use super::paxos::ReplicaId;
use super::paxos::log::Log;
use super::types::{
    Branch, CommitId, Configuration, Entering, Entry, Generations, Opening, Outcome,
    ParticipantName, Peer, RosterDigest, Stores, TxnId,
};

use admitting::Places;
use catching_up::{Cursor, Fetching, Page};
use forgetting::Forgetting;
use instance::{Instance, Phase};
use membership::Probing;
use opening::Asked;
use recovery::Recovery;
use voting::on_rollback;

pub use config::ReplicaConfig;
pub use evicting::Lookup;
pub use record::{Record, Records};
pub use stored::Stored;
pub use vocabulary::{Rejection, ReplicaCommand, ReplicaNotice, ReplicaTimer};

/// A coordinator replica. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    config: ReplicaConfig,
    instances: BTreeMap<CommitId, Instance>,
    /// How many of `instances` are undecided.
    undecided: usize,
    /// Because of whom how many were taken on.
    places: Places,
    /// What nobody waits for any more, as far as it has not been evicted.
    finished: BTreeMap<CommitId, End>,
    /// Up to where the store may hold what is not in memory.
    stored: Stored,
    recovery: Recovery,
    /// The sessions that are connected, by participant.
    directory: BTreeMap<ParticipantName, BTreeSet<Branch>>,
    /// Those among them that have presented themselves, with what they have open.
    presented: BTreeMap<Branch, Option<Opening>>,
    /// What is to be entered in the log, by name, and because of which session.
    entering: BTreeMap<ParticipantName, (Branch, Entering)>,
    /// The initiators and operators that are connected.
    clients: BTreeSet<Peer>,
    /// What the entries of the control log come to.
    generations: Generations,
    /// What they come to for participants' stores.
    stores: Stores,
    /// Its part in that log; none before it has joined.
    log: Option<Log<Entry>>,
    /// The generations, not settled yet, that it must not touch any more.
    frozen: BTreeSet<u32>,
    /// The state that it is taking over.
    fetching: Option<Fetching>,
    /// What it is about to settle, as the leader of the log.
    forgetting: Option<Forgetting>,
    /// What an operator is to be told, by the leader of the log.
    operator: Option<Asked>,
    /// The change of the membership whose replicas it is waiting to hear, as the leader.
    probing: Option<Probing>,
    /// How many transactions of the latest generation were vouched for since it was opened, or since
    /// the start of the process if that was later.
    begun: u64,
    /// Ticks since the latest generation was opened, as far as they matter.
    generation_age: u32,
    /// Ticks since the oldest generation could be settled, as far as they matter.
    closed_age: u32,
    /// Ticks until the generations are announced again, until news are asked for, until the list may
    /// be shortened again, and until the leader is told again of stores to enter.
    announce_patience: u32,
    news_patience: u32,
    unlist_patience: u32,
    enter_patience: u32,
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
        let is_one_of_them =
            |configuration: &Configuration| configuration.acceptors().contains(config.id);
        assert!(
            config.genesis.as_ref().is_none_or(is_one_of_them),
            "a replica is one of the acceptors"
        );
        let generations = config.genesis.clone().map(Generations::genesis);
        out.set(ReplicaTimer::Tick, config.tick);
        let mut replica = Replica {
            recovery: Recovery::new(config.id),
            announce_patience: config.announce_ticks,
            config,
            instances: BTreeMap::new(),
            undecided: 0,
            places: Places::default(),
            finished: BTreeMap::new(),
            stored: Stored::default(),
            directory: BTreeMap::new(),
            presented: BTreeMap::new(),
            entering: BTreeMap::new(),
            clients: BTreeSet::new(),
            generations: generations.unwrap_or_default(),
            stores: Stores::default(),
            log: None,
            frozen: BTreeSet::new(),
            fetching: None,
            forgetting: None,
            operator: None,
            probing: None,
            begun: 0,
            generation_age: 0,
            closed_age: 0,
            news_patience: 1,
            unlist_patience: 1,
            enter_patience: 0,
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
            Input::Connected(peer) => self.on_connected(peer, out),
            Input::Disconnected(peer) => self.on_disconnected(&peer),
            Input::Timeout(ReplicaTimer::Tick) => self.on_tick(out),
            Input::Command(command) => self.on_command(command),
        }
    }
}

impl Replica {
    fn on_command(&mut self, command: ReplicaCommand) {
        match command {
            ReplicaCommand::Stored(stored) => self.take_stored(stored),
            ReplicaCommand::Evict(ids) => self.evict(ids),
            ReplicaCommand::Recall(records) => self.recall(records),
        }
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
            (Peer::Session(session), Message::Contradicted { id, branch }) => {
                self.on_contradicted(session, id, &branch, out)
            }
            (Peer::Session(session), Message::Unproven { id, branch }) => {
                self.on_unproven(session, id, &branch, out)
            }
            (Peer::Session(session), Message::List { through, after }) => {
                self.on_list(session, through, after, out)
            }
            (Peer::Session(session), Message::Present { opening, after }) => {
                self.on_present(session, opening, after, out)
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
            (Peer::Operator(_) | Peer::Initiator(_), Message::ForceAbort { id }) => {
                self.on_force_abort(from, id, out)
            }
            (
                Peer::Operator(_),
                Message::Reconfigure {
                    latest,
                    configuration,
                },
            ) => self.on_reconfigure(from, latest, configuration, out),
            (Peer::Operator(_), Message::Release { id }) => self.on_release(from, id, out),
            (Peer::Operator(_), Message::Gone { participant, store }) => {
                self.on_told_of_store(from, Entry::Gone { participant, store }, out)
            }
            (Peer::Operator(_), Message::Restored { participant, store }) => {
                self.on_told_of_store(from, Entry::Restored { participant, store }, out)
            }
            (
                Peer::Operator(_) | Peer::Replica(_),
                Message::Fetch {
                    slot,
                    after,
                    after_name,
                },
            ) => self.on_fetch(from, slot, &Cursor { after, after_name }, out),
            (Peer::Replica(replica), Message::Probe { slot }) => self.on_probe(*replica, slot, out),
            (Peer::Replica(replica), Message::Probed { slot }) => {
                self.on_probed(*replica, slot, out)
            }
            (Peer::Replica(replica), Message::Log(message)) => self.on_log(*replica, message, out),
            (
                Peer::Replica(replica),
                Message::State {
                    generations,
                    after,
                    listed,
                    stores,
                    more,
                },
            ) => {
                let page = Page {
                    generations,
                    after,
                    listed,
                    stores: *stores,
                    more,
                };
                self.on_state(*replica, page, out)
            }
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
        if !self.generations.contains(from) {
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
            Message::Decided(decision) => self.on_decided(from, decision, out),
            Message::Expired { id, .. } => self.on_expired(from, id, out),
            Message::Freeze { generation, after } => self.on_freeze(from, generation, after, out),
            Message::Frozen {
                generation,
                after,
                ids,
                more,
            } => self.on_frozen(from, generation, after, ids, more, out),
            Message::Enter { stores } => self.on_enter(stores, out),
            Message::Collect { generation, ids } => self.on_collect(from, generation, ids, out),
            Message::Collected {
                generation,
                records,
            } => self.on_collected(from, generation, records, out),
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
            | Message::Busy { .. }
            | Message::Announce(_)
            | Message::NotOpen { .. }
            | Message::Forgotten { .. }
            | Message::Log(_)
            | Message::Fetch { .. }
            | Message::State { .. }
            | Message::Reconfigure { .. }
            | Message::Release { .. }
            | Message::Disputed { .. }
            | Message::Contradicted { .. }
            | Message::Unproven { .. }
            | Message::List { .. }
            | Message::ListPage(_)
            | Message::Present { .. }
            | Message::Admission { .. }
            | Message::Gone { .. }
            | Message::Restored { .. }
            | Message::Named { .. }
            | Message::Probe { .. }
            | Message::Probed { .. }
            | Message::Declined(_) => Err(Rejection::NotFromSuchAPeer),
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
        self.on_control_tick(out);
    }

    /// Ticks until this replica starts a ballot: the timeout, then its turn.
    fn vote_ticks(&self, vote_timeout: Duration, generation: u32) -> u32 {
        let (min, max) = (self.config.vote_timeout_min, self.config.vote_timeout_max);
        // Of a u64: every vote comes by here, and to divide a u128 takes as long as to look it up.
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let timeout = nanos(vote_timeout.min(max).max(min));
        let ticks = timeout.div_ceil(nanos(self.config.tick).max(1));
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        ticks.saturating_add(self.turn_ticks(generation)).max(1)
    }

    /// Ticks that this replica waits for those before it in the configuration.
    fn turn_ticks(&self, generation: u32) -> u32 {
        let acceptors = self.generations.acceptors(generation);
        let index = acceptors.and_then(|acceptors| acceptors.index_of(self.config.id));
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

    /// Whether `replica` is one of those that decide `id`.
    fn decides(&self, replica: ReplicaId, id: &CommitId) -> bool {
        let acceptors = self.generations.acceptors(id.txn.generation);
        acceptors.is_some_and(|acceptors| acceptors.contains(replica))
    }

    /// The commit ids of `txn`.
    fn of_txn(txn: TxnId) -> std::ops::RangeInclusive<CommitId> {
        let id = |roster| CommitId { txn, roster };
        id(RosterDigest::MIN)..=id(RosterDigest::MAX)
    }
}

/// How a transaction ended that needs nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct End {
    outcome: Outcome,
    /// The branch whose `Aborted` is held here, if that decided it.
    against: Option<Branch>,
}
