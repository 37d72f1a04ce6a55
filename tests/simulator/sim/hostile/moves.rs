//! The attacks: drawn from everything that `may_say` lets a client say, to any replica, at any time,
//! different things to different replicas, more than once, and late.

use std::time::Duration;

use paxos_commit::protocol::message::{BeginCommit, CastVote, Message, Prepare, Question, Voter};
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::{
    Branch, CommitId, Opening, Peer, ReadOnly, Request, Roster, TxnId, Vote,
};
use paxos_commit::transport::may_say;

use super::super::plan::{MILLISECOND, Micros, SECOND, chance};
use super::super::stats::Fault;
use super::super::world::{Event, World};
use super::HostileEvent;

/// Which attacks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// All, drawn by the seed.
    Everything,
    /// Nothing but [`World::contradict`].
    Contradict,
}

/// Instances of one flood.
const FLOOD: usize = 40;

impl World {
    pub fn attack(&mut self, certificate: usize) {
        let peers = &self.hostile.certificates[certificate].peers;
        let peer = peers[self.rng.usize(..peers.len())].clone();
        let script = self.plan.hostile.as_ref().map(|plan| plan.script);
        self.stats.fault(Fault::HostileClient);
        if script == Some(Script::Contradict) {
            if let Peer::Session(own) = peer {
                self.contradict(&own);
            }
            return;
        }
        match (self.rng.u32(..16), &peer) {
            (0, _) => self.hostile_joins(certificate),
            (1, _) => {
                self.hostile_link(&peer, false);
                self.hostile_link(&peer, true);
            }
            (2 | 3, _) => self.call_service(&peer),
            (4, Peer::Session(own)) => self.contradict(&own.clone()),
            (4, _) => self.flood(&peer),
            (5, Peer::Session(own)) => self.flood_votes(&own.clone()),
            (5..=8, Peer::Session(own)) => self.vote(&own.clone()),
            (9 | 10, Peer::Session(own)) => self.applied(&own.clone()),
            (5..=8, Peer::Initiator(_)) => self.begin_commit(&peer),
            (9 | 10, Peer::Initiator(_)) => self.rollback(&peer),
            (11..=13, _) => self.ask(&peer),
            _ => self.inquire(&peer),
        }
    }

    /// Says it to one replica, now, later, or much later; perhaps twice.
    fn say_to(&mut self, peer: &Peer, replica: usize, message: Message) {
        let after = match self.rng.u32(..20) {
            0 => self.between(SECOND, 20 * SECOND),
            1..=4 => self.between(MILLISECOND, SECOND),
            _ => self.delay(),
        };
        if self.rng.u32(..10) == 0 {
            self.say_after(after + MILLISECOND, peer, replica, message.clone());
        }
        self.say_after(after, peer, replica, message);
    }

    fn say_after(&mut self, after: Micros, peer: &Peer, replica: usize, message: Message) {
        if self.hostile.left == 0 || !may_say(peer, &message) {
            return;
        }
        self.hostile.left -= 1;
        self.taint(&message);
        let say = HostileEvent::Say {
            peer: peer.clone(),
            replica,
            message: Box::new(message),
        };
        self.schedule(after, Event::Hostile(say));
    }

    /// Says it to all replicas, or to some.
    fn say(&mut self, peer: &Peer, message: &Message) {
        let all = self.rng.bool();
        for replica in 0..self.replicas.len() {
            if all || self.rng.bool() {
                self.say_to(peer, replica, message.clone());
            }
        }
    }

    fn some_timeout(&mut self) -> Duration {
        Duration::from_millis([0, 100, 1_000, 1_000_000][self.rng.usize(..4)])
    }

    /// A vote; to each replica another one, if it comes to that.
    fn vote(&mut self, own: &Branch) {
        let peer = Peer::Session(own.clone());
        let named = self.some_named(&peer);
        let (id, roster) = match named {
            (id, Some(roster)) if roster.index_of(own).is_some() => (id, roster),
            _ => self.invent(&peer),
        };
        let all = [Vote::Prepared, Vote::ReadOnly, Vote::Aborted];
        let one = all[self.rng.usize(..3)];
        let equivocates = self.rng.bool();
        let vote_timeout = self.some_timeout();
        for replica in 0..self.replicas.len() {
            let other = all[self.rng.usize(..3)];
            let vote = if equivocates { other } else { one };
            let cast = cast(id, &roster, vote, vote_timeout);
            if !equivocates || self.rng.u32(..4) > 0 {
                self.say_to(&peer, replica, cast);
            }
        }
    }

    /// A transaction with no branch but its own. It votes Prepared to a majority; when these
    /// replicas have exchanged reports, it votes Aborted to another one.
    fn contradict(&mut self, own: &Branch) {
        let peer = Peer::Session(own.clone());
        let mut txn = self.invented_txn(&peer);
        txn.generation = self.facts.generations().latest();
        let roster = Roster::new([own.clone()]).expect("one branch");
        let id = CommitId::new(txn, &roster);
        self.hostile.invented.push((id, Some(roster.clone())));
        let odd = self.rng.usize(..self.replicas.len());
        for replica in 0..self.replicas.len() {
            let (vote, after) = if replica == odd {
                (Vote::Aborted, 3 * SECOND)
            } else {
                (Vote::Prepared, 0)
            };
            let cast = cast(id, &roster, vote, Duration::from_secs(1_000));
            self.say_after(after + MILLISECOND, &peer, replica, cast);
        }
    }

    /// Votes in many transactions, each with a roster of its own or with a victim.
    fn flood_votes(&mut self, own: &Branch) {
        let peer = Peer::Session(own.clone());
        let alone = self.rng.bool();
        for _ in 0..FLOOD {
            let (mut id, mut roster) = self.invent(&peer);
            if alone {
                roster = Roster::new([own.clone()]).expect("one branch");
                id = CommitId::new(id.txn, &roster);
            }
            let cast = cast(id, &roster, Vote::Prepared, Duration::from_secs(1_000));
            for replica in 0..self.replicas.len() {
                let after = self.delay();
                self.say_after(after, &peer, replica, cast.clone());
            }
        }
    }

    fn applied(&mut self, own: &Branch) {
        let peer = Peer::Session(own.clone());
        let (id, roster) = self.some_named(&peer);
        let mut of_own = roster.iter().flat_map(|roster| roster.iter());
        let same = of_own.find(|branch| branch.participant == own.participant);
        let branch = same.unwrap_or(own).clone();
        let message = match self.rng.u32(..7) {
            3 => Message::Present {
                opening: self.some_opening(),
                after: self.some_opening(),
            },
            0 => Message::Contradicted { id, branch },
            1 => Message::Unproven { id, branch },
            2 => Message::List {
                through: id,
                after: self.rng.bool().then_some(id),
            },
            _ => Message::Applied { id, branch },
        };
        self.say(&peer, &message);
    }

    fn some_opening(&mut self) -> Option<Opening> {
        let number = self.rng.u64(..=3);
        let nonce = self.rng.u64(..=1);
        self.rng.bool().then_some(Opening { number, nonce })
    }

    fn ask(&mut self, peer: &Peer) {
        let (mut id, roster) = self.some_named(peer);
        if self.rng.u32(..4) == 0 {
            id = self.invent(peer).0;
        }
        let branch = match peer {
            Peer::Session(_) if self.rng.u32(..3) == 0 => Some(self.some_victim()),
            Peer::Session(own) => {
                let mut of_own = roster.iter().flat_map(|roster| roster.iter());
                let same = of_own.find(|branch| branch.participant == own.participant);
                Some(same.unwrap_or(own).clone())
            }
            Peer::Initiator(_) if self.rng.bool() => Some(self.some_victim()),
            Peer::Initiator(_) | Peer::Replica(_) | Peer::Operator(_) => None,
        };
        let voter = if self.rng.bool() {
            Voter::Gone
        } else {
            Voter::Unknown
        };
        let question = Question {
            id,
            branch,
            voter,
            vote_timeout: self.some_timeout(),
        };
        self.say(peer, &Message::Ask(question));
        self.say(peer, &Message::ForceAbort { id });
    }

    fn inquire(&mut self, peer: &Peer) {
        let (id, _) = self.some_named(peer);
        self.say(peer, &Message::Inquire { txn: id.txn });
        let participant = self.some_victim().participant;
        self.say(peer, &Message::Resolve { participant });
    }

    fn begin_commit(&mut self, peer: &Peer) {
        let named = self.some_named(peer);
        let (id, roster) = match named {
            (id, Some(roster)) if Peer::Initiator(id.txn.initiator) == *peer => (id, roster),
            _ => self.invent(peer),
        };
        // Services work for it as for anybody.
        if self.rng.bool() {
            self.work_for(id.txn, &roster);
        }
        let request = self.rng.bool().then(|| Request(vec![6].into()));
        let requests = if self.rng.bool() {
            vec![request; roster.len()]
        } else {
            Vec::new()
        };
        let begin = BeginCommit {
            id,
            requests,
            floor: self.some_floor(id.txn),
            vote_timeout: self.some_timeout(),
            roster,
        };
        self.say(peer, &Message::BeginCommit(begin));
    }

    fn some_floor(&mut self, txn: TxnId) -> u32 {
        match self.rng.u32(..4) {
            0 => u32::MAX,
            1 => txn.sequence,
            2 => txn.sequence.saturating_add(1),
            _ => 0,
        }
    }

    fn rollback(&mut self, peer: &Peer) {
        let txn = self.invented_txn(peer);
        self.rollback_of(peer, txn);
    }

    fn rollback_of(&mut self, peer: &Peer, txn: TxnId) {
        let branches: Vec<Branch> = (0..4).map(|_| self.some_victim()).collect();
        let floor = self.some_floor(txn);
        let rollback = Message::Rollback {
            txn,
            branches,
            floor,
        };
        self.say(peer, &rollback);
    }

    /// Many transactions that are begun, or rolled back, at once.
    fn flood(&mut self, peer: &Peer) {
        for _ in 0..FLOOD {
            let txn = self.invented_txn(peer);
            if self.rng.bool() {
                self.rollback_of(peer, txn);
            } else {
                self.begin_commit(peer);
            }
        }
    }

    /// The honest sessions of the roster are told to begin work.
    fn work_for(&mut self, txn: TxnId, roster: &Roster) {
        for session in 0..self.sessions.len() {
            if roster.index_of(&self.sessions[session].config.me).is_some() {
                self.call(session, ParticipantCommand::Begin(txn));
            }
        }
    }

    fn call(&mut self, session: usize, command: ParticipantCommand) {
        let life = self.sessions[session].life;
        let after = self.delay();
        let event = Event::Service {
            session,
            life,
            command,
        };
        self.schedule(after, event);
    }

    /// A caller gives an honest service ids and plans that are invented.
    fn call_service(&mut self, peer: &Peer) {
        if self.hostile.left == 0 {
            return;
        }
        self.hostile.left -= 1;
        let session = self.rng.usize(..self.sessions.len());
        let victim = self.sessions[session].config.me.clone();
        let txn = self.invented_txn(peer);
        // The service takes no id of a transaction that others told it of.
        if self.hostile.honest.contains(&txn) {
            return;
        }
        if self.rng.bool() {
            self.call(session, ParticipantCommand::Begin(txn));
        }
        if chance(&mut self.rng, 0.7) {
            let mut branches = vec![victim];
            if let Peer::Session(own) = peer {
                branches.push(own.clone());
            }
            let roster = Roster::new(branches).expect("two distinct branches");
            let prepare = Prepare {
                id: CommitId::new(txn, &roster),
                roster,
                request: None,
                read_only: ReadOnly::Forbidden,
                floor: self.some_floor(txn),
                vote_timeout: self.some_timeout(),
            };
            self.taint_instance(prepare.id, None);
            self.call(session, ParticipantCommand::Prepare(prepare));
        }
    }
}

fn cast(id: CommitId, roster: &Roster, vote: Vote, vote_timeout: Duration) -> Message {
    Message::Vote(CastVote {
        id,
        roster: roster.clone(),
        vote,
        vote_timeout,
    })
}
