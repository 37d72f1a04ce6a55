//! The front: who is connected, whether something new is taken on, and what was put away.
//!
//! | file | role |
//! |---|---|
//! | `admitting` | places, counted per name: whether something new is taken on when there is much |
//! | `stored` | up to where the store may hold transactions that are not in memory |
//!
//! Nothing here is saved, and no outcome is decided here.

mod admitting;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::message::Message;
use crate::protocol::types::{Branch, Generations, Opening, ParticipantName, Peer, TxnId};

use super::config::ReplicaConfig;
use super::terms::Terms;
use super::vocabulary::{Out, Rejection};

use admitting::Places;

pub(super) use admitting::{Cost, Place};
pub use stored::Stored;

/// Who is connected, who holds how many places, and what was put away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Front {
    /// The sessions that are connected, by participant.
    directory: BTreeMap<ParticipantName, BTreeSet<Branch>>,
    /// Those among them that have presented themselves, with what they have open.
    presented: BTreeMap<Branch, Option<Opening>>,
    /// The initiators and operators that are connected.
    clients: BTreeSet<Peer>,
    /// Because of whom how many transactions were taken on.
    places: Places,
    /// Up to where the store may hold what is not in memory.
    stored: Stored,
}

impl Front {
    /// A session or a client is connected.
    pub(super) fn connect(&mut self, peer: &Peer) {
        match peer {
            Peer::Replica(_) => {}
            Peer::Session(branch) => {
                let sessions = self.directory.entry(branch.participant.clone());
                sessions.or_default().insert(branch.clone());
            }
            Peer::Initiator(_) | Peer::Operator(_) => drop(self.clients.insert(peer.clone())),
        }
    }

    /// A session that is no longer connected may still live: nothing is concluded from it.
    pub(super) fn disconnect(&mut self, peer: &Peer) {
        self.clients.remove(peer);
        let Peer::Session(branch) = peer else {
            return;
        };
        self.presented.remove(branch);
        if let Some(sessions) = self.directory.get_mut(&branch.participant) {
            sessions.remove(branch);
            if sessions.is_empty() {
                self.directory.remove(&branch.participant);
            }
        }
    }

    /// A session that is connected says what it has open. Says whether it is connected.
    pub(super) fn present(&mut self, session: &Branch, opening: Option<Opening>) -> bool {
        let sessions = self.directory.get(&session.participant);
        let is_connected = sessions.is_some_and(|sessions| sessions.contains(session));
        if is_connected {
            self.presented.insert(session.clone(), opening);
        }
        is_connected
    }

    /// The sessions that have presented themselves, with what they have open.
    pub(super) fn presented(&self) -> impl Iterator<Item = (&Branch, Option<Opening>)> + '_ {
        self.presented.iter().map(|(session, of)| (session, *of))
    }

    /// The participants of which a session is connected, and those sessions.
    pub(super) fn directory(
        &self,
    ) -> impl Iterator<Item = (&ParticipantName, &BTreeSet<Branch>)> + '_ {
        self.directory.iter()
    }

    /// Everyone who is connected, other replicas excepted.
    pub(super) fn everyone(&self) -> impl Iterator<Item = Peer> + '_ {
        let sessions = self.directory.values().flatten().cloned();
        let clients = self.clients.iter().cloned();
        clients.chain(sessions.map(Peer::Session))
    }

    /// The session to which a branch's outcome is pushed: its own, else another in turns.
    pub(super) fn session_for(&self, branch: &Branch, attempt: u32) -> Option<&Branch> {
        let sessions = self.directory.get(&branch.participant)?;
        if let Some(own) = sessions.get(branch) {
            return Some(own);
        }
        // Only a session of the same store can finish it.
        let others: Vec<&Branch> = sessions
            .iter()
            .filter(|session| session.store == branch.store)
            .collect();
        let index = (attempt as usize).checked_rem(others.len())?;
        others.get(index).copied()
    }

    /// Whether a session of the store that holds this branch is connected.
    pub(super) fn is_here(&self, branch: &Branch) -> bool {
        let sessions = self.directory.get(&branch.participant);
        sessions.is_some_and(|sessions| sessions.iter().any(|it| it.store == branch.store))
    }

    /// The connected sessions of a participant that may work, as far as is known here.
    pub(super) fn working<'f>(
        &'f self,
        participant: &ParticipantName,
        terms: Terms<'f>,
    ) -> impl Iterator<Item = &'f Branch> + 'f {
        let sessions = self.directory.get(participant).into_iter().flatten();
        sessions.filter(move |session| {
            let presented = self.presented.get(session);
            presented.is_some_and(|opening| terms.may_work(session, *opening))
        })
    }

    /// Which sessions of this participant are connected, and may work under its name?
    pub(super) fn on_resolve(
        &self,
        from: &Peer,
        participant: ParticipantName,
        terms: Terms<'_>,
        out: &mut Out,
    ) -> Result<(), Rejection> {
        match from {
            Peer::Initiator(_) | Peer::Operator(_) => {}
            Peer::Replica(_) | Peer::Session(_) => return Err(Rejection::NotFromSuchAPeer),
        }
        let branches = self.working(&participant, terms).cloned().collect();
        let resolved = Message::Resolved {
            participant,
            branches,
        };
        out.send(from.clone(), resolved);
        Ok(())
    }

    /// Up to where the store may hold what is not in memory.
    pub(super) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// What the store holds besides the records that this replica has recovered from.
    pub(super) fn take_stored(&mut self, stored: Stored, generations: &Generations) {
        self.stored.merge(stored);
        self.stored.forget_settled(generations);
    }

    /// The store holds this transaction, and the memory does not.
    pub(super) fn note_stored(&mut self, txn: TxnId) {
        self.stored.note(txn);
    }

    /// What belongs to generations that are settled is given back.
    pub(super) fn forget_settled(&mut self, generations: &Generations) {
        self.stored.forget_settled(generations);
        self.places.forget_settled(generations);
    }

    /// Whether the name of `from` has so many places that not even its votes in known transactions
    /// are taken: what waits for it must end first.
    pub(super) fn is_exhausted(&self, from: &Peer, config: &ReplicaConfig) -> bool {
        self.places.is_exhausted(from, config)
    }

    /// The places, to be taken and given back.
    pub(super) fn places_mut(&mut self) -> &mut Places {
        &mut self.places
    }
}
