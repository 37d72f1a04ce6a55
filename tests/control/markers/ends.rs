//! No trap: from a state, a fair run takes the commit off every list, and leaves no store that waits
//! for proof. No replica is down, or one is for good; what is on its way arrives, or is lost.

use std::collections::VecDeque;

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::{Participant, ParticipantTimer};
use paxos_commit::protocol::replica::{Replica, ReplicaTimer};
use paxos_commit::protocol::types::{CommitId, Peer};
use paxos_commit::protocol::{Effects, Host, Input};

use crate::cast::{REPLICAS, index_of, replica_id, replica_peer};
use crate::state::{NOBODY, bits};

use super::state::State;
use super::store::{SECOND, STORES, Store, name_of, session};
use super::system::System;
use super::tables::{Envelope, Tables};

/// So many ticks are enough for the longest patience to run out several times.
const TICKS_MAX: u32 = 1_000;

/// So many messages in one tick would be a loop.
const MESSAGES_MAX: usize = 10_000;

/// What becomes of messages that are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InFlight {
    Arrives,
    Lost,
}

/// A fair run.
struct Run {
    id: CommitId,
    replicas: [Option<Replica>; REPLICAS],
    stores: [Option<(Peer, Store)>; STORES],
    messages: VecDeque<(Peer, Peer, Message)>,
}

/// Whether all is well with all replicas up, and with each one of them down for good of which the
/// configurations still have a majority.
pub(crate) fn all_can_finish(system: &System, tables: &Tables, state: &State) -> bool {
    let is_present = |index: &usize| state.hosts[*index] != NOBODY;
    let is_enough = |down: &usize| {
        let is_up = |index: &&usize| is_present(index) && *index != down;
        let has_majority = |members: [usize; 3]| members.iter().filter(is_up).count() >= 2;
        has_majority([0, 1, 2]) && (!system.bounds.replaces || has_majority([1, 2, 3]))
    };
    let down = (0..REPLICAS).filter(is_present).filter(is_enough);
    let mut down = down.map(Some).chain([None]);
    let finishes = |down, in_flight| Run::new(system, tables, state, down, in_flight).finishes();
    down.all(|down| finishes(down, InFlight::Lost)) && finishes(None, InFlight::Arrives)
}

impl Run {
    fn new(
        system: &System,
        tables: &Tables,
        state: &State,
        down: Option<usize>,
        in_flight: InFlight,
    ) -> Self {
        let mut run = Run {
            id: tables.cast.id,
            replicas: Default::default(),
            stores: Default::default(),
            messages: VecDeque::new(),
        };
        for store in (0..STORES).filter(|store| system.has_store(*store)) {
            let node = state.stores[store];
            let session = session(store, node.run);
            let me = Peer::Session(name_of(session, system.bounds.plant));
            let of = Store {
                session: tables.sessions.value(node.host).clone(),
                kept: node.kept,
                unproven: node.unproven,
            };
            run.stores[store] = Some((me.clone(), of));
            for bit in bits(u128::from(state.network.sessions[session])) {
                let Envelope { from, message } = tables.mail(session, bit).clone();
                run.messages.push_back((from, me.clone(), message));
            }
        }
        let is_up = |index: &usize| Some(*index) != down && state.hosts[*index] != NOBODY;
        for index in (0..REPLICAS).filter(is_up) {
            run.replicas[index] = Some(tables.hosts.value(state.hosts[index]).clone());
            for bit in bits(state.network.replicas[index]) {
                let Envelope { from, message } = tables.envelope(index, bit).clone();
                run.messages.push_back((from, replica_peer(index), message));
            }
        }
        if in_flight == InFlight::Lost {
            run.messages.clear();
        }
        run.connect();
        run
    }

    /// Sessions and replicas connect again.
    fn connect(&mut self) {
        for store in 0..STORES {
            let Some((me, _)) = self.stores[store].clone() else {
                continue;
            };
            for index in 0..REPLICAS {
                if self.replicas[index].is_some() {
                    self.feed(index, Input::Connected(me.clone()));
                    self.tell(store, Input::Connected(replica_peer(index)));
                }
            }
        }
    }

    fn finishes(&mut self) -> bool {
        for _ in 0..TICKS_MAX {
            self.deliver_all();
            if self.is_finished() {
                return true;
            }
            for index in 0..REPLICAS {
                self.feed(index, Input::Timeout(ReplicaTimer::Tick));
            }
            for store in 0..STORES {
                self.tell(store, Input::Timeout(ParticipantTimer::Tick));
            }
        }
        false
    }

    /// The list is empty at every replica that takes part, every store that the roster names has
    /// applied the commit, and no session waits for anything.
    fn is_finished(&self) -> bool {
        let takes_part = |replica: &&Replica| replica.generations().in_force().is_some();
        let mut replicas = self.replicas.iter().flatten().filter(takes_part);
        let is_off = |replica: &Replica| {
            replica.generations().is_settled(&self.id) && replica.listed().next().is_none()
        };
        let mut stores = self.stores.iter().enumerate();
        let is_done = |(index, store): (usize, &Option<(Peer, Store)>)| {
            store.as_ref().is_none_or(|(_, store)| {
                store.session.is_idle() && (store.kept.is_committed() || index == SECOND)
            })
        };
        replicas.all(is_off) && stores.all(is_done)
    }

    fn deliver_all(&mut self) {
        for _ in 0..MESSAGES_MAX {
            let Some((from, to, message)) = self.messages.pop_front() else {
                return;
            };
            let is_it = |of: &Option<(Peer, Store)>| of.as_ref().is_some_and(|(me, _)| *me == to);
            match (&to, self.stores.iter().position(is_it)) {
                (Peer::Replica(id), _) => {
                    self.feed(index_of(*id), Input::Message { from, message });
                }
                (_, Some(store)) => self.tell(store, Input::Message { from, message }),
                (_, None) => {}
            }
        }
        panic!("a loop of messages");
    }

    fn feed(&mut self, index: usize, input: Input<Replica>) {
        if let Some(replica) = &mut self.replicas[index] {
            let mut out = Effects::default();
            replica.step(input, &mut out);
            let from = Peer::Replica(replica_id(index));
            let sent = out.send.into_iter();
            let sent = sent.map(|(to, message)| (from.clone(), to, message));
            self.messages.extend(sent);
        }
    }

    fn tell(&mut self, store: usize, input: Input<Participant>) {
        if let Some((me, store)) = &mut self.stores[store] {
            let turn = store.turn(self.id, input);
            let sent = turn.send.into_iter();
            let sent = sent.map(|(to, message)| (me.clone(), to, message));
            self.messages.extend(sent);
        }
    }
}
