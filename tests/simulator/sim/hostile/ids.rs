//! The ids and rosters that an attack names.

use paxos_commit::protocol::types::{Branch, CommitId, InitiatorId, Peer, Roster, Session, TxnId};

use super::super::plant::Plant;
use super::{Named, World};

/// Of many instances, the latest are the most interesting.
const RECENT: usize = 12;

/// A nonce that a client could guess if it were not drawn at random.
const GUESSED_NONCE: u64 = 7;

impl World {
    /// The nonce of an honest transaction.
    pub fn some_nonce(&mut self) -> u64 {
        let drawn = self.rng.u64(..);
        match self.options.plant {
            Some(Plant::ConstantNonce) => GUESSED_NONCE,
            _ => drawn,
        }
    }

    /// A transaction id that `peer` makes up.
    pub fn invented_txn(&mut self, peer: &Peer) -> TxnId {
        let initiator = match peer {
            Peer::Initiator(id) => *id,
            Peer::Session(_) | Peer::Replica(_) | Peer::Operator(_) => self.some_initiator(),
        };
        TxnId {
            generation: self.some_generation(),
            initiator,
            sequence: self.some_sequence(initiator),
            nonce: match self.rng.u32(..4) {
                0 => self.rng.u64(..),
                1 => 0,
                _ => GUESSED_NONCE,
            },
        }
    }

    /// An honest initiator, or one that does not exist.
    fn some_initiator(&mut self) -> InitiatorId {
        if self.rng.u32(..4) == 0 {
            return InitiatorId::from_u128(self.rng.u128(..));
        }
        let index = self.rng.usize(..self.initiators.len());
        self.initiators[index].config.id
    }

    /// Open, closed, settled, or not open yet.
    fn some_generation(&mut self) -> u32 {
        let latest = self.facts.generations().latest();
        match self.rng.u32(..12) {
            0 => 0,
            1 => latest + 1,
            2 => latest + 2,
            3 => u32::MAX,
            4 => self.rng.u32(1..=latest),
            5 | 6 => latest.saturating_sub(1),
            _ => latest,
        }
    }

    /// Sequence numbers count upwards, so the next ones are easy to guess.
    fn some_sequence(&mut self, initiator: InitiatorId) -> u32 {
        let mut hosts = self.initiators.iter();
        let host = hosts.find(|node| node.config.id == initiator);
        let floor = host.and_then(|node| node.host.as_ref());
        let floor = floor.map_or(0, |host| host.floor());
        match self.rng.u32(..10) {
            0 => u32::MAX,
            1 => self.rng.u32(..),
            2 => self.rng.u32(..1_000),
            _ => floor.saturating_add(self.rng.u32(..6)),
        }
    }

    /// An honest session; or one of an honest participant that does not exist.
    pub fn some_victim(&mut self) -> Branch {
        let index = self.rng.usize(..self.sessions.len());
        let mut branch = self.sessions[index].config.me.clone();
        if self.rng.u32(..8) == 0 {
            branch.session = Session(self.rng.u64(..));
        }
        branch
    }

    /// Another session of any hostile participant.
    fn some_accomplice(&mut self) -> Option<Branch> {
        let all: Vec<Branch> = self.hostile.sessions().cloned().collect();
        (!all.is_empty()).then(|| all[self.rng.usize(..all.len())].clone())
    }

    /// A roster that `peer` makes up: itself alone, itself and victims, victims only.
    pub fn invented_roster(&mut self, peer: &Peer) -> Roster {
        let mut branches = match peer {
            Peer::Session(own) => vec![own.clone()],
            Peer::Initiator(_) | Peer::Replica(_) | Peer::Operator(_) => Vec::new(),
        };
        for _ in 0..self.rng.usize(..3) {
            branches.push(self.some_victim());
        }
        if self.rng.u32(..4) == 0 {
            branches.extend(self.some_accomplice());
        }
        if branches.is_empty() {
            branches.push(self.some_victim());
        }
        branches.sort();
        branches.dedup();
        Roster::new(branches).expect("a few distinct branches")
    }

    /// An instance that `peer` makes up and remembers.
    pub fn invent(&mut self, peer: &Peer) -> (CommitId, Roster) {
        // Sometimes another roster for a transaction that is known.
        let known = self.hostile.told_txns.len();
        let txn = if known > 0 && self.rng.u32(..3) == 0 {
            let from = known.saturating_sub(RECENT);
            self.hostile.told_txns[self.rng.usize(from..known)]
        } else {
            self.invented_txn(peer)
        };
        let txn = match peer {
            Peer::Initiator(own) if txn.initiator != *own => self.invented_txn(peer),
            _ => txn,
        };
        let roster = self.invented_roster(peer);
        let id = CommitId::new(txn, &roster);
        self.hostile.invented.push((id, Some(roster.clone())));
        (id, roster)
    }

    /// An instance that they were told of or have made up before; or a new one.
    pub fn some_named(&mut self, peer: &Peer) -> Named {
        let (told, invented) = (self.hostile.told.len(), self.hostile.invented.len());
        match self.rng.u32(..4) {
            0 | 1 if told > 0 => {
                let from = told.saturating_sub(RECENT);
                self.hostile.told[self.rng.usize(from..told)].clone()
            }
            2 if invented > 0 => {
                let from = invented.saturating_sub(RECENT);
                self.hostile.invented[self.rng.usize(from..invented)].clone()
            }
            _ => {
                let (id, roster) = self.invent(peer);
                (id, Some(roster))
            }
        }
    }
}
