//! Questions, forced abort, and the directory of connected sessions.

use crate::protocol::effects::Effects;
use crate::protocol::message::{Message, Question, State, Undecided, Voter};
use crate::protocol::types::{Branch, CommitId, Outcome, ParticipantName, Peer, TxnId};

use super::control::Standing;
use super::instance::{Instance, Phase, Waiter};
use super::status::finished;
use super::{Rejection, Replica};

impl Replica {
    /// What came of this transaction? Decided: told at once. Undecided: told why, and told the
    /// outcome when there is one; a ballot starts when the vote timeout has passed, or at once if
    /// the session that should vote is gone and its vote is not here. Asks are coalesced: while a
    /// ballot is under way no other one starts.
    pub(super) fn on_ask(
        &mut self,
        from: &Peer,
        question: Question,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let id = question.id;
        let branch = self.check_asker(from, &question)?.cloned();
        if self.answer(from, branch.as_ref(), id, out) {
            return Ok(());
        }
        if self.standing(&id) == Standing::Frozen {
            // The Settle of its generation decides it.
            let waiter = Waiter {
                peer: from.clone(),
                branch,
            };
            self.wait_for_settle(id, waiter, out);
            return Ok(());
        }
        if !self.admits(from, id, out) {
            return Ok(());
        }
        let patience = self.vote_ticks(question.vote_timeout, id.txn.generation);
        if self.take_on(from, id, patience).is_none() {
            out.send(from.clone(), Message::Busy { id });
            return Ok(());
        }
        let Some(instance) = self.instances.get_mut(&id) else {
            return Ok(());
        };
        // Perhaps only the report was lost.
        if let Some((ballot, outcome)) = instance.acceptor.accepted() {
            let report = Message::Phase2b {
                id,
                ballot,
                outcome,
            };
            out.send(from.clone(), report);
        }
        // Who asks for no branch knows of no session.
        let gone = question.voter == Voter::Gone && branch.is_some();
        let vain = gone && !instance.has_vote_of(branch.as_ref());
        instance.wait(Waiter {
            peer: from.clone(),
            branch,
        });
        if vain && self.recovery.ballot(&id).is_none() {
            self.start_ballots(vec![id], out);
        }
        self.explain(from, id, out);
        Ok(())
    }

    /// Forced abort: a ballot now. It ends in Commit if that may have been chosen already; the
    /// operator or the initiator is told what was chosen, whatever it is. (Whether the initiator's
    /// name owns the id is checked by the holder of the connection, as for [`on_ask`](Self::on_ask).)
    pub(super) fn on_force_abort(
        &mut self,
        from: &Peer,
        id: CommitId,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if self.answer(from, None, id, out) {
            return Ok(());
        }
        let waiter = Waiter {
            peer: from.clone(),
            branch: None,
        };
        if self.standing(&id) == Standing::Frozen {
            self.wait_for_settle(id, waiter, out);
            return Ok(());
        }
        if !self.admits(from, id, out) {
            return Ok(());
        }
        let patience = self.vote_ticks(self.config.vote_timeout_min, id.txn.generation);
        let instance = match from {
            Peer::Operator(_) => self.instance(id, patience),
            Peer::Initiator(_) | Peer::Session(_) | Peer::Replica(_) => {
                let Some(instance) = self.take_on(from, id, patience) else {
                    out.send(from.clone(), Message::Busy { id });
                    return Ok(());
                };
                instance
            }
        };
        instance.wait(waiter);
        if self.recovery.ballot(&id).is_none() {
            self.start_ballots(vec![id], out);
        }
        self.explain(from, id, out);
        Ok(())
    }

    /// What is known of this transaction? Starts nothing and remembers nobody.
    pub(super) fn on_inquire(
        &mut self,
        from: &Peer,
        txn: TxnId,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        match from {
            Peer::Initiator(_) | Peer::Operator(_) | Peer::Session(_) => {}
            Peer::Replica(_) => return Err(Rejection::NotFromSuchAPeer),
        }
        let ended = self.finished.range(Self::of_txn(txn));
        let ended = ended.map(|(id, end)| (*id, finished(end.outcome)));
        let under_way = self.instances.range(Self::of_txn(txn));
        let under_way = under_way.map(|(id, instance)| (*id, self.state_of(id, instance)));
        let mut instances: Vec<_> = ended.chain(under_way).collect();
        instances.sort_unstable();
        if instances.is_empty() && self.generations.is_txn_settled(txn) {
            out.send(from.clone(), Message::Forgotten { txn });
            return Ok(());
        }
        if let (true, Peer::Session(_)) = (instances.is_empty(), from) {
            // It may be a generation behind, or this replica may be.
            out.send(from.clone(), Message::Announce(self.generations.clone()));
            return Ok(());
        }
        out.send(from.clone(), Message::Status { txn, instances });
        Ok(())
    }

    /// Which sessions of this participant are connected, and may work?
    pub(super) fn on_resolve(
        &mut self,
        from: &Peer,
        participant: ParticipantName,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        match from {
            Peer::Initiator(_) | Peer::Operator(_) => {}
            Peer::Replica(_) | Peer::Session(_) => return Err(Rejection::NotFromSuchAPeer),
        }
        // Only those that may work under the name.
        let sessions = self.directory.get(&participant).into_iter().flatten();
        let branches = sessions.filter(|it| self.may_work(it)).cloned().collect();
        let resolved = Message::Resolved {
            participant,
            branches,
        };
        out.send(from.clone(), resolved);
        Ok(())
    }

    /// Whoever connects is told which generations there are.
    pub(super) fn on_connected(&mut self, peer: Peer, out: &mut Effects<Self>) {
        match &peer {
            Peer::Replica(replica) => {
                if self.log.is_none() {
                    self.fetch(*replica, out);
                }
                return;
            }
            Peer::Session(branch) => {
                let sessions = self.directory.entry(branch.participant.clone());
                sessions.or_default().insert(branch.clone());
            }
            Peer::Initiator(_) | Peer::Operator(_) => drop(self.clients.insert(peer.clone())),
        }
        out.send(peer, Message::Announce(self.generations.clone()));
    }

    /// A session that is no longer connected may still live: nothing is concluded from it.
    pub(super) fn on_disconnected(&mut self, peer: &Peer) {
        self.clients.remove(peer);
        let Peer::Session(branch) = peer else {
            return;
        };
        self.forget_session(branch);
        if let Some(sessions) = self.directory.get_mut(&branch.participant) {
            sessions.remove(branch);
            if sessions.is_empty() {
                self.directory.remove(&branch.participant);
            }
        }
    }

    /// The session to which a branch's outcome is pushed: its own, else another in turns.
    pub(super) fn session_for(&self, branch: &Branch, turn: u32) -> Option<&Branch> {
        let sessions = self.directory.get(&branch.participant)?;
        if let Some(own) = sessions.get(branch) {
            return Some(own);
        }
        // Only a session of the same store can finish it.
        let others: Vec<&Branch> = sessions
            .iter()
            .filter(|session| session.store == branch.store)
            .collect();
        let index = (turn as usize).checked_rem(others.len())?;
        others.get(index).copied()
    }

    /// A session asks for branches of its own participant that stand in the roster; anyone else
    /// for none. An outcome is told to those who take part, and to operators.
    ///
    /// Two things cannot be seen here. A roster that is not known: of what is finished only the
    /// outcome is left, and of what is new nothing; a session that waits and turns out to stand
    /// outside is told nothing. (So a session of another store of the name can be told to finish what
    /// is finished. It has no proof, and its Applied is not counted.) And whose ids are whose: an initiator that restarts has another name
    /// and asks about transactions of its former ones, so whoever holds the connection sees to it
    /// that an initiator asks for ids of its own only.
    fn check_asker<'q>(
        &self,
        from: &Peer,
        question: &'q Question,
    ) -> Result<Option<&'q Branch>, Rejection> {
        match (from, &question.branch) {
            (Peer::Session(asker), Some(branch)) if may_finish(asker, branch) => {
                let known = self.instances.get(&question.id);
                let roster = known.and_then(|instance| instance.roster.as_ref());
                match roster.map(|roster| roster.index_of(branch)) {
                    Some(None) => Err(Rejection::NotInRoster),
                    Some(Some(_)) | None => Ok(Some(branch)),
                }
            }
            (Peer::Session(_), _) => Err(Rejection::NotInRoster),
            (Peer::Initiator(_) | Peer::Operator(_), None) => Ok(None),
            (Peer::Initiator(_) | Peer::Operator(_) | Peer::Replica(_), _) => {
                Err(Rejection::NotFromSuchAPeer)
            }
        }
    }

    /// Its generation is frozen here: who asks is told when it is settled.
    fn wait_for_settle(&mut self, id: CommitId, waiter: Waiter, out: &mut Effects<Self>) {
        let peer = waiter.peer.clone();
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.wait(waiter);
        }
        self.explain(&peer, id, out);
    }

    fn explain(&self, to: &Peer, id: CommitId, out: &mut Effects<Self>) {
        if let Some(instance) = self.instances.get(&id) {
            let undecided = Undecided {
                id,
                missing: instance.missing(),
                silent: self.recovery.silent(&id),
            };
            out.send(to.clone(), Message::Undecided(undecided));
        }
    }

    pub(super) fn state_of(&self, id: &CommitId, instance: &Instance) -> State {
        match instance.phase {
            Phase::Undecided => State::Undecided {
                missing: instance.missing(),
                silent: self.recovery.silent(id),
            },
            Phase::Committed => State::Decided {
                outcome: Outcome::Commit,
                unapplied: instance.unapplied(),
            },
        }
    }
}

/// Whether `session` may ask for the outcome of `branch` and apply it: it is of the same participant,
/// and has the store that holds the branch.
pub(super) fn may_finish(session: &Branch, branch: &Branch) -> bool {
    session.participant == branch.participant && session.store == branch.store
}

impl Instance {
    fn has_vote_of(&self, branch: Option<&Branch>) -> bool {
        let index = branch.and_then(|branch| self.index_of(branch));
        index.is_some_and(|index| self.acceptor.any().contains(index))
    }
}
