//! Begin, commit, roll back; and learn the outcome by itself.

use std::time::Duration;

use crate::protocol::effects::{Effects, TimerOp};
use crate::protocol::learn::OutcomeLearner;
use crate::protocol::message::{BeginCommit, Message};
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use crate::protocol::types::{
    Branch, CommitId, Openness, Outcome, Peer, REQUEST_BYTES_MAX, ROSTER_MAX, Request, Roster,
    TxnId,
};

use super::retrying::Retry;
use super::{CommitError, Initiator, InitiatorNotice, InitiatorTimer, PrepareBy};

/// How far a transaction of this initiator is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Work goes on under it.
    Begun {
        /// Where it belongs.
        generation: u32,
    },
    /// Commit was asked for; no outcome is known.
    Committing(Box<Committing>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Committing {
    pub(super) begin: BeginCommit,
    pub(super) prepare: PrepareBy,
    /// The replicas that decide it.
    pub(super) acceptors: Acceptors,
    pub(super) learner: OutcomeLearner,
    /// The position of the replica that was asked last.
    pub(super) relay: usize,
    /// How many replicas were asked because the one before said nothing.
    pub(super) hedges: usize,
    pub(super) retry: Retry,
}

impl Initiator {
    pub(super) fn begin(&mut self, out: &mut Effects<Self>) {
        let Some(sequence) = self.next else {
            out.notify.push(InitiatorNotice::SequenceExhausted);
            return;
        };
        self.next = sequence.checked_add(1);
        let generation = self.generations.latest();
        self.open.insert(sequence, Phase::Begun { generation });
        let txn = TxnId {
            generation,
            initiator: self.config.id,
            sequence,
        };
        out.notify.push(InitiatorNotice::Begun(txn));
    }

    pub(super) fn commit(
        &mut self,
        txn: TxnId,
        mut branches: Vec<(Branch, Option<Request>)>,
        prepare: PrepareBy,
        vote_timeout: Duration,
        out: &mut Effects<Self>,
    ) -> Result<CommitId, CommitError> {
        // The roster is fixed once: a second one would be a second instance.
        if !self.is_begun(txn) {
            return Err(CommitError::NotOpen(txn));
        }
        // What nobody knows yet is taken on in the two latest generations only.
        let acceptors = match self.generations.openness(txn.generation) {
            Openness::Open => self.generations.acceptors(txn.generation),
            Openness::Unknown | Openness::Closed | Openness::Settled => None,
        };
        let acceptors = acceptors.ok_or(CommitError::GenerationClosed(txn))?;
        let acceptors = acceptors.clone();
        branches.sort_unstable();
        let (branches, requests): (Vec<_>, Vec<_>) = branches.into_iter().unzip();
        let roster = Roster::new(branches)?;
        let requests = check_requests(requests, prepare)?;
        let id = CommitId::new(txn, &roster);
        let committing = Committing {
            begin: BeginCommit {
                id,
                roster,
                requests,
                floor: self.floor(),
                vote_timeout,
            },
            prepare,
            relay: self.relay_from(self.relay, &acceptors),
            acceptors,
            learner: OutcomeLearner::default(),
            hedges: 0,
            retry: Retry::new(&self.config),
        };
        if prepare == PrepareBy::Relay {
            out.send(
                committing.relay(),
                Message::BeginCommit(committing.begin.clone()),
            );
            out.set(InitiatorTimer::Hedge(id), self.config.hedge_delay);
        }
        let phase = Phase::Committing(Box::new(committing));
        self.open.insert(txn.sequence, phase);
        self.tick_while_open(out);
        Ok(id)
    }

    pub(super) fn rollback(&mut self, txn: TxnId, branches: Vec<Branch>, out: &mut Effects<Self>) {
        if !self.is_begun(txn) {
            let error = CommitError::NotOpen(txn);
            out.notify.push(InitiatorNotice::Refused { txn, error });
            return;
        }
        self.open.remove(&txn.sequence);
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

    pub(super) fn abandon(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        self.questions.retain(|id, _| id.txn != txn);
        if !self.is_mine(txn) {
            return;
        }
        if let Some(Phase::Committing(committing)) = self.open.remove(&txn.sequence) {
            let timer = InitiatorTimer::Hedge(committing.begin.id);
            out.timers.push(TimerOp::Cancel(timer));
        }
    }

    pub(super) fn on_phase2b(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        let Some(committing) = self.committing(id) else {
            return;
        };
        let (acceptors, learner) = (&committing.acceptors, &mut committing.learner);
        if let Some(outcome) = learner.on_phase2b(acceptors, from, ballot, outcome) {
            self.on_outcome(id, outcome, out);
        }
    }

    pub(super) fn on_outcome(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        let was_asked = self.questions.remove(&id).is_some();
        let was_open = self.committing(id).is_some();
        if was_open {
            self.open.remove(&id.txn.sequence);
            out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
        }
        if was_open || was_asked {
            out.notify.push(InitiatorNotice::Outcome { id, outcome });
        }
    }

    /// The transaction is settled, and no commit that waits: its outcome is forgotten.
    pub(super) fn on_expired(&mut self, id: CommitId, out: &mut Effects<Self>) {
        let was_asked = self.questions.remove(&id).is_some();
        let was_open = self.committing(id).is_some();
        if was_open {
            self.open.remove(&id.txn.sequence);
            out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
        }
        if was_open || was_asked {
            out.notify.push(InitiatorNotice::Expired { id });
        }
    }

    fn is_begun(&self, txn: TxnId) -> bool {
        let generation = txn.generation;
        let begun = Phase::Begun { generation };
        self.is_mine(txn) && self.open.get(&txn.sequence) == Some(&begun)
    }

    pub(super) fn committing(&mut self, id: CommitId) -> Option<&mut Committing> {
        if !self.is_mine(id.txn) {
            return None;
        }
        match self.open.get_mut(&id.txn.sequence)? {
            Phase::Committing(committing) if committing.begin.id == id => Some(committing),
            Phase::Committing(_) | Phase::Begun { .. } => None,
        }
    }
}

impl Committing {
    /// The replica that was asked last.
    pub(super) fn relay(&self) -> Peer {
        let replica = self.acceptors.iter().nth(self.relay);
        Peer::Replica(replica.expect("the index is kept below the number of replicas"))
    }
}

fn check_requests(
    requests: Vec<Option<Request>>,
    prepare: PrepareBy,
) -> Result<Vec<Option<Request>>, CommitError> {
    let mut lengths = requests.iter().flatten().map(|request| request.0.len());
    let Some(longest) = lengths.by_ref().max() else {
        return Ok(Vec::new());
    };
    if longest > REQUEST_BYTES_MAX {
        return Err(CommitError::RequestTooLong { got: longest });
    }
    match prepare {
        PrepareBy::Relay => Ok(requests),
        PrepareBy::Itself => Err(CommitError::RequestWithoutRelay),
    }
}
