//! Which markers the store must keep: those of commits that are still listed.
//!
//! A marker proves that a branch is committed. It may be deleted when no replica will ever tell the
//! branch to commit again: its commit is settled and off the list. So whenever the horizon moves, the
//! session reads the list, page by page, up to that horizon. Pages may come from different replicas,
//! and at different slots of the log: the list up to a horizon only becomes shorter.

use crate::protocol::effects::Effects;
use crate::protocol::message::{ListPage, Message};
use crate::protocol::paxos::{Acceptors, ReplicaId};
use crate::protocol::types::{Branch, CommitId, Configuration, Peer};

use super::{Participant, ParticipantNotice};

/// The list, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    /// The horizon up to which it is read.
    through: CommitId,
    /// The end of the last page.
    after: Option<CommitId>,
    listed: Vec<(CommitId, Branch)>,
    /// Which replica is asked, by its position: each in turn, when one does not answer.
    turn: usize,
    /// Ticks until the next one is asked.
    patience: u32,
}

impl Participant {
    /// The horizon has moved: reads the list from its beginning.
    pub(super) fn read_list(&mut self, through: CommitId, out: &mut Effects<Self>) {
        let turn = self.reading.take().map_or(0, |before| before.turn);
        self.reading = Some(Reading {
            through,
            after: None,
            listed: Vec::new(),
            turn,
            patience: self.config.retry_ticks_max,
        });
        self.ask_for_list(out);
    }

    pub(super) fn tick_reading(&mut self, out: &mut Effects<Self>) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        reading.patience = reading.patience.saturating_sub(1);
        if reading.patience == 0 {
            reading.patience = self.config.retry_ticks_max;
            reading.turn = reading.turn.wrapping_add(1);
            self.ask_for_list(out);
        }
    }

    fn ask_for_list(&self, out: &mut Effects<Self>) {
        let acceptors = self.generations.in_force().map(Configuration::acceptors);
        let replicas: Vec<ReplicaId> = acceptors.into_iter().flat_map(Acceptors::iter).collect();
        let Some(reading) = &self.reading else {
            return;
        };
        let index = reading.turn.checked_rem(replicas.len());
        if let Some(replica) = index.and_then(|index| replicas.get(index)) {
            let list = Message::List {
                through: reading.through,
                after: reading.after,
            };
            out.send(Peer::Replica(*replica), list);
        }
    }

    /// A page of the list. With the last one the store learns which markers it may delete.
    pub(super) fn on_listing(&mut self, _: ReplicaId, page: ListPage, out: &mut Effects<Self>) {
        let is_next =
            |reading: &mut Reading| reading.through == page.through && reading.after == page.after;
        let Some(mut reading) = self.reading.take_if(is_next) else {
            return;
        };
        reading.listed.extend(page.listed);
        match page.next {
            Some(next) => {
                reading.after = Some(next);
                reading.patience = self.config.retry_ticks_max;
                self.reading = Some(reading);
                self.ask_for_list(out);
            }
            None => out.notify.push(ParticipantNotice::Settled {
                through: reading.through,
                listed: reading.listed,
            }),
        }
    }
}
