//! From the vote on: learn the outcome, apply it, say so. And branches in doubt.

use std::time::Duration;

use crate::protocol::effects::Effects;
use crate::protocol::learn::is_final_alone;
use crate::protocol::message::{Message, Question, State, Voter};
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{Branch, CommitId, Outcome, Peer, Session, TxnId, Vote};

use super::branch::{Again, Done, Phase, Wait, WaitState};
use super::{InDoubt, Owner, Participant, ParticipantNotice, ParticipantTimer};

impl Participant {
    /// A replica reports what it accepted; the branch decides by itself.
    pub(super) fn on_phase2b(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        let Some(acceptors) = self.generations.acceptors(id.txn.generation) else {
            return;
        };
        let learned = match self.branches.get_mut(&id.txn) {
            Some(Phase::Voted(voted)) if voted.id == id => {
                voted.learner.on_phase2b(acceptors, from, ballot, outcome)
            }
            // Before its vote a branch has no learner, and can be told nothing but Abort. It may
            // let go for any reason; another branch's Aborted is a good one.
            Some(phase @ (Phase::Working(_) | Phase::Preparing(_))) if phase.is_of(&id) => {
                let is_final = is_final_alone(ballot, outcome) && acceptors.contains(from);
                is_final.then_some(outcome)
            }
            Some(_) | None => None,
        };
        if let Some(outcome) = learned {
            self.on_outcome(id, outcome, out);
        }
    }

    /// A replica says what was chosen, for a branch of this session or of one that is gone.
    pub(super) fn on_finish(
        &mut self,
        from: ReplicaId,
        id: CommitId,
        branch: Branch,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        if !self.is_of_this_store(&branch) {
            return;
        }
        if !self.is_mine(&branch) {
            self.on_finish_of_other(id, branch, outcome, out);
            return;
        }
        match self.branches.get(&id.txn) {
            Some(Phase::Done(Done::Applied {
                id: of,
                outcome: Outcome::Commit,
            })) if *of == id => {
                out.send(Peer::Replica(from), Message::Applied { id, branch });
            }
            // Another session saw it to its end. The store can tell which one that was.
            Some(Phase::Done(Done::Forgotten { id: of }))
                if *of == id && outcome == Outcome::Commit =>
            {
                self.on_finish_of_other(id, branch, outcome, out);
            }
            Some(phase) if !phase.is_of(&id) => {}
            Some(_) => self.on_outcome(id, outcome, out),
            None => self.on_finish_of_other(id, branch, outcome, out),
        }
    }

    /// A branch of another session of this participant, which may be gone, or of this session, which
    /// has forgotten it.
    ///
    /// A commit is for the resource manager, which has the branch or a proof that it committed it.
    /// An abort is, if this session asked about the branch; of any other branch it is nothing:
    /// a branch that stands prepared is found by the scan, and asked about. (Counter-example: a
    /// client invents a million transactions in which this participant stands, and aborts them.)
    fn on_finish_of_other(
        &mut self,
        id: CommitId,
        branch: Branch,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        let is_asked = self.others.contains_key(&(id, branch.session));
        if outcome == Outcome::Commit || is_asked {
            self.apply_other(id, branch.session, outcome, out);
        }
    }

    /// A replica tells what it knows of a transaction under which this branch works. The branch has
    /// not voted, so it can be aborted only, and may abort for any reason.
    pub(super) fn on_status(
        &mut self,
        txn: TxnId,
        instances: &[(CommitId, State)],
        out: &mut Effects<Self>,
    ) {
        let aborted = instances.iter().find(|(_, state)| match state {
            State::Decided { outcome, .. } => *outcome == Outcome::Abort,
            State::Undecided { .. } => false,
        });
        let Some((id, _)) = aborted.filter(|(id, _)| id.txn == txn) else {
            return;
        };
        match self.branches.get(&txn) {
            Some(phase @ (Phase::Working(_) | Phase::Preparing(_))) if phase.is_of(id) => {
                self.on_outcome(*id, Outcome::Abort, out);
            }
            Some(_) | None => {}
        }
    }

    /// Every instance of the transaction is settled: a branch that has not voted stands in no commit.
    pub(super) fn on_forgotten(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        if let Some(Phase::Working(_) | Phase::Preparing(_)) = self.branches.get(&txn) {
            self.let_go(txn, out);
        }
    }

    /// RMRcvCommitMsg, RMRcvAbortMsg: the outcome is known.
    pub(super) fn on_outcome(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        match self.branches.get_mut(&id.txn) {
            Some(Phase::Voted(voted)) => match (voted.vote, outcome) {
                (Vote::Prepared, _) => self.apply(id, outcome, out),
                // It let go when it voted.
                (Vote::ReadOnly, _) | (Vote::Aborted, Outcome::Abort) => {
                    self.ended(id, outcome, out);
                }
                // No branch commits unless all voted for it: a lying peer. Believe nothing.
                (Vote::Aborted, Outcome::Commit) => {}
            },
            Some(Phase::Working(_)) if outcome == Outcome::Abort => {
                out.notify.push(ParticipantNotice::LetGo(id.txn));
                self.ended(id, outcome, out);
            }
            Some(Phase::Preparing(preparing)) if outcome == Outcome::Abort => {
                preparing.outcome = Some(outcome);
            }
            Some(Phase::Done(Done::LetGo)) if outcome == Outcome::Abort => {
                self.ended(id, outcome, out);
            }
            // Commit without this branch's vote cannot be chosen: a lying peer, or a bug.
            Some(Phase::Working(_) | Phase::Preparing(_) | Phase::Done(_)) => {}
            Some(Phase::Applying { .. } | Phase::Expiring { .. }) | None => {}
        }
    }

    /// Asks the resource manager to apply the outcome to this session's branch.
    pub(super) fn apply(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        let branch = self.config.me.clone();
        self.branches
            .insert(id.txn, Phase::Applying { id, outcome });
        out.notify.push(ParticipantNotice::Finish {
            id,
            branch,
            outcome,
        });
    }

    pub(super) fn apply_other(
        &mut self,
        id: CommitId,
        session: Session,
        outcome: Outcome,
        out: &mut Effects<Self>,
    ) {
        self.apply_other_by(id, session, WaitState::Applying(outcome), out);
    }

    /// Has the resource manager finish a branch of another session, or one that was forgotten.
    pub(super) fn apply_other_by(
        &mut self,
        id: CommitId,
        session: Session,
        state: WaitState,
        out: &mut Effects<Self>,
    ) {
        let wait = self.others.get(&(id, session));
        match wait.map(|wait| wait.state) {
            Some(WaitState::Applying(_) | WaitState::Disputed) => return,
            Some(WaitState::Outcome(_) | WaitState::Unproven) | None => {}
        }
        let outcome = match state {
            WaitState::Applying(outcome) => outcome,
            WaitState::Disputed => Outcome::Commit,
            WaitState::Outcome(_) | WaitState::Unproven => return,
        };
        let wait = Wait::new(state, self.config.retry_ticks);
        self.others.insert((id, session), wait);
        let branch = self.branch_of(session);
        out.notify.push(ParticipantNotice::Finish {
            id,
            branch,
            outcome,
        });
    }

    /// The branch of a session of this store.
    pub(super) fn branch_of(&self, session: Session) -> Branch {
        Branch {
            session,
            ..self.config.me.clone()
        }
    }

    /// The resource manager has applied the outcome durably: a commit is told to the replicas,
    /// which wait for it. Nobody waits for an abort.
    pub(super) fn on_finished(&mut self, id: CommitId, branch: Branch, out: &mut Effects<Self>) {
        let applied = match self.branches.get(&id.txn) {
            Some(Phase::Expiring { id: of }) if *of == id && self.is_mine(&branch) => {
                self.ended(id, Outcome::Abort, out);
                None
            }
            Some(Phase::Applying { id: of, outcome }) if *of == id && self.is_mine(&branch) => {
                let outcome = *outcome;
                self.ended(id, outcome, out);
                Some(outcome)
            }
            Some(_) | None => self.end_of_other(id, branch.session),
        };
        if applied == Some(Outcome::Commit) {
            self.send_to_all(id.txn, &Message::Applied { id, branch }, out);
        }
    }

    /// What the resource manager has applied to a branch of another session.
    fn end_of_other(&mut self, id: CommitId, session: Session) -> Option<Outcome> {
        let key = (id, session);
        let applied = match self.others.get(&key).map(|wait| wait.state)? {
            WaitState::Applying(outcome) => outcome,
            WaitState::Disputed => Outcome::Commit,
            WaitState::Outcome(_) | WaitState::Unproven => return None,
        };
        self.others.remove(&key);
        Some(applied)
    }

    pub(super) fn ended(&mut self, id: CommitId, outcome: Outcome, out: &mut Effects<Self>) {
        self.done(id.txn, Done::Applied { id, outcome });
        out.notify.push(ParticipantNotice::Outcome { id, outcome });
    }

    /// Branches that stand prepared in the resource manager. This session's own are known, unless
    /// a slow prepare surfaced late: a branch that voted Aborted rolls back. Others are asked about.
    pub(super) fn on_in_doubt(&mut self, found: Vec<InDoubt>, out: &mut Effects<Self>) {
        for InDoubt { id, session, owner } in found {
            let is_mine = session == self.config.me.session;
            let phase = self.branches.get(&id.txn).filter(|_| is_mine);
            match phase {
                Some(Phase::Voted(voted)) if voted.id == id && voted.vote != Vote::Aborted => {}
                Some(Phase::Preparing(_) | Phase::Applying { .. } | Phase::Expiring { .. }) => {}
                Some(Phase::Done(Done::Applied { id: of, outcome })) if *of == id => {
                    let outcome = *outcome;
                    self.apply_other(id, session, outcome, out);
                }
                // Seen a moment ago, and no longer so; or the other session has failed after all.
                Some(Phase::Done(Done::Forgotten { id: of })) if *of == id => {
                    self.ask_about(id, session, owner, out);
                }
                // It has never voted Prepared in this instance, and never will.
                Some(Phase::Voted(_) | Phase::Done(_)) => {
                    self.apply_other(id, session, Outcome::Abort, out);
                }
                Some(Phase::Working(_)) | None => self.ask_about(id, session, owner, out),
            }
        }
    }

    fn ask_about(&mut self, id: CommitId, session: Session, owner: Owner, out: &mut Effects<Self>) {
        let voter = match owner {
            Owner::Gone => Voter::Gone,
            Owner::Unknown => Voter::Unknown,
        };
        let known = self.others.get(&(id, session)).map(|wait| wait.state);
        match (known, voter) {
            (None, _) | (Some(WaitState::Outcome(Voter::Unknown)), Voter::Gone) => {}
            // A slow prepare has become visible: what the replicas said of it can be done now.
            (Some(WaitState::Unproven), _) => {
                self.apply_other(id, session, Outcome::Commit, out);
                return;
            }
            // It is asked about already, and nothing new is known.
            (Some(_), _) => return,
        }
        let wait = Wait::new(WaitState::Outcome(voter), self.config.retry_ticks);
        self.others.insert((id, session), wait);
        let question = self.question(id, session, voter);
        self.send_to_all(id.txn, &Message::Ask(question), out);
    }

    pub(super) fn question(&self, id: CommitId, session: Session, voter: Voter) -> Question {
        Question {
            id,
            branch: Some(self.branch_of(session)),
            voter,
            vote_timeout: Duration::ZERO,
        }
    }

    /// A replica has too much to do; it is told again later, and waits for nothing until then.
    pub(super) fn on_busy(&mut self, id: CommitId) {
        let (retry, max) = (self.config.retry_ticks, self.config.retry_ticks_max);
        if let Some(Phase::Voted(voted)) = self.branches.get_mut(&id.txn)
            && voted.id == id
        {
            voted.wait.back_off(retry, max);
            if voted.again == Again::No {
                voted.again = Again::Once;
            }
        }
        for ((of, _), wait) in &mut self.others {
            if *of == id && matches!(wait.state, WaitState::Outcome(_)) {
                wait.back_off(retry, max);
            }
        }
    }

    fn ask_again(&mut self, id: CommitId, session: Session, wait: Wait, out: &mut Effects<Self>) {
        match wait.state {
            WaitState::Outcome(voter) => {
                let question = self.question(id, session, voter);
                self.send_to_all(id.txn, &Message::Ask(question), out);
            }
            WaitState::Unproven => self.still_unproven(id, session, wait.attempts, out),
            WaitState::Applying(_) | WaitState::Disputed => {}
        }
    }

    /// Votes and questions without an answer are sent again; work that nobody commits lets go.
    pub(super) fn on_tick(&mut self, out: &mut Effects<Self>) {
        out.set(ParticipantTimer::Tick, self.config.tick);
        let (retry, max) = (self.config.retry_ticks, self.config.retry_ticks_max);
        let mut votes = Vec::new();
        let mut stale: Vec<TxnId> = Vec::new();
        for (txn, phase) in self.branches.iter_mut() {
            match phase {
                Phase::Voted(voted) => {
                    if voted.again != Again::No && voted.wait.is_due(retry, max) {
                        votes.push((*txn, voted.message()));
                        if voted.again == Again::Once {
                            voted.again = Again::No;
                        }
                    }
                }
                Phase::Working(working) => {
                    working.age = working.age.saturating_add(1);
                    if working.age >= self.config.work_ticks_max {
                        stale.push(*txn);
                    }
                }
                Phase::Preparing(_)
                | Phase::Applying { .. }
                | Phase::Expiring { .. }
                | Phase::Done(_) => {}
            }
        }
        let mut due = Vec::new();
        for ((id, session), wait) in &mut self.others {
            match wait.state {
                WaitState::Outcome(_) | WaitState::Unproven => {
                    if wait.is_due(retry, max) {
                        due.push((*id, *session, wait.clone()));
                    }
                }
                WaitState::Applying(_) | WaitState::Disputed => {}
            }
        }
        for (txn, vote) in votes {
            self.send_to_all(txn, &vote, out);
        }
        for (id, session, wait) in due {
            self.ask_again(id, session, wait, out);
        }
        for txn in stale {
            self.end_unasked(txn, out);
        }
        self.tick_early(out);
        self.tick_reading(out);
        self.tick_presence(out);
    }
}
