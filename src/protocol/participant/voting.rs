//! Up to the vote: begin, prepare, let go.

use crate::protocol::effects::Effects;
use crate::protocol::learn::OutcomeLearner;
use crate::protocol::message::{Message, Prepare, Voter};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{
    CommitId, InitiatorId, Openness, Outcome, Peer, ReadOnly, TxnId, Vote,
};

use super::branch::{Again, Done, Health, Phase, Preparing, Voted, Wait, WaitState, Working};
use super::{Participant, ParticipantNotice, Refusal, Standing};

impl Participant {
    /// Work begins. A transaction that this session has released, or may have forgotten, cannot
    /// begin again.
    pub(super) fn begin(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        let refused = |why| ParticipantNotice::Refused { txn, why };
        if self.stopping {
            out.notify.push(refused(Refusal::Stopping));
            return;
        }
        // To begin twice is to begin once.
        if let Some(Phase::Working(_)) = self.branches.get(&txn) {
            out.notify.push(ParticipantNotice::Began(txn));
            return;
        }
        let standing = self.standing();
        if standing != Standing::Entered {
            out.notify.push(refused(Refusal::NotEntered(standing)));
            return;
        }
        let openness = self.generations.openness(txn.generation);
        if self.branches.get(&txn).is_some() || self.is_below_floor(txn) {
            out.notify.push(refused(Refusal::Over));
        } else if !self.branches.has_room_for(txn.initiator) {
            out.notify.push(refused(Refusal::TooMany));
        } else if openness == Openness::Unknown {
            self.wait_for_generation(txn, out);
        } else if openness != Openness::Open {
            // In a closed generation nothing begins that could still be committed.
            out.notify.push(refused(Refusal::Over));
        } else {
            let working = Working {
                health: Health::Good,
                age: 0,
            };
            self.branches.insert(txn, Phase::Working(working));
            out.notify.push(ParticipantNotice::Began(txn));
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
    ///
    /// It remembers that even if nobody has ever asked for this work, and if its id may be invented.
    /// (Counter-example to forgetting it: the work takes too long, and is discarded. Its caller comes
    /// back with the second half of the work, under the same id. The session begins anew, and votes
    /// Prepared of one half.)
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
            // Nothing is kept of a branch that this session does not know: anybody who owns an
            // initiator's certificate can have it told so, of any number of ids.
            None => self.give_up_early(txn, out),
        }
    }

    /// Work that no process asked to commit or to roll back ends. (Counter-example: a caller forgets
    /// to enlist a branch. The transaction is committed without it, and in silence its work is lost.)
    pub(super) fn end_unasked(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        let Some(Phase::Working(working)) = self.branches.get(&txn) else {
            return;
        };
        let age_ticks = working.age;
        self.let_go(txn, out);
        out.notify
            .push(ParticipantNotice::Unasked { txn, age_ticks });
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
        // Only the store that the log names prepares and votes under the name.
        if self.standing() != Standing::Entered {
            return;
        }
        if self.generations.acceptors(txn.generation).is_none() {
            // No replica takes a vote there: it is settled, or was never open. If it is this session
            // that is behind, a relay asks again.
            return;
        }
        // A relay has checked that the initiator owns the id; a plan came through services.
        if from.is_some() {
            self.raise_floor(txn, prepare.floor);
        }
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
            // A vote must be remembered.
            None if !self.has_room_to_vote(from, txn.initiator) => {}
            // An unknown branch has nothing to commit. One whose work travels in the request is
            // begun by it.
            None if prepare.request.is_none() => self.vote(prepare, Vote::Aborted, out),
            None => self.start(prepare, Health::Good, out),
        }
    }

    /// Whether one more vote of this run is remembered. (A name with more runs than have floors here
    /// is no stranger: it would take the places of others.)
    fn has_room_to_vote(&self, from: Option<ReplicaId>, run: InitiatorId) -> bool {
        let is_charged = from.is_none() || self.branches.is_vouched(run);
        is_charged && self.branches.has_room_for(run)
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

    /// A replica came back: the session presents itself, and whatever it may have missed is said
    /// again.
    pub(super) fn on_connected(&mut self, replica: ReplicaId, out: &mut Effects<Self>) {
        self.present(replica, out);
        self.say_again(replica, out);
    }

    pub(super) fn say_again(&self, replica: ReplicaId, out: &mut Effects<Self>) {
        let knows = |txn: TxnId| {
            let acceptors = self.generations.who_knows(txn);
            acceptors.is_some_and(|acceptors| acceptors.contains(replica))
        };
        for (txn, phase) in self.branches.iter().filter(|(txn, _)| knows(**txn)) {
            match phase {
                Phase::Voted(voted) => out.send(Peer::Replica(replica), voted.message()),
                // It may have been aborted meanwhile. The question starts nothing: an `Ask` for a
                // branch that still prepares would start its timeout.
                Phase::Working(_) | Phase::Preparing(_) => {
                    out.send(Peer::Replica(replica), Message::Inquire { txn: *txn });
                }
                Phase::Applying { .. } | Phase::Expiring { .. } | Phase::Done(_) => {}
            }
        }
        for ((id, session), wait) in self.others.iter().filter(|((id, _), _)| knows(id.txn)) {
            let message = match wait.state {
                WaitState::Outcome(voter) => Message::Ask(self.question(*id, *session, voter)),
                WaitState::Unproven => Message::Unproven {
                    id: *id,
                    branch: self.branch_of(*session),
                },
                WaitState::Applying(_) | WaitState::Disputed => continue,
            };
            out.send(Peer::Replica(replica), message);
        }
    }
}
