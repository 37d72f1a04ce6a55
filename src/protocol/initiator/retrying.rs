//! What is asked again: the hedge, the tick, busy relays, lost connections; and questions.

use std::time::Duration;

use crate::protocol::effects::{Effects, TimerOp};
use crate::protocol::message::{Message, Question, Voter};
use crate::protocol::types::{CommitId, Configuration, Peer};

use super::committing::{Committing, Phase};
use super::{Initiator, InitiatorConfig, InitiatorTimer, PrepareBy};

/// Counts ticks down to the next try, twice as many each time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Retry {
    pub(super) patience: u32,
    attempts: u32,
}

/// What is asked of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Wanted {
    /// The outcome, whatever it becomes.
    Outcome,
    /// A ballot now, and the outcome that it reaches.
    Ballot,
}

/// A question that is asked until the outcome is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    wanted: Wanted,
    retry: Retry,
}

/// Whether the tick is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ticking {
    Yes,
    No,
}

impl Initiator {
    /// The relay has too much to do: back off. The next tick that is due asks another one.
    pub(super) fn on_busy(&mut self, id: CommitId, out: &mut Effects<Self>) {
        let config = self.config.clone();
        if let Some(committing) = self.committing(id) {
            committing.retry.back_off(&config);
            out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
        }
        if let Some(asking) = self.questions.get_mut(&id) {
            asking.retry.back_off(&config);
        }
    }

    /// Nothing was heard within the hedge delay: ask the next replica too, and ask it first from
    /// now on. Each replica gets its delay, until all have been asked; then ticks take over.
    pub(super) fn on_hedge(&mut self, id: CommitId, out: &mut Effects<Self>) {
        let Some(committing) = self.committing(id) else {
            return;
        };
        let (asked, acceptors) = (committing.relay, committing.acceptors.clone());
        self.silent.extend(acceptors.iter().nth(asked));
        let next = self.relay_from(asked + 1, &acceptors);
        if self.relay % acceptors.len() == asked {
            self.relay = next;
        }
        let Some(committing) = self.committing(id) else {
            return;
        };
        committing.relay = next;
        committing.hedges = committing.hedges.saturating_add(1);
        let all_asked = committing.hedges >= acceptors.len() - 1;
        let (relay, begin) = (committing.relay(), committing.begin.clone());
        out.send(relay, Message::BeginCommit(begin));
        if !all_asked {
            out.set(InitiatorTimer::Hedge(id), self.config.hedge_delay);
        }
    }

    /// A relay that went away is not waited for.
    pub(super) fn on_disconnected(&mut self, peer: &Peer, out: &mut Effects<Self>) {
        let hedges: Vec<CommitId> = self
            .open
            .values()
            .filter_map(|phase| match phase {
                Phase::Committing(committing)
                    if committing.prepare == PrepareBy::Relay && committing.relay() == *peer =>
                {
                    Some(committing.begin.id)
                }
                Phase::Begun(_) | Phase::Planned { .. } | Phase::Committing(_) => None,
            })
            .collect();
        if let Peer::Replica(replica) = peer {
            self.silent.insert(*replica);
        }
        for id in hedges {
            self.on_hedge(id, out);
        }
        let Some(acceptors) = self.generations.in_force().map(Configuration::acceptors) else {
            return;
        };
        let first = self.relay % acceptors.len();
        if acceptors.iter().nth(first).map(Peer::Replica).as_ref() == Some(peer) {
            self.relay = (first + 1) % acceptors.len();
        }
    }

    /// What was sent on an earlier connection may be lost: ask again at the next tick.
    pub(super) fn on_connected(&mut self, peer: &Peer, out: &mut Effects<Self>) {
        let Peer::Replica(replica) = peer else {
            return;
        };
        self.silent.remove(replica);
        for phase in self.open.values_mut() {
            match phase {
                Phase::Committing(committing) => committing.retry.patience = 1,
                Phase::Begun(_) | Phase::Planned { .. } => {}
            }
        }
        for asking in self.questions.values_mut() {
            asking.retry.patience = 1;
        }
        self.tick_while_open(out);
    }

    pub(super) fn on_tick(&mut self, out: &mut Effects<Self>) {
        self.ticking = Ticking::No;
        let config = self.config.clone();
        let mut due = Vec::new();
        for phase in self.open.values_mut() {
            match phase {
                Phase::Committing(committing) => {
                    if committing.retry.is_due(&config) {
                        // Each in turn, silent or not: one that is heard of may be cut off from the
                        // branches.
                        committing.relay = (committing.relay + 1) % committing.acceptors.len();
                        due.push((**committing).clone());
                    }
                }
                Phase::Begun(_) | Phase::Planned { .. } => {}
            }
        }
        for committing in due {
            self.try_again(committing, out);
        }
        let mut asks = Vec::new();
        for (id, asking) in &mut self.questions {
            if asking.retry.is_due(&config) {
                asks.push((*id, asking.wanted, asking.retry.attempts));
            }
        }
        for (id, wanted, attempt) in asks {
            self.ask(id, wanted, attempt, out);
        }
        self.tick_while_open(out);
    }

    /// A relay that is asked again answers with what it has accepted, and prepares the branches
    /// whose vote it lacks. Without a relay, the question is what makes the replicas answer.
    fn try_again(&mut self, committing: Committing, out: &mut Effects<Self>) {
        let id = committing.begin.id;
        let settled = self.generations.is_settled(&id);
        match (committing.wanted, committing.prepare) {
            (Wanted::Outcome, PrepareBy::Relay) if !settled => {
                out.send(committing.relay(), Message::BeginCommit(committing.begin));
            }
            (wanted, PrepareBy::Relay | PrepareBy::Itself) => {
                self.ask(id, wanted, committing.retry.attempts, out);
            }
        }
    }

    /// Asks until the outcome is known.
    pub(super) fn begin_asking(&mut self, id: CommitId, wanted: Wanted, out: &mut Effects<Self>) {
        let before = self.questions.get(&id).map(|asking| asking.wanted);
        let asking = Asking {
            // A ballot that was asked for is not taken back by a question.
            wanted: before.map_or(wanted, |before| before.max(wanted)),
            retry: Retry::new(&self.config),
        };
        self.questions.insert(id, asking);
        self.ask(id, wanted, 0, out);
        self.tick_while_open(out);
    }

    /// Asks once.
    pub(super) fn ask(
        &mut self,
        id: CommitId,
        wanted: Wanted,
        attempt: u32,
        out: &mut Effects<Self>,
    ) {
        match wanted {
            // To replicas that know nothing of it yet, a question must not make the votes late: of
            // a transaction of its own it tells the vote timeout again.
            Wanted::Outcome => {
                let fixed = self.fixed(id);
                let vote_timeout = fixed.map_or(Duration::ZERO, |fixed| fixed.begin.vote_timeout);
                self.send_question(id, vote_timeout, out);
            }
            Wanted::Ballot => self.send_force_abort(id, attempt, out),
        }
    }

    /// One replica after the other is asked: ballots of several leaders get in each other's way.
    fn send_force_abort(&self, id: CommitId, attempt: u32, out: &mut Effects<Self>) {
        let in_force = self.generations.in_force().map(Configuration::acceptors);
        let acceptors = self.generations.who_knows(id.txn).or(in_force);
        let Some(acceptors) = acceptors else {
            return;
        };
        let position = self.relay_from(self.relay + attempt as usize, acceptors);
        if let Some(replica) = acceptors.iter().nth(position) {
            out.send(Peer::Replica(replica), Message::ForceAbort { id });
        }
    }

    fn send_question(&self, id: CommitId, vote_timeout: Duration, out: &mut Effects<Self>) {
        let question = Question {
            id,
            branch: None,
            voter: Voter::Unknown,
            vote_timeout,
        };
        self.send_to_all(Some(id.txn), &Message::Ask(question), out);
    }

    pub(super) fn tick_while_open(&mut self, out: &mut Effects<Self>) {
        if self.ticking == Ticking::Yes {
            return;
        }
        let committing = |phase: &Phase| matches!(phase, Phase::Committing(_));
        if self.open.values().any(committing) || !self.questions.is_empty() {
            self.ticking = Ticking::Yes;
            out.set(InitiatorTimer::Tick, self.config.tick);
        }
    }
}

impl Retry {
    pub(super) fn new(config: &InitiatorConfig) -> Self {
        // Not before a hedge has had its time: whoever is slow must not be asked twice for that.
        let hedged = config.hedge_delay.as_nanos() * 2;
        let hedged = hedged.div_ceil(config.tick.as_nanos().max(1));
        let hedged = u32::try_from(hedged).unwrap_or(u32::MAX);
        let hedged = hedged.min(config.retry_ticks_max);
        Retry {
            patience: config.retry_ticks.max(hedged).max(1),
            attempts: 0,
        }
    }

    fn back_off(&mut self, config: &InitiatorConfig) {
        self.attempts = self.attempts.saturating_add(1);
        let ticks = config
            .retry_ticks
            .saturating_mul(1 << self.attempts.min(16));
        self.patience = ticks.min(config.retry_ticks_max).max(1);
    }

    /// Counts one tick. When it is time, sets the next.
    fn is_due(&mut self, config: &InitiatorConfig) -> bool {
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.back_off(config);
            return true;
        }
        false
    }
}
