//! Host states, messages and records by number.
//!
//! A host is deterministic, so a turn depends on nothing but the host's state and the input: each is
//! run once, by the product's own code, and looked up afterwards.

use paxos_commit::protocol::message::{Frozen, Message, Report};
use paxos_commit::protocol::paxos::log::LogMessage;
use paxos_commit::protocol::replica::{Record, Replica};
use paxos_commit::protocol::types::{BranchSet, CommitId, Entry, Outcome, Peer};
use paxos_commit::protocol::{Effects, Host, Input};

use crate::bounds::{Bounds, Known, Plant};
use crate::cast::{Cast, REPLICAS, branch, index_of, replica, replica_peer};
use crate::intern::{Interner, Map};
use crate::ledger::Ledger;
use crate::state::{Disk, Network, bits, told};
use crate::turn::{Rules, Turn};

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Envelope {
    pub(crate) from: Peer,
    pub(crate) message: Message,
}

/// What follows from one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) host: u32,
    pub(crate) save: Disk,
    pub(crate) send: Network,
    /// What of it arrives at once.
    pub(crate) at_once: Network,
    pub(crate) told: u16,
    /// It takes part in the transaction.
    pub(crate) touches: bool,
    /// It tells of what is frozen.
    pub(crate) tells_frozen: bool,
    /// The highest slot of the generations that it tells of.
    pub(crate) tells_slot: u64,
}

impl Step {
    /// Whether nothing follows from it but what it sends.
    pub(crate) fn changes_nothing(&self, host: u32) -> bool {
        self.host == host && self.save == Disk::default() && self.told == 0
    }
}

/// Everything that has a number.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) cast: Cast,
    pub(crate) rules: Rules,
    present: [bool; REPLICAS],
    /// Somebody is behind, and catches up.
    catches_up: bool,
    /// Replicas hear from others what was chosen.
    news: bool,
    pub(crate) places: [Interner<Envelope>; REPLICAS],
    pub(crate) hosts: Interner<Replica>,
    pub(crate) ledger: Ledger,
    pub(crate) steps: Map<(u32, u8), Step>,
    pub(crate) useful: Map<(u32, u128), u128>,
    pub(crate) recovered: Map<(usize, Disk), u32>,
}

impl Tables {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let rules = Rules {
            answers: bounds.answers,
            plant: bounds.plant,
        };
        let behind = |known: &Known| !matches!(known, Known::Absent | Known::Third);
        Tables {
            cast: Cast::new(1, bounds.branches),
            rules,
            present: bounds.known.map(|known| known != Known::Absent),
            catches_up: bounds.known.iter().any(behind),
            news: bounds.news,
            places: Default::default(),
            hosts: Interner::default(),
            ledger: Ledger::default(),
            steps: Map::default(),
            useful: Map::default(),
            recovered: Map::default(),
        }
    }

    pub(crate) fn envelope(&self, place: usize, bit: u8) -> &Envelope {
        self.places[place].value(u32::from(bit))
    }

    pub(crate) fn save(&mut self, before: Disk, new: Disk) -> Disk {
        self.ledger.save(&self.cast, before, new)
    }

    /// The replica that starts from a disk.
    pub(crate) fn recover(&mut self, index: usize, disk: Disk) -> u32 {
        if let Some(number) = self.recovered.get(&(index, disk)) {
            return *number;
        }
        let mut records = self.ledger.records(disk);
        match self.rules.plant {
            Some(Plant::FreezeForgotten) => {
                records.retain(|record| !matches!(record, Record::Frozen { .. }));
            }
            Some(Plant::LostDisk) => records.clear(),
            Some(Plant::HorizonBeforeList) => records.iter_mut().for_each(lose_list),
            Some(_) | None => {}
        }
        let number = self.hosts.number(replica(index, 256, records));
        self.recovered.insert((index, disk), number);
        number
    }

    /// The replica that starts from these records, and was asked to be the relay of the transaction
    /// before it learned that generation 3 is open.
    pub(crate) fn relay(&self, index: usize, records: &[Record]) -> Replica {
        let is_third = |record: &&Record| matches!(record, Record::Chosen { slot: 1, .. });
        let (third, before): (Vec<_>, Vec<_>) = records.iter().partition(is_third);
        let mut relay = replica(index, 256, before.into_iter().cloned().collect());
        let begun = self.cast.begin();
        let learned = third.into_iter().filter_map(|record| match record {
            Record::Chosen { slot, entry } => {
                let (slot, entry) = (*slot, entry.clone());
                let chosen = Message::Log(LogMessage::Chosen { slot, entry });
                Some((replica_peer(index), chosen))
            }
            _ => None,
        });
        for (from, message) in std::iter::once(begun).chain(learned) {
            let input = Input::Message { from, message };
            relay.step(input, &mut Effects::default());
        }
        relay
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
        let turn = self.rules.turn(index, self.hosts.value(host), input);
        let Turn {
            replica,
            save,
            send,
            mut told,
        } = turn;
        let touched = |record: &Record| {
            matches!(
                record,
                Record::Vote { .. } | Record::Promise { .. } | Record::Accept { .. }
            )
        };
        let tells_frozen = |(_, message): &(_, Message)| {
            matches!(message, Message::Frozen { .. } | Message::Collected { .. })
        };
        let slots = send.iter().filter_map(|(_, message)| match message {
            Message::State { generations, .. }
            | Message::NotOpen { generations, .. }
            | Message::Announce(generations) => Some(generations.slot()),
            _ => None,
        });
        let tells_slot = slots.max().unwrap_or(0);
        for (to, message) in &send {
            told |= self.tells(to, message);
        }
        let frozen = send.iter().any(tells_frozen);
        let is_at_once = |(_, message): &(_, Message)| self.rules.is_at_once(message);
        let (at_once, send) = send.into_iter().partition(is_at_once);
        let me = replica_peer(index);
        Step {
            at_once: self.post(&me, at_once),
            touches: save.iter().any(touched),
            tells_frozen: frozen,
            tells_slot,
            host: self.hosts.number(replica),
            save: self.ledger.disk(&save),
            send: self.post(&me, send),
            told,
        }
    }

    /// What a message tells of the outcome.
    fn tells(&self, to: &Peer, message: &Message) -> u16 {
        let of = |outcome| match outcome {
            Outcome::Commit => told::COMMIT,
            Outcome::Abort => told::ABORT,
        };
        match message {
            Message::Decided(decision) => of(decision.outcome),
            Message::Finish { outcome, .. } => of(*outcome),
            Message::Expired {
                branch: Some(of), ..
            } if matches!(to, Peer::Session(_)) => {
                told::EXPIRED_BRANCH << u16::from(*of == branch(1))
            }
            Message::Expired { .. } => told::EXPIRED,
            Message::Log(LogMessage::Accept {
                entry: Entry::Settle(settle),
                ..
            }) if self.rules.plant == Some(Plant::CollectionTold) => {
                let listed = settle.unfinished.iter().any(|it| it.id == self.cast.id);
                if listed { told::COMMIT } else { told::ABORT }
            }
            _ => 0,
        }
    }

    /// Puts what `from` sends into a set.
    pub(crate) fn post(&mut self, from: &Peer, send: Vec<(Peer, Message)>) -> Network {
        let mut network = Network::default();
        for (to, message) in send {
            let Peer::Replica(id) = to else {
                continue;
            };
            let place = index_of(id);
            if self.present[place] && self.is_kept(&message) {
                let (place, envelope) = self.addressed(from, place, message);
                let bit = self.places[place].number(envelope);
                assert!(bit < 128, "more messages than the set has room for");
                network[place] |= 1 << bit;
            }
        }
        network
    }

    /// Signs of life and refusals make a leader give up, which is the same as to hear no more of it;
    /// a state is for those who are behind.
    fn is_kept(&self, message: &Message) -> bool {
        match message {
            Message::Log(LogMessage::Chosen { .. }) | Message::Decided(_) => self.news,
            Message::Log(message) => !matches!(
                message,
                LogMessage::Lead { .. } | LogMessage::Following { .. } | LogMessage::Nack { .. }
            ),
            Message::Fetch { .. } | Message::State { .. } => self.catches_up,
            Message::Nack { .. } | Message::Expired { .. } => false,
            _ => true,
        }
    }

    /// Where a message goes; to whom else, if that is the mistake.
    fn addressed(&self, from: &Peer, place: usize, message: Message) -> (usize, Envelope) {
        let Peer::Replica(leader) = from else {
            let from = from.clone();
            return (place, Envelope { from, message });
        };
        let nothing = |id: &CommitId| Frozen {
            report: Report {
                id: *id,
                accepted: None,
                held: BranchSet::default(),
                read_only: BranchSet::default(),
                roster: None,
            },
            decided: None,
        };
        let answer = match &message {
            Message::Freeze { generation, after } => Message::Frozen {
                generation: *generation,
                after: *after,
                ids: Vec::new(),
                more: false,
            },
            Message::Collect { generation, ids } => Message::Collected {
                generation: *generation,
                records: ids.iter().map(nothing).collect(),
            },
            _ => {
                let from = from.clone();
                return (place, Envelope { from, message });
            }
        };
        if self.rules.plant == Some(Plant::NewConfigurationAsked) && place == 0 {
            let from = replica_peer(0);
            let message = answer;
            return (index_of(*leader), Envelope { from, message });
        }
        let from = from.clone();
        (place, Envelope { from, message })
    }

    /// Whether all that comes of this message, once it has had its effect, is an answer.
    pub(crate) fn is_question(&self, place: usize, bit: u8) -> bool {
        matches!(
            &self.envelope(place, bit).message,
            Message::Log(LogMessage::Prepare { .. } | LogMessage::Accept { .. })
                | Message::Freeze { .. }
                | Message::Collect { .. }
                | Message::Phase1a { .. }
                | Message::Phase2a { .. }
        )
    }

    /// Whether the message is about a slot that the replica has not come to.
    pub(crate) fn is_ahead(&self, place: usize, host: u32, bit: u8) -> bool {
        let slot = self.hosts.value(host).generations().slot();
        let message = &self.envelope(place, bit).message;
        matches!(message, Message::Log(message) if message.slot() > slot)
    }

    /// Whether it asks another replica for a promise: of a ballot, or the last one of a generation.
    pub(crate) fn is_promise_asked(&self, place: usize, bit: u8) -> bool {
        let Envelope { from, message } = self.envelope(place, bit);
        let other = *from != replica_peer(place);
        other
            && matches!(
                message,
                Message::Log(LogMessage::Prepare { .. })
                    | Message::Freeze { .. }
                    | Message::Phase1a { .. }
            )
    }

    /// The messages to a replica in the state `host` without those that change nothing there, and
    /// never will. (A vote or an Applied may have come too early. Of a request that is refused now
    /// no more can come than that an outcome is told again.)
    pub(crate) fn useful(&mut self, index: usize, host: u32, word: u128) -> u128 {
        if let Some(useful) = self.useful.get(&(host, word)) {
            return *useful;
        }
        let mut useful = word;
        for bit in bits(word) {
            let message = &self.envelope(index, bit).message;
            if matches!(message, Message::Vote(_) | Message::Applied { .. })
                || self.is_ahead(index, host, bit)
            {
                continue;
            }
            let step = self.deliver(index, host, bit);
            if step.changes_nothing(host)
                && step.send == Network::default()
                && step.at_once == Network::default()
            {
                useful &= !(1 << bit);
            }
        }
        self.useful.insert((host, word), useful);
        useful
    }
}

fn lose_list(record: &mut Record) {
    match record {
        Record::Chosen {
            entry: Entry::Settle(settle),
            ..
        } => settle.unfinished.clear(),
        Record::State { listed, .. } => listed.clear(),
        _ => {}
    }
}
