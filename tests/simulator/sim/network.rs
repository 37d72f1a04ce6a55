//! The network: loses, doubles, delays and reorders; and is cut, in one direction or both.

use std::collections::BTreeSet;

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::types::{CommitId, Peer};
use paxos_commit::protocol::{Initiator, Input, Participant, Replica};

use super::crank::step;
use super::plan::{Micros, SECOND, chance};
use super::stats::{Fault, Sometimes};
use super::world::{At, Event, World};

/// Who cannot reach whom.
#[derive(Debug, Default)]
pub struct Network {
    pub cut: BTreeSet<(At, At)>,
    /// The ballots in which some replica reported that it had accepted something.
    pub bound: BTreeSet<(CommitId, Ballot)>,
}

impl World {
    /// A message leaves.
    pub fn send(&mut self, at: At, from: Peer, to: Peer, message: Message) {
        // In a fair run, which counts what a transaction takes, sessions were let in before it began.
        if self.plan.is_fair() && matches!(message, Message::Present { .. }) {
            return;
        }
        self.stats.count(&message);
        self.observe_sent(&to, &message);
        let Some(target) = self.locate(&to) else {
            self.tell_operator(&to, &message);
            self.hostile_hears(&to, &message);
            return;
        };
        // A session or an initiator that is gone never comes back under its number.
        if *self.peer_at(target) != to {
            return;
        }
        if self.healing.is_none() && self.plan.late_relay > 0.0 {
            self.maybe_late_relay(target, &from, &message);
        }
        if target != at {
            if self.network.cut.contains(&(at, target)) {
                return;
            }
            if chance(&mut self.rng, self.plan.loss) {
                self.stats.fault(Fault::MessageLost);
                return;
            }
            if chance(&mut self.rng, self.plan.duplicate) {
                self.stats.fault(Fault::MessageDoubled);
                let after = self.delay();
                self.schedule_delivery(after, target, &from, message.clone());
            }
            if chance(&mut self.rng, self.plan.very_late) {
                self.stats.fault(Fault::VeryLateMessage);
                let after = self.between(SECOND, 30 * SECOND);
                self.schedule_delivery(after, target, &from, message.clone());
            }
        }
        let after = if target == at { 0 } else { self.delay() };
        self.schedule_delivery(after, target, &from, message);
    }

    fn schedule_delivery(&mut self, after: Micros, to: At, from: &Peer, message: Message) {
        let event = Event::Deliver {
            to,
            life: self.life(to),
            from: from.clone(),
            message,
        };
        self.schedule(after, event);
    }

    /// A relay that wakes up late with an old request: a copy of it that comes much later.
    fn maybe_late_relay(&mut self, target: At, from: &Peer, message: &Message) {
        if let Message::BeginCommit(_) | Message::Prepare(_) = message
            && chance(&mut self.rng, self.plan.late_relay)
        {
            self.stats.saw(Sometimes::LateRelay);
            let after = self.between(SECOND / 10, 20 * SECOND);
            self.schedule_delivery(after, target, from, message.clone());
        }
    }

    pub fn delay(&mut self) -> Micros {
        let mut delay = self.between(self.plan.delay_min, self.plan.delay_max);
        if chance(&mut self.rng, self.plan.spike) {
            self.stats.fault(Fault::DelaySpike);
            delay += self.between(0, self.plan.spike_max);
        }
        delay
    }

    /// Where a peer is, or was: it may be down, or have restarted as another one.
    pub fn locate(&self, peer: &Peer) -> Option<At> {
        match peer {
            Peer::Replica(id) => Some(At::Replica(id.0 as usize - 1)),
            Peer::Session(branch) => self.numbers.get(branch.session.0 as usize).copied(),
            Peer::Initiator(id) => {
                let number = usize::try_from(id.to_u128()).ok()?;
                self.numbers.get(number).copied()
            }
            Peer::Operator(_) => None,
        }
    }

    pub fn deliver(&mut self, to: At, life: u32, from: Peer, message: Message) {
        let is_replica = matches!(to, At::Replica(_));
        if !self.is_up(to) || (!is_replica && self.life(to) != life) {
            return;
        }
        self.trace(|| format!("{from} -> {}: {message:?}", self.peer_at(to)));
        let plant = self.options.plant;
        if let Some(answer) = plant.and_then(|it| it.answers_for(self, self.peer_at(to), &message))
            && let Some(asker) = self.locate(&from)
        {
            let me = self.peer_at(to).clone();
            self.schedule_delivery(0, asker, &me, answer);
            return;
        }
        let message = match self.options.plant {
            Some(plant) => plant.receive(self.peer_at(to), message),
            None => message,
        };
        match to {
            At::Replica(i) => step::<Replica>(self, i, Input::Message { from, message }),
            At::Session(i) => {
                let before = self.remembered_before(i, &message);
                step::<Participant>(self, i, Input::Message { from, message });
                if let Some((before, message)) = before {
                    self.judge_growth(i, before, &message);
                }
            }
            At::Initiator(i) => step::<Initiator>(self, i, Input::Message { from, message }),
        }
    }

    /// A connection comes up or goes down, as one end of it sees it.
    pub fn link(&mut self, to: At, life: u32, peer: Peer, up: bool) {
        if !self.is_up(to) || self.life(to) != life {
            return;
        }
        // A connection that went down before its news arrived has never been up.
        let lives = self
            .locate(&peer)
            .is_some_and(|at| self.is_up(at) && *self.peer_at(at) == peer)
            || self.is_hostile_and_connected(&peer);
        if up && !lives {
            return;
        }
        match to {
            At::Replica(i) => step::<Replica>(self, i, change(peer, up)),
            At::Session(i) => step::<Participant>(self, i, change(peer, up)),
            At::Initiator(i) => step::<Initiator>(self, i, change(peer, up)),
        }
    }

    pub fn peer_at(&self, at: At) -> &Peer {
        match at {
            At::Replica(i) => &self.replicas[i].me,
            At::Session(i) => &self.sessions[i].me,
            At::Initiator(i) => &self.initiators[i].me,
        }
    }

    pub fn is_up(&self, at: At) -> bool {
        match at {
            At::Replica(i) => self.replicas[i].is_up(),
            At::Session(i) => self.sessions[i].is_up(),
            At::Initiator(i) => self.initiators[i].is_up(),
        }
    }

    pub fn life(&self, at: At) -> u32 {
        match at {
            At::Replica(i) => self.replicas[i].life,
            At::Session(i) => self.sessions[i].life,
            At::Initiator(i) => self.initiators[i].life,
        }
    }
}

fn change<H: paxos_commit::protocol::Host>(peer: Peer, up: bool) -> Input<H> {
    if up {
        Input::Connected(peer)
    } else {
        Input::Disconnected(peer)
    }
}
