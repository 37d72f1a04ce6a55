//! Work that is to begin in a generation of which this session has not heard.
//!
//! A session may be a generation behind its caller, mostly for some milliseconds. The caller waits
//! then, for a bounded time, and the replicas are asked. Nothing else is kept for an id whose
//! generation is not open.
//!
//! Every caller of the service can invent such ids. So one costs a place among a bounded number,
//! and the replicas are asked once a tick for all of them. When there are too many, the oldest is refused
//! and not the latest: an honest caller is served within the time that an answer takes, unless a
//! thousand others come in that time.

use std::collections::VecDeque;

use crate::protocol::effects::Effects;
use crate::protocol::message::Message;
use crate::protocol::paxos::Acceptors;
use crate::protocol::types::{Configuration, Peer, TxnId};

use super::{Participant, ParticipantNotice, Refusal};

/// The most transactions that wait for their generation.
const EARLY_MAX: usize = 1_024;

/// How long they wait for it, in ticks: two seconds, as long as replicas take to announce it twice.
const EARLY_TICKS: u32 = 40;

/// The transactions that wait for their generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Early {
    /// Each with the ticks that it still waits; the oldest first.
    waiting: VecDeque<(TxnId, u32)>,
    asked: Asked,
}

/// Whether the replicas have been asked in this tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Asked {
    #[default]
    No,
    /// For all who wait.
    Yes,
    /// Others came after that: they are asked again at the next tick.
    ForSome,
}

impl Early {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn position(&self, txn: TxnId) -> Option<usize> {
        self.waiting.iter().position(|(of, _)| *of == txn)
    }
}

impl Participant {
    pub(super) fn wait_for_generation(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        if self.early.position(txn).is_some() {
            return;
        }
        if self.early.len() >= EARLY_MAX
            && let Some((oldest, _)) = self.early.waiting.pop_front()
        {
            refuse(oldest, Refusal::TooMany, out);
        }
        self.early.waiting.push_back((txn, EARLY_TICKS));
        match self.early.asked {
            Asked::No => self.ask_for_generations(txn, out),
            Asked::Yes | Asked::ForSome => self.early.asked = Asked::ForSome,
        }
    }

    fn ask_for_generations(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        self.early.asked = Asked::Yes;
        let acceptors = self.generations.in_force().map(Configuration::acceptors);
        for replica in acceptors.into_iter().flat_map(Acceptors::iter) {
            out.send(Peer::Replica(replica), Message::Inquire { txn });
        }
    }

    /// The generations have changed: those who waited for one of them begin.
    pub(super) fn begin_early(&mut self, out: &mut Effects<Self>) {
        let latest = self.generations.latest();
        let waiting = std::mem::take(&mut self.early.waiting);
        let is_open = |(txn, _): &(TxnId, u32)| txn.generation <= latest;
        let (opened, waiting): (VecDeque<_>, _) = waiting.into_iter().partition(is_open);
        self.early.waiting = waiting;
        for (txn, _) in opened {
            self.begin(txn, out);
        }
    }

    /// Its caller gives it up.
    pub(super) fn give_up_early(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        if let Some(position) = self.early.position(txn) {
            self.early.waiting.remove(position);
            refuse(txn, Refusal::Over, out);
        }
    }

    /// Nothing new begins. (What waits would begin as soon as its generation opens, when nobody
    /// waits for the session to become idle any more.)
    pub(super) fn stop(&mut self, out: &mut Effects<Self>) {
        self.stopping = true;
        for (txn, _) in std::mem::take(&mut self.early.waiting) {
            refuse(txn, Refusal::Stopping, out);
        }
    }

    /// Time passes for those who wait for their generation.
    pub(super) fn tick_early(&mut self, out: &mut Effects<Self>) {
        self.early.waiting.retain_mut(|(txn, ticks)| {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                refuse(*txn, Refusal::NotOpen, out);
            }
            *ticks > 0
        });
        match (self.early.asked, self.early.waiting.back().copied()) {
            (Asked::ForSome, Some((txn, _))) => self.ask_for_generations(txn, out),
            (Asked::No | Asked::Yes | Asked::ForSome, _) => self.early.asked = Asked::No,
        }
    }
}

fn refuse(txn: TxnId, why: Refusal, out: &mut Effects<Participant>) {
    out.notify.push(ParticipantNotice::Refused { txn, why });
}
