//! The control log: this replica's part in it, and what its entries come to.
//!
//! | file | role |
//! |---|---|
//! | `opening` | leading the log: new generations, and what operators ask |
//! | `membership` | changing the membership: which replicas have to be heard before it is proposed |
//! | `freezing` | the last ballot of a generation, as its replicas see it |
//! | `forgetting` | the last ballot of a generation, as its leader sees it |
//! | `unlisting` | how the list of settled commits becomes shorter |
//! | `stores` | which store may work under a participant's name |
//! | `catching_up` | the state of the log, from one replica to another |
//! | `restoring` | back from what was saved |

mod catching_up;
mod forgetting;
mod freezing;
mod membership;
mod opening;
mod restoring;
mod stores;
mod unlisting;

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::message::Message;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::paxos::log::{Log, LogEffects, LogMessage, LogRefusal, To};
use crate::protocol::types::{
    Applies, Branch, CommitId, Entering, Entry, Generations, Listed, ParticipantName, Peer, Stores,
};

use super::commit::{Instances, Turn};
use super::config::ReplicaConfig;
use super::front::Front;
use super::record::Record;
use super::terms::Terms;
use super::vocabulary::{Out, Rejection};

use catching_up::Fetching;
use forgetting::Forgetting;
use membership::Probing;
use opening::Asked;

pub(super) use catching_up::{Cursor, Page};

/// What the control log has come to, and this replica's part in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Control {
    /// What the entries of the control log come to.
    generations: Generations,
    /// What they come to for participants' stores.
    stores: Stores,
    /// Its part in that log; none before it has joined.
    log: Option<Log<Entry>>,
    /// The generations, not settled yet, that it must not touch any more.
    frozen: BTreeSet<u32>,
    /// What is to be entered in the log, by name, and because of which session.
    entering: BTreeMap<ParticipantName, (Branch, Entering)>,
    /// The state that it is taking over.
    fetching: Option<Fetching>,
    /// What it is about to settle, as the leader of the log.
    forgetting: Option<Forgetting>,
    /// What an operator is to be told, by the leader of the log.
    operator: Option<Asked>,
    /// The change of the membership whose replicas it is waiting to hear, as the leader.
    probing: Option<Probing>,
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

/// The rest of the replica, lent to the control log for one step.
pub(super) struct Rest<'a> {
    pub(super) config: &'a ReplicaConfig,
    pub(super) commit: &'a mut Instances,
    pub(super) front: &'a mut Front,
    pub(super) out: &'a mut Out,
}

impl Control {
    pub(super) fn new(config: &ReplicaConfig) -> Self {
        let generations = config.genesis.clone().map(Generations::genesis);
        Control {
            generations: generations.unwrap_or_default(),
            stores: Stores::default(),
            log: None,
            frozen: BTreeSet::new(),
            entering: BTreeMap::new(),
            fetching: None,
            forgetting: None,
            operator: None,
            probing: None,
            generation_age: 0,
            closed_age: 0,
            announce_patience: config.announce_ticks,
            news_patience: 1,
            unlist_patience: 1,
            enter_patience: 0,
        }
    }

    /// What the log says to those who deal with transactions.
    pub(super) fn terms<'t>(&'t self, config: &'t ReplicaConfig) -> Terms<'t> {
        Terms {
            config,
            generations: &self.generations,
            stores: &self.stores,
            frozen: &self.frozen,
        }
    }

    /// The transactions, and what a step of theirs has in hand.
    fn turn<'t>(&'t self, rest: &'t mut Rest<'_>) -> (&'t mut Instances, Turn<'t>) {
        let turn = Turn {
            terms: self.terms(rest.config),
            front: &mut *rest.front,
            out: &mut *rest.out,
        };
        (&mut *rest.commit, turn)
    }

    /// The generations, as this replica knows them.
    pub(super) fn generations(&self) -> &Generations {
        &self.generations
    }

    /// What the log says of stores, as far as it is known here.
    pub(super) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// For how many ticks the latest generation is open, and the oldest could be settled.
    #[cfg(test)]
    pub(super) fn ages(&self) -> (u32, u32) {
        (self.generation_age, self.closed_age)
    }

    /// Whether this replica leads the control log.
    pub(super) fn is_leading(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_leading())
    }

    /// Who leads it, as far as is known here.
    pub(super) fn leader(&self) -> Option<ReplicaId> {
        self.log.as_ref()?.leader()
    }

    /// Whether this replica's part in the log has nothing under way in the next slot.
    fn is_free(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_free())
    }

    /// A peer that connects is told which generations there are.
    pub(super) fn on_connected(&mut self, peer: Peer, rest: &mut Rest<'_>) {
        match peer {
            Peer::Replica(replica) => {
                if self.log.is_none() {
                    self.fetch(replica, rest.out);
                }
            }
            Peer::Session(_) | Peer::Initiator(_) | Peer::Operator(_) => {
                let announce = Message::Announce(self.generations.clone());
                rest.out.send(peer, announce);
            }
        }
    }

    pub(super) fn on_log(
        &mut self,
        from: ReplicaId,
        message: LogMessage<Entry>,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        let Some(log) = &mut self.log else {
            // It joins: it has still to learn which generations there are.
            self.fetch(from, rest.out);
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
        self.take_log(effects, rest);
        result.map_err(|refusal| match refusal {
            LogRefusal::NotItsBallot => Rejection::NotItsBallot,
            LogRefusal::BallotUsedTwice => Rejection::BallotUsedTwice,
        })
    }

    /// What follows from a step of the log.
    fn take_log(&mut self, effects: LogEffects<Entry>, rest: &mut Rest<'_>) {
        let saved = effects.save.into_iter().map(Record::Log);
        rest.out.save.extend(saved);
        let mut audience = self.generations.replicas();
        for (slot, entry) in effects.chosen {
            self.on_chosen(slot, entry, rest);
        }
        audience.extend(self.generations.replicas());
        for (to, message) in effects.send {
            match to {
                To::One(replica) => {
                    rest.out.send(Peer::Replica(replica), Message::Log(message));
                }
                To::All => {
                    for replica in &audience {
                        let message = Message::Log(message.clone());
                        rest.out.send(Peer::Replica(*replica), message);
                    }
                }
            }
        }
        for replica in effects.behind {
            self.send_state(&Peer::Replica(replica), &Cursor::default(), rest);
        }
        if let Some(replica) = effects.ahead {
            self.fetch(replica, rest.out);
        }
    }

    /// An entry of the log is known: it is saved, and what follows from it, in one record.
    fn on_chosen(&mut self, slot: u64, entry: Entry, rest: &mut Rest<'_>) {
        assert!(
            slot == self.generations.slot(),
            "slots are learned one after the other"
        );
        rest.out.save.push(Record::Chosen {
            slot,
            entry: entry.clone(),
        });
        let before = self.generations.clone();
        let applies = self.generations.apply(&entry);
        match (&entry, applies) {
            (_, Applies::No) => {}
            (Entry::Open(_), Applies::Yes) => self.opened(rest),
            (Entry::Settle(settle), Applies::Yes) => {
                // Whatever this leader was collecting is for what is settled now.
                self.forgetting = None;
                self.forget_settled(before.horizon(), &settle.unfinished, rest);
            }
            (Entry::Release { id }, Applies::Yes) => self.unlist(&[*id], rest),
            (Entry::Unlist { ids }, Applies::Yes) => self.unlist(ids, rest),
            (Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. }, Applies::Yes) => {
                let names = self.stores.apply(&entry);
                self.tell_admissions(&names, rest);
            }
        }
        if before.closed() != self.generations.closed() {
            self.closed_age = 0;
        }
        self.answer_operator(slot, &entry, rest.out);
        if before.unsettled().ne(self.generations.unsettled()) {
            self.announce_generations(rest);
        }
        self.look_whether_removed(&before, rest);
    }

    /// The part of a generation after `before` is settled, and everyone drops what belongs to it.
    fn forget_settled(&mut self, before: Option<CommitId>, listed: &[Listed], rest: &mut Rest<'_>) {
        let (commit, mut turn) = self.turn(rest);
        commit.settle(before, listed, &mut turn);
        let generations = &self.generations;
        rest.front.forget_settled(generations);
        self.frozen
            .retain(|generation| generations.acceptors(*generation).is_some());
    }

    fn unlist(&mut self, ids: &[CommitId], rest: &mut Rest<'_>) {
        let (commit, mut turn) = self.turn(rest);
        commit.unlist(ids, &mut turn);
    }

    /// Tells everyone who is connected which generations there are.
    fn announce_generations(&mut self, rest: &mut Rest<'_>) {
        self.announce_patience = rest.config.announce_ticks;
        for client in rest.front.everyone() {
            let announce = Message::Announce(self.generations.clone());
            rest.out.send(client, announce);
        }
    }

    /// Time passes for the log and for all that its leader does.
    pub(super) fn on_tick(&mut self, rest: &mut Rest<'_>) {
        self.announce_patience = self.announce_patience.saturating_sub(1);
        if self.announce_patience == 0 {
            self.announce_generations(rest);
        }
        let config = rest.config;
        self.generation_age = config
            .generation_ticks
            .min(self.generation_age.saturating_add(1));
        self.closed_age = config.grace_ticks.min(self.closed_age.saturating_add(1));
        let mut effects = LogEffects::default();
        if let Some(log) = &mut self.log {
            log.on_tick(&mut effects);
        }
        self.take_log(effects, rest);
        self.look_for_news(rest);
        self.tick_stores(rest);
        self.tick_fetching();
        self.tick_probing(rest);
        self.lead(rest);
    }

    /// What the leader of the log does when it is time.
    fn lead(&mut self, rest: &mut Rest<'_>) {
        if !self.is_leading() {
            self.forgetting = None;
            return;
        }
        // First, since it is bounded by its own patience: where generations turn at every tick, the
        // other two would never leave it a free slot.
        self.unlist_applied(rest);
        self.forget(rest);
        self.open_if_due(rest);
    }

    /// Proposes an entry, if this replica leads and the slot is free.
    fn propose(&mut self, entry: Entry, rest: &mut Rest<'_>) -> bool {
        let Some(log) = &mut self.log else {
            return false;
        };
        let mut effects = LogEffects::default();
        let proposed = log.propose(entry, &mut effects);
        self.take_log(effects, rest);
        proposed
    }

    /// Another replica has settled `id`, and does not list it. If this one does not know that, or
    /// still lists it, it is behind in the log.
    pub(super) fn on_expired(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if !self.generations.is_settled(&id) || rest.commit.is_under_way(&id) {
            self.fetch(from, rest.out);
        }
        Ok(())
    }

    /// The list of the Settle that this message may get chosen: it brings it, or it is the last
    /// acceptance that this replica's own proposal needs.
    pub(super) fn settles<'l>(&'l self, message: &'l LogMessage<Entry>) -> Option<&'l [Listed]> {
        let entry = match message {
            LogMessage::Chosen { entry, .. } => entry,
            LogMessage::Accepted { .. } => self.log.as_ref()?.proposed()?,
            LogMessage::Prepare { .. }
            | LogMessage::Promise { .. }
            | LogMessage::Accept { .. }
            | LogMessage::Nack { .. }
            | LogMessage::Lead { .. }
            | LogMessage::Following { .. } => return None,
        };
        match entry {
            Entry::Settle(settle) => Some(&settle.unfinished),
            Entry::Open(_)
            | Entry::Release { .. }
            | Entry::Unlist { .. }
            | Entry::Enter { .. }
            | Entry::Gone { .. }
            | Entry::Restored { .. } => None,
        }
    }

    /// What the state that is being taken over lists, so far.
    pub(super) fn fetched(&self) -> impl Iterator<Item = &Listed> + '_ {
        self.fetching.iter().flat_map(Fetching::listed)
    }
}
