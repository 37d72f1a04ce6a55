//! Multi-Paxos: a sequence of the single-decree instances, for the rare events.
//!
//! Slots are decided strictly one after the other, never pipelined, and an entry may change the
//! acceptors that decide the slots after it. It follows *Paxos Made Simple*, section 3:
//!
//! - One replica at a time **leads**. It executes phase 1 once; in later slots it goes straight to
//!   phase 2, so that an entry takes one round trip to a majority.
//! - A follower that hears nothing of the leader for a while starts a ballot of its own: after a
//!   time that depends on its position, and is longer each time that another ballot gets in the way.
//!
//! # The rules that make it safe
//!
//! 1. A replica promises and accepts in slot *s+1* only after it has learned slot *s*. So it knows
//!    the acceptors of *s+1*, and whoever promised a ballot in slot *s* had accepted nothing in a
//!    later one.
//! 2. A promise holds in all later slots. With rule 1, the ballot for which a majority promised in
//!    slot *s* is free in slot *s+1*: phase 1 may be skipped there.
//! 3. **After a change of the acceptors phase 1 is never skipped.** (The counter-example: leader A
//!    has ballot 9 from a majority of the old acceptors. Leader B has ballot 5 from a majority of
//!    the new ones, finds the slot free, and its entry is chosen. A, which has learned the change
//!    too, sends its entry at ballot 9; the new acceptors have promised 5, take it, and a second
//!    entry is chosen.)
//! 4. An entry found in phase 1 is proposed unchanged.
//!
//! # Catching up
//!
//! The log keeps no entries but the one being decided: what the entries come to is the caller's,
//! and so is its transfer. A message of an earlier slot tells that its sender is
//! [behind](LogEffects::behind), one of a later slot that this replica [is](LogEffects::ahead).
//! The caller has the state sent, and then [installs](Log::install) its position.

mod leading;
mod message;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use super::acceptor::{Acceptor, Refusal};
use super::ballot::{Ballot, ReplicaId};
use super::quorum::Acceptors;

use leading::Role;
pub use message::{LogEffects, LogMessage, LogRecord, To};

/// What an entry of a log must tell of itself.
pub trait LogEntry: Clone + Debug + PartialEq {
    /// The acceptors that decide all later slots, if the entry changes them.
    fn acceptors(&self) -> Option<&Acceptors>;
}

/// The times of a log, in ticks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogConfig {
    /// Ticks between two signs of life of the leader, and between two attempts of the same step.
    pub heartbeat_ticks: u32,
    /// Ticks of silence after which the first follower takes over. Several heartbeats, so that a
    /// lost one is no reason.
    pub silence_ticks: u32,
    /// Ticks more that each further position waits, so that they do not all start at once.
    pub stagger_ticks: u32,
    /// The most ticks between two ballots of a replica that others get in the way of.
    pub silence_ticks_max: u32,
}

impl Default for LogConfig {
    /// With a tick of 50 ms: a sign of life each 200 ms, a new leader after 1 s.
    fn default() -> Self {
        LogConfig {
            heartbeat_ticks: 4,
            silence_ticks: 20,
            stagger_ticks: 8,
            silence_ticks_max: 400,
        }
    }
}

/// One replica's part in the log: acceptor, learner, and leader if it comes to that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log<E> {
    me: ReplicaId,
    config: LogConfig,
    /// The first slot whose entry is not known here.
    slot: u64,
    /// Who decides it.
    acceptors: Acceptors,
    acceptor: Acceptor<E>,
    role: Role<E>,
    /// The highest round that this replica has used; saved before a message of it leaves.
    used: u64,
    /// The highest round heard of.
    heard: u64,
    /// Whom this replica takes for the leader.
    leader: Option<ReplicaId>,
    /// Ticks until this replica does something: a sign of life, another attempt, a ballot.
    patience: u32,
    /// How often others got in the way, since a leader was last heard.
    attempts: u32,
}

impl<E: LogEntry> Log<E> {
    /// A replica that has learned all slots before `slot`, which `acceptors` decide, and has
    /// promised nothing.
    pub fn new(me: ReplicaId, config: LogConfig, slot: u64, acceptors: Acceptors) -> Self {
        let mut log = Log {
            me,
            config,
            slot,
            acceptors,
            acceptor: Acceptor::default(),
            role: Role::Follower,
            used: 0,
            heard: 0,
            leader: None,
            patience: 0,
            attempts: 0,
        };
        log.wait();
        log
    }

    /// Takes back what was saved, in any order. What belongs to earlier slots leaves its promise.
    pub fn restore(&mut self, record: LogRecord<E>) {
        match record {
            LogRecord::Round { round } => self.used = self.used.max(round),
            LogRecord::Promise { ballot } => self.acceptor.restore_promise(ballot),
            LogRecord::Accept {
                slot,
                ballot,
                entry,
            } => {
                if slot == self.slot {
                    self.acceptor.restore_accept(ballot, entry);
                } else {
                    self.acceptor.restore_promise(ballot);
                }
            }
        }
    }

    /// The first slot whose entry is not known here.
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// Who decides that slot.
    pub fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// Whom this replica takes for the leader: itself once a majority has promised.
    pub fn leader(&self) -> Option<ReplicaId> {
        if self.is_leading() {
            return Some(self.me);
        }
        self.leader
    }

    /// The caller has taken over a state that all slots before `slot` come to.
    pub fn install(&mut self, slot: u64, acceptors: Acceptors) {
        if slot > self.slot {
            self.advance(slot, Some(acceptors));
            self.follow();
        }
    }

    /// Takes a message from `from`.
    ///
    /// # Errors
    /// [`LogRefusal`] when no correct replica sends it; nothing has changed.
    pub fn on_message(
        &mut self,
        from: ReplicaId,
        message: LogMessage<E>,
        out: &mut LogEffects<E>,
    ) -> Result<(), LogRefusal> {
        let slot = message.slot();
        if slot > self.slot {
            out.ahead = Some(from);
            return Ok(());
        }
        if slot < self.slot {
            // Answers and news of an earlier slot are late; questions show that their sender is.
            if message.is_request() && from != self.me {
                out.behind.push(from);
            }
            return Ok(());
        }
        if !self.acceptors.contains(from) && !matches!(message, LogMessage::Chosen { .. }) {
            return Ok(());
        }
        match message {
            LogMessage::Prepare { ballot, .. } => self.on_prepare(from, ballot, out)?,
            LogMessage::Promise {
                ballot, accepted, ..
            } => self.on_promise(from, ballot, accepted, out),
            LogMessage::Accept { ballot, entry, .. } => {
                self.on_accept(from, ballot, entry, out)?;
            }
            LogMessage::Accepted { ballot, .. } => self.on_accepted(from, ballot, out),
            LogMessage::Nack {
                ballot, promised, ..
            } => self.on_nack(ballot, promised),
            LogMessage::Chosen { entry, .. } => {
                // Somebody else got it chosen, so somebody else leads; and goes on to lead, unless
                // others decide from now on. (First the entry, then the patience: it depends on the
                // position among those who decide now.)
                let before = self.acceptors.clone();
                self.choose(entry, out);
                self.follow();
                let stays = before == self.acceptors && before.contains(from);
                self.leader = stays.then_some(from);
            }
            LogMessage::Lead { ballot, .. } => self.on_lead(from, ballot, out)?,
            LogMessage::Following { ballot, .. } => self.on_following(from, ballot),
        }
        Ok(())
    }

    /// Phase 1b.
    fn on_prepare(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        out: &mut LogEffects<E>,
    ) -> Result<(), LogRefusal> {
        check(from, ballot)?;
        self.heard = self.heard.max(ballot.round);
        if !self.acceptors.contains(self.me) {
            return Ok(());
        }
        let slot = self.slot;
        let before = self.acceptor.promised();
        match self.acceptor.promise(ballot) {
            Ok(accepted) => {
                let accepted = accepted.cloned();
                if before < ballot {
                    out.save.push(LogRecord::Promise { ballot });
                    self.stand_back(from, ballot);
                }
                let promise = LogMessage::Promise {
                    slot,
                    ballot,
                    accepted,
                };
                out.send.push((To::One(from), promise));
            }
            Err(nack) => out.refuse(from, slot, ballot, nack.promised),
        }
        Ok(())
    }

    /// Phase 2b.
    fn on_accept(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        entry: E,
        out: &mut LogEffects<E>,
    ) -> Result<(), LogRefusal> {
        check(from, ballot)?;
        self.heard = self.heard.max(ballot.round);
        if !self.acceptors.contains(self.me) {
            return Ok(());
        }
        let slot = self.slot;
        let held = self.acceptor.accepted().map(|(at, _)| *at);
        match self.acceptor.accept(ballot, entry.clone()) {
            Ok(()) => {
                if held != Some(ballot) {
                    out.save.push(LogRecord::Accept {
                        slot,
                        ballot,
                        entry,
                    });
                }
                self.on_leader(from, ballot);
                let accepted = LogMessage::Accepted { slot, ballot };
                out.send.push((To::One(from), accepted));
            }
            Err(Refusal::Nack(nack)) => out.refuse(from, slot, ballot, nack.promised),
            Err(Refusal::Conflict) => return Err(LogRefusal::BallotUsedTwice),
        }
        Ok(())
    }

    /// A sign of life of the leader.
    fn on_lead(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        out: &mut LogEffects<E>,
    ) -> Result<(), LogRefusal> {
        check(from, ballot)?;
        self.heard = self.heard.max(ballot.round);
        let promised = self.acceptor.promised();
        if ballot < promised {
            out.refuse(from, self.slot, ballot, promised);
        } else {
            self.on_leader(from, ballot);
            let slot = self.slot;
            let following = LogMessage::Following { slot, ballot };
            out.send.push((To::One(from), following));
        }
        Ok(())
    }

    /// The entry of the current slot is known: go on to the next.
    fn choose(&mut self, entry: E, out: &mut LogEffects<E>) {
        let acceptors = entry.acceptors().cloned();
        out.chosen.push((self.slot, entry));
        self.advance(self.slot.saturating_add(1), acceptors);
    }

    fn advance(&mut self, slot: u64, acceptors: Option<Acceptors>) {
        self.slot = slot;
        if let Some(acceptors) = acceptors {
            self.acceptors = acceptors;
        }
        // A promise holds in all later slots; what was accepted belongs to one slot.
        let mut acceptor = Acceptor::default();
        acceptor.restore_promise(self.acceptor.promised());
        self.acceptor = acceptor;
    }
}

/// Why a message was refused: no correct replica sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LogRefusal {
    /// The ballot is another replica's, or ballot 0, which has no owner.
    #[error("the ballot is not the sender's")]
    NotItsBallot,
    /// Two entries came at one ballot.
    #[error("another entry was accepted at this very ballot: its leader used it twice")]
    BallotUsedTwice,
}

fn check(owner: ReplicaId, ballot: Ballot) -> Result<(), LogRefusal> {
    if ballot.replica != owner || ballot.round == 0 {
        return Err(LogRefusal::NotItsBallot);
    }
    Ok(())
}
