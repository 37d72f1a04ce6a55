//! The model: what can happen in a state, and what comes of it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use paxos_commit::protocol::Input;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::replica::{Record, ReplicaTimer};
use paxos_commit::protocol::types::{Generations, Peer};
use stateright::{Model, Property};

use crate::bounds::{Answers, Bounds, Known, Start};
use crate::cast::{
    OPERATOR, REPLICAS, branch, first, open, opened, replica_id, replica_peer, second, session_peer,
};
use crate::judge::{RULES, SIGHTS, Verdict};
use crate::state::{Action, Disk, NOBODY, Network, State, bits, told};
use crate::tables::{Step, Tables};

/// One model.
pub(crate) struct System {
    pub(crate) bounds: Bounds,
    /// What must be seen in some state, of [`SIGHTS`].
    sights: Vec<&'static str>,
    tables: RwLock<Tables>,
    starts: Vec<State>,
    /// Which sights were seen: stateright stores a path for each state that shows one, and one is
    /// enough.
    seen: [AtomicBool; SIGHTS.len()],
}

impl System {
    pub(crate) fn new(bounds: Bounds, sights: &[&'static str]) -> Self {
        let tables = Tables::new(&bounds);
        let mut system = System {
            bounds,
            sights: sights.to_vec(),
            tables: RwLock::new(tables),
            starts: Vec::new(),
            seen: Default::default(),
        };
        let starts = system.bounds.starts.clone();
        system.starts = starts.iter().map(|start| system.start(start)).collect();
        system
    }

    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().expect("no thread panicked")
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().expect("no thread panicked")
    }

    fn start(&self, start: &Start) -> State {
        let voted = [0, 1].map(|index| index < self.bounds.branches && start.voted[index]);
        let mut state = State {
            hosts: [NOBODY; REPLICAS],
            disks: [Disk::default(); REPLICAS],
            network: Network::default(),
            told: 0,
            voted: u8::from(voted[0]) | u8::from(voted[1]) << 1,
            applied: 0,
            crashed: self.bounds.victims.is_empty(),
        };
        for index in 0..REPLICAS {
            if self.bounds.known[index] == Known::Absent {
                continue;
            }
            let records = self.saved(start, index);
            let mut tables = self.tables_mut();
            let disk = tables.ledger.disk(&records);
            state.disks[index] = tables.save(Disk::default(), disk);
            let plant = tables.rules.plant.take();
            state.hosts[index] = tables.recover(index, state.disks[index]);
            tables.recovered.clear();
            tables.rules.plant = plant;
            if index < 3 && start.relays[index] {
                let relay = tables.relay(index, &records);
                state.hosts[index] = tables.hosts.number(relay);
            }
        }
        for index in 0..REPLICAS {
            if self.bounds.known[index] != Known::Absent {
                self.set_going(&mut state, index);
                self.warm_up(&mut state, index, start);
            }
        }
        let sessions = (0..self.bounds.branches).filter(|index| voted[*index]);
        for session in sessions {
            let mut tables = self.tables_mut();
            let vote = tables.cast.vote();
            let late = (0..3).filter(|index| start.late[*index]);
            let late = late.map(|index| (replica_peer(index), vote.clone()));
            let sent = tables.post(&session_peer(session), late.collect());
            for (word, sent) in state.network.iter_mut().zip(sent) {
                *word |= sent;
            }
        }
        state
    }

    /// What stands on a replica's disk at the start.
    fn saved(&self, start: &Start, index: usize) -> Vec<Record> {
        if index == 3 {
            return self.joined();
        }
        let later = if self.bounds.moves { second() } else { first() };
        let known = self.bounds.known[index];
        let mut records = Vec::new();
        if matches!(known, Known::Second | Known::ThirdAccepted | Known::Third) {
            records.push(opened(2, later.clone()));
        }
        if known == Known::Third {
            records.push(opened(3, later.clone()));
        }
        if known == Known::ThirdAccepted {
            let (round, replica) = (1, replica_id(index));
            records.push(Record::Log(LogRecord::Accept {
                slot: 1,
                ballot: Ballot { round, replica },
                entry: open(3, later),
            }));
        }
        if index < 3 {
            records.extend(self.tables().cast.votes(start.held[index]));
        }
        records
    }

    /// What stands on the disk of the replica that joined later.
    fn joined(&self) -> Vec<Record> {
        let opens = match self.bounds.known[3] {
            Known::Absent | Known::Nothing => return Vec::new(),
            Known::Second | Known::ThirdAccepted => 2..=2,
            Known::Third => 2..=3,
        };
        let mut generations = Generations::genesis(first());
        for generation in opens {
            generations.apply(&open(generation, second()));
        }
        let listed = Vec::new();
        vec![Record::State {
            generations,
            listed,
            stores: Default::default(),
        }]
    }

    /// Leaders have started a ballot before anything else happens, and so has whoever an operator
    /// asked. (A ballot that starts at once and whose first message arrives late starts late.)
    fn set_going(&self, state: &mut State, index: usize) {
        if self.bounds.leads[index] {
            let mut started = false;
            while !started {
                let tick = Input::Timeout(ReplicaTimer::Tick);
                let step = self.tables_mut().step(index, state.hosts[index], tick);
                let sent = step.send;
                self.take(state, index, step);
                let tables = self.tables();
                let mut own = bits(sent[index]);
                started = own.any(|bit| {
                    let message = &tables.envelope(index, bit).message;
                    matches!(message, Message::Log(LogMessage::Prepare { .. }))
                });
            }
        }
        if self.bounds.forced[index] {
            let id = self.tables().cast.id;
            let asked = Input::Message {
                from: OPERATOR,
                message: Message::ForceAbort { id },
            };
            let step = self.tables_mut().step(index, state.hosts[index], asked);
            assert_ne!(step.send, Network::default(), "it starts a ballot");
            self.take(state, index, step);
            if self.bounds.answers == Answers::Straight {
                // It holds all votes that it will ever hold, so its own promise keeps it from none.
                *state = bits(step.send[index])
                    .fold(*state, |state, bit| self.deliver(&state, index, bit));
            }
        }
    }

    /// Replicas have heard of the first round, and have got the votes that they hold a second time:
    /// else states would differ by whether they have, and by nothing that follows from it.
    fn warm_up(&self, state: &mut State, index: usize, start: &Start) {
        let mut warm = |from: Peer, message: Message| {
            let input = Input::Message { from, message };
            let step = self.tables_mut().step(index, state.hosts[index], input);
            assert_eq!(step.save, Disk::default(), "it is no news");
            state.hosts[index] = step.host;
        };
        let lowest = usize::from(self.bounds.moves);
        let (round, replica) = (1, replica_id(lowest));
        let lead = LogMessage::Lead {
            slot: 2,
            ballot: Ballot { round, replica },
        };
        warm(replica_peer(lowest), Message::Log(lead));
        for branch in 0..self.bounds.branches {
            if index < 3 && start.held[index][branch] {
                let vote = self.tables().cast.vote();
                warm(session_peer(branch), vote);
            }
        }
    }

    fn take(&self, state: &mut State, index: usize, step: Step) {
        let disk = state.disks[index];
        state.hosts[index] = step.host;
        state.told |= step.told;
        {
            let tables = self.tables();
            let before = tables.ledger.summary(disk);
            if step.touches && (before.frozen || before.settled) {
                state.told |= told::TOUCHED;
            }
        }
        if step.save != Disk::default() {
            state.disks[index] = self.tables_mut().save(disk, step.save);
        }
        let tables = self.tables();
        let after = tables.ledger.summary(state.disks[index]);
        if step.tells_frozen && !after.frozen {
            state.told |= told::UNTRUE;
        }
        if step.tells_slot > after.slot {
            state.told |= told::ANNOUNCED;
        }
        for (word, sent) in state.network.iter_mut().zip(step.send) {
            *word |= sent;
        }
    }

    /// Takes messages out of the network that change nothing and never will.
    fn drop_useless(&self, last: &State, state: &mut State) {
        for index in 0..REPLICAS {
            let (host, word) = (state.hosts[index], state.network[index]);
            let same = host == last.hosts[index] && word == last.network[index];
            if same || host == NOBODY {
                continue;
            }
            let known = self.tables().useful.get(&(host, word)).copied();
            let useful = known.unwrap_or_else(|| self.tables_mut().useful(index, host, word));
            state.network[index] = useful;
        }
        let changed = state.network != last.network || state.hosts != last.hosts;
        for index in 0..REPLICAS {
            if changed && state.hosts[index] != NOBODY {
                let asked = bits(state.network[index]);
                let vain = asked.filter(|bit| self.is_vain(state, index, *bit));
                let vain = vain.fold(0, |vain, bit| vain | 1 << bit);
                state.network[index] &= !vain;
            }
        }
    }

    fn step(&self, index: usize, host: u32, bit: u8) -> Step {
        let known = self.tables().steps.get(&(host, bit)).copied();
        known.unwrap_or_else(|| self.tables_mut().deliver(index, host, bit))
    }

    /// Whether a question changes nothing, and its answer comes too late for ever.
    fn is_vain(&self, state: &State, index: usize, bit: u8) -> bool {
        if !self.tables().is_question(index, bit) {
            return false;
        }
        if self.tables().is_ahead(index, state.hosts[index], bit) {
            return false;
        }
        let step = self.step(index, state.hosts[index], bit);
        let uncounted = self.bounds.answers == Answers::Straight
            && step.told == 0
            && self.tables().is_promise_asked(index, bit);
        if !uncounted && !step.changes_nothing(state.hosts[index]) {
            return false;
        }
        (0..REPLICAS).all(|to| {
            let answers = step.send[to] | step.at_once[to];
            let host = state.hosts[to];
            let known = self.tables().useful.get(&(host, answers)).copied();
            answers == 0
                || known.unwrap_or_else(|| self.tables_mut().useful(to, host, answers)) == 0
        })
    }

    fn deliver(&self, last: &State, replica: usize, bit: u8) -> State {
        let host = last.hosts[replica];
        let step = self.step(replica, host, bit);
        let mut state = *last;
        self.take(&mut state, replica, step);
        for (to, word) in step.at_once.into_iter().enumerate() {
            for bit in bits(word) {
                if self.may_arrive(&state, to, bit) {
                    state = self.deliver(&state, to, bit);
                }
            }
        }
        self.drop_useless(last, &mut state);
        state
    }

    /// Of what arrives at once, a question is for those who are frozen.
    fn may_arrive(&self, state: &State, to: usize, bit: u8) -> bool {
        let tables = self.tables();
        let message = &tables.envelope(to, bit).message;
        !matches!(message, Message::Collect { .. }) || tables.ledger.summary(state.disks[to]).frozen
    }

    fn apply(&self, last: &State, index: usize) -> State {
        let mut state = *last;
        state.applied |= 1 << index;
        let mut tables = self.tables_mut();
        let applied = Message::Applied {
            id: tables.cast.id,
            branch: branch(index),
        };
        let to_all = (0..REPLICAS).map(|index| (replica_peer(index), applied.clone()));
        let sent = tables.post(&session_peer(index), to_all.collect());
        for (word, sent) in state.network.iter_mut().zip(sent) {
            *word |= sent;
        }
        state
    }

    fn restart(&self, last: &State, index: usize) -> State {
        let mut state = *last;
        state.crashed = true;
        state.hosts[index] = self.tables_mut().recover(index, last.disks[index]);
        self.drop_useless(last, &mut state);
        state
    }

    pub(crate) fn verdict(&self, state: &State) -> Verdict {
        thread_local! {
            /// Every property asks for the verdict on the same state.
            static LAST: RefCell<Option<(usize, State, Verdict)>> = const { RefCell::new(None) };
        }
        let me = std::ptr::from_ref(self) as usize;
        let last = LAST.with_borrow(|last| match last {
            Some((of, at, verdict)) if *of == me && at == state => Some(*verdict),
            Some(_) | None => None,
        });
        last.unwrap_or_else(|| {
            let verdict = self.judge(state);
            LAST.set(Some((me, *state, verdict)));
            verdict
        })
    }

    fn properties_of_rules() -> [Property<Self>; RULES.len()] {
        fn holds<const RULE: usize>(system: &System, state: &State) -> bool {
            system.verdict(state).broken & (1 << RULE) == 0
        }
        [
            Property::always(RULES[0], holds::<0>),
            Property::always(RULES[1], holds::<1>),
            Property::always(RULES[2], holds::<2>),
            Property::always(RULES[3], holds::<3>),
            Property::always(RULES[4], holds::<4>),
            Property::always(RULES[5], holds::<5>),
            Property::always(RULES[6], holds::<6>),
            Property::always(RULES[7], holds::<7>),
        ]
    }

    fn properties_of_sights() -> [Property<Self>; SIGHTS.len()] {
        fn is_new<const SIGHT: usize>(system: &System, state: &State) -> bool {
            let seen = system.verdict(state).seen & (1 << SIGHT) != 0;
            seen && !system.seen[SIGHT].swap(true, Ordering::Relaxed)
        }
        [
            Property::sometimes(SIGHTS[0], is_new::<0>),
            Property::sometimes(SIGHTS[1], is_new::<1>),
            Property::sometimes(SIGHTS[2], is_new::<2>),
            Property::sometimes(SIGHTS[3], is_new::<3>),
            Property::sometimes(SIGHTS[4], is_new::<4>),
            Property::sometimes(SIGHTS[5], is_new::<5>),
            Property::sometimes(SIGHTS[6], is_new::<6>),
            Property::sometimes(SIGHTS[7], is_new::<7>),
            Property::sometimes(SIGHTS[8], is_new::<8>),
        ]
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.starts.clone()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..REPLICAS {
            let deliveries = bits(state.network[replica]);
            actions.extend(deliveries.map(|bit| Action::Deliver { replica, bit }));
        }
        if self.bounds.applies && self.can_apply(state) {
            let waits = |index: &usize| state.applied & (1 << index) == 0;
            let branches = (0..self.bounds.branches).filter(waits);
            actions.extend(branches.map(Action::Apply));
        }
        if !state.crashed {
            let victims = self.bounds.victims.iter().copied();
            actions.extend(victims.map(Action::Restart));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let state = match action {
            Action::Deliver { replica, bit } => self.deliver(last, replica, bit),
            Action::Apply(index) => self.apply(last, index),
            Action::Restart(index) => self.restart(last, index),
        };
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let sights = Self::properties_of_sights().into_iter();
        let wanted = sights.filter(|property| self.sights.contains(&property.name));
        Self::properties_of_rules()
            .into_iter()
            .chain(wanted)
            .collect()
    }
}
