//! The world: every host, the queue of events, and the loop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use crate::invariant::Facts;
use fastrand::Rng;
use paxos_commit::protocol::initiator::{InitiatorConfig, InitiatorTimer};
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::{
    ParticipantCommand, ParticipantConfig, ParticipantTimer,
};
use paxos_commit::protocol::paxos::log::LogConfig;
use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};
use paxos_commit::protocol::replica::{Records, ReplicaConfig, ReplicaTimer};
use paxos_commit::protocol::types::{
    Branch, CommitId, Configuration, InitiatorId, LIST_MAX, Peer, Session,
};
use paxos_commit::protocol::{Initiator, Input, Participant, Replica};

use super::Options;
use super::app::{App, AppEvent};
use super::chaos::ChaosEvent;
use super::crank::step;
use super::hostile::{Hostile, HostileEvent};
use super::network::Network;
use super::node::Node;
use super::plan::{MILLISECOND, Micros, Plan, SECOND};
use super::resource::{Operation, Resource};
use super::stats::{Sometimes, Stats};
use super::volumes::own_store;

/// How long the world may take, after the faults have stopped, to bring everything to its end.
pub const HEALING_MAX: Micros = 180 * SECOND;

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Replica(usize),
    Session(usize),
    Initiator(usize),
}

/// What can happen.
pub enum Event {
    Deliver {
        to: At,
        /// The life of the receiver that it is addressed to. A replica is the same in all its
        /// lives; a session and an initiator are not.
        life: u32,
        from: Peer,
        message: Message,
    },
    Link {
        to: At,
        life: u32,
        peer: Peer,
        up: bool,
    },
    Saved {
        at: At,
        life: u32,
    },
    /// What nobody waits for has lingered long enough.
    Linger {
        at: At,
        life: u32,
    },
    ReplicaTimer(usize, u64, ReplicaTimer),
    SessionTimer(usize, u64, ParticipantTimer),
    InitiatorTimer(usize, u64, InitiatorTimer),
    /// The service, or its resource manager, tells its session something.
    Service {
        session: usize,
        life: u32,
        command: ParticipantCommand,
    },
    Resource {
        session: usize,
        life: u32,
        operation: Operation,
    },
    App {
        initiator: usize,
        life: u32,
        event: AppEvent,
    },
    Chaos(ChaosEvent),
    /// A hostile client does something.
    Hostile(HostileEvent),
    /// An operator goes on with what is to be done.
    Operator,
    /// See whether it is time to stop the faults, or whether everything has come to its end.
    Look,
}

/// Everything.
pub struct World {
    pub now: Micros,
    pub rng: Rng,
    pub plan: Plan,
    pub options: Options,
    pub stats: Stats,
    pub facts: Facts,
    pub acceptors: Acceptors,
    /// Replica n stands at n - 1, those that were removed too.
    pub replicas: Vec<Node<Replica>>,
    /// What a store keeps of what each replica saved.
    pub disks: Vec<Records>,
    /// Hosts that never come back.
    pub gone: BTreeSet<At>,
    /// Processes that are stopped and go on at that time, with all that came in between.
    pub paused: BTreeMap<At, Micros>,
    /// The configuration that an operator wants.
    pub wanted: Option<Configuration>,
    /// The replica that led the control log last.
    pub leader: Option<usize>,
    pub sessions: Vec<Node<Participant>>,
    pub initiators: Vec<Node<Initiator>>,
    pub apps: Vec<App>,
    pub resources: Vec<Resource>,
    /// Of the sessions that started on an empty directory, what is in it.
    pub empty_volumes: BTreeMap<usize, Resource>,
    pub network: Network,
    /// What is at each session number and initiator number ever drawn.
    pub numbers: Vec<At>,
    /// Commit ids that somebody asked to commit.
    pub known: Vec<CommitId>,
    /// Prepared branches that were rolled back.
    pub rolled_back: BTreeSet<CommitId>,
    /// Whether the faults have stopped, and since when.
    pub healing: Option<Micros>,
    /// What an operator is told, by number.
    pub forced: BTreeMap<u64, CommitId>,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    slots: Vec<Option<Event>>,
    free: Vec<usize>,
    scheduled: u64,
    /// How many replicas have finished a transaction, where that is counted.
    pub finished: BTreeMap<CommitId, usize>,
    pub hostile: Hostile,
    /// The first thing that went wrong.
    pub broken: Option<String>,
}

impl World {
    pub fn new(rng: Rng, plan: Plan, options: Options) -> World {
        let ids = (1..=plan.replicas()).map(ReplicaId);
        let acceptors = Acceptors::new(ids).expect("a plan has 2F+1 replicas");
        let mut world = World {
            now: 0,
            rng,
            options,
            stats: Stats::default(),
            facts: Facts::new(acceptors.clone()),
            acceptors,
            replicas: Vec::new(),
            disks: Vec::new(),
            gone: BTreeSet::new(),
            paused: BTreeMap::new(),
            wanted: None,
            leader: None,
            sessions: Vec::new(),
            initiators: Vec::new(),
            apps: Vec::new(),
            resources: vec![Resource::default(); plan.participants],
            empty_volumes: BTreeMap::new(),
            network: Network::default(),
            numbers: Vec::new(),
            known: Vec::new(),
            rolled_back: BTreeSet::new(),
            healing: None,
            forced: BTreeMap::new(),
            queue: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            scheduled: 0,
            finished: BTreeMap::new(),
            hostile: Hostile::default(),
            broken: None,
            plan,
        };
        world.populate();
        world
    }

    /// Runs to the end. The error says what went wrong.
    pub fn run(&mut self) -> Result<(), String> {
        while self.broken.is_none() {
            let Some(Reverse((at, _, slot))) = self.queue.pop() else {
                break;
            };
            self.now = at;
            self.free.push(slot);
            let event = self.slots[slot].take().expect("scheduled once");
            self.stats.steps += 1;
            if self.handle(event) {
                break;
            }
        }
        match self.broken.take() {
            Some(what) => Err(what),
            None => self.audit(),
        }
    }

    pub fn schedule(&mut self, after: Micros, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(event);
        self.scheduled += 1;
        let at = self.now + after;
        self.queue.push(Reverse((at, self.scheduled, slot)));
    }

    /// Notes the first thing that went wrong; the loop ends there.
    pub fn check<E: std::fmt::Display>(&mut self, result: Result<(), E>) {
        if let Err(error) = result {
            self.broken.get_or_insert_with(|| error.to_string());
        }
    }

    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.options.trace {
            println!("{:>12} {}", self.now, line());
        }
    }

    /// A number between the two, evenly.
    pub fn between(&mut self, min: Micros, max: Micros) -> Micros {
        if max <= min {
            return min;
        }
        self.rng.u64(min..=max)
    }

    pub fn session_number(&mut self, at: At) -> u64 {
        self.numbers.push(at);
        self.numbers.len() as u64 - 1
    }

    fn populate(&mut self) {
        for index in 0..self.plan.replicas() as usize {
            let config = self.replica_config(ReplicaId(index as u32 + 1));
            let me = Peer::Replica(config.id);
            self.add_replica(me, config);
        }
        for index in 0..self.plan.sessions {
            let number = self.session_number(At::Session(index));
            let name = format!("p{}", index % self.plan.participants);
            let me = Branch {
                participant: name.parse().expect("a valid name"),
                session: Session(number),
                store: own_store(),
            };
            let config = self.participant_config(me.clone());
            let clock = self.clock();
            let node = Node::new(Peer::Session(me), config, clock);
            self.sessions.push(node);
        }
        for index in 0..self.plan.initiators {
            let number = self.session_number(At::Initiator(index));
            let id = InitiatorId::from_u128(number.into());
            let config = InitiatorConfig::new(id, self.acceptors.clone());
            let clock = self.clock();
            let node = Node::new(Peer::Initiator(id), config, clock);
            self.initiators.push(node);
            self.apps.push(App::default());
        }
        let hosts: Vec<At> = self.hosts().collect();
        for at in hosts {
            self.start(at);
        }
        self.populate_hostile();
        if self.plan.fault_every > 0 {
            let after = self.between(0, 2 * self.plan.fault_every);
            self.schedule(after, Event::Chaos(ChaosEvent::Fault));
        }
        if self.plan.dead_participant {
            let after = self.between(0, 2 * SECOND);
            self.schedule(after, Event::Chaos(ChaosEvent::ParticipantGoes));
        }
        self.schedule(10 * MILLISECOND, Event::Look);
    }

    fn add_replica(&mut self, me: Peer, config: ReplicaConfig) {
        let clock = self.clock();
        self.disks.push(Records::new(config.genesis.clone()));
        self.replicas.push(Node::new(me, config, clock));
    }

    /// A new replica, which has still to learn everything; and its name.
    pub fn join(&mut self) -> ReplicaId {
        let id = ReplicaId(self.replicas.len() as u32 + 1);
        let mut config = self.replica_config(id);
        config.genesis = None;
        self.add_replica(Peer::Replica(id), config);
        self.start(At::Replica(self.replicas.len() - 1));
        id
    }

    pub fn hosts(&self) -> impl Iterator<Item = At> + use<> {
        let replicas = (0..self.replicas.len()).map(At::Replica);
        let sessions = (0..self.sessions.len()).map(At::Session);
        let initiators = (0..self.initiators.len()).map(At::Initiator);
        replicas.chain(sessions).chain(initiators)
    }

    fn clock(&mut self) -> u64 {
        u64::from(self.rng.u32(self.plan.clock_min..=self.plan.clock_max))
    }

    fn replica_config(&self, id: ReplicaId) -> ReplicaConfig {
        let mut config = ReplicaConfig::new(id, self.acceptors.clone());
        config.vote_timeout_min = Duration::from_millis(100);
        if self.is_attacked() {
            // What a hostile client leaves undecided ends within the run.
            config.vote_timeout_max = Duration::from_secs(5);
        }
        config.undecided_max = self.plan.undecided_max;
        config.log = LogConfig {
            heartbeat_ticks: 2,
            silence_ticks: 8,
            stagger_ticks: 3,
            silence_ticks_max: 60,
        };
        config.announce_ticks = 10;
        config.generation_ticks = match self.plan.generation_ticks {
            0 => u32::MAX,
            ticks => ticks,
        };
        config.generation_transactions_max = self.plan.generation_transactions_max;
        config.generation_ticks_min = 5;
        config.grace_ticks = self.plan.grace_ticks;
        config.collect_ticks = 3;
        // What hostile participants never apply stays listed. In pages of one or two, a list that long
        // is never read to its end where generations turn every few ticks.
        config.list_max = match self.plan.hostile {
            Some(_) => LIST_MAX,
            None => self.plan.list_max,
        };
        config
    }

    fn participant_config(&self, me: Branch) -> ParticipantConfig {
        let mut config = ParticipantConfig::new(me, self.acceptors.clone());
        config.work_ticks_max = 100;
        config
    }

    /// Handles one event. Says whether the run is over.
    fn handle(&mut self, event: Event) -> bool {
        let Some(event) = self.unless_paused(event) else {
            return false;
        };
        match event {
            Event::Deliver {
                to,
                life,
                from,
                message,
            } => self.deliver(to, life, from, message),
            Event::Link { to, life, peer, up } => self.link(to, life, peer, up),
            Event::Saved { at, life } => self.saved(at, life),
            Event::Linger { at, life } => self.linger(at, life),
            Event::ReplicaTimer(index, token, timer) => {
                if self.replicas[index].timers.get(&timer) == Some(&token) {
                    step::<Replica>(self, index, Input::Timeout(timer));
                }
            }
            Event::SessionTimer(index, token, timer) => {
                if self.sessions[index].timers.get(&timer) == Some(&token) {
                    self.maybe_forget(index);
                    step::<Participant>(self, index, Input::Timeout(timer));
                }
            }
            Event::InitiatorTimer(index, token, timer) => {
                if self.initiators[index].timers.get(&timer) == Some(&token) {
                    if let InitiatorTimer::Hedge(_) = timer {
                        self.stats.saw(Sometimes::SecondRelayAsked);
                    }
                    step::<Initiator>(self, index, Input::Timeout(timer));
                }
            }
            Event::Service {
                session,
                life,
                command,
            } => {
                if self.sessions[session].life == life {
                    step::<Participant>(self, session, Input::Command(command));
                }
            }
            Event::Resource {
                session,
                life,
                operation,
            } => self.operate(session, life, operation),
            Event::App {
                initiator,
                life,
                event,
            } => self.act(initiator, life, event),
            Event::Chaos(event) => self.chaos(event),
            Event::Hostile(event) => self.hostile(event),
            Event::Operator => self.operate_cluster(),
            Event::Look => return self.look(),
        }
        false
    }

    /// Whether a message, or anything else that is not a timer, has still to arrive.
    fn is_anything_on_its_way(&self) -> bool {
        self.slots.iter().flatten().any(|event| match event {
            // Signs of life never end.
            Event::Deliver {
                message: Message::Log(_) | Message::Announce(_),
                ..
            } => false,
            Event::Deliver { .. } | Event::Service { .. } | Event::App { .. } => true,
            Event::Hostile(HostileEvent::Say { .. }) => true,
            Event::Hostile(HostileEvent::Attack(_)) => !self.is_attack_over(),
            Event::Resource { operation, .. } => !matches!(operation, Operation::Scan),
            Event::Link { .. }
            | Event::Saved { .. }
            | Event::Linger { .. }
            | Event::ReplicaTimer(..)
            | Event::SessionTimer(..)
            | Event::InitiatorTimer(..)
            | Event::Chaos(_)
            | Event::Operator
            | Event::Look => false,
        })
    }

    /// The event, or nothing if it is for a process that is stopped: it comes when that goes on.
    fn unless_paused(&mut self, event: Event) -> Option<Event> {
        if self.paused.is_empty() {
            return Some(event);
        }
        let at = match &event {
            Event::Deliver { to, .. } | Event::Link { to, .. } => *to,
            Event::Saved { at, .. } | Event::Linger { at, .. } => *at,
            Event::ReplicaTimer(index, ..) => At::Replica(*index),
            Event::SessionTimer(index, ..) | Event::Service { session: index, .. } => {
                At::Session(*index)
            }
            Event::InitiatorTimer(index, ..) => At::Initiator(*index),
            Event::Resource { .. }
            | Event::App { .. }
            | Event::Chaos(_)
            | Event::Hostile(_)
            | Event::Operator
            | Event::Look => return Some(event),
        };
        match self.paused.get(&at) {
            Some(until) if *until > self.now => {
                let after = *until - self.now;
                self.schedule(after, event);
                None
            }
            Some(_) => {
                self.paused.remove(&at);
                Some(event)
            }
            None => Some(event),
        }
    }

    fn look(&mut self) -> bool {
        self.judge_bounds();
        match self.healing {
            None if self.is_all_begun() => self.heal(),
            None => {}
            Some(_) if self.unfinished().is_none() && !self.is_anything_on_its_way() => {
                return true;
            }
            // What is still on its way, very late copies among it, must change nothing.
            Some(_) if self.unfinished().is_none() => self.healing = Some(self.now),
            Some(since) if self.now > since + HEALING_MAX => {
                let what = self.unfinished().unwrap_or_default();
                self.check(Err::<(), _>(format!("not finished in time: {what}")));
            }
            // What waits for a participant that is gone is listed by now.
            Some(since) if self.plan.dead_participant && self.now > since + 30 * SECOND => {
                self.release_listed();
            }
            Some(_) => {}
        }
        self.schedule(50 * MILLISECOND, Event::Look);
        false
    }
}
