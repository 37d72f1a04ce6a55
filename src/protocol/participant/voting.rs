//! Up to the vote: begin, prepare, let go.

use crate::protocol::effects::Effects;
use crate::protocol::learn::OutcomeLearner;
use crate::protocol::message::{Message, Prepare, Voter};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, Openness, Outcome, Peer, ReadOnly, TxnId, Vote};

use super::branch::{Again, Done, Health, Phase, Preparing, Voted, Wait, WaitState, Working};
use super::{Participant, ParticipantNotice};

impl Participant {
    /// Work begins. A transaction that this session has let go of, or may have forgotten, cannot
    /// begin again.
    pub(super) fn begin(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        // In a closed generation nothing begins that could still be committed.
        let closed = self.generations.openness(txn.generation) == Openness::Closed;
        let below = closed || self.is_below_floor(txn);
        match self.branches.get(&txn) {
            None if !below => {
                let working = Working {
                    health: Health::Good,
                    age: 0,
                    pending: None,
                };
                self.branches.insert(txn, Phase::Working(working));
                out.notify.push(ParticipantNotice::Began(txn));
            }
            // To begin twice is to begin once.
            Some(Phase::Working(_)) => out.notify.push(ParticipantNotice::Began(txn)),
            None
            | Some(
                Phase::Preparing(_)
                | Phase::Voted(_)
                | Phase::Applying { .. }
                | Phase::Expiring { .. }
                | Phase::Done(_),
            ) => out.notify.push(ParticipantNotice::Refused(txn)),
        }
    }

    /// The branch can only vote `Aborted` from now on.
    pub(super) fn poison(&mut self, txn: TxnId) {
        match self.branches.get_mut(&txn) {
            Some(Phase::Working(working)) => working.health = Health::Poisoned,
            Some(Phase::Preparing(preparing)) => preparing.health = Health::Poisoned,
            Some(
                Phase::Voted(_) | Phase::Applying { .. } | Phase::Expiring { .. } | Phase::Done(_),
            )
            | None => {}
        }
    }

    /// Nobody will ask this branch to commit. It remembers that it let go: a late `Prepare` with a
    /// request must not run. After the vote only the replicas can undo it.
    pub(super) fn let_go(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        match self.branches.get_mut(&txn) {
            Some(Phase::Working(_)) => {
                out.notify.push(ParticipantNotice::LetGo(txn));
                self.done(txn, Done::LetGo);
            }
            Some(Phase::Preparing(preparing)) => preparing.health = Health::Poisoned,
            Some(
                Phase::Voted(_) | Phase::Applying { .. } | Phase::Expiring { .. } | Phase::Done(_),
            ) => {}
            None => {
                if !self.is_below_floor(txn) {
                    self.done(txn, Done::LetGo);
                }
            }
        }
    }

    /// RMPrepare, first half: asked by a relay, or by the service itself.
    pub(super) fn prepare(
        &mut self,
        from: Option<ReplicaId>,
        prepare: Prepare,
        out: &mut Effects<Self>,
    ) {
        let (id, txn) = (prepare.id, prepare.id.txn);
        let right = CommitId::new(txn, &prepare.roster) == id;
        if !right || !self.stands_in(&prepare.roster) {
            return;
        }
        if self.generations.openness(txn.generation) == Openness::Unknown {
            // It is not known whom to send a vote. A relay will ask again; the service will not.
            if let (None, Some(Phase::Working(working))) = (from, self.branches.get_mut(&txn)) {
                working.pending = Some(Box::new(prepare));
            }
            return;
        }
        self.raise_floor(txn, prepare.floor);
        match self.branches.get(&txn) {
            Some(Phase::Working(working)) => {
                let health = working.health;
                self.start(prepare, health, out);
            }
            // Its relay has missed the vote. A branch votes in one instance only: of a second
            // roster for the same transaction it knows nothing.
            Some(Phase::Voted(voted)) if voted.id == id => match from {
                Some(from) => out.send(Peer::Replica(from), voted.message()),
                None => self.send_to_all(txn, &voted.message(), out),
            },
            Some(Phase::Done(Done::LetGo)) => self.vote(prepare, Vote::Aborted, out),
            Some(
                Phase::Voted(_)
                | Phase::Preparing(_)
                | Phase::Applying { .. }
                | Phase::Expiring { .. }
                | Phase::Done(Done::Applied { .. } | Done::Forgotten { .. }),
            ) => {}
            // What was voted below the floor may be forgotten, so there is no vote.
            None if self.is_below_floor(txn) => {}
            // An unknown branch has nothing to commit. One whose work travels in the request is
            // begun by it.
            None if prepare.request.is_none() => self.vote(prepare, Vote::Aborted, out),
            None => self.start(prepare, Health::Good, out),
        }
    }

    fn start(&mut self, prepare: Prepare, health: Health, out: &mut Effects<Self>) {
        if health == Health::Poisoned {
            self.vote(prepare, Vote::Aborted, out);
            return;
        }
        out.notify.push(ParticipantNotice::Prepare {
            id: prepare.id,
            request: prepare.request,
            read_only: prepare.read_only,
        });
        let preparing = Preparing {
            id: prepare.id,
            roster: prepare.roster,
            vote_timeout: prepare.vote_timeout,
            read_only: prepare.read_only,
            health,
            outcome: None,
        };
        self.branches
            .insert(prepare.id.txn, Phase::Preparing(preparing));
    }

    /// RMPrepare or RMChooseToAbort, second half: the resource manager has answered.
    pub(super) fn on_prepared(&mut self, id: CommitId, answer: Vote, out: &mut Effects<Self>) {
        let Some(Phase::Preparing(preparing)) = self.branches.get(&id.txn) else {
            return;
        };
        if preparing.id != id {
            return;
        }
        let preparing = preparing.clone();
        if preparing.outcome.is_some() {
            // It was aborted meanwhile. What did not become durable has nothing to roll back.
            match answer {
                Vote::Prepared => self.apply(id, Outcome::Abort, out),
                Vote::ReadOnly | Vote::Aborted => {
                    out.notify.push(ParticipantNotice::LetGo(id.txn));
                    self.ended(id, Outcome::Abort, out);
                }
            }
            return;
        }
        let forbidden = answer == Vote::ReadOnly && preparing.read_only == ReadOnly::Forbidden;
        // A resource manager that let its locks go although it must not has broken isolation.
        let vote = if forbidden || preparing.health == Health::Poisoned {
            Vote::Aborted
        } else {
            answer
        };
        let prepare = Prepare {
            id,
            roster: preparing.roster,
            request: None,
            read_only: preparing.read_only,
            floor: 0,
            vote_timeout: preparing.vote_timeout,
        };
        self.vote(prepare, vote, out);
        // The branch stands prepared although it votes Aborted.
        if answer == Vote::Prepared && vote == Vote::Aborted {
            self.apply_other(id, self.config.me.session, Outcome::Abort, out);
        }
    }

    /// Says it, to all replicas, and remembers it: this session says nothing else in this
    /// transaction, ever. Its own Aborted settles the outcome, so it lets go at once.
    fn vote(&mut self, prepare: Prepare, vote: Vote, out: &mut Effects<Self>) {
        let id = prepare.id;
        let voted = Voted {
            id,
            roster: prepare.roster,
            vote,
            vote_timeout: prepare.vote_timeout,
            learner: OutcomeLearner::default(),
            again: match vote {
                Vote::Prepared | Vote::Aborted => Again::UntilOutcome,
                Vote::ReadOnly => Again::No,
            },
            wait: Wait::new(WaitState::Outcome(Voter::Unknown), self.config.retry_ticks),
        };
        self.send_to_all(id.txn, &voted.message(), out);
        self.branches.insert(id.txn, Phase::Voted(Box::new(voted)));
        match vote {
            Vote::Aborted => out.notify.push(ParticipantNotice::LetGo(id.txn)),
            Vote::ReadOnly if self.is_below_floor(id.txn) => drop(self.branches.remove(&id.txn)),
            Vote::Prepared | Vote::ReadOnly => {}
        }
    }

    /// A replica came back: whatever it may have missed is said again.
    pub(super) fn on_connected(&mut self, replica: ReplicaId, out: &mut Effects<Self>) {
        let knows = |txn: TxnId| {
            let acceptors = self.generations.who_knows(txn);
            acceptors.is_some_and(|acceptors| acceptors.contains(replica))
        };
        for (_, phase) in self.branches.iter().filter(|(txn, _)| knows(**txn)) {
            match phase {
                Phase::Voted(voted) => out.send(Peer::Replica(replica), voted.message()),
                Phase::Working(_)
                | Phase::Preparing(_)
                | Phase::Applying { .. }
                | Phase::Expiring { .. }
                | Phase::Done(_) => {}
            }
        }
        for ((id, session), wait) in &self.others {
            if let WaitState::Outcome(voter) = wait.state
                && knows(id.txn)
            {
                let question = self.question(*id, *session, voter);
                out.send(Peer::Replica(replica), Message::Ask(question));
            }
        }
    }
}
