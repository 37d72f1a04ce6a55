//! Host states, messages and records by number. A host is deterministic, so each turn is run once,
//! by the product's own code, and looked up afterwards.

use paxos_commit::protocol::message::{ListPage, Message, State as Known};
use paxos_commit::protocol::participant::Participant;
use paxos_commit::protocol::paxos::log::LogMessage;
use paxos_commit::protocol::replica::{Record, Replica, ReplicaTimer};
use paxos_commit::protocol::types::{CommitId, Entry, Outcome, Peer};
use paxos_commit::protocol::{Effects, Host, Input};

use crate::bounds::Answers;
use crate::cast::{Cast, REPLICAS, index_of, replica, replica_peer};
use crate::intern::{Interner, Map};
use crate::ledger::Ledger;
use crate::state::{Disk, bits, told};
use crate::turn::Rules;

use super::bounds::{Bounds, Knows, News, Plant, Second};
use super::state::{Network, Node};
use super::store::{self, SECOND, SESSIONS, Store, name_of};

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Envelope {
    pub(crate) from: Peer,
    pub(crate) message: Message,
}

/// What follows from one turn of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) host: u32,
    pub(crate) save: Disk,
    pub(crate) send: Network,
    /// What of it arrives at once.
    pub(crate) at_once: [u128; REPLICAS],
    /// Refused, or panicked.
    pub(crate) told: u16,
    /// The replica says that the commit is settled and off the list.
    pub(crate) expires: bool,
}

impl Step {
    /// Whether nothing follows from it but what it sends.
    pub(crate) fn changes_nothing(&self, host: u32) -> bool {
        self.host == host && self.save == Disk::default() && self.told == 0
    }

    pub(crate) fn sends_nothing(&self) -> bool {
        self.send.is_empty() && self.at_once == [0; REPLICAS]
    }
}

/// What follows from one turn of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) node: Node,
    pub(crate) send: Network,
    /// It says that a branch of the roster has applied the commit.
    pub(crate) applied: bool,
    pub(crate) proved: bool,
    pub(crate) listed: bool,
    pub(crate) gave_up: bool,
    pub(crate) panicked: bool,
}

/// What is to be known of a message to drop it when it is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All that can come of it, once it has had its effect, is an answer.
    Question,
    /// This session asks for the list.
    List {
        session: usize,
    },
    Other,
}

/// Everything that has a number.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) cast: Cast,
    rules: Rules,
    plant: Option<Plant>,
    present: [bool; REPLICAS],
    stores: [bool; 3],
    news: News,
    places: [Interner<Envelope>; REPLICAS],
    mail: [Interner<Envelope>; SESSIONS],
    pub(crate) hosts: Interner<Replica>,
    pub(crate) sessions: Interner<Participant>,
    pub(crate) ledger: Ledger,
    pub(crate) steps: Map<(u32, u8), Step>,
    pub(crate) heard: Map<(Node, u8), Heard>,
    pub(crate) proposals: Map<u32, Option<Step>>,
    pub(crate) useful: Map<(u32, u128), u128>,
    pub(crate) heeded: Map<(Node, u32), u32>,
    pub(crate) reads: Map<(Node, usize, u8), bool>,
}

impl Tables {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let found_ignored = bounds.plant == Some(Plant::FoundIgnored);
        Tables {
            cast: Cast::new(1, bounds.branches),
            rules: Rules {
                answers: Answers::AtOnce,
                plant: found_ignored.then_some(crate::bounds::Plant::FreshList),
            },
            plant: bounds.plant,
            present: bounds.knows.map(|knows| knows != Knows::Absent),
            stores: [true, bounds.branches > 1, bounds.second != Second::None],
            news: bounds.news,
            places: Default::default(),
            mail: Default::default(),
            hosts: Interner::default(),
            sessions: Interner::default(),
            ledger: Ledger::default(),
            steps: Map::default(),
            heard: Map::default(),
            proposals: Map::default(),
            useful: Map::default(),
            heeded: Map::default(),
            reads: Map::default(),
        }
    }

    pub(crate) fn envelope(&self, place: usize, bit: u8) -> &Envelope {
        self.places[place].value(u32::from(bit))
    }

    pub(crate) fn mail(&self, session: usize, bit: u8) -> &Envelope {
        self.mail[session].value(u32::from(bit))
    }

    pub(crate) fn save(&mut self, before: Disk, new: Disk) -> Disk {
        self.ledger.save(&self.cast, before, new)
    }

    /// The replica that starts from a disk, with nobody connected.
    pub(crate) fn recover(&mut self, index: usize, disk: Disk) -> u32 {
        let records = self.ledger.records(disk);
        self.hosts.number(replica(index, 256, records))
    }

    /// A replica gets the message with this bit.
    pub(crate) fn deliver(&mut self, index: usize, host: u32, bit: u8) -> Step {
        if let Some(step) = self.steps.get(&(host, bit)) {
            return *step;
        }
        let Envelope { from, message } = self.envelope(index, bit).clone();
        let step = self.step(index, host, Input::Message { from, message });
        self.steps.insert((host, bit), step);
        step
    }

    pub(crate) fn step(&mut self, index: usize, host: u32, input: Input<Replica>) -> Step {
        let of = self.hosts.value(host);
        let mut turn = self.rules.turn(index, of, input.clone());
        self.answer_wrongly(&input, &turn.replica, &mut turn.send);
        let is_at_once = |(_, message): &(_, Message)| self.rules.is_at_once(message);
        let (at_once, send): (Vec<_>, Vec<_>) = turn.send.into_iter().partition(is_at_once);
        let expires = |(_, message): &(_, Message)| matches!(message, Message::Expired { .. });
        let me = replica_peer(index);
        Step {
            expires: send.iter().any(expires),
            at_once: self.post(&me, at_once).replicas,
            host: self.hosts.number(turn.replica),
            save: self.ledger.disk(&turn.save),
            send: self.post(&me, send),
            told: turn.told & (told::REFUSED | told::PANICKED),
        }
    }

    /// What a replica answers by mistake.
    fn answer_wrongly(
        &self,
        input: &Input<Replica>,
        replica: &Replica,
        send: &mut Vec<(Peer, Message)>,
    ) {
        match (self.plant, input) {
            (
                Some(Plant::AnswersBeforeHorizon),
                Input::Message {
                    from,
                    message: Message::List { through, after },
                },
            ) if !replica.generations().is_settled(through) => {
                let page = ListPage {
                    through: *through,
                    after: *after,
                    listed: Vec::new(),
                    next: None,
                };
                send.push((from.clone(), Message::ListPage(Box::new(page))));
            }
            (Some(Plant::AnswersFromMemory), _) if self.has_heard_all(replica) => {
                for (_, message) in send {
                    if let Message::ListPage(page) = message {
                        page.listed.clear();
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the commit is listed, and the replica remembers that all branches have applied it.
    pub(crate) fn has_heard_all(&self, replica: &Replica) -> bool {
        let id = &self.cast.id;
        let is_listed = replica.listed().any(|of| of == id);
        let state = replica.state(id);
        let of_commit = state.and_then(|state| match state {
            Known::Decided { unapplied, .. } => Some(unapplied),
            Known::Undecided { .. } => None,
        });
        is_listed && of_commit.is_some_and(|unapplied| unapplied.is_empty())
    }

    /// What comes of a tick, if it makes the replica propose to take the commit off the list.
    pub(crate) fn proposal(&mut self, index: usize, host: u32) -> Option<Step> {
        if let Some(known) = self.proposals.get(&host) {
            return *known;
        }
        let replica = self.hosts.value(host);
        let is_ready = replica.is_leading() && self.has_heard_all(replica);
        let step = is_ready.then(|| self.step(index, host, Input::Timeout(ReplicaTimer::Tick)));
        let proposes = |step: &Step| {
            let own = bits(step.send.replicas[index]);
            own.into_iter().any(|bit| {
                let message = &self.envelope(index, bit).message;
                matches!(
                    message,
                    Message::Log(LogMessage::Accept {
                        entry: Entry::Unlist { .. },
                        ..
                    })
                )
            })
        };
        let step = step.filter(proposes);
        self.proposals.insert(host, step);
        step
    }

    /// The orders to commit that a replica sends while nobody answers. Time has no other effect in
    /// the model, so the replica stays as it is.
    pub(crate) fn pushes(&mut self, index: usize, host: u32) -> Network {
        let mut replica = self.hosts.value(host).clone();
        let mut orders = Vec::new();
        for _ in 0..PUSH_TICKS {
            let mut out = Effects::default();
            replica.step(Input::Timeout(ReplicaTimer::Tick), &mut out);
            let is_order = |(_, message): &(_, Message)| {
                let outcome = Outcome::Commit;
                matches!(message, Message::Finish { outcome: of, .. } if *of == outcome)
            };
            orders.extend(out.send.into_iter().filter(is_order));
        }
        self.post(&replica_peer(index), orders)
    }

    /// A session gets the message with this bit.
    pub(crate) fn hear(&mut self, store: usize, node: Node, bit: u8) -> Heard {
        if let Some(heard) = self.heard.get(&(node, bit)) {
            return *heard;
        }
        let session = store::session(store, node.run);
        let message = self.mail(session, bit).message.clone();
        let from = |index| Input::Message {
            from: replica_peer(index),
            message: message.clone(),
        };
        let heard = self.tell(store, node, from(1));
        let again = self.tell(store, node, from(2));
        assert_eq!(heard, again, "a session looks at who tells it: {message:?}");
        self.heard.insert((node, bit), heard);
        heard
    }

    pub(crate) fn tell(&mut self, store: usize, node: Node, input: Input<Participant>) -> Heard {
        let mut of = Store {
            session: self.sessions.value(node.host).clone(),
            kept: node.kept,
            unproven: node.unproven,
        };
        let turn = of.turn(self.cast.id, input);
        let applies = |(_, message): &(_, Message)| match message {
            Message::Applied { branch, .. } => self.cast.roster.index_of(branch).is_some(),
            _ => false,
        };
        let me = Peer::Session(name_of(store::session(store, node.run), self.plant));
        Heard {
            node: Node {
                host: self.sessions.number(of.session),
                kept: of.kept,
                unproven: of.unproven,
                ..node
            },
            applied: turn.send.iter().any(applies),
            send: self.post(&me, turn.send),
            proved: turn.proved,
            listed: turn.listed,
            gave_up: turn.gave_up,
            panicked: turn.panicked,
        }
    }

    /// Puts what `from` sends into a set. Which replica tells a session something makes no
    /// difference to the session, so one stands for all.
    pub(crate) fn post(&mut self, from: &Peer, send: Vec<(Peer, Message)>) -> Network {
        let mut network = Network::default();
        for (to, message) in send {
            match to {
                Peer::Replica(id) => {
                    let place = index_of(id);
                    if self.present[place] && self.is_kept(&message) {
                        let from = from.clone();
                        let bit = self.places[place].number(Envelope { from, message });
                        assert!(bit < 128, "more messages than the set has room for");
                        network.replicas[place] |= 1 << bit;
                    }
                }
                Peer::Session(name) => {
                    let is_it = |session: &usize| name_of(*session, self.plant) == name;
                    let session = (0..SESSIONS).find(is_it);
                    if let Some(session) = session.filter(|session| self.stores[session / 2]) {
                        let from = replica_peer(1);
                        let bit = self.mail[session].number(Envelope { from, message });
                        assert!(bit < 32, "more messages than the set has room for");
                        network.sessions[session] |= 1 << bit;
                    }
                }
                Peer::Initiator(_) | Peer::Operator(_) => {}
            }
        }
        network
    }

    /// Signs of life and refusals make a leader give up, which is the same as to hear no more of
    /// it. That the next generation is settled is left out.
    fn is_kept(&self, message: &Message) -> bool {
        match message {
            Message::Log(LogMessage::Chosen { .. }) => self.news != News::States,
            Message::Fetch { .. } | Message::State { .. } => self.news != News::Entries,
            Message::Log(message) => !matches!(
                message,
                LogMessage::Lead { .. } | LogMessage::Following { .. } | LogMessage::Nack { .. }
            ),
            Message::Freeze { .. } | Message::Collect { .. } => false,
            _ => true,
        }
    }

    /// Whether the message is one of the second store.
    pub(crate) fn is_of_second(&self, place: usize, bit: u8) -> bool {
        let from = &self.envelope(place, bit).from;
        let names = [0, 1].map(|run| name_of(store::session(SECOND, run), self.plant));
        names.into_iter().any(|name| *from == Peer::Session(name))
    }

    /// Whether the message is about a slot that the replica has not come to.
    pub(crate) fn is_ahead(&self, index: usize, host: u32, bit: u8) -> bool {
        let slot = self.hosts.value(host).generations().slot();
        let message = &self.envelope(index, bit).message;
        matches!(message, Message::Log(message) if message.slot() > slot)
    }

    pub(crate) fn kind(&self, place: usize, bit: u8) -> Kind {
        let Envelope { from, message } = self.envelope(place, bit);
        match message {
            Message::Log(LogMessage::Prepare { .. } | LogMessage::Accept { .. })
            | Message::Fetch { .. } => Kind::Question,
            Message::List { .. } => {
                let named = |session: &usize| *from == Peer::Session(name_of(*session, self.plant));
                let session = (0..SESSIONS).find(named);
                session.map_or(Kind::Other, |session| Kind::List { session })
            }
            _ => Kind::Other,
        }
    }

    /// Whether a page that answers this question for the list changes anything at the session that
    /// asks.
    pub(crate) fn reads(&mut self, node: Node, place: usize, bit: u8) -> bool {
        let Message::List { through, after } = self.envelope(place, bit).message else {
            return false;
        };
        let page = ListPage {
            through,
            after,
            listed: Vec::new(),
            next: None,
        };
        let mut session = self.sessions.value(node.host).clone();
        let input = Input::Message {
            from: replica_peer(1),
            message: Message::ListPage(Box::new(page)),
        };
        session.step(input, &mut Effects::default());
        let reads = session != *self.sessions.value(node.host);
        self.reads.insert((node, place, bit), reads);
        reads
    }

    /// The messages to a replica in the state `host` without those that change nothing there, and
    /// never will. (What others than replicas say may come too early, or be asked for again. What is
    /// about a later slot has come too early.)
    pub(crate) fn useful(&mut self, index: usize, host: u32, word: u128) -> u128 {
        if let Some(useful) = self.useful.get(&(host, word)) {
            return *useful;
        }
        let mut useful = word;
        for bit in bits(word) {
            let is_of_replica = matches!(self.envelope(index, bit).from, Peer::Replica(_));
            if !is_of_replica || self.is_ahead(index, host, bit) {
                continue;
            }
            let step = self.deliver(index, host, bit);
            if step.changes_nothing(host) && step.sends_nothing() {
                useful &= !(1 << bit);
            }
        }
        self.useful.insert((host, word), useful);
        useful
    }

    /// The same of messages to a session. (An order to commit, and what ends it, may come again.)
    pub(crate) fn heeded(&mut self, store: usize, node: Node, word: u32) -> u32 {
        if let Some(heeded) = self.heeded.get(&(node, word)) {
            return *heeded;
        }
        let mut heeded = word;
        for bit in bits(u128::from(word)) {
            let session = store::session(store, node.run);
            let message = &self.mail(session, bit).message;
            if matches!(message, Message::Finish { .. } | Message::Expired { .. }) {
                continue;
            }
            let heard = self.hear(store, node, bit);
            if heard.node == node && heard.send.is_empty() {
                heeded &= !(1 << bit);
            }
        }
        self.heeded.insert((node, word), heeded);
        heeded
    }
}

/// More ticks than a replica waits before it pushes a commit.
const PUSH_TICKS: u32 = 12;

/// The commit of a page or a state that the planted mistake takes away.
pub(crate) fn without(id: &CommitId, record: &mut Record) {
    match record {
        Record::Chosen {
            entry: Entry::Settle(settle),
            ..
        } => settle.unfinished.retain(|of| of.id != *id),
        Record::State { listed, .. } => listed.retain(|of| of.id != *id),
        _ => {}
    }
}
