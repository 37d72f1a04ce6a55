//! Catching up: what the log comes to, horizon and list together, page by page.

use std::ops::Bound;

use crate::protocol::effects::Effects;
use crate::protocol::message::{Declined, Message};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::paxos::log::Log;
use crate::protocol::types::{CommitId, Configuration, Generations, LIST_MAX, Listed, Peer};

use super::{Record, Rejection, Replica};

/// A state that is being taken over; nothing of it counts before it is complete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fetching {
    from: ReplicaId,
    generations: Generations,
    listed: Vec<Listed>,
}

impl Replica {
    /// Asks `replica` for what it has learned and this one has not.
    pub(super) fn fetch(&self, replica: ReplicaId, out: &mut Effects<Self>) {
        let slot = self.generations.slot();
        // What is under way goes on where it is: a long list must not begin anew at each sign of
        // life of the leader.
        let under_way = self.fetching.as_ref();
        let under_way = under_way.filter(|fetching| fetching.from == replica);
        let after = under_way.and_then(Fetching::last);
        out.send(Peer::Replica(replica), Message::Fetch { slot, after });
    }

    pub(super) fn on_fetch(
        &mut self,
        from: &Peer,
        slot: u64,
        after: Option<CommitId>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let mine = self.generations.slot();
        match from {
            Peer::Operator(_) => self.send_state(from, after, out),
            _ if slot < mine => self.send_state(from, after, out),
            // It is the other way round: one that is new may hear of what it has to learn by this.
            Peer::Replica(replica) if slot > mine => self.fetch(*replica, out),
            Peer::Replica(_) | Peer::Session(_) | Peer::Initiator(_) => {}
        }
        Ok(())
    }

    /// Sends one page of the state.
    pub(super) fn send_state(&self, to: &Peer, after: Option<CommitId>, out: &mut Effects<Self>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let settled = self.instances.range((start, Bound::Unbounded));
        let settled = settled.take_while(|(id, _)| self.generations.is_settled(id));
        let listed = settled.filter_map(|(id, instance)| {
            let unapplied = instance.to_apply()?;
            Some(Listed { id: *id, unapplied })
        });
        let page = self.config.list_max();
        let mut listed: Vec<Listed> = listed.take(page + 1).collect();
        let more = listed.len() > page;
        listed.truncate(page);
        let state = Message::State {
            generations: self.generations.clone(),
            after,
            listed,
            more,
        };
        out.send(to.clone(), state);
    }

    /// A page of another replica's state.
    pub(super) fn on_state(
        &mut self,
        from: ReplicaId,
        generations: Generations,
        after: Option<CommitId>,
        listed: Vec<Listed>,
        more: bool,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if listed.len() > LIST_MAX {
            return Err(Rejection::TooLong);
        }
        if generations.in_force().is_none() {
            return Err(Rejection::DoesNotFollow);
        }
        if !self.generations.is_older_than(&generations) {
            return Ok(());
        }
        let mut fetching = match self.fetching.take() {
            // The first page.
            _ if after.is_none() => Fetching {
                from,
                generations,
                listed: Vec::new(),
            },
            Some(fetching) if fetching.continues(from, &generations, after) => fetching,
            // The other one went on in between: from its first page again.
            Some(old) if old.from == from && old.generations.is_older_than(&generations) => {
                self.fetch(from, out);
                return Ok(());
            }
            // A page that came late.
            other => {
                self.fetching = other;
                return Ok(());
            }
        };
        fetching.listed.extend(listed);
        if !more {
            self.install(fetching, out);
            return Ok(());
        }
        let slot = self.generations.slot();
        let after = fetching.last();
        self.fetching = Some(fetching);
        out.send(Peer::Replica(from), Message::Fetch { slot, after });
        Ok(())
    }

    /// Takes the whole state over, in one record.
    fn install(&mut self, fetched: Fetching, out: &mut Effects<Self>) {
        let Fetching {
            generations,
            listed,
            ..
        } = fetched;
        out.save.push(Record::State {
            generations: generations.clone(),
            listed: listed.clone(),
        });
        let before = std::mem::replace(&mut self.generations, generations);
        // What was forgotten here stays forgotten.
        let is_news =
            |of: &Listed| !before.is_settled(&of.id) || self.instances.contains_key(&of.id);
        let listed: Vec<Listed> = listed.into_iter().filter(is_news).collect();
        self.forget_settled(None, listed, out);
        let slot = self.generations.slot();
        let acceptors = self.generations.in_force().map(Configuration::acceptors);
        match (&mut self.log, acceptors) {
            (_, None) => {}
            (Some(log), Some(acceptors)) => log.install(slot, acceptors.clone()),
            (None, Some(acceptors)) => {
                let (me, config) = (self.config.id, self.config.log);
                self.log = Some(Log::new(me, config, slot, acceptors.clone()));
            }
        }
        if before.latest() != self.generations.latest() {
            self.opened();
        }
        if before.closed() != self.generations.closed() {
            self.closed_age = 0;
        }
        self.forgetting = None;
        if let Some(asked) = self.operator.take() {
            out.send(asked.peer, Message::Declined(Declined::LostSight));
        }
        self.announce_generations(out);
        self.look_whether_removed(&before, out);
    }

    /// One that no longer, or not yet, takes part in the log hears of no leader: it asks.
    pub(super) fn look_for_news(&mut self, out: &mut Effects<Self>) {
        let me = self.config.id;
        let Some(log) = &self.log else {
            return;
        };
        if log.acceptors().contains(me) || !self.generations.contains(me) {
            return;
        }
        self.news_patience = self.news_patience.saturating_sub(1);
        if self.news_patience == 0 {
            self.news_patience = self.config.log.silence_ticks.max(1);
            for replica in log.acceptors().clone().iter() {
                self.fetch(replica, out);
            }
        }
    }
}

impl Fetching {
    /// What its pages list, so far.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> + '_ {
        self.listed.iter()
    }

    fn last(&self) -> Option<CommitId> {
        self.listed.last().map(|listed| listed.id)
    }

    fn continues(
        &self,
        from: ReplicaId,
        generations: &Generations,
        after: Option<CommitId>,
    ) -> bool {
        self.from == from && self.generations == *generations && self.last() == after
    }
}
