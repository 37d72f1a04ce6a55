//! A coordinator replica: acceptor, learner and recovering leader of every transaction.
//!
//! It has three parts, each with a state of its own. What one needs of another is an argument.
//!
//! | part | what it owns |
//! |---|---|
//! | `commit` | Paxos Commit: instances, votes, ballots, outcomes. Read `paxos` and this |
//! | `control` | the control log and what its entries come to: generations, stores, membership |
//! | `front` | who is connected, places of names, what was put away |
//!
//! This file routes messages to them and holds no rule but who may send what. Beside it: `terms`, what the control log says
//! to those who deal with transactions; `recalling`, what is finished leaves the memory and comes back;
//! `vocabulary`, commands, notices, and why a message was dropped; `config`, `record`; `status`, what a
//! status page shows.
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

mod commit;
mod config;
mod control;
mod front;
mod recalling;
mod record;
mod status;
mod terms;
#[cfg(test)]
mod tests;
mod vocabulary;

use super::effects::{Effects, Host, Input};
use super::message::Message;
use super::paxos::ReplicaId;
use super::types::{Configuration, Entry, Peer};

use commit::{Instances, Turn, on_rollback};
use control::{Control, Cursor, Page, Rest};
use front::Front;

pub use config::ReplicaConfig;
pub use front::Stored;
pub use recalling::Lookup;
pub use record::{Record, Records};
pub use vocabulary::{Rejection, ReplicaCommand, ReplicaNotice, ReplicaTimer};

/// A coordinator replica. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    config: ReplicaConfig,
    commit: Instances,
    control: Control,
    front: Front,
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
        out.set(ReplicaTimer::Tick, config.tick);
        let (of_log, of_transactions) = saved.into_iter().partition(Record::is_of_log);
        let mut control = Control::new(&config);
        let listed = control.restore(of_log, &config);
        let mut commit = Instances::new(config.id);
        commit.restore(of_transactions, listed, control.terms(&config));
        Replica {
            config,
            commit,
            control,
            front: Front::default(),
        }
    }

    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message { from, message } => {
                if let Err(reason) = self.on_message(&from, message, out) {
                    out.notify.push(ReplicaNotice::Rejected { from, reason });
                }
            }
            Input::Connected(peer) => {
                self.front.connect(&peer);
                let (control, mut rest) = self.control(out);
                control.on_connected(peer, &mut rest);
            }
            Input::Disconnected(peer) => {
                self.front.disconnect(&peer);
                if let Peer::Session(session) = &peer {
                    self.control.forget_session(session);
                }
            }
            Input::Timeout(ReplicaTimer::Tick) => {
                out.set(ReplicaTimer::Tick, self.config.tick);
                let (commit, mut turn) = self.commit(out);
                commit.on_tick(&mut turn);
                let (control, mut rest) = self.control(out);
                control.on_tick(&mut rest);
            }
            Input::Command(command) => self.on_command(command),
        }
    }
}

impl Replica {
    /// The transactions, and what a step of theirs has in hand.
    fn commit<'r>(&'r mut self, out: &'r mut Effects<Self>) -> (&'r mut Instances, Turn<'r>) {
        let terms = self.control.terms(&self.config);
        let front = &mut self.front;
        (&mut self.commit, Turn { terms, front, out })
    }

    /// The control log, and the rest of the replica.
    fn control<'r>(&'r mut self, out: &'r mut Effects<Self>) -> (&'r mut Control, Rest<'r>) {
        let rest = Rest {
            config: &self.config,
            commit: &mut self.commit,
            front: &mut self.front,
            out,
        };
        (&mut self.control, rest)
    }

    /// Which part deals with a message.
    fn on_message(
        &mut self,
        from: &Peer,
        message: Message,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        match message {
            Message::BeginCommit(_)
            | Message::Rollback { .. }
            | Message::Vote(_)
            | Message::Phase1a { .. }
            | Message::Phase1b { .. }
            | Message::Phase2a { .. }
            | Message::Phase2b { .. }
            | Message::Nack { .. }
            | Message::Decided(_)
            | Message::Ask(_)
            | Message::Inquire { .. }
            | Message::ForceAbort { .. }
            | Message::Applied { .. }
            | Message::Contradicted { .. }
            | Message::Unproven { .. }
            | Message::List { .. } => self.on_commit(from, message, out),
            Message::Log(_)
            | Message::Expired { .. }
            | Message::Freeze { .. }
            | Message::Frozen { .. }
            | Message::Collect { .. }
            | Message::Collected { .. }
            | Message::Fetch { .. }
            | Message::State { .. }
            | Message::Reconfigure { .. }
            | Message::Probe { .. }
            | Message::Probed { .. }
            | Message::Release { .. }
            | Message::Present { .. }
            | Message::Enter { .. }
            | Message::Gone { .. }
            | Message::Restored { .. } => self.on_control(from, message, out),
            Message::Resolve { participant } => {
                let terms = self.control.terms(&self.config);
                self.front.on_resolve(from, participant, terms, out)
            }
            // They are never sent to a replica.
            Message::Prepare(_)
            | Message::LetGo { .. }
            | Message::Finish { .. }
            | Message::Undecided(_)
            | Message::Status { .. }
            | Message::Resolved { .. }
            | Message::Busy { .. }
            | Message::Announce(_)
            | Message::NotOpen { .. }
            | Message::Forgotten { .. }
            | Message::Disputed { .. }
            | Message::ListPage(_)
            | Message::Admission { .. }
            | Message::Named { .. }
            | Message::Declined(_) => Err(Rejection::NotFromSuchAPeer),
        }
    }

    /// To the transactions.
    fn on_commit(
        &mut self,
        from: &Peer,
        message: Message,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let (commit, mut turn) = self.commit(out);
        let turn = &mut turn;
        match (from, message) {
            (Peer::Session(_), Message::Vote(vote)) => commit.on_vote(from, vote, turn),
            (Peer::Session(session), Message::Applied { id, branch }) => {
                commit.on_applied(session, id, &branch, turn)
            }
            (Peer::Session(session), Message::Contradicted { id, branch }) => {
                commit.on_contradicted(session, id, &branch, turn)
            }
            (Peer::Session(session), Message::Unproven { id, branch }) => {
                commit.on_unproven(session, id, &branch, turn)
            }
            (Peer::Session(session), Message::List { through, after }) => {
                commit.on_list(session, through, after, turn)
            }
            (Peer::Initiator(_), Message::BeginCommit(begin)) => commit.on_begin(from, begin, turn),
            (
                Peer::Initiator(owner),
                Message::Rollback {
                    txn,
                    branches,
                    floor,
                },
            ) => on_rollback(*owner, txn, branches, floor, turn.out),
            (_, Message::Ask(question)) => commit.on_ask(from, question, turn),
            (_, Message::Inquire { txn }) => commit.on_inquire(from, txn, turn),
            (Peer::Operator(_) | Peer::Initiator(_), Message::ForceAbort { id }) => {
                commit.on_force_abort(from, id, turn)
            }
            (Peer::Replica(replica), message) if turn.terms.generations.contains(*replica) => {
                on_ballot(commit, *replica, message, turn)
            }
            (_, _) => Err(Rejection::NotFromSuchAPeer),
        }
    }

    /// To the control log.
    fn on_control(
        &mut self,
        from: &Peer,
        message: Message,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let (control, mut rest) = self.control(out);
        let rest = &mut rest;
        match (from, message) {
            (Peer::Session(session), Message::Present { opening, after }) => {
                control.on_present(session, opening, after, rest)
            }
            (
                Peer::Operator(_),
                Message::Reconfigure {
                    latest,
                    configuration,
                },
            ) => control.on_reconfigure(from, latest, configuration, rest),
            (Peer::Operator(_), Message::Release { id }) => control.on_release(from, id, rest),
            (Peer::Operator(_), Message::Gone { participant, store }) => {
                control.on_told_of_store(from, Entry::Gone { participant, store }, rest)
            }
            (Peer::Operator(_), Message::Restored { participant, store }) => {
                control.on_told_of_store(from, Entry::Restored { participant, store }, rest)
            }
            (
                Peer::Operator(_) | Peer::Replica(_),
                Message::Fetch {
                    slot,
                    after,
                    after_name,
                },
            ) => control.on_fetch(from, slot, &Cursor { after, after_name }, rest),
            (Peer::Replica(replica), Message::Probe { slot }) => {
                control.on_probe(*replica, slot, rest)
            }
            (Peer::Replica(replica), Message::Probed { slot }) => {
                control.on_probed(*replica, slot, rest)
            }
            (Peer::Replica(replica), Message::Log(message)) => {
                control.on_log(*replica, message, rest)
            }
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
                control.on_state(*replica, page, rest)
            }
            (Peer::Replica(replica), message) if control.generations().contains(*replica) => {
                on_settlement(control, *replica, message, rest)
            }
            (_, _) => Err(Rejection::NotFromSuchAPeer),
        }
    }
}

/// A message of a ballot, or what came of one, from a replica of some generation.
fn on_ballot(
    commit: &mut Instances,
    from: ReplicaId,
    message: Message,
    turn: &mut Turn<'_>,
) -> Result<(), Rejection> {
    match message {
        Message::Phase1a { ballot, ids } => commit.on_phase1a(from, ballot, ids, turn),
        Message::Phase1b { ballot, reports } => commit.on_phase1b(from, ballot, reports, turn),
        Message::Phase2a { ballot, proposals } => commit.on_phase2a(from, ballot, proposals, turn),
        Message::Phase2b {
            id,
            ballot,
            outcome,
        } => commit.on_phase2b(from, id, ballot, outcome, turn),
        Message::Nack { ballot, refused } => commit.on_nack(ballot, refused, turn.terms),
        Message::Decided(decision) => commit.on_decided(from, decision, turn),
        _ => Err(Rejection::NotFromSuchAPeer),
    }
}

/// A message of a settlement, from a replica of some generation.
fn on_settlement(
    control: &mut Control,
    from: ReplicaId,
    message: Message,
    rest: &mut Rest<'_>,
) -> Result<(), Rejection> {
    match message {
        Message::Expired { id, .. } => control.on_expired(from, id, rest),
        Message::Freeze { generation, after } => control.on_freeze(from, generation, after, rest),
        Message::Frozen {
            generation,
            after,
            ids,
            more,
        } => control.on_frozen(from, generation, after, ids, more, rest),
        Message::Enter { stores } => control.on_enter(stores, rest),
        Message::Collect { generation, ids } => control.on_collect(from, generation, ids, rest),
        Message::Collected {
            generation,
            records,
        } => control.on_collected(from, generation, records, rest),
        _ => Err(Rejection::NotFromSuchAPeer),
    }
}
