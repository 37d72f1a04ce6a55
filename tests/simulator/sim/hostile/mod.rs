//! Hostile clients: certificates of participants and initiators whose holder lies.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the certificates, their sessions and runs, their connections, what they have learned |
//! | `moves` | one attack after the other, drawn from everything that `may_say` allows |
//! | `ids` | the ids and rosters that an attack names: true ones and invented ones |
//! | `plant` | planted bugs, to judge the judge |
//! | `judge` | which transactions are honest, what the observer is told, which bounds hold |
//!
//! All hostile clients share what they know. They know every honest session, store and initiator
//! (one common transaction is enough to learn these), and the ids of the transactions that they were
//! told of. They never learn the nonce of another transaction.

mod ids;
mod judge;
mod moves;
mod plant;

use std::collections::{BTreeMap, BTreeSet};

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, ParticipantName, Peer, Roster, Session, StoreId, TxnId,
};

use super::plan::{MILLISECOND, Micros, Plan, SECOND, chance};
use super::world::{At, Event, World};

pub use moves::Script;

/// Hostile sessions have numbers from here on; honest ones count from 0.
const SESSIONS_FROM: u64 = 1 << 40;

/// The lower bits of an initiator's id tell its runs apart; the upper ones are its name.
const RUN_BITS: u32 = 48;

/// The most sessions or runs that one certificate has at a time.
const PEERS_MAX: usize = 3;

/// How long a generation lasts if the plan has only one.
const GENERATION_TICKS: u32 = 30;

/// What the hostile clients of a run do.
#[derive(Clone, Debug)]
pub struct HostilePlan {
    /// How many certificates they hold: each a participant's or an initiator's.
    pub certificates: usize,
    /// Messages that all of them say together. The run ends only after the last.
    pub messages: u64,
    /// The longest time between two attacks of one certificate.
    pub every: Micros,
    /// Probability that an honest transaction enlists a hostile participant.
    pub enlisted: f64,
    pub script: Script,
}

impl HostilePlan {
    pub fn draw(rng: &mut fastrand::Rng) -> HostilePlan {
        HostilePlan {
            certificates: rng.usize(1..=4),
            messages: rng.u64(100..1_500),
            every: rng.u64(MILLISECOND..40 * MILLISECOND),
            enlisted: if rng.bool() { 0.0 } else { rng.f64() * 0.5 },
            script: Script::Everything,
        }
    }

    /// A plan with hostile clients. Generations turn: what a client has contradicted comes to its
    /// end when its generation is settled.
    pub fn join(self, plan: Plan) -> Plan {
        let generation_ticks = match plan.generation_ticks {
            0 => GENERATION_TICKS,
            ticks => ticks,
        };
        Plan {
            generation_ticks,
            hostile: Some(self),
            undecided_max: plan.undecided_max.max(64),
            ..plan
        }
    }
}

/// The name in a certificate.
#[derive(Clone, Debug)]
enum Name {
    Participant(ParticipantName),
    /// The upper bits of its initiator ids.
    Initiator(u128),
}

/// A certificate, and the sessions or runs that are connected under it.
#[derive(Clone, Debug)]
struct Certificate {
    name: Name,
    peers: Vec<Peer>,
}

/// An instance that a hostile client can name, with its roster if that is known.
type Named = (CommitId, Option<Roster>);

/// Everything about the hostile clients of a run.
#[derive(Debug, Default)]
pub struct Hostile {
    certificates: Vec<Certificate>,
    /// Sessions and runs drawn so far.
    drawn: u64,
    /// Messages that may still be said.
    left: u64,
    /// Instances and transactions that they were told of by others.
    told: Vec<Named>,
    told_txns: Vec<TxnId>,
    /// Honest initiators' transactions that enlisted a hostile participant.
    common: BTreeSet<TxnId>,
    /// Instances that they have made up.
    invented: Vec<Named>,
    /// The transactions of honest initiators that no hostile participant was enlisted in.
    honest: BTreeSet<TxnId>,
    /// Instances that a hostile client named and that are in no honest transaction, or that have a
    /// hostile branch.
    tainted: BTreeSet<CommitId>,
    /// The highest floor that each honest initiator has announced.
    floors: BTreeMap<InitiatorId, u32>,
}

/// What happens to hostile clients.
#[derive(Clone, Debug)]
pub enum HostileEvent {
    /// The certificate attacks.
    Attack(usize),
    /// This is said to a replica, late.
    Say {
        peer: Peer,
        replica: usize,
        message: Box<Message>,
    },
}

impl Hostile {
    fn is_connected(&self, peer: &Peer) -> bool {
        let mut all = self.certificates.iter();
        all.any(|certificate| certificate.peers.contains(peer))
    }

    /// Sessions of hostile participants.
    fn sessions(&self) -> impl Iterator<Item = &Branch> {
        let peers = self.certificates.iter().flat_map(|of| &of.peers);
        peers.filter_map(|peer| match peer {
            Peer::Session(branch) => Some(branch),
            Peer::Replica(_) | Peer::Initiator(_) | Peer::Operator(_) => None,
        })
    }

    fn draw_peer(&mut self, name: &Name) -> Peer {
        self.drawn += 1;
        match name {
            Name::Participant(participant) => Peer::Session(Branch {
                participant: participant.clone(),
                session: Session(SESSIONS_FROM + self.drawn),
                store: StoreId::from_u128(1),
            }),
            Name::Initiator(bits) => {
                let id = bits << RUN_BITS | u128::from(self.drawn);
                Peer::Initiator(InitiatorId::from_u128(id))
            }
        }
    }
}

/// Whether a name is that of a hostile participant. (Honest ones are p0, p1, and so on.)
pub fn is_hostile_name(name: &ParticipantName) -> bool {
    !name.as_str().starts_with('p')
}

/// Whether the id is that of a hostile initiator. (The honest ones have the name 0.)
pub fn is_hostile_initiator(id: InitiatorId) -> bool {
    id.to_u128() >> RUN_BITS != 0
}

impl World {
    /// Whether there are hostile clients in this run.
    pub fn is_attacked(&self) -> bool {
        self.plan.hostile.is_some()
    }

    pub fn populate_hostile(&mut self) {
        let Some(plan) = self.plan.hostile.clone() else {
            return;
        };
        self.hostile.left = plan.messages;
        for index in 0..plan.certificates {
            let participant = index == 0 && plan.script != Script::Everything || self.rng.bool();
            let name = if participant {
                let name = format!("h{index}");
                Name::Participant(name.parse().expect("a valid name"))
            } else {
                Name::Initiator(index as u128 + 1)
            };
            let peers = Vec::new();
            self.hostile.certificates.push(Certificate { name, peers });
            for _ in 0..self.rng.usize(1..=PEERS_MAX) {
                self.hostile_joins(index);
            }
            let after = self.between(0, 2 * plan.every);
            self.schedule(after, Event::Hostile(HostileEvent::Attack(index)));
        }
    }

    /// One more session or run of this certificate; the oldest goes if there are too many.
    fn hostile_joins(&mut self, certificate: usize) {
        let name = self.hostile.certificates[certificate].name.clone();
        let peer = self.hostile.draw_peer(&name);
        let peers = &mut self.hostile.certificates[certificate].peers;
        let gone = (peers.len() == PEERS_MAX).then(|| peers.remove(0));
        peers.push(peer.clone());
        if let Some(gone) = gone {
            self.hostile_link(&gone, false);
        }
        self.hostile_link(&peer, true);
    }

    fn hostile_link(&mut self, peer: &Peer, up: bool) {
        for index in 0..self.replicas.len() {
            let (to, peer, life) = (At::Replica(index), peer.clone(), self.replicas[index].life);
            let after = self.between(0, 5 * MILLISECOND);
            self.schedule(after, Event::Link { to, life, peer, up });
        }
    }

    /// A replica has started: hostile clients connect to it like all others.
    pub fn hostile_connects(&mut self, replica: usize) {
        let peers = self.hostile.certificates.iter().flat_map(|of| &of.peers);
        let peers: Vec<Peer> = peers.cloned().collect();
        for peer in peers {
            let (to, life) = (At::Replica(replica), self.replicas[replica].life);
            let (after, up) = (self.delay(), true);
            self.schedule(after, Event::Link { to, life, peer, up });
        }
    }

    /// Whether this peer is one of theirs, and connected.
    pub fn is_hostile_and_connected(&self, peer: &Peer) -> bool {
        self.is_attacked() && self.hostile.is_connected(peer)
    }

    pub fn hostile(&mut self, event: HostileEvent) {
        match event {
            HostileEvent::Attack(index) => {
                if self.hostile.left == 0 {
                    return;
                }
                self.attack(index);
                let every = self.plan.hostile.as_ref().map_or(SECOND, |plan| plan.every);
                let after = self.between(1, 2 * every);
                self.schedule(after, Event::Hostile(HostileEvent::Attack(index)));
            }
            HostileEvent::Say {
                peer,
                replica,
                message,
            } => {
                let event = Event::Deliver {
                    to: At::Replica(replica),
                    life: 0,
                    from: peer,
                    message: *message,
                };
                self.schedule(0, event);
            }
        }
    }

    /// Whether they have something left to say.
    pub fn is_attack_over(&self) -> bool {
        self.hostile.left == 0
    }

    /// A message for one of them: they learn from everything that they are told.
    pub fn hostile_hears(&mut self, to: &Peer, message: &Message) {
        if !self.is_attacked() || !matches!(to, Peer::Session(_) | Peer::Initiator(_)) {
            return;
        }
        match message {
            Message::Prepare(prepare) => {
                let roster = Some(prepare.roster.clone());
                self.hostile.told.push((prepare.id, roster));
            }
            Message::LetGo { txn, .. } => self.hostile.told_txns.push(*txn),
            Message::Finish { id, .. }
            | Message::Phase2b { id, .. }
            | Message::Expired { id, .. } => self.hostile.told.push((*id, None)),
            _ => {}
        }
    }

    /// An honest transaction may enlist a hostile participant: its session is told the id.
    pub fn enlist_hostile(&mut self, txn: TxnId) -> Option<Branch> {
        let enlisted = self.plan.hostile.as_ref().map_or(0.0, |plan| plan.enlisted);
        if !chance(&mut self.rng, enlisted) {
            return None;
        }
        let sessions: Vec<Branch> = self.hostile.sessions().cloned().collect();
        if sessions.is_empty() {
            return None;
        }
        let branch = sessions[self.rng.usize(..sessions.len())].clone();
        self.hostile.honest.remove(&txn);
        self.hostile.common.insert(txn);
        self.hostile.told_txns.push(txn);
        Some(branch)
    }

    /// The caller of a hostile service tells it something.
    pub fn hostile_service(&mut self, command: &ParticipantCommand) {
        if let ParticipantCommand::Prepare(prepare) = command {
            let roster = Some(prepare.roster.clone());
            self.hostile.told.push((prepare.id, roster));
        }
    }
}
