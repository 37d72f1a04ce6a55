//! Questions, and forced aborts.

use crate::protocol::message::{Message, Question, Undecided, Voter};
use crate::protocol::types::{Branch, CommitId, Peer, TxnId};

use crate::protocol::replica::terms::Standing;
use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::instance::{Instance, Waiter};
use super::{Instances, Turn};

impl Instances {
    /// What came of this transaction? Decided: told at once. Undecided: told why, and told the
    /// outcome when there is one; a ballot starts when the vote timeout has passed, or at once if
    /// the session that should vote is gone and its vote is not here. Asks are coalesced: while a
    /// ballot is under way no other one starts.
    pub(crate) fn on_ask(
        &mut self,
        from: &Peer,
        question: Question,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let id = question.id;
        let branch = self.check_asker(from, &question)?.cloned();
        if self.answer(from, branch.as_ref(), id, turn.terms, turn.out) {
            return Ok(());
        }
        if self.standing(&id, turn.terms) == Standing::Frozen {
            // The Settle of its generation decides it.
            let waiter = Waiter {
                peer: from.clone(),
                branch,
            };
            self.wait_for_settle(id, waiter, turn.out);
            return Ok(());
        }
        if !self.admits(from, id, turn) {
            return Ok(());
        }
        let patience = turn
            .terms
            .vote_ticks(question.vote_timeout, id.txn.generation);
        if self.take_on(from, id, patience, turn).is_none() {
            turn.out.send(from.clone(), Message::Busy { id });
            return Ok(());
        }
        let Some(instance) = self.under_way.get_mut(&id) else {
            return Ok(());
        };
        // Perhaps only the report was lost.
        if let Some((ballot, outcome)) = instance.acceptor.accepted() {
            let report = Message::Phase2b {
                id,
                ballot,
                outcome,
            };
            turn.out.send(from.clone(), report);
        }
        // Who asks for no branch knows of no session.
        let gone = question.voter == Voter::Gone && branch.is_some();
        let vain = gone && !instance.has_vote_of(branch.as_ref());
        instance.wait(Waiter {
            peer: from.clone(),
            branch,
        });
        if vain && self.recovery.ballot(&id).is_none() {
            self.start_ballots(vec![id], turn);
        }
        self.explain(from, id, turn.out);
        Ok(())
    }

    /// Forced abort: a ballot now. It ends in Commit if that may have been chosen already; the
    /// operator or the initiator is told what was chosen, whatever it is. (Whether the initiator's
    /// name owns the id is checked by the holder of the connection, as for [`on_ask`](Self::on_ask).)
    pub(crate) fn on_force_abort(
        &mut self,
        from: &Peer,
        id: CommitId,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        if self.answer(from, None, id, turn.terms, turn.out) {
            return Ok(());
        }
        let waiter = Waiter {
            peer: from.clone(),
            branch: None,
        };
        if self.standing(&id, turn.terms) == Standing::Frozen {
            self.wait_for_settle(id, waiter, turn.out);
            return Ok(());
        }
        if !self.admits(from, id, turn) {
            return Ok(());
        }
        let patience = turn.terms.shortest_vote_ticks(id.txn.generation);
        let instance = match from {
            Peer::Operator(_) => self.instance(id, patience),
            Peer::Initiator(_) | Peer::Session(_) | Peer::Replica(_) => {
                let Some(instance) = self.take_on(from, id, patience, turn) else {
                    turn.out.send(from.clone(), Message::Busy { id });
                    return Ok(());
                };
                instance
            }
        };
        instance.wait(waiter);
        if self.recovery.ballot(&id).is_none() {
            self.start_ballots(vec![id], turn);
        }
        self.explain(from, id, turn.out);
        Ok(())
    }

    /// What is known of this transaction? Starts nothing and remembers nobody.
    pub(crate) fn on_inquire(
        &mut self,
        from: &Peer,
        txn: TxnId,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        match from {
            Peer::Initiator(_) | Peer::Operator(_) | Peer::Session(_) => {}
            Peer::Replica(_) => return Err(Rejection::NotFromSuchAPeer),
        }
        let instances = self.of_txn(txn);
        if instances.is_empty() && turn.terms.generations.is_txn_settled(txn) {
            turn.out.send(from.clone(), Message::Forgotten { txn });
            return Ok(());
        }
        if let (true, Peer::Session(_)) = (instances.is_empty(), from) {
            // It may be a generation behind, or this replica may be.
            turn.out.send(
                from.clone(),
                Message::Announce(turn.terms.generations.clone()),
            );
            return Ok(());
        }
        turn.out
            .send(from.clone(), Message::Status { txn, instances });
        Ok(())
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
                let known = self.under_way.get(&question.id);
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
    fn wait_for_settle(&mut self, id: CommitId, waiter: Waiter, out: &mut Out) {
        let peer = waiter.peer.clone();
        if let Some(instance) = self.under_way.get_mut(&id) {
            instance.wait(waiter);
        }
        self.explain(&peer, id, out);
    }

    fn explain(&self, to: &Peer, id: CommitId, out: &mut Out) {
        if let Some(instance) = self.under_way.get(&id) {
            let undecided = Undecided {
                id,
                missing: instance.missing(),
                silent: self.recovery.silent(&id),
            };
            out.send(to.clone(), Message::Undecided(undecided));
        }
    }
}

/// Whether `session` may ask for the outcome of `branch` and apply it: it is of the same participant,
/// and has the store that holds the branch.
pub(crate) fn may_finish(session: &Branch, branch: &Branch) -> bool {
    session.participant == branch.participant && session.store == branch.store
}

impl Instance {
    fn has_vote_of(&self, branch: Option<&Branch>) -> bool {
        let index = branch.and_then(|branch| self.index_of(branch));
        index.is_some_and(|index| self.acceptor.any().contains(index))
    }
}
