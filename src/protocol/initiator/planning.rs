//! Plans, and rollback: once a plan has left the initiator, only an outcome ends the transaction.
//!
//! Services that hold a plan prepare by themselves. They may have voted, applied the commit and been
//! forgotten before the application asks. (The counter-example to a refusal: a plan is handed out,
//! its services commit, two generations open, and the application is told "roll it back and do it
//! again".)

use std::time::Duration;

use crate::protocol::effects::{Effects, TimerOp};
use crate::protocol::message::{BeginCommit, Message};
use crate::protocol::types::{Branch, CommitId, Openness, Outcome, ROSTER_MAX, Roster, TxnId};

use super::committing::{Committing, Phase};
use super::retrying::{Retry, Wanted};
use super::{CommitError, Initiator, InitiatorNotice, InitiatorTimer, PrepareBy};

impl Initiator {
    /// Fixes the roster, once: asked again, it answers with the same id.
    pub(super) fn plan(
        &mut self,
        txn: TxnId,
        branches: Vec<Branch>,
        vote_timeout: Duration,
    ) -> Result<CommitId, CommitError> {
        if let Some(id) = self.commit_id(txn) {
            return Ok(id);
        }
        let acceptors = self.acceptors_of_begun(txn)?;
        let roster = Roster::new(branches)?;
        let begin = BeginCommit {
            id: CommitId::new(txn, &roster),
            roster,
            requests: Vec::new(),
            floor: self.floor(),
            vote_timeout,
        };
        let id = begin.id;
        let commit = self.committing_with(begin, PrepareBy::Itself, acceptors);
        let phase = Phase::Planned {
            commit: Box::new(commit),
            known: None,
        };
        self.open.insert(txn.sequence, phase);
        Ok(id)
    }

    /// Commit is asked for, of a planned transaction. This is a question and never refused.
    pub(super) fn commit_planned(
        &mut self,
        id: CommitId,
        prepare: PrepareBy,
        out: &mut Effects<Self>,
    ) {
        let Some((mut commit, known)) = self.take_planned(id) else {
            return;
        };
        if let Some(outcome) = known {
            out.notify.push(InitiatorNotice::Outcome { id, outcome });
            return;
        }
        commit.relay = self.relay_from(self.relay, &commit.acceptors);
        commit.retry = Retry::new(&self.config);
        let is_open = self.generations.openness(id.txn.generation) == Openness::Open;
        if is_open {
            commit.prepare = prepare;
        }
        self.start(commit, out);
        if !is_open {
            // Replicas that do not know it yet will not begin it now.
            self.ask(id, Wanted::Outcome, 0, out);
        }
    }

    pub(super) fn rollback(&mut self, txn: TxnId, branches: Vec<Branch>, out: &mut Effects<Self>) {
        if let Some(id) = self.commit_id(txn) {
            self.rollback_by_ballot(id, out);
            return;
        }
        if !self.is_begun(txn) {
            let error = CommitError::NotOpen(txn);
            out.notify.push(InitiatorNotice::Refused { txn, error });
            return;
        }
        self.open.remove(&txn.sequence);
        self.release_branches(txn, branches, out);
    }

    /// Replicas decide now. The outcome is told, whatever it is.
    fn rollback_by_ballot(&mut self, id: CommitId, out: &mut Effects<Self>) {
        if let Some((mut commit, known)) = self.take_planned(id) {
            commit.wanted = Wanted::Ballot;
            let phase = Phase::Committing(Box::new(commit));
            self.open.insert(id.txn.sequence, phase);
            if let Some(outcome) = known {
                self.on_outcome(id, outcome, out);
                return;
            }
        }
        let retry = Retry::new(&self.config);
        let Some(committing) = self.committing(id) else {
            return;
        };
        if committing.prepare == PrepareBy::Relay {
            out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
        }
        committing.prepare = PrepareBy::Itself;
        committing.wanted = Wanted::Ballot;
        committing.retry = retry;
        self.ask(id, Wanted::Ballot, 0, out);
        self.tick_while_open(out);
    }

    /// Branches that have not prepared release their work; others take no notice.
    pub(super) fn release_branches(
        &mut self,
        txn: TxnId,
        branches: Vec<Branch>,
        out: &mut Effects<Self>,
    ) {
        let floor = self.floor();
        for branches in branches.chunks(ROSTER_MAX) {
            let branches = branches.to_vec();
            let rollback = Message::Rollback {
                txn,
                branches,
                floor,
            };
            self.send_to_all(Some(txn), &rollback, out);
        }
    }

    /// Removes a planned transaction, for which something is asked now.
    fn take_planned(&mut self, id: CommitId) -> Option<(Committing, Option<Outcome>)> {
        if !matches!(self.phase(id), Some(Phase::Planned { .. })) {
            return None;
        }
        match self.open.remove(&id.txn.sequence)? {
            Phase::Planned { commit, known } => Some((*commit, known)),
            Phase::Begun(_) | Phase::Committing(_) => None,
        }
    }
}
