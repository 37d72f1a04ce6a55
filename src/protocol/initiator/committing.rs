//! Begin, commit; and learn the outcome by itself.

use std::time::Duration;

use crate::protocol::effects::{Effects, TimerOp};
use crate::protocol::learn::OutcomeLearner;
use crate::protocol::message::{BeginCommit, Message};
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use crate::protocol::types::{
    Branch, CommitId, Openness, Outcome, Peer, REQUEST_BYTES_MAX, Request, Roster, TxnId,
};

use super::retrying::{Retry, Wanted};
use super::{CommitError, Initiator, InitiatorNotice, InitiatorTimer, PrepareBy};

/// How far a transaction of this initiator is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Work goes on under it.
    Begun(TxnId),
    /// A plan was handed out: the branches may prepare by themselves at any time. The application
    /// has asked for nothing yet.
    Planned {
        /// What is asked for when the application asks.
        commit: Box<Committing>,
        /// The outcome, if replicas reported it before the application asked.
        known: Option<Outcome>,
    },
    /// An end was asked for; no outcome is known.
    Committing(Box<Committing>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Committing {
    pub(super) begin: BeginCommit,
    pub(super) prepare: PrepareBy,
    pub(super) wanted: Wanted,
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
    pub(super) fn begin(&mut self, nonce: u64, out: &mut Effects<Self>) {
        let Some(sequence) = self.next else {
            out.notify.push(InitiatorNotice::SequenceExhausted);
            return;
        };
        self.next = sequence.checked_add(1);
        let generation = self.generations.latest();
        let txn = TxnId {
            generation,
            initiator: self.config.id,
            sequence,
            nonce,
        };
        self.open.insert(sequence, Phase::Begun(txn));
        out.notify.push(InitiatorNotice::Begun(txn));
    }

    pub(super) fn commit(
        &mut self,
        txn: TxnId,
        mut branches: Vec<(Branch, Option<Request>)>,
        prepare: PrepareBy,
        vote_timeout: Duration,
        out: &mut Effects<Self>,
    ) -> Result<(), CommitError> {
        // The roster is fixed once: a second one would be a second instance.
        if let Some(id) = self.commit_id(txn) {
            out.notify.push(InitiatorNotice::Asked(id));
            self.commit_planned(id, prepare, out);
            return Ok(());
        }
        let acceptors = self.acceptors_of_begun(txn)?;
        branches.sort_unstable();
        let (branches, requests): (Vec<_>, Vec<_>) = branches.into_iter().unzip();
        let roster = Roster::new(branches)?;
        let requests = check_requests(requests, prepare)?;
        let begin = BeginCommit {
            id: CommitId::new(txn, &roster),
            roster,
            requests,
            floor: self.floor(),
            vote_timeout,
        };
        let committing = self.committing_with(begin, prepare, acceptors);
        out.notify.push(InitiatorNotice::Asked(committing.begin.id));
        self.start(committing, out);
        Ok(())
    }

    /// What is asked for when an end is asked for.
    pub(super) fn committing_with(
        &self,
        begin: BeginCommit,
        prepare: PrepareBy,
        acceptors: Acceptors,
    ) -> Committing {
        Committing {
            begin,
            prepare,
            wanted: Wanted::Outcome,
            relay: self.relay_from(self.relay, &acceptors),
            acceptors,
            learner: OutcomeLearner::default(),
            hedges: 0,
            retry: Retry::new(&self.config),
        }
    }

    /// Asks for the first time: the relay for votes, if there is one.
    pub(super) fn start(&mut self, committing: Committing, out: &mut Effects<Self>) {
        let id = committing.begin.id;
        if committing.prepare == PrepareBy::Relay {
            let begin = committing.begin.clone();
            out.send(committing.relay(), Message::BeginCommit(begin));
            out.set(InitiatorTimer::Hedge(id), self.config.hedge_delay);
        }
        let phase = Phase::Committing(Box::new(committing));
        self.open.insert(id.txn.sequence, phase);
        self.tick_while_open(out);
    }

    /// The replicas that decide a transaction for which no end was asked so far.
    pub(super) fn acceptors_of_begun(&self, txn: TxnId) -> Result<Acceptors, CommitError> {
        if !self.is_begun(txn) {
            return Err(CommitError::NotOpen(txn));
        }
        // Replicas accept a transaction that is new to them in the two latest generations only.
        let acceptors = match self.generations.openness(txn.generation) {
            Openness::Open => self.generations.acceptors(txn.generation),
            Openness::Unknown | Openness::Closed | Openness::Settled => None,
        };
        let acceptors = acceptors.ok_or(CommitError::GenerationClosed(txn))?;
        Ok(acceptors.clone())
    }

    pub(super) fn abandon(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        self.questions.retain(|id, _| id.txn != txn);
        if !self.is_open(txn) {
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
        let Some(fixed) = self.fixed(id) else {
            return;
        };
        let (acceptors, learner) = (&fixed.acceptors, &mut fixed.learner);
        if let Some(outcome) = learner.on_phase2b(acceptors, from, ballot, outcome) {
            self.on_outcome(id, outcome, out);
        }
    }

    pub(super) fn on_outcome(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        let was_asked = self.questions.remove(&id).is_some();
        if let Some(Phase::Planned { known, .. }) = self.phase(id) {
            *known = Some(outcome);
        }
        let ended = self.end(id, out);
        if ended.is_some() || was_asked {
            out.notify.push(InitiatorNotice::Outcome { id, outcome });
        }
        if let Some(ended) = ended
            && ended.wanted == Wanted::Ballot
            && outcome == Outcome::Abort
        {
            self.release_branches(id.txn, ended.begin.roster.iter().cloned().collect(), out);
        }
    }

    /// The transaction is settled, and no commit that waits: its outcome is forgotten.
    pub(super) fn on_expired(&mut self, id: CommitId, out: &mut Effects<Self>) {
        let was_asked = self.questions.remove(&id).is_some();
        if self.end(id, out).is_some() || was_asked {
            out.notify.push(InitiatorNotice::Expired { id });
        }
    }

    /// Removes the commit `id`, if one was asked for.
    fn end(&mut self, id: CommitId, out: &mut Effects<Self>) -> Option<Box<Committing>> {
        self.committing(id)?;
        match self.open.remove(&id.txn.sequence)? {
            Phase::Committing(committing) => {
                out.timers.push(TimerOp::Cancel(InitiatorTimer::Hedge(id)));
                Some(committing)
            }
            Phase::Begun(_) | Phase::Planned { .. } => None,
        }
    }

    pub(super) fn is_begun(&self, txn: TxnId) -> bool {
        self.open.get(&txn.sequence) == Some(&Phase::Begun(txn))
    }

    /// Whether the transaction has begun here and not ended. (One that differs in the nonce alone is
    /// another one, of which this initiator knows nothing.)
    fn is_open(&self, txn: TxnId) -> bool {
        let phase = self.open.get(&txn.sequence);
        phase.is_some_and(|phase| phase.txn() == txn)
    }

    /// The instance that decides `txn`, once its roster is fixed: it is planned, or commit was asked
    /// for. None if it is not open here.
    pub fn commit_id(&self, txn: TxnId) -> Option<CommitId> {
        let fixed = self.open.get(&txn.sequence)?.fixed()?;
        (fixed.begin.id.txn == txn).then_some(fixed.begin.id)
    }

    /// How far the transaction of this instance is, if its roster is fixed.
    pub(super) fn phase(&mut self, id: CommitId) -> Option<&mut Phase> {
        if self.commit_id(id.txn) != Some(id) {
            return None;
        }
        self.open.get_mut(&id.txn.sequence)
    }

    pub(super) fn fixed(&mut self, id: CommitId) -> Option<&mut Committing> {
        match self.phase(id)? {
            Phase::Planned { commit, .. } | Phase::Committing(commit) => Some(commit),
            Phase::Begun(_) => None,
        }
    }

    pub(super) fn committing(&mut self, id: CommitId) -> Option<&mut Committing> {
        match self.phase(id)? {
            Phase::Committing(committing) => Some(committing),
            Phase::Begun(_) | Phase::Planned { .. } => None,
        }
    }
}

impl Phase {
    fn txn(&self) -> TxnId {
        match self {
            Phase::Begun(txn) => *txn,
            Phase::Planned { commit, .. } | Phase::Committing(commit) => commit.begin.id.txn,
        }
    }

    fn fixed(&self) -> Option<&Committing> {
        match self {
            Phase::Planned { commit, .. } | Phase::Committing(commit) => Some(commit),
            Phase::Begun(_) => None,
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
