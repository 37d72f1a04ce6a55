//! Who leads: ballots, proposals, signs of life, and when to take over.

use crate::protocol::paxos::{Ballot, Choice, Learner, Nack, Proposer, ReplicaId, Tally};

use super::{Log, LogEffects, LogEntry, LogMessage, LogRecord, To};

/// What a replica does besides accepting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role<E> {
    /// It waits for signs of life.
    Follower,
    /// It has a ballot of its own, in the current slot.
    Proposing(Box<Proposing<E>>),
}

/// A ballot of this replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposing<E> {
    proposer: Proposer<E>,
    learner: Learner<E>,
    /// Who has answered since the last sign of life.
    answers: Tally,
    /// Signs of life in a row that no majority answered.
    unanswered: u32,
}

impl<E: LogEntry> Proposing<E> {
    fn new(proposer: Proposer<E>) -> Self {
        Proposing {
            proposer,
            learner: Learner::default(),
            answers: Tally::default(),
            unanswered: 0,
        }
    }

    fn is_leading(&self) -> bool {
        self.proposer.is_ready() || self.proposer.proposed().is_some()
    }
}

impl<E: LogEntry> Log<E> {
    /// Whether a majority has promised this replica's ballot, and nobody was heard to outrank it.
    pub fn is_leading(&self) -> bool {
        match &self.role {
            Role::Follower => false,
            Role::Proposing(ours) => ours.is_leading(),
        }
    }

    /// Whether this replica leads, and nothing may have been chosen in the current slot: phase 1 is
    /// done and it found nothing.
    pub fn is_free(&self) -> bool {
        match &self.role {
            Role::Follower => false,
            Role::Proposing(ours) => ours.proposer.is_ready(),
        }
    }

    /// What this replica proposes in the current slot, if it does: the next acceptance may get it
    /// chosen.
    pub fn proposed(&self) -> Option<&E> {
        match &self.role {
            Role::Follower => None,
            Role::Proposing(ours) => ours.proposer.proposed(),
        }
    }

    /// Proposes `entry` in the current slot. Says whether it could: only when it
    /// [is free](Self::is_free). It may still lose the slot to another entry.
    pub fn propose(&mut self, entry: E, out: &mut LogEffects<E>) -> bool {
        let slot = self.slot;
        match &mut self.role {
            Role::Proposing(ours) if ours.proposer.is_ready() => {
                let ballot = ours.proposer.ballot();
                ours.proposer.propose(entry.clone());
                let accept = LogMessage::Accept {
                    slot,
                    ballot,
                    entry,
                };
                out.send.push((To::All, accept));
                self.patience = self.config.heartbeat_ticks;
                true
            }
            Role::Proposing(_) | Role::Follower => false,
        }
    }

    /// Time passes.
    pub fn on_tick(&mut self, out: &mut LogEffects<E>) {
        self.patience = self.patience.saturating_sub(1);
        if self.patience > 0 || !self.acceptors.contains(self.me) {
            return;
        }
        let Role::Proposing(ours) = &mut self.role else {
            self.start_ballot(out);
            return;
        };
        if !ours.is_leading() {
            // No majority of promises in its time: a higher ballot.
            self.attempts = self.attempts.saturating_add(1);
            self.start_ballot(out);
            return;
        }
        // A leader that nobody answers would keep the others quiet and get nothing done.
        ours.unanswered = if ours.answers.is_majority(&self.acceptors) {
            0
        } else {
            ours.unanswered.saturating_add(1)
        };
        ours.answers = Tally::default();
        let quiet = ours.unanswered.saturating_mul(self.config.heartbeat_ticks);
        if quiet > self.config.silence_ticks {
            self.attempts = self.attempts.saturating_add(1);
            self.follow();
            return;
        }
        let (slot, ballot) = (self.slot, ours.proposer.ballot());
        let again = match ours.proposer.proposed() {
            Some(entry) => LogMessage::Accept {
                slot,
                ballot,
                entry: entry.clone(),
            },
            None => LogMessage::Lead { slot, ballot },
        };
        out.send.push((To::All, again));
        self.patience = self.config.heartbeat_ticks;
    }

    /// Phase 1a: a new ballot in the current slot, and with it in all later ones.
    pub(super) fn start_ballot(&mut self, out: &mut LogEffects<E>) {
        let highest = self.used.max(self.heard);
        let highest = highest.max(self.acceptor.promised().round);
        let Some(ballot) = Ballot::above(highest, self.me) else {
            return;
        };
        self.used = ballot.round;
        self.leader = None;
        let proposer = Proposer::new(ballot, self.acceptors.clone());
        self.role = Role::Proposing(Box::new(Proposing::new(proposer)));
        self.wait();
        // A replica never uses a ballot twice: what it used is saved before the message leaves.
        out.save.push(LogRecord::Round {
            round: ballot.round,
        });
        let slot = self.slot;
        out.send
            .push((To::All, LogMessage::Prepare { slot, ballot }));
    }

    pub(super) fn on_promise(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        accepted: Option<(Ballot, E)>,
        out: &mut LogEffects<E>,
    ) {
        let slot = self.slot;
        let Role::Proposing(ours) = &mut self.role else {
            return;
        };
        let message = match ours.proposer.on_promise(from, ballot, accepted) {
            None => return,
            // An entry found in phase 1 is proposed unchanged.
            Some(Choice::Bound(entry)) => {
                ours.proposer.propose(entry.clone());
                LogMessage::Accept {
                    slot,
                    ballot,
                    entry,
                }
            }
            Some(Choice::Free) => LogMessage::Lead { slot, ballot },
        };
        out.send.push((To::All, message));
        self.attempts = 0;
        self.patience = self.config.heartbeat_ticks;
    }

    pub(super) fn on_accepted(&mut self, from: ReplicaId, ballot: Ballot, out: &mut LogEffects<E>) {
        let Role::Proposing(ours) = &mut self.role else {
            return;
        };
        let Some(entry) = ours.proposer.proposed().cloned() else {
            return;
        };
        if ours.proposer.ballot() != ballot {
            return;
        }
        ours.answers.add(&self.acceptors, from);
        let learner = &mut ours.learner;
        let chosen = learner.on_accepted(&self.acceptors, from, ballot, entry.clone());
        if chosen.is_none() {
            return;
        }
        let next = ours.proposer.next_instance();
        let slot = self.slot;
        let news = LogMessage::Chosen {
            slot,
            entry: entry.clone(),
        };
        out.send.push((To::All, news));
        let before = self.acceptors.clone();
        self.choose(entry, out);
        if self.acceptors == before {
            self.role = Role::Proposing(Box::new(Proposing::new(next)));
            self.patience = self.config.heartbeat_ticks;
        } else {
            // Those who promised are not those who decide now.
            self.follow();
            if self.acceptors.contains(self.me) {
                self.start_ballot(out);
            }
        }
    }

    /// Another ballot got in the way.
    pub(super) fn on_nack(&mut self, ballot: Ballot, promised: Ballot) {
        let Role::Proposing(ours) = &mut self.role else {
            return;
        };
        let proposer = &mut ours.proposer;
        if proposer.ballot() == ballot && proposer.on_nack(Nack { promised }) {
            self.heard = self.heard.max(promised.round);
            self.attempts = self.attempts.saturating_add(1);
            self.follow();
        }
    }

    /// A follower answers a sign of life.
    pub(super) fn on_following(&mut self, from: ReplicaId, ballot: Ballot) {
        if let Role::Proposing(ours) = &mut self.role
            && ours.proposer.ballot() == ballot
        {
            ours.answers.add(&self.acceptors, from);
        }
    }

    /// A ballot of `from` is under way: give up ours, and wait for what comes of it.
    pub(super) fn stand_back(&mut self, from: ReplicaId, ballot: Ballot) {
        if from == self.me {
            return;
        }
        if let Role::Proposing(ours) = &self.role
            && ours.proposer.ballot() > ballot
        {
            return;
        }
        self.follow();
    }

    /// `from` leads: it has a majority's promises.
    pub(super) fn on_leader(&mut self, from: ReplicaId, ballot: Ballot) {
        self.attempts = 0;
        self.stand_back(from, ballot);
        if from != self.me {
            self.leader = Some(from);
        }
    }

    pub(super) fn follow(&mut self) {
        self.role = Role::Follower;
        self.leader = None;
        self.wait();
    }

    /// Sets the patience of one who does not lead: the first position waits least, and all wait
    /// longer, each by another time, when they get in each other's way.
    pub(super) fn wait(&mut self) {
        let config = &self.config;
        let position = self.acceptors.index_of(self.me).unwrap_or(0) as u32;
        let turn = config.stagger_ticks.saturating_mul(position);
        let doublings = self.attempts.min(16);
        let longer = config.silence_ticks.saturating_mul(1 << doublings);
        let longer = longer.min(config.silence_ticks_max.max(config.silence_ticks));
        self.patience = longer.saturating_add(turn).saturating_add(self.jitter());
    }

    /// A number of ticks that two replicas, or two attempts of one, rarely have in common. It is
    /// computed, so that a run can be repeated; 0 until somebody got in the way.
    fn jitter(&self) -> u32 {
        if self.attempts == 0 {
            return 0;
        }
        // Knuth's multiplicative hash.
        let seed = u64::from(self.me.0) << 32 | u64::from(self.attempts);
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let spread = u64::from(self.config.silence_ticks) << self.attempts.min(4);
        (mixed % spread.max(1)) as u32
    }
}
