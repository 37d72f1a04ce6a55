//! Host states, messages and records by number.
//!
//! A host is deterministic, so a step depends on nothing but the host's state and the input: each
//! is run once, by the product's own code, and looked up afterwards. A state of the model is then a
//! handful of numbers, cheap to copy, to hash and to compare.

use std::sync::Arc;

use crate::invariant::Violation;
use paxos_commit::protocol::message::{Decision, Message};
use paxos_commit::protocol::participant::{Participant, ParticipantNotice};
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::replica::{Record, Replica, ReplicaTimer};
use paxos_commit::protocol::types::{Outcome, Peer};
use paxos_commit::protocol::{Effects, Host, Initiator, Input};

use crate::bounds::Plant;
use crate::cast::{Cast, PLACES, Place, replica_id};
use crate::disk::{self, Disk, Ledger, Saved};
use crate::intern::{Interner, Map};
use crate::network::{Envelope, EnvelopeId, Network, bits};
use crate::plant;
use crate::refine::Ghost;

/// What happens to a replica, but for crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReplicaInput {
    /// The message with this bit.
    Deliver(u8),
    /// An operator asks for a ballot, now.
    ForceAbort,
    Tick,
}

/// Which messages may still matter to a replica, beyond what its memory shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Care {
    /// It will not crash: decisions that it knows already do not matter.
    pub(crate) decisions: bool,
    /// It may start another ballot: refusals matter.
    pub(crate) refusals: bool,
}

/// What follows from one step of a replica.
#[derive(Debug)]
pub(crate) struct ReplicaStep {
    pub(crate) host: u32,
    pub(crate) save: Disk,
    pub(crate) send: Network,
    /// How many ballots it started.
    pub(crate) ballots: u8,
    /// What it proposed.
    pub(crate) proposed: Vec<(Ballot, Outcome)>,
    pub(crate) refused: bool,
    /// It gave up this ballot.
    pub(crate) gave_up: Option<Ballot>,
    /// It knows the outcome now.
    pub(crate) decided: bool,
}

/// What follows from one step of a session or of the initiator.
#[derive(Debug)]
pub(crate) struct Step<H: Host> {
    pub(crate) host: u32,
    pub(crate) send: Network,
    pub(crate) notify: Vec<H::Notice>,
}

/// Everything that has a number.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) cast: Cast,
    plant: Option<Plant>,
    /// Sessions have no place of their own.
    leaves: bool,
    pub(crate) places: [Interner<Envelope>; PLACES],
    pub(crate) networks: Interner<Network>,
    pub(crate) ghosts: Interner<Ghost>,
    pub(crate) ledger: Ledger,
    pub(crate) replicas: Interner<Replica>,
    pub(crate) sessions: Interner<Participant>,
    pub(crate) initiators: Interner<Initiator>,
    pub(crate) replica_steps: Map<(u32, ReplicaInput), Arc<ReplicaStep>>,
    pub(crate) session_steps: Map<(u32, u8), Arc<Step<Participant>>>,
    pub(crate) initiator_steps: Map<(u32, u8), Arc<Step<Initiator>>>,
    pub(crate) recovered: Map<(usize, Disk), u32>,
    pub(crate) told: Map<(Place, u32, u128), u8>,
    pub(crate) shown: Map<(usize, Disk, Network), bool>,
    pub(crate) useful: Map<(u32, u128, Care), u128>,
}

impl Tables {
    pub(crate) fn new(cast: Cast, plant: Option<Plant>, leaves: bool) -> Self {
        Tables {
            cast,
            plant,
            leaves,
            places: Default::default(),
            networks: Interner::default(),
            ghosts: Interner::default(),
            ledger: Ledger::default(),
            replicas: Interner::default(),
            sessions: Interner::default(),
            initiators: Interner::default(),
            replica_steps: Map::default(),
            session_steps: Map::default(),
            initiator_steps: Map::default(),
            recovered: Map::default(),
            told: Map::default(),
            shown: Map::default(),
            useful: Map::default(),
        }
    }

    pub(crate) fn envelope(&self, id: EnvelopeId) -> &Envelope {
        self.places[usize::from(id.place)].value(u32::from(id.bit))
    }

    /// Puts what `from` sends into a set.
    pub(crate) fn post(&mut self, from: &Peer, send: Vec<(Peer, Message)>) -> Network {
        let mut network = Network::default();
        for (to, message) in send {
            let place = match self.cast.place(&to) {
                Place::Session { .. } if self.leaves => Place::Learners,
                place => place,
            };
            let envelope = match place {
                Place::Learners => match to_learners(from, message) {
                    Some(envelope) => envelope,
                    None => continue,
                },
                Place::Replica(_) | Place::Session { .. } => Envelope {
                    from: from.clone(),
                    message,
                },
            };
            let bit = self.places[place.number()].number(envelope);
            assert!(bit < 128, "more messages to {to} than the set has room for");
            network.insert(EnvelopeId {
                place: place.number() as u8,
                bit: bit as u8,
            });
        }
        network
    }

    /// The message with this bit at `place`, as `receiver` gets it.
    pub(crate) fn delivered(&self, place: Place, bit: u8, receiver: Place) -> (Peer, Message) {
        let id = EnvelopeId {
            place: place.number() as u8,
            bit,
        };
        let Envelope { from, message } = self.envelope(id).clone();
        let message = plant::on_delivery(self.plant, &self.cast, receiver, message);
        (from, message)
    }

    /// The state of a replica that starts from `disk`.
    pub(crate) fn recover(&mut self, index: usize, disk: Disk) -> u32 {
        let records = self.ledger.records(disk);
        let records = plant::on_load(self.plant, records);
        let replica = self.cast.replica(index, records.clone());
        // The order of records does not matter, so a disk is a set in this model.
        let reversed = records.into_iter().rev().collect();
        assert_eq!(replica, self.cast.replica(index, reversed));
        let number = self.replicas.number(replica);
        self.recovered.insert((index, disk), number);
        number
    }

    pub(crate) fn step_replica(
        &mut self,
        index: usize,
        host: u32,
        input: ReplicaInput,
    ) -> Arc<ReplicaStep> {
        let place = Place::Replica(index);
        let fed = match input {
            ReplicaInput::Deliver(bit) => {
                let (from, message) = self.delivered(place, bit, place);
                Input::Message { from, message }
            }
            ReplicaInput::ForceAbort => Input::Message {
                from: Peer::Operator(1),
                message: Message::ForceAbort { id: self.cast.id },
            },
            ReplicaInput::Tick => Input::Timeout(ReplicaTimer::Tick),
        };
        let nacked = match &fed {
            Input::Message {
                message: Message::Nack { ballot, .. },
                ..
            } => Some(*ballot),
            _ => None,
        };
        let (replica, out) = turn(self.replicas.value(host), fed);
        let rounds = out
            .save
            .iter()
            .filter(|record| matches!(record, Record::Round { .. }));
        let step = Arc::new(ReplicaStep {
            gave_up: nacked,
            decided: replica.outcome(&self.cast.id).is_some(),
            host: self.replicas.number(replica),
            ballots: rounds.count() as u8,
            proposed: proposals(&out.send),
            refused: !out.notify.is_empty(),
            save: self.ledger.disk(&out.save),
            send: self.post(&self.cast.replica_peer(index), out.send),
        });
        self.replica_steps.insert((host, input), Arc::clone(&step));
        step
    }

    pub(crate) fn step_session(
        &mut self,
        place: Place,
        host: u32,
        input: Input<Participant>,
    ) -> Step<Participant> {
        let Place::Session { branch, run } = place else {
            panic!("{place:?} is no session");
        };
        let me = self.cast.session_peer(branch, run);
        let (session, out) = turn(self.sessions.value(host), input);
        Step {
            host: self.sessions.number(session),
            send: self.post(&me, out.send),
            notify: out.notify,
        }
    }

    pub(crate) fn deliver_to_session(
        &mut self,
        place: Place,
        host: u32,
        bit: u8,
    ) -> Arc<Step<Participant>> {
        let at = if self.leaves { Place::Learners } else { place };
        let (from, message) = self.delivered(at, bit, place);
        let step = self.step_session(place, host, Input::Message { from, message });
        let step = Arc::new(step);
        self.session_steps.insert((host, bit), Arc::clone(&step));
        step
    }

    pub(crate) fn deliver_to_initiator(&mut self, host: u32, bit: u8) -> Arc<Step<Initiator>> {
        if let Some(known) = self.initiator_steps.get(&(host, bit)) {
            return Arc::clone(known);
        }
        let (from, message) = self.delivered(Place::Learners, bit, Place::Learners);
        let step = Arc::new(self.step_initiator(host, Input::Message { from, message }));
        self.initiator_steps.insert((host, bit), Arc::clone(&step));
        step
    }

    pub(crate) fn step_initiator(&mut self, host: u32, input: Input<Initiator>) -> Step<Initiator> {
        let (initiator, out) = turn(self.initiators.value(host), input);
        Step {
            host: self.initiators.number(initiator),
            send: self.post(&self.cast.initiator_peer(), out.send),
            notify: out.notify,
        }
    }

    /// Whether the disk of this replica shows what these messages of it say.
    pub(crate) fn shows(&mut self, index: usize, disk: Disk, send: Network) -> bool {
        let mut facts = disk::facts_of(&self.ledger, &self.cast, index, disk);
        let durable = send.iter().all(|id| {
            let Envelope { from, message } = self.envelope(id);
            let judged = facts.sent(from, message);
            !matches!(
                judged,
                Err(Violation::NotDurable { .. } | Violation::RoundNotDurable { .. })
            )
        });
        self.shown.insert((index, disk, send), durable);
        durable
    }

    /// The messages to a replica in the state `host` without those that can change nothing of
    /// interest there, now or ever:
    ///
    /// - A report that changes nothing: its ballot is not in phase 1 any more, and is never used
    ///   again; or all that it says was heard before.
    /// - A refusal, if the replica starts no ballot any more: to give up a ballot is the same as to
    ///   hear nothing more of it.
    /// - A decision that changes nothing: the outcome is known, and stays so unless the replica
    ///   crashes.
    pub(crate) fn useful(&mut self, index: usize, host: u32, word: u128, care: Care) -> u128 {
        let place = Place::Replica(index).number();
        let mut useful = word;
        for bit in bits(word) {
            let keep = match &self.places[place].value(u32::from(bit)).message {
                Message::Phase1b { .. } => self.changes(index, host, bit),
                Message::Nack { .. } => care.refusals,
                Message::Decided(_) => !care.decisions || self.changes(index, host, bit),
                _ => true,
            };
            if !keep {
                useful &= !(1 << bit);
            }
        }
        self.useful.insert((host, word, care), useful);
        useful
    }

    fn changes(&mut self, index: usize, host: u32, bit: u8) -> bool {
        let input = ReplicaInput::Deliver(bit);
        let known = self.replica_steps.get(&(host, input)).cloned();
        let step = known.unwrap_or_else(|| self.step_replica(index, host, input));
        step.host != host || !step.save.is_empty() || !step.send.is_empty() || step.refused
    }

    /// Adds `new` to a disk that holds `before`.
    pub(crate) fn save(&mut self, before: Disk, new: Disk) -> Saved {
        disk::save(&mut self.ledger, &self.cast, before, new)
    }
}

/// One turn of the crank.
fn turn<H: Host>(host: &H, input: Input<H>) -> (H, Effects<H>) {
    let mut host = host.clone();
    let mut out = Effects::default();
    host.step(input, &mut out);
    (host, out)
}

/// What learners make of a message: reports are counted, and an outcome is an outcome, whoever
/// tells it. `Undecided` and the like tell none, and change nothing in whoever gets them.
fn to_learners(from: &Peer, message: Message) -> Option<Envelope> {
    let decided = |id, outcome| Envelope {
        from: Peer::Replica(replica_id(0)),
        message: Message::Decided(Decision {
            id,
            outcome,
            unapplied: None,
        }),
    };
    match message {
        Message::Phase2b { .. } => Some(Envelope {
            from: from.clone(),
            message,
        }),
        Message::Decided(decision) => Some(decided(decision.id, decision.outcome)),
        Message::Finish { id, outcome, .. } => Some(decided(id, outcome)),
        _ => None,
    }
}

fn proposals(send: &[(Peer, Message)]) -> Vec<(Ballot, Outcome)> {
    let mut found = Vec::new();
    for (_, message) in send {
        if let Message::Phase2a { ballot, proposals } = message {
            let of = proposals.iter();
            found.extend(of.map(|proposal| (*ballot, proposal.outcome)));
        }
    }
    found.dedup();
    found
}

/// An outcome as a bit.
pub(crate) fn bit_of(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Commit => TOLD_COMMIT,
        Outcome::Abort => TOLD_ABORT,
    }
}

/// Somebody was told Commit.
pub(crate) const TOLD_COMMIT: u8 = 1;
/// Somebody was told Abort.
pub(crate) const TOLD_ABORT: u8 = 2;
/// A branch has let go of its work.
pub(crate) const LET_GO: u8 = 4;

/// What the notices of a session tell its resource manager.
pub(crate) fn told(notices: &[ParticipantNotice]) -> u8 {
    let bits = notices.iter().map(|notice| match notice {
        ParticipantNotice::Finish { outcome, .. } | ParticipantNotice::Outcome { outcome, .. } => {
            bit_of(*outcome)
        }
        ParticipantNotice::LetGo(_) => LET_GO,
        ParticipantNotice::Prepare { .. }
        | ParticipantNotice::Began(_)
        | ParticipantNotice::Refused { .. }
        | ParticipantNotice::Unproven { .. }
        | ParticipantNotice::Contradicted { .. }
        | ParticipantNotice::Expired { .. }
        | ParticipantNotice::Forgotten { .. }
        | ParticipantNotice::Settled { .. }
        | ParticipantNotice::Stands(_)
        | ParticipantNotice::Unasked { .. } => 0,
    });
    bits.fold(0, |told, bit| told | bit)
}
