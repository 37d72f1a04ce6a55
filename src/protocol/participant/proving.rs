//! A commit of which the store has no proof: neither the branch nor a marker of its commit.
//!
//! No waiting turns that into a success: another store of the same name may hold the branch. The
//! session tells the replicas, again and again, until one says that the commit is off the list.
//!
//! It is an error only if none has said so by the time when they are told again. (A replica that is
//! behind in the log orders commits that are off the list, and the store has deleted their markers by
//! right. The others answer at once.)

use crate::protocol::effects::Effects;
use crate::protocol::message::Message;
use crate::protocol::types::{Branch, CommitId, Outcome, Session};

use super::branch::{Done, Phase, Wait, WaitState};
use super::{Participant, ParticipantNotice};

impl Participant {
    /// A replica that holds an abort says that commit was chosen: a branch of the roster said
    /// different things to different replicas.
    pub(super) fn on_disputed(&mut self, id: CommitId, branch: Branch, out: &mut Effects<Self>) {
        if !self.is_of_this_store(&branch) {
            return;
        }
        let phase = self.branches.get(&id.txn);
        match phase.filter(|_| self.is_mine(&branch)) {
            Some(Phase::Done(Done::Applied {
                id: of,
                outcome: Outcome::Abort,
            })) if *of == id => self.contradict(id, branch, out),
            // It knows no outcome yet, or the one that was chosen.
            Some(phase) if phase.is_of(&id) && !matches!(phase, Phase::Done(_)) => {
                self.on_outcome(id, Outcome::Commit, out);
            }
            Some(_) | None => self.apply_other_by(id, branch.session, WaitState::Disputed, out),
        }
    }

    /// The resource manager was told to commit, and has neither the branch nor a marker.
    pub(super) fn on_not_proven(&mut self, id: CommitId, branch: Branch, out: &mut Effects<Self>) {
        let session = branch.session;
        let is_applying = |phase: &Phase| match phase {
            Phase::Applying { id: of, outcome } => *of == id && *outcome == Outcome::Commit,
            _ => false,
        };
        let phase = self.branches.get(&id.txn);
        let is_own = self.is_mine(&branch) && phase.is_some_and(is_applying);
        let state = self.others.get(&(id, session)).map(|wait| wait.state);
        match state {
            Some(WaitState::Disputed) => {
                self.others.remove(&(id, session));
                self.contradict(id, branch, out);
                return;
            }
            Some(WaitState::Applying(Outcome::Commit)) => {}
            _ if is_own => {
                self.done(id.txn, Done::Forgotten { id });
                out.notify.push(ParticipantNotice::Forgotten { id });
            }
            _ => return,
        }
        let wait = Wait::new(WaitState::Unproven, self.config.retry_ticks);
        self.others.insert((id, session), wait);
        self.tell_unproven(id, session, out);
    }

    /// No replica has said that the commit is off the list. The first time, that is an error.
    pub(super) fn still_unproven(
        &self,
        id: CommitId,
        session: Session,
        attempts: u32,
        out: &mut Effects<Self>,
    ) {
        if attempts == 1 {
            let branch = self.branch_of(session);
            out.notify.push(ParticipantNotice::Unproven { id, branch });
        }
        self.tell_unproven(id, session, out);
    }

    fn tell_unproven(&self, id: CommitId, session: Session, out: &mut Effects<Self>) {
        let branch = self.branch_of(session);
        self.send_to_all(id.txn, &Message::Unproven { id, branch }, out);
    }

    fn contradict(&self, id: CommitId, branch: Branch, out: &mut Effects<Self>) {
        let notice = ParticipantNotice::Contradicted {
            id,
            branch: branch.clone(),
        };
        out.notify.push(notice);
        self.send_to_all(id.txn, &Message::Contradicted { id, branch }, out);
    }
}
