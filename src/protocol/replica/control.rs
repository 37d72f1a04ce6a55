//! The control log: this replica's part in it, and what its entries come to.

use crate::protocol::effects::Effects;
use crate::protocol::message::Message;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::paxos::log::{LogEffects, LogMessage, LogRefusal, To};
use crate::protocol::types::{Applies, CommitId, Entry, Openness, Peer};

use super::catching_up::Cursor;
use super::{Record, Rejection, Replica};

/// What a replica may do about a transaction that it does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Take part in it.
    Open,
    /// Nothing: its generation is frozen here.
    Frozen,
    /// Nothing: its generation is closed, or not open here, or others decide it.
    Elsewhere,
}

impl Replica {
    /// What may be done about `id`, which is not settled.
    pub(super) fn standing(&self, id: &CommitId) -> Standing {
        let generation = id.txn.generation;
        let acceptors = self.generations.acceptors(generation);
        if !acceptors.is_some_and(|acceptors| acceptors.contains(self.config.id)) {
            return Standing::Elsewhere;
        }
        if self.frozen.contains(&generation) {
            return Standing::Frozen;
        }
        match self.generations.openness(generation) {
            Openness::Open => Standing::Open,
            // What is under way finishes; nothing else begins.
            Openness::Closed if self.instances.contains_key(id) => Standing::Open,
            Openness::Closed | Openness::Unknown | Openness::Settled => Standing::Elsewhere,
        }
    }

    /// Whether this replica may take part in `id`. If not, a client is told what it needs to go on.
    pub(super) fn admits(&self, from: &Peer, id: CommitId, out: &mut Effects<Self>) -> bool {
        match self.standing(&id) {
            Standing::Open => true,
            // Whoever waits asks again; the Settle answers.
            Standing::Frozen => false,
            Standing::Elsewhere => {
                let generations = self.generations.clone();
                out.send(from.clone(), Message::NotOpen { id, generations });
                false
            }
        }
    }

    pub(super) fn on_log(
        &mut self,
        from: ReplicaId,
        message: LogMessage<Entry>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let Some(log) = &mut self.log else {
            // It joins: it has still to learn which generations there are.
            self.fetch(from, out);
            return Ok(());
        };
        if message.slot() == log.slot() && !self.generations.may_follow(message.entry()) {
            return Err(Rejection::DoesNotFollow);
        }
        let mut effects = LogEffects::default();
        let result = log.on_message(from, message, &mut effects);
        if !log.is_leading() {
            self.forgetting = None;
        }
        self.take_log(effects, out);
        result.map_err(|refusal| match refusal {
            LogRefusal::NotItsBallot => Rejection::NotItsBallot,
            LogRefusal::BallotUsedTwice => Rejection::BallotUsedTwice,
        })
    }

    /// What follows from a step of the log.
    pub(super) fn take_log(&mut self, effects: LogEffects<Entry>, out: &mut Effects<Self>) {
        out.save.extend(effects.save.into_iter().map(Record::Log));
        let mut audience = self.generations.replicas();
        for (slot, entry) in effects.chosen {
            self.on_chosen(slot, entry, out);
        }
        audience.extend(self.generations.replicas());
        for (to, message) in effects.send {
            match to {
                To::One(replica) => out.send(Peer::Replica(replica), Message::Log(message)),
                To::All => {
                    for replica in &audience {
                        let message = Message::Log(message.clone());
                        out.send(Peer::Replica(*replica), message);
                    }
                }
            }
        }
        for replica in effects.behind {
            self.send_state(&Peer::Replica(replica), &Cursor::default(), out);
        }
        if let Some(replica) = effects.ahead {
            self.fetch(replica, out);
        }
    }

    /// An entry of the log is known: it is saved, and what follows from it, in one record.
    fn on_chosen(&mut self, slot: u64, entry: Entry, out: &mut Effects<Self>) {
        assert!(
            slot == self.generations.slot(),
            "slots are learned one after the other"
        );
        out.save.push(Record::Chosen {
            slot,
            entry: entry.clone(),
        });
        let before = self.generations.clone();
        let applies = self.generations.apply(&entry);
        match (&entry, applies) {
            (_, Applies::No) => {}
            (Entry::Open(_), Applies::Yes) => self.opened(),
            (Entry::Settle(settle), Applies::Yes) => {
                // Whatever this leader was collecting is for what is settled now.
                self.forgetting = None;
                self.forget_settled(before.horizon(), settle.unfinished.clone(), out);
            }
            (Entry::Release { id }, Applies::Yes) => self.unlist(&[*id], out),
            (Entry::Unlist { ids }, Applies::Yes) => self.unlist(ids, out),
            (Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. }, Applies::Yes) => {
                let names = self.stores.apply(&entry);
                self.tell_admissions(&names, out);
            }
        }
        if before.closed() != self.generations.closed() {
            self.closed_age = 0;
        }
        self.answer_operator(slot, &entry, out);
        if before.unsettled().ne(self.generations.unsettled()) {
            self.announce_generations(out);
        }
        self.look_whether_removed(&before, out);
    }

    /// Tells everyone who is connected which generations there are.
    pub(super) fn announce_generations(&mut self, out: &mut Effects<Self>) {
        self.announce_patience = self.config.announce_ticks;
        let sessions = self
            .directory
            .values()
            .flatten()
            .cloned()
            .map(Peer::Session);
        let clients = self.clients.iter().cloned().chain(sessions);
        for client in clients {
            out.send(client, Message::Announce(self.generations.clone()));
        }
    }

    /// Time passes for the log and for all that its leader does.
    pub(super) fn on_control_tick(&mut self, out: &mut Effects<Self>) {
        self.announce_patience = self.announce_patience.saturating_sub(1);
        if self.announce_patience == 0 {
            self.announce_generations(out);
        }
        let config = &self.config;
        self.generation_age = config
            .generation_ticks
            .min(self.generation_age.saturating_add(1));
        self.closed_age = config.grace_ticks.min(self.closed_age.saturating_add(1));
        let mut effects = LogEffects::default();
        if let Some(log) = &mut self.log {
            log.on_tick(&mut effects);
        }
        self.take_log(effects, out);
        self.look_for_news(out);
        self.tick_stores(out);
        self.tick_fetching();
        self.tick_probing(out);
        self.lead(out);
    }

    /// What the leader of the log does when it is time.
    fn lead(&mut self, out: &mut Effects<Self>) {
        if !self.is_leading() {
            self.forgetting = None;
            return;
        }
        // First, since it is bounded by its own patience: where generations turn at every tick, the
        // other two would never leave it a free slot.
        self.unlist_applied(out);
        self.forget(out);
        self.open_if_due(out);
    }

    /// Proposes an entry, if this replica leads and the slot is free.
    pub(super) fn propose(&mut self, entry: Entry, out: &mut Effects<Self>) -> bool {
        let Some(log) = &mut self.log else {
            return false;
        };
        let mut effects = LogEffects::default();
        let proposed = log.propose(entry, &mut effects);
        self.take_log(effects, out);
        proposed
    }
}
