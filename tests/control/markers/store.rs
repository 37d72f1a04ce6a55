//! A store with the session in front of it: the session is the product's own, the resource manager
//! follows the rules of markers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::{
    InDoubt, Owner, Participant, ParticipantCommand, ParticipantConfig, ParticipantNotice,
};
use paxos_commit::protocol::types::{
    Branch, CommitId, Configuration, Generations, Outcome, Peer, Session, StoreId,
};
use paxos_commit::protocol::{Effects, Host, Input};

use crate::cast::branch;

use super::bounds::Plant;

/// The stores: of the first branch, of the second branch, and the second store of the first
/// participant.
pub(crate) const STORES: usize = 3;

/// The store that no roster names.
pub(crate) const SECOND: usize = 2;

/// Each store has two sessions, one after the other. Neither of them prepared the branch, so neither
/// remembers anything of it.
pub(crate) const SESSIONS: usize = 2 * STORES;

/// The number of a session: of this run, in front of this store.
pub(crate) fn session(store: usize, run: u8) -> usize {
    2 * store + usize::from(run)
}

/// The name of a session.
pub(crate) fn name_of(session: usize, plant: Option<Plant>) -> Branch {
    let store = session / 2;
    let of = branch(store % 2);
    let is_ignored = plant == Some(Plant::IdentityIgnored);
    Branch {
        session: Session(10 + session as u64),
        store: match store {
            SECOND if !is_ignored => StoreId::from_u128(2),
            _ => of.store,
        },
        ..of
    }
}

/// A session that has just connected, and was greeted with these generations.
pub(crate) fn connected(me: Branch, generations: Generations) -> Participant {
    let config = ParticipantConfig::joining(me, generations);
    Participant::entered(config)
}

/// What a store holds of its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kept {
    /// Neither the branch nor a marker.
    Nothing,
    /// The branch stands prepared.
    Prepared,
    /// The branch is committed, and a marker proves it.
    Marked,
    /// The branch is committed, and its marker was deleted.
    Unmarked,
    /// The branch was rolled back.
    RolledBack,
}

impl Kept {
    pub(crate) fn is_committed(self) -> bool {
        matches!(self, Kept::Marked | Kept::Unmarked)
    }

    /// What the session's scan finds.
    pub(crate) fn in_doubt(self, id: CommitId) -> Vec<InDoubt> {
        let found = InDoubt {
            id,
            session: branch(0).session,
            owner: Owner::Gone,
        };
        Vec::from_iter((self == Kept::Prepared).then_some(found))
    }

    /// The resource manager does what the session asks for.
    fn work(&mut self, id: CommitId, notice: ParticipantNotice) -> Option<ParticipantCommand> {
        match notice {
            ParticipantNotice::Finish {
                id,
                branch,
                outcome,
            } => {
                *self = match (outcome, *self) {
                    (Outcome::Commit, Kept::Prepared) => Kept::Marked,
                    (Outcome::Commit, Kept::Marked) => Kept::Marked,
                    (Outcome::Commit, Kept::Nothing | Kept::Unmarked | Kept::RolledBack) => {
                        return Some(ParticipantCommand::NotProven { id, branch });
                    }
                    (Outcome::Abort, Kept::Prepared) => Kept::RolledBack,
                    (Outcome::Abort, kept) => kept,
                };
                Some(ParticipantCommand::Finished { id, branch })
            }
            ParticipantNotice::Expired { id, branch } => {
                if *self == Kept::Prepared {
                    *self = Kept::RolledBack;
                    return Some(ParticipantCommand::Finished { id, branch });
                }
                Some(ParticipantCommand::NotPrepared { id, branch })
            }
            ParticipantNotice::Settled { through, listed } => {
                let is_listed = listed.iter().any(|(of, _)| *of == id);
                if *self == Kept::Marked && id <= through && !is_listed {
                    *self = Kept::Unmarked;
                }
                None
            }
            _ => None,
        }
    }
}

/// A store and its session.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) session: Participant,
    pub(crate) kept: Kept,
    /// The session was told to commit what the store has no proof of, and waits.
    pub(crate) unproven: bool,
}

/// What came of a turn of a store.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) send: Vec<(Peer, Message)>,
    /// A marker proved the commit.
    pub(crate) proved: bool,
    /// The list was read, and the marker's commit is on it.
    pub(crate) listed: bool,
    /// The session has stopped waiting for proof.
    pub(crate) gave_up: bool,
    pub(crate) panicked: bool,
}

impl Store {
    /// The session takes one input, and the resource manager does at once what follows. (A resource
    /// manager that is slow is a message that is late.)
    pub(crate) fn turn(&mut self, id: CommitId, input: Input<Participant>) -> Turn {
        let mut turn = Turn::default();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Effects::default();
            let step = AssertUnwindSafe(|| self.session.step(input, &mut out));
            if catch_unwind(step).is_err() {
                turn.panicked = true;
                return turn;
            }
            for (to, message) in out.send {
                self.send(to, message, &mut turn);
            }
            for notice in out.notify {
                let before = self.kept;
                let is_page = matches!(notice, ParticipantNotice::Settled { .. });
                let answer = self.kept.work(id, notice);
                self.unproven |= matches!(answer, Some(ParticipantCommand::NotProven { .. }));
                let is_marked = (before, self.kept) == (Kept::Marked, Kept::Marked);
                let finished = matches!(answer, Some(ParticipantCommand::Finished { .. }));
                turn.proved |= is_marked && finished;
                turn.listed |= is_marked && is_page;
                inputs.extend(answer.map(Input::Command));
            }
        }
        if self.unproven && self.session.is_idle() {
            self.unproven = false;
            turn.gave_up = self.kept != Kept::Marked;
        }
        turn
    }

    /// A session that gets no answer to its question for the list asks the next replica. So the
    /// question goes to all of them here; the first that answers is the one that was asked.
    fn send(&self, to: Peer, message: Message, turn: &mut Turn) {
        if !matches!(message, Message::List { .. }) {
            turn.send.push((to, message));
            return;
        }
        let in_force = self.session.generations().in_force();
        let acceptors = in_force.map(Configuration::acceptors).into_iter();
        let all = acceptors.flat_map(|acceptors| acceptors.iter());
        turn.send
            .extend(all.map(|id| (Peer::Replica(id), message.clone())));
    }
}
