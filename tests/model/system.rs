//! The model: what can happen in a state, and what comes of it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use paxos_commit::protocol::types::Vote;
use stateright::{Model, Property};

use crate::bounds::{Bounds, Keep, Lag, Plant, Sessions, Victim};
use crate::cast::{Cast, Place};
use crate::disk::Disk;
use crate::judge::{RULES, SIGHTS, Verdict};
use crate::network::{Envelope, EnvelopeId, Network, bits};
use crate::refine;
use crate::start::start;
use crate::state::{Action, NOTHING, SessionNode, State};
use crate::tables::{Care, ReplicaInput, ReplicaStep, Tables};

/// One model.
pub(crate) struct System {
    pub(crate) bounds: Bounds,
    /// What must be seen in some state, of [`SIGHTS`].
    pub(crate) sights: Vec<&'static str>,
    tables: Arc<RwLock<Tables>>,
    pub(crate) start: State,
    /// The replicas as they start.
    pub(crate) idle: Vec<u32>,
    /// Which sights were seen: stateright stores a path for each state that shows one, and one is
    /// enough.
    seen: [AtomicBool; SIGHTS.len()],
}

impl System {
    pub(crate) fn new(bounds: Bounds, sights: &[&'static str]) -> Self {
        let cast = Cast::new(bounds.replicas, bounds.votes.len());
        let leaves = bounds.sessions == Sessions::Leaves;
        let tables = Tables::new(cast, bounds.plant, leaves);
        Self::with_tables(bounds, sights, Arc::new(RwLock::new(tables)))
    }

    /// A model whose numbers mean the same as those of another one with the same tables.
    pub(crate) fn with_tables(
        bounds: Bounds,
        sights: &[&'static str],
        tables: Arc<RwLock<Tables>>,
    ) -> Self {
        let start = start(&bounds, &mut tables.write().expect("no thread panicked"));
        let nodes = start.replicas[..bounds.replicas].iter();
        let mut system = System {
            sights: sights.to_vec(),
            idle: nodes.map(|node| node.host).collect(),
            bounds,
            tables,
            start,
            seen: Default::default(),
        };
        for replica in 0..system.bounds.replicas {
            if system.bounds.leads[replica] {
                let started = system.feed(&system.start, replica, ReplicaInput::ForceAbort);
                system.start = started.expect("it starts a ballot");
            }
        }
        system
    }

    pub(crate) fn share_tables(&self) -> Arc<RwLock<Tables>> {
        Arc::clone(&self.tables)
    }

    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().expect("no thread panicked")
    }

    pub(crate) fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().expect("no thread panicked")
    }

    pub(crate) fn branches(&self) -> usize {
        self.bounds.votes.len()
    }

    /// Whether all branches vote before anything else happens. A vote that is cast at once and
    /// arrives late is one that is cast late, and one that never arrives is none; so this leaves
    /// nothing out where no session hears, crashes or waits for a relay.
    fn votes_first(&self) -> bool {
        self.bounds.sessions == Sessions::Leaves && !self.splits_answers()
    }

    /// Whether a branch's session can crash between the resource manager's work and its answer.
    fn splits_answers(&self) -> bool {
        let is_session = |victim: &Victim| matches!(victim, Victim::Session(_));
        self.bounds.victims.iter().any(is_session)
    }

    /// Whether step, save and release are apart at this replica now.
    fn lags(&self, state: &State, replica: usize) -> bool {
        match self.bounds.lag {
            Lag::Victim => state.victim == Some(Victim::Replica(replica)),
            Lag::Apart(which) => which[replica],
        }
    }

    fn replica_actions(&self, state: &State, replica: usize, actions: &mut Vec<Action>) {
        let node = &state.replicas[replica];
        let victim = Victim::Replica(replica);
        if !node.up {
            actions.push(Action::Restart(victim));
            return;
        }
        let place = Place::Replica(replica).number();
        actions.extend(bits(state.network.at(place)).map(|bit| Action::Deliver { replica, bit }));
        if node.ballots > 0 && self.bounds.forced[replica] {
            actions.push(Action::ForceAbort(replica));
        }
        if node.ticks > 0 {
            actions.push(Action::Timeout(replica));
        }
        if !node.is_saved() {
            actions.push(Action::Save(replica));
        }
        if node.outbox != NOTHING {
            actions.push(Action::Release(replica));
        }
        if state.victim == Some(victim) {
            actions.push(Action::Crash(victim));
        }
    }

    fn session_actions(&self, state: &State, branch: usize, actions: &mut Vec<Action>) {
        let node = &state.sessions[branch];
        let victim = Victim::Session(branch);
        if !node.up {
            actions.push(Action::Restart(victim));
            return;
        }
        if self.bounds.sessions != Sessions::Leaves {
            let run = usize::from(node.run);
            let word = state.network.at(Place::Session { branch, run }.number());
            actions.extend(bits(word).map(|bit| Action::DeliverToSession { branch, bit }));
        }
        if node.asked {
            self.answers(node, branch, actions);
        }
        if node.finishing != 0 && self.bounds.sessions == Sessions::Apply {
            actions.push(Action::Finish(branch));
        }
        if state.victim == Some(victim) {
            actions.push(Action::Crash(victim));
        }
    }

    fn answers(&self, node: &SessionNode, branch: usize, actions: &mut Vec<Action>) {
        let split = self.splits_answers();
        let votes = &self.bounds.votes[branch];
        if split && !node.prepared && votes.contains(&Vote::Prepared) {
            actions.push(Action::Prepare(branch));
        }
        for vote in votes {
            // (A prepare whose result is unknown is answered with Aborted.)
            if !split || *vote != Vote::Prepared || node.prepared {
                actions.push(Action::Answer(branch, *vote));
            }
        }
    }

    /// What comes of an input to a replica: nothing, if it changes nothing.
    fn feed(&self, last: &State, replica: usize, input: ReplicaInput) -> Option<State> {
        let node = &last.replicas[replica];
        let known = self
            .tables()
            .replica_steps
            .get(&(node.host, input))
            .cloned();
        let step =
            known.unwrap_or_else(|| self.tables_mut().step_replica(replica, node.host, input));
        // A message that would start one ballot too many is lost.
        if step.ballots > node.ballots {
            return None;
        }
        let same_host = step.host == node.host && !step.refused;
        let saves_nothing = step.save.minus(node.disk).is_empty();
        if same_host && saves_nothing && step.send.minus(&last.network).is_empty() {
            return None;
        }
        let mut state = last.clone();
        state.replicas[replica].host = step.host;
        state.replicas[replica].ballots -= step.ballots;
        state.replicas[replica].refused |= step.refused;
        self.save(&mut state, replica, step.save);
        self.send(&mut state, replica, &step);
        self.remember(&mut state, replica, input, &step);
        self.drop_useless(last, &mut state);
        Some(state)
    }

    /// What a step saves joins the queue, if there is one.
    fn save(&self, state: &mut State, replica: usize, save: Disk) {
        if save.is_empty() {
            return;
        }
        let lags = self.lags(state, replica);
        let node = &mut state.replicas[replica];
        let durable = node.disk.union(node.unsaved);
        let known = self.tables().ledger.saved.get(&(durable, save)).copied();
        let saved = known.unwrap_or_else(|| self.tables_mut().save(durable, save));
        node.went_back |= saved.goes_back;
        if lags {
            // To save again what is durable already changes no disk.
            node.unsaved = node.unsaved.union(save.minus(node.disk));
        } else {
            node.disk = saved.disk;
        }
    }

    /// What a step sends leaves once all is saved that was done up to it.
    fn send(&self, state: &mut State, replica: usize, step: &ReplicaStep) {
        let node = &state.replicas[replica];
        let early = match self.bounds.plant {
            Some(Plant::SendBeforeSave) => true,
            Some(Plant::ReleaseNotFifo) => step.save.is_empty(),
            Some(_) | None => false,
        };
        if node.is_saved() || early {
            self.leave(state, replica, &step.send);
            return;
        }
        let mut tables = self.tables_mut();
        let waiting = *tables.networks.value(node.waiting);
        let outbox = *tables.networks.value(node.outbox);
        let new = step.send.minus(&state.network).minus(&outbox);
        state.replicas[replica].waiting = tables.networks.number(waiting.union(&new));
    }

    /// Messages leave a replica.
    fn leave(&self, state: &mut State, replica: usize, send: &Network) {
        let new = send.minus(&state.network);
        if new.is_empty() {
            return;
        }
        state.network = state.network.union(&new);
        let disk = state.replicas[replica].disk;
        let known = self.tables().shown.get(&(replica, disk, new)).copied();
        let shown = known.unwrap_or_else(|| self.tables_mut().shows(replica, disk, new));
        state.replicas[replica].untrue |= !shown;
    }

    /// Takes messages out of the network that nobody will ever heed.
    fn drop_useless(&self, last: &State, state: &mut State) {
        if self.bounds.plant.is_some() || self.bounds.network == Keep::Everything {
            return;
        }
        for replica in 0..self.bounds.replicas {
            let node = &state.replicas[replica];
            let host = node.host;
            let place = Place::Replica(replica).number();
            let word = state.network.at(place);
            let same = *node == last.replicas[replica] && word == last.network.at(place);
            if same || !node.up {
                continue;
            }
            let care = Care {
                decisions: state.victim != Some(Victim::Replica(replica)),
                refusals: node.ballots > 0 || node.ticks > 0,
            };
            let known = self.tables().useful.get(&(host, word, care)).copied();
            let word = known.unwrap_or_else(|| self.tables_mut().useful(replica, host, word, care));
            state.network.keep_at(place, word);
        }
    }

    fn saved(&self, state: &mut State, replica: usize) {
        let node = &mut state.replicas[replica];
        let mut tables = self.tables_mut();
        let (disk, unsaved) = (node.disk, node.unsaved);
        node.disk = tables.save(disk, unsaved).disk;
        node.unsaved = Disk::default();
        let waiting = *tables.networks.value(node.waiting);
        let outbox = *tables.networks.value(node.outbox);
        node.outbox = tables.networks.number(outbox.union(&waiting));
        node.waiting = NOTHING;
    }

    fn released(&self, state: &mut State, replica: usize) {
        let node = &mut state.replicas[replica];
        let outbox = *self.tables().networks.value(node.outbox);
        node.outbox = NOTHING;
        let last = state.clone();
        self.leave(state, replica, &outbox);
        self.drop_useless(&last, state);
    }

    /// Keeps the ghost of PaxosCommit.tla in step.
    fn remember(&self, state: &mut State, replica: usize, input: ReplicaInput, step: &ReplicaStep) {
        let tables = self.tables();
        let before = tables.ghosts.value(state.ghost);
        let mut ghost = before.clone();
        if let ReplicaInput::Deliver(bit) = input {
            let place = Place::Replica(replica).number() as u8;
            let Envelope { from, message } = tables.envelope(EnvelopeId { place, bit });
            if let (Some((ballot, report)), Place::Replica(from)) =
                (refine::report(message), tables.cast.place(from))
            {
                ghost.hear(ballot, from, report);
            }
        }
        for (ballot, _) in &step.proposed {
            let disks = state.replicas[..self.bounds.replicas].iter();
            let disks: Vec<_> = disks.map(|node| tables.ledger.summary(node.disk)).collect();
            ghost.propose(*ballot, &disks, self.branches());
        }
        if let Some(ballot) = step.gave_up {
            ghost.give_up(ballot);
        }
        if step.decided || step.ballots > 0 {
            ghost.forget(replica);
        }
        if ghost != *before {
            drop(tables);
            state.ghost = self.tables_mut().ghosts.number(ghost);
        }
    }

    fn verdict(&self, state: &State) -> Verdict {
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
            LAST.set(Some((me, state.clone(), verdict)));
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
        ]
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut states = vec![self.start.clone()];
        if self.votes_first() {
            for branch in 0..self.branches() {
                let mut voted = Vec::new();
                for (state, vote) in states.iter().flat_map(|state| {
                    let votes = self.bounds.votes[branch].iter();
                    votes.map(move |vote| (state, *vote))
                }) {
                    let mut state = state.clone();
                    self.answer(&mut state, branch, vote);
                    voted.push(state);
                }
                states = voted;
            }
        }
        if self.bounds.victims.is_empty() {
            return states;
        }
        let victims = self.bounds.victims.iter();
        let starts = victims.flat_map(|victim| {
            states.iter().map(|state| State {
                victim: Some(*victim),
                ..state.clone()
            })
        });
        starts.collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..self.bounds.replicas {
            self.replica_actions(state, replica, actions);
        }
        for branch in 0..self.branches() {
            self.session_actions(state, branch, actions);
        }
        if state.hedges > 0 {
            actions.push(Action::Hedge);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        if let Action::Deliver { replica, bit } = action {
            let next = self.feed(last, replica, ReplicaInput::Deliver(bit))?;
            return (next != *last).then_some(next);
        }
        let mut state = last.clone();
        match action {
            Action::Deliver { .. } => {}
            Action::ForceAbort(replica) => {
                state = self.feed(last, replica, ReplicaInput::ForceAbort)?;
            }
            Action::Timeout(replica) => {
                state = self.feed(last, replica, ReplicaInput::Tick)?;
                state.replicas[replica].ticks -= 1;
            }
            Action::Save(replica) => self.saved(&mut state, replica),
            Action::Release(replica) => self.released(&mut state, replica),
            Action::DeliverToSession { branch, bit } => {
                self.deliver_to_session(&mut state, branch, bit);
            }
            Action::Prepare(branch) => state.sessions[branch].prepared = true,
            Action::Answer(branch, vote) => self.answer(&mut state, branch, vote),
            Action::Finish(branch) => self.finish(&mut state, branch),
            Action::Hedge => self.hedge(&mut state),
            Action::Crash(victim) => self.crash(&mut state, victim),
            Action::Restart(victim) => self.restart(&mut state, victim),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let sights = Self::properties_of_sights();
        let wanted = sights
            .into_iter()
            .filter(|property| self.sights.contains(&property.name));
        Self::properties_of_rules()
            .into_iter()
            .chain(wanted)
            .collect()
    }
}
