//! The applications: they begin transactions, have work done, ask for commit, and remember what
//! they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use paxos_commit::protocol::initiator::{
    CommitError, InitiatorCommand, InitiatorNotice, PrepareBy,
};
use paxos_commit::protocol::message::{BeginCommit, Decision, Message, State};
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::{Branch, CommitId, Outcome, Peer, Request, Roster, TxnId};
use paxos_commit::protocol::{Initiator, Input};

use super::crank::step;
use super::plan::{Micros, chance};
use super::stats::{Fault, Sometimes};
use super::world::{At, Event, World};

/// One application and what it remembers; it outlives its initiator's crashes.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// How many transactions it has begun.
    pub begun: usize,
    /// The transactions for which commit was not yet asked.
    pub working: BTreeMap<TxnId, Vec<Enlisted>>,
    /// The transactions whose plan it has asked for.
    pub planning: BTreeMap<TxnId, Vec<Enlisted>>,
    /// The commits asked for, and the plans handed out, whose outcome it does not know, and when it
    /// asked.
    pub open: BTreeMap<CommitId, Micros>,
    /// Those of them that it wants to be rolled back.
    pub rolled_back: BTreeSet<CommitId>,
}

/// What an application does next.
#[derive(Clone, Debug)]
pub enum AppEvent {
    Begin,
    Commit(TxnId),
    /// The services have the plan; it asks for an end.
    EndPlan(CommitId),
    Abandon(CommitId),
}

/// A branch, as its application sees it.
#[derive(Clone, Debug)]
pub struct Enlisted {
    pub branch: Branch,
    /// Where its session runs.
    pub session: usize,
    pub request: Option<Request>,
}

/// Where the session of a hostile participant runs: outside.
const HOSTILE: usize = usize::MAX;

impl World {
    fn quota(&self) -> usize {
        self.plan.transactions.div_ceil(self.plan.initiators)
    }

    /// Whether every application has begun all its transactions.
    pub fn is_all_begun(&self) -> bool {
        self.apps.iter().all(|app| app.begun >= self.quota())
    }

    pub fn command(&mut self, initiator: usize, command: InitiatorCommand) {
        step::<Initiator>(self, initiator, Input::Command(command));
    }

    pub fn soon(&mut self, initiator: usize, after: Micros, event: AppEvent) {
        let life = self.initiators[initiator].life;
        let event = Event::App {
            initiator,
            life,
            event,
        };
        self.schedule(after, event);
    }

    /// The next transaction of this application, after a while.
    pub fn next_transaction(&mut self, initiator: usize) {
        let after = self.between(0, self.plan.think_max);
        self.soon(initiator, after, AppEvent::Begin);
    }

    pub fn act(&mut self, initiator: usize, life: u32, event: AppEvent) {
        let node = &self.initiators[initiator];
        if node.life != life || !node.is_up() {
            return;
        }
        match event {
            AppEvent::Begin => {
                if self.apps[initiator].begun < self.quota() {
                    self.apps[initiator].begun += 1;
                    self.stats.transactions += 1;
                    let nonce = self.some_nonce();
                    self.command(initiator, InitiatorCommand::Begin { nonce });
                }
            }
            AppEvent::Commit(txn) => self.end_work(initiator, txn),
            AppEvent::EndPlan(id) => self.end_plan(initiator, id),
            AppEvent::Abandon(id) => {
                if self.apps[initiator].open.remove(&id).is_some() {
                    self.stats.saw(Sometimes::InitiatorAbandoned);
                    self.command(initiator, InitiatorCommand::Abandon(id.txn));
                    self.next_transaction(initiator);
                }
            }
        }
    }

    pub fn tell_app(&mut self, initiator: usize, notice: InitiatorNotice) {
        self.trace(|| format!("application {initiator} is told {notice:?}"));
        match notice {
            InitiatorNotice::Begun(txn) => {
                self.note_honest(txn);
                self.work(initiator, txn);
            }
            InitiatorNotice::Planned(id) => self.hand_out(initiator, id),
            InitiatorNotice::Asked(id) => {
                let now = self.now;
                self.apps[initiator].open.insert(id, now);
                if self.plan.force_abort_weight > 0 {
                    self.known.push(id);
                }
                if chance(&mut self.rng, self.plan.abandon) {
                    let after = self.between(0, 10 * self.plan.delay_max);
                    self.soon(initiator, after, AppEvent::Abandon(id));
                }
            }
            InitiatorNotice::Outcome { id, outcome } => self.told(initiator, id, outcome),
            InitiatorNotice::Refused {
                txn,
                error: CommitError::GenerationClosed(_),
            } => {
                self.stats.saw(Sometimes::GenerationClosedRefused);
                if self.apps[initiator].open.keys().any(|id| id.txn == txn) {
                    let lie = format!("nothing happened, it is told of the planned {txn}");
                    self.check(Err::<(), _>(lie));
                }
                self.apps[initiator].planning.remove(&txn);
                let branches = Vec::new();
                self.command(initiator, InitiatorCommand::Rollback { txn, branches });
                self.next_transaction(initiator);
            }
            InitiatorNotice::Refused { txn, error } => {
                self.check(Err::<(), _>(format!("{txn} refused: {error}")));
            }
            InitiatorNotice::SequenceExhausted => {
                self.check(Err::<(), _>("the sequence is exhausted"));
            }
            InitiatorNotice::Expired { id } => self.told_expired(initiator, id),
            InitiatorNotice::Undecided { .. }
            | InitiatorNotice::Forgotten { .. }
            | InitiatorNotice::Status { .. }
            | InitiatorNotice::Resolved { .. } => {}
        }
    }

    fn told(&mut self, initiator: usize, id: CommitId, outcome: Outcome) {
        self.judge_told(id, outcome);
        if self.apps[initiator].rolled_back.remove(&id) {
            self.stats.saw(match outcome {
                Outcome::Commit => Sometimes::RollbackOfPlanFindsCommit,
                Outcome::Abort => Sometimes::RollbackOfPlanAborts,
            });
        }
        let Some(asked) = self.apps[initiator].open.remove(&id) else {
            return;
        };
        if self.stats.outcomes == 0 {
            let stats = &mut self.stats;
            stats.writes_before_outcome = stats.prepares + stats.saves_done;
        }
        self.stats.outcomes += 1;
        let latency = self.now - asked;
        self.stats.latency_us += latency;
        self.stats.latency_max_us = self.stats.latency_max_us.max(latency);
        match outcome {
            Outcome::Commit => {
                self.stats.saw(Sometimes::Commit);
                if self.plan.f == 0 {
                    self.stats.saw(Sometimes::TwoPhaseCommit);
                }
                if self.plan.f > 0 && !self.replicas.iter().all(|node| node.is_up()) {
                    self.stats.saw(Sometimes::CommitWithReplicaDown);
                }
            }
            Outcome::Abort => self.stats.saw(Sometimes::Abort),
        }
        self.next_transaction(initiator);
    }

    /// The outcome is forgotten: the application will never know.
    fn told_expired(&mut self, initiator: usize, id: CommitId) {
        if !self.facts.generations().is_settled(&id) {
            self.check(Err::<(), _>(format!("{id} is not settled, and forgotten")));
        }
        if self.apps[initiator].open.remove(&id).is_some() {
            self.next_transaction(initiator);
        }
    }

    /// Has work done in a few branches.
    fn work(&mut self, initiator: usize, txn: TxnId) {
        let most = self.plan.branches_max.min(self.sessions.len());
        let fair = self.plan.is_fair();
        let count = if fair { most } else { self.rng.usize(1..=most) };
        let mut sessions: Vec<usize> = (0..self.sessions.len()).collect();
        if !fair {
            self.rng.shuffle(&mut sessions);
        }
        let mut enlisted = Vec::new();
        for session in sessions.into_iter().take(count) {
            enlisted.push(self.enlist(session, txn));
        }
        if let Some(branch) = self.enlist_hostile(txn) {
            let request = None;
            enlisted.push(Enlisted {
                branch,
                session: HOSTILE,
                request,
            });
        }
        self.apps[initiator].working.insert(txn, enlisted);
        let after = 2 * self.plan.delay_max + self.between(0, self.plan.think_max);
        self.soon(initiator, after, AppEvent::Commit(txn));
    }

    fn enlist(&mut self, session: usize, txn: TxnId) -> Enlisted {
        let mut branch = self.sessions[session].config.me.clone();
        if chance(&mut self.rng, self.plan.stale_session) {
            self.stats.saw(Sometimes::StaleSession);
            branch.session =
                paxos_commit::protocol::types::Session(self.session_number(At::Session(session)));
        }
        let request =
            chance(&mut self.rng, self.plan.request).then(|| Request(vec![1, 2, 3].into()));
        if chance(&mut self.rng, self.plan.unknown_branch) {
            self.stats.saw(Sometimes::UnknownBranch);
        } else if request.is_none() || self.rng.bool() {
            self.service(session, ParticipantCommand::Begin(txn));
            if chance(&mut self.rng, self.plan.poison) {
                self.stats.saw(Sometimes::PoisonedBranch);
                self.service(session, ParticipantCommand::Poison(txn));
            }
            if chance(&mut self.rng, self.plan.poison) {
                self.stats.saw(Sometimes::ServiceGivesUp);
                self.service(session, ParticipantCommand::Rollback(txn));
            }
        }
        Enlisted {
            branch,
            session,
            request,
        }
    }

    /// The application calls a service.
    pub fn service(&mut self, session: usize, command: ParticipantCommand) {
        if session == HOSTILE {
            self.hostile_service(&command);
            return;
        }
        let life = self.sessions[session].life;
        let after = self.delay();
        let event = Event::Service {
            session,
            life,
            command,
        };
        self.schedule(after, event);
    }

    fn end_work(&mut self, initiator: usize, txn: TxnId) {
        let Some(enlisted) = self.apps[initiator].working.remove(&txn) else {
            return;
        };
        let branches = enlisted.iter().map(|e| e.branch.clone());
        if self.healing.is_none() && chance(&mut self.rng, self.plan.dropped) {
            // It forgets the transaction. The services let go by themselves.
            self.command(initiator, InitiatorCommand::Abandon(txn));
            self.next_transaction(initiator);
        } else if chance(&mut self.rng, self.plan.rollback) {
            self.stats.saw(Sometimes::RolledBackBeforeCommit);
            let branches = branches.collect();
            self.command(initiator, InitiatorCommand::Rollback { txn, branches });
            self.next_transaction(initiator);
        } else {
            self.commit(initiator, txn, enlisted);
        }
    }

    fn commit(&mut self, initiator: usize, txn: TxnId, enlisted: Vec<Enlisted>) {
        let vote_timeout = Duration::from_micros(self.plan.vote_timeout);
        let itself =
            enlisted.iter().all(|e| e.request.is_none()) && chance(&mut self.rng, self.plan.itself);
        for _ in 0..3 {
            if chance(&mut self.rng, self.plan.confused) {
                self.confuse(initiator, txn, &enlisted, vote_timeout);
            }
        }
        if itself {
            let branches = enlisted.iter().map(|e| e.branch.clone()).collect();
            self.apps[initiator].planning.insert(txn, enlisted);
            let plan = InitiatorCommand::Plan {
                txn,
                branches,
                vote_timeout,
            };
            self.command(initiator, plan);
            return;
        }
        let branches = enlisted.into_iter().map(|e| (e.branch, e.request));
        let command = InitiatorCommand::Commit {
            txn,
            branches: branches.collect(),
            prepare: PrepareBy::Relay,
            vote_timeout,
        };
        self.command(initiator, command);
    }

    /// A clone of the initiator speaks under its name.
    fn confuse(
        &mut self,
        initiator: usize,
        mut txn: TxnId,
        enlisted: &[Enlisted],
        vote_timeout: Duration,
    ) {
        self.stats.fault(Fault::ConfusedInitiator);
        let mut branches: Vec<Branch> = enlisted.iter().map(|e| e.branch.clone()).collect();
        if branches.len() > 1 && self.rng.bool() {
            branches.remove(self.rng.usize(..branches.len()));
        }
        let other = self.rng.usize(..self.sessions.len());
        let other = self.sessions[other].config.me.clone();
        if self.rng.bool() && !branches.contains(&other) {
            branches.push(other);
        }
        if self.rng.u32(..4) == 0 {
            txn.sequence = txn.sequence.saturating_sub(self.rng.u32(..4));
        }
        let host = self.initiators[initiator].host.as_ref();
        let floor = host.map_or(0, Initiator::floor) + self.rng.u32(..3);
        self.note_floor(txn.initiator, floor);
        let message = if self.rng.u32(..4) == 0 {
            Message::Rollback {
                txn,
                branches,
                floor,
            }
        } else {
            let roster = Roster::new(branches).expect("distinct branches");
            let request = self.rng.bool().then(|| Request(vec![9].into()));
            Message::BeginCommit(BeginCommit {
                id: CommitId::new(txn, &roster),
                requests: vec![request; roster.len()],
                roster,
                floor,
                vote_timeout,
            })
        };
        let after = self.between(0, 30_000);
        let event = Event::Deliver {
            to: At::Replica(self.rng.usize(..self.replicas.len())),
            life: 0,
            from: self.initiators[initiator].me.clone(),
            message,
        };
        self.schedule(after, event);
    }

    /// An operator is told something.
    pub fn tell_operator(&mut self, to: &Peer, message: &Message) {
        let Peer::Operator(number) = to else {
            return;
        };
        if let Message::Status { instances, .. } = message {
            for (id, state) in instances {
                if let State::Decided { outcome, .. } = state {
                    self.judge_told(*id, *outcome);
                }
            }
        }
        let Message::Decided(Decision { id, outcome, .. }) = message else {
            return;
        };
        self.judge_told(*id, *outcome);
        if self.forced.remove(number).is_some() {
            self.stats.saw(match outcome {
                Outcome::Commit => Sometimes::ForcedAbortFindsCommit,
                Outcome::Abort => Sometimes::ForcedAbortAborts,
            });
        }
    }

    /// An operator looks at a transaction, and forces an abort.
    pub fn force_abort(&mut self) {
        if self.known.is_empty() {
            return;
        }
        // Recent ones are more interesting.
        let recent = self.known.len().min(8);
        let id = self.known[self.known.len() - 1 - self.rng.usize(..recent)];
        self.stats.fault(Fault::ForcedAbort);
        let number = self.forced.len() as u64 + self.stats.faults[&Fault::ForcedAbort];
        self.forced.insert(number, id);
        let replica = self.rng.usize(..self.replicas.len());
        for message in [Message::Inquire { txn: id.txn }, Message::ForceAbort { id }] {
            let event = Event::Deliver {
                to: At::Replica(replica),
                life: 0,
                from: Peer::Operator(number),
                message,
            };
            self.schedule(0, event);
        }
    }
}
