//! The model: what can happen in a state, and what comes of it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use paxos_commit::protocol::Input;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::replica::Replica;
use paxos_commit::protocol::types::Peer;
use stateright::{Model, Property};

use crate::cast::REPLICAS;
use crate::state::{Disk, NOBODY, bits, told};

use super::bounds::{Bounds, Plant, Second};
use super::judge::{RULES, SIGHTS, sight};
use super::state::{Action, Node, State, wrong};
use super::store::{Kept, SECOND, SESSIONS, STORES, connected, name_of, session};
use super::tables::{Heard, Kind, Step, Tables, without};

/// One model.
pub(crate) struct System {
    pub(crate) bounds: Bounds,
    /// What must be seen, of [`SIGHTS`].
    sights: Vec<&'static str>,
    tables: RwLock<Tables>,
    start: Option<State>,
    /// What was seen: a bit for each of [`SIGHTS`].
    seen: AtomicU16,
    /// Which sights were reported: stateright stores a path for each state that shows one, and one
    /// is enough.
    reported: AtomicU16,
}

impl System {
    pub(crate) fn new(bounds: Bounds, sights: &[&'static str]) -> Self {
        let tables = Tables::new(&bounds);
        let mut system = System {
            bounds,
            sights: sights.to_vec(),
            tables: RwLock::new(tables),
            start: None,
            seen: AtomicU16::new(0),
            reported: AtomicU16::new(0),
        };
        system.start = Some(system.first_state());
        system
    }

    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().expect("no thread panicked")
    }

    pub(crate) fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().expect("no thread panicked")
    }

    pub(crate) fn has_store(&self, store: usize) -> bool {
        match store {
            SECOND => self.bounds.second != Second::None,
            _ => store < self.bounds.branches,
        }
    }

    pub(crate) fn see(&self, sight: u16) {
        self.seen.fetch_or(sight, Ordering::Relaxed);
    }

    pub(crate) fn feed(&self, state: &mut State, index: usize, input: Input<Replica>) {
        let step = self.tables_mut().step(index, state.hosts[index], input);
        self.take(state, index, step);
    }

    fn take(&self, state: &mut State, index: usize, step: Step) {
        state.hosts[index] = step.host;
        if step.save != Disk::default() {
            let disk = state.disks[index];
            state.disks[index] = self.tables_mut().save(disk, step.save);
        }
        state.wrong |= step.told;
        state.network.add(&step.send);
        if step.expires && !self.is_unlisted(state) {
            state.wrong |= wrong::UNTRUE;
        }
        if self.bounds.plant == Some(Plant::ShrinksAlone) {
            self.shrink(state, index);
        }
    }

    /// The planted replica forgets the commit, and goes on where it was.
    fn shrink(&self, state: &mut State, index: usize) {
        let mut tables = self.tables_mut();
        let id = tables.cast.id;
        if tables.has_heard_all(tables.hosts.value(state.hosts[index])) {
            let mut records = tables.ledger.records(state.disks[index]);
            records.iter_mut().for_each(|record| without(&id, record));
            let host = crate::cast::replica(index, 256, records);
            state.hosts[index] = tables.hosts.number(host);
        }
    }

    pub(crate) fn take_heard(&self, state: &mut State, store: usize, heard: Heard) {
        let before = state.stores[store];
        state.stores[store] = heard.node;
        state.network.add(&heard.send);
        if heard.applied && (store == SECOND || !heard.node.kept.is_committed()) {
            state.wrong |= wrong::NOT_APPLIED;
        }
        if heard.panicked {
            state.wrong |= wrong::PANICKED;
        }
        if heard.gave_up {
            self.see(sight::ANSWERED);
            if !self.is_unlisted(state) {
                state.wrong |= wrong::UNTRUE;
            }
        }
        let deleted = before.kept == Kept::Marked && heard.node.kept == Kept::Unmarked;
        let rolled_back = store == SECOND && heard.node.kept == Kept::RolledBack;
        let copied = store == SECOND && heard.node.kept == Kept::Marked;
        for (happened, sight) in [
            (deleted, sight::DELETED),
            (heard.proved, sight::PROVED),
            (heard.listed, sight::KEPT),
            (rolled_back, sight::COPY_ROLLED_BACK),
            (copied, sight::COPY_COMMITTED),
        ] {
            self.see(if happened { sight } else { 0 });
        }
    }

    /// Takes messages out of the network that change nothing and never will.
    pub(crate) fn drop_useless(&self, state: &mut State) {
        if !self.bounds.drops {
            return;
        }
        for index in 0..REPLICAS {
            let (host, word) = (state.hosts[index], state.network.replicas[index]);
            if host != NOBODY {
                state.network.replicas[index] = self.useful(index, host, word);
            }
        }
        for store in (0..STORES).filter(|store| self.has_store(*store)) {
            let node = state.stores[store];
            let session = session(store, node.run);
            let word = state.network.sessions[session];
            let known = self.tables().heeded.get(&(node, word)).copied();
            let heeded = known.unwrap_or_else(|| self.tables_mut().heeded(store, node, word));
            state.network.sessions[session] = heeded;
        }
        for index in (0..REPLICAS).filter(|index| state.hosts[*index] != NOBODY) {
            let asked = bits(state.network.replicas[index]);
            let vain = asked.filter(|bit| self.is_vain(state, index, *bit));
            let vain = vain.fold(0, |vain, bit| vain | 1 << bit);
            state.network.replicas[index] &= !vain;
        }
    }

    fn step(&self, index: usize, host: u32, bit: u8) -> Step {
        let known = self.tables().steps.get(&(host, bit)).copied();
        known.unwrap_or_else(|| self.tables_mut().deliver(index, host, bit))
    }

    /// Whether a question changes nothing, and its answer comes too late for ever.
    fn is_vain(&self, state: &State, index: usize, bit: u8) -> bool {
        let kind = self.tables().kind(index, bit);
        match kind {
            Kind::List { session } => {
                let node = state.stores[session / 2];
                let is_over = usize::from(node.run) != session % 2;
                return is_over || !self.reads(node, index, bit);
            }
            Kind::Question if self.tables().is_ahead(index, state.hosts[index], bit) => {
                return false;
            }
            Kind::Question => {}
            Kind::Other => return false,
        }
        let step = self.step(index, state.hosts[index], bit);
        let host = state.hosts[index];
        if !step.changes_nothing(host) || step.send.sessions != [0; SESSIONS] {
            return false;
        }
        (0..REPLICAS).all(|to| {
            let answers = step.send.replicas[to] | step.at_once[to];
            let host = state.hosts[to];
            answers == 0 || self.useful(to, host, answers) == 0
        })
    }

    /// Whether a page that answers this question for the list changes anything at the session.
    fn reads(&self, node: Node, index: usize, bit: u8) -> bool {
        let known = self.tables().reads.get(&(node, index, bit)).copied();
        known.unwrap_or_else(|| self.tables_mut().reads(node, index, bit))
    }

    fn useful(&self, index: usize, host: u32, word: u128) -> u128 {
        let known = self.tables().useful.get(&(host, word)).copied();
        known.unwrap_or_else(|| self.tables_mut().useful(index, host, word))
    }

    fn deliver(&self, last: &State, replica: usize, bit: u8) -> State {
        let mut step = self.step(replica, last.hosts[replica], bit);
        if self.is_remark(&step, replica, bit) {
            return *last;
        }
        if step.told & told::REFUSED != 0 && self.tables().is_of_second(replica, bit) {
            step.told &= !told::REFUSED;
            self.see(sight::REFUSED);
        }
        let mut state = *last;
        self.take(&mut state, replica, step);
        for (to, word) in step.at_once.into_iter().enumerate() {
            for bit in bits(word) {
                state = self.deliver(&state, to, bit);
            }
        }
        self.drop_useless(&mut state);
        state
    }

    /// Whether a replica notes that a store has no proof, and answers nothing. The note is for a
    /// release by an operator; the session says it again.
    fn is_remark(&self, step: &Step, replica: usize, bit: u8) -> bool {
        let tables = self.tables();
        let message = &tables.envelope(replica, bit).message;
        let is_note = matches!(message, Message::Unproven { .. });
        is_note && step.told == 0 && step.sends_nothing()
    }

    fn hear(&self, last: &State, store: usize, bit: u8) -> State {
        let node = last.stores[store];
        let known = self.tables().heard.get(&(node, bit)).copied();
        let heard = known.unwrap_or_else(|| self.tables_mut().hear(store, node, bit));
        let mut state = *last;
        self.take_heard(&mut state, store, heard);
        self.drop_useless(&mut state);
        state
    }

    fn proposal(&self, state: &State, replica: usize) -> Option<Step> {
        let host = state.hosts[replica];
        let known = self.tables().proposals.get(&host).copied();
        known.unwrap_or_else(|| self.tables_mut().proposal(replica, host))
    }

    fn propose(&self, last: &State, replica: usize) -> State {
        let mut state = *last;
        if let Some(step) = self.proposal(last, replica) {
            self.take(&mut state, replica, step);
        }
        self.drop_useless(&mut state);
        state
    }

    fn restart(&self, last: &State, index: usize) -> State {
        let mut state = *last;
        {
            let tables = self.tables();
            if tables.has_heard_all(tables.hosts.value(last.hosts[index])) {
                self.see(sight::FORGOTTEN);
            }
        }
        state.crashed = true;
        self.start_replica(&mut state, index);
        self.drop_useless(&mut state);
        state
    }

    /// The first store's session crashes; the next one is greeted by a replica, and connects to all.
    fn reopen(&self, last: &State, by: usize) -> State {
        let mut state = *last;
        let names = [0, 1].map(|run| name_of(session(0, run), self.bounds.plant));
        let [before, after] = names.map(Peer::Session);
        let (generations, name) = {
            let tables = self.tables();
            let greeter = tables.hosts.value(last.hosts[by]);
            let name = name_of(session(0, 1), self.bounds.plant);
            (greeter.generations().clone(), name)
        };
        let host = self
            .tables_mut()
            .sessions
            .number(connected(name, generations));
        state.stores[0] = Node {
            host,
            run: 1,
            unproven: false,
            ..last.stores[0]
        };
        state.network.sessions[session(0, 0)] = 0;
        for index in (0..REPLICAS).filter(|index| last.hosts[*index] != NOBODY) {
            self.feed(&mut state, index, Input::Disconnected(before.clone()));
            self.feed(&mut state, index, Input::Connected(after.clone()));
            self.push(&mut state, index);
        }
        state.network.sessions[session(0, 0)] = 0;
        self.scan(&mut state, 0);
        self.drop_useless(&mut state);
        state
    }

    fn verdict(&self, state: &State) -> u8 {
        thread_local! {
            /// Every property asks for the verdict on the same state.
            static LAST: RefCell<Option<(usize, State, u8)>> = const { RefCell::new(None) };
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
            system.verdict(state) & (1 << RULE) == 0
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
            system.look(state);
            let sight = 1 << SIGHT;
            system.seen.load(Ordering::Relaxed) & sight != 0
                && system.reported.fetch_or(sight, Ordering::Relaxed) & sight == 0
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
            Property::sometimes(SIGHTS[9], is_new::<9>),
            Property::sometimes(SIGHTS[10], is_new::<10>),
        ]
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.start.into_iter().collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in (0..REPLICAS).filter(|index| state.hosts[*index] != NOBODY) {
            let deliveries = bits(state.network.replicas[replica]);
            actions.extend(deliveries.map(|bit| Action::Deliver { replica, bit }));
            if self.proposal(state, replica).is_some() {
                actions.push(Action::Propose(replica));
            }
        }
        for store in (0..STORES).filter(|store| self.has_store(*store)) {
            let session = session(store, state.stores[store].run);
            let heard = bits(u128::from(state.network.sessions[session]));
            actions.extend(heard.map(|bit| Action::Hear { store, bit }));
        }
        if let Some(greeter) = self.bounds.reopens.filter(|_| state.stores[0].run == 0) {
            actions.push(Action::Reopen(greeter));
        }
        if !state.crashed {
            let victims = self.bounds.victims.iter().copied();
            actions.extend(victims.map(Action::Restart));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let state = match action {
            Action::Deliver { replica, bit } => self.deliver(last, replica, bit),
            Action::Hear { store, bit } => self.hear(last, store, bit),
            Action::Propose(replica) => self.propose(last, replica),
            Action::Restart(index) => self.restart(last, index),
            Action::Reopen(by) => self.reopen(last, by),
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
