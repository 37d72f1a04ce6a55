//! The states of a branch.
//!
//! ```text
//! Working -> Preparing -> Voted -> Applying or Expiring -> Done
//! ```
//!
//! A branch that has not voted may go from `Working` or `Preparing` to `Done` by itself: it has the
//! right to abort. From the vote on only a replica can tell it what to do.

use std::time::Duration;

use crate::protocol::learn::OutcomeLearner;
use crate::protocol::message::{CastVote, Message};
use crate::protocol::types::{CommitId, Outcome, ReadOnly, Roster, Vote};

/// How far a branch of this session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The service works under it.
    Working(Working),
    /// The resource manager has been asked to make it durable.
    Preparing(Preparing),
    /// It has voted, and says so until it knows the outcome.
    Voted(Box<Voted>),
    /// The resource manager has been asked to apply the outcome.
    Applying {
        /// The instance.
        id: CommitId,
        /// What is applied.
        outcome: Outcome,
    },
    /// It is settled and in no list: the resource manager has been asked to roll it back if it
    /// still stands prepared. (Another session may have committed it in the meantime.)
    Expiring {
        /// The instance.
        id: CommitId,
    },
    /// It has come to its end.
    Done(Done),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Working {
    pub(super) health: Health,
    /// Ticks since it began.
    pub(super) age: u32,
}

/// Whether the branch can still vote anything but `Aborted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Health {
    Good,
    Poisoned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Preparing {
    pub(super) id: CommitId,
    pub(super) roster: Roster,
    pub(super) vote_timeout: Duration,
    pub(super) read_only: ReadOnly,
    pub(super) health: Health,
    /// The outcome, if it became known in the meantime. It can only be Abort.
    pub(super) outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Voted {
    pub(super) id: CommitId,
    pub(super) roster: Roster,
    pub(super) vote: Vote,
    pub(super) vote_timeout: Duration,
    pub(super) learner: OutcomeLearner,
    pub(super) again: Again,
    pub(super) wait: Wait,
}

/// Whether a vote is said again when it is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Again {
    /// The branch waits for the outcome.
    UntilOutcome,
    /// A `ReadOnly` vote that a replica was too busy to take.
    Once,
    /// A `ReadOnly` vote: nothing is waited for.
    No,
}

impl Voted {
    /// The vote as a message; always the same.
    pub(super) fn message(&self) -> Message {
        Message::Vote(CastVote {
            id: self.id,
            roster: self.roster.clone(),
            vote: self.vote,
            vote_timeout: self.vote_timeout,
        })
    }
}

/// How a branch ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Done {
    /// It let go before it was asked to prepare. It may still be asked; it votes `Aborted` then.
    LetGo,
    /// The outcome was applied.
    Applied {
        /// The instance.
        id: CommitId,
        /// What was applied.
        outcome: Outcome,
    },
    /// Another session saw it to its end.
    Forgotten {
        /// The instance.
        id: CommitId,
    },
}

impl Phase {
    /// Whether the branch may stand in the instance `id`. Before it knows its instance it may stand
    /// in any.
    pub(super) fn is_of(&self, id: &CommitId) -> bool {
        match self {
            Phase::Working(_) | Phase::Done(Done::LetGo) => true,
            Phase::Preparing(preparing) => preparing.id == *id,
            Phase::Voted(voted) => voted.id == *id,
            Phase::Applying { id: of, .. }
            | Phase::Expiring { id: of }
            | Phase::Done(Done::Applied { id: of, .. } | Done::Forgotten { id: of }) => of == id,
        }
    }

    /// Whether nothing is lost when the branch is forgotten, once its initiator no longer cares.
    pub(super) fn may_be_forgotten(&self) -> bool {
        match self {
            Phase::Done(_) => true,
            // A ReadOnly branch needs no outcome; it is done when it has voted.
            Phase::Voted(voted) => voted.vote == Vote::ReadOnly,
            Phase::Working(_)
            | Phase::Preparing(_)
            | Phase::Applying { .. }
            | Phase::Expiring { .. } => false,
        }
    }
}

/// Waiting for an answer: ticks until it is asked for again, twice as many each time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wait {
    pub(super) patience: u32,
    pub(super) attempts: u32,
    pub(super) state: WaitState,
}

/// What a branch of another session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WaitState {
    /// For the outcome.
    Outcome(crate::protocol::message::Voter),
    /// For the resource manager, which applies this.
    Applying(Outcome),
    /// For the resource manager, which commits; if it cannot, the branch is contradicted.
    Disputed,
    /// For a replica to say that the commit is off the list: the store has no proof of it.
    Unproven,
}

impl Wait {
    pub(super) fn new(state: WaitState, retry_ticks: u32) -> Self {
        Wait {
            patience: retry_ticks.max(1),
            attempts: 0,
            state,
        }
    }

    /// Waits longer from now on.
    pub(super) fn back_off(&mut self, retry_ticks: u32, retry_ticks_max: u32) {
        self.attempts = self.attempts.saturating_add(1);
        let ticks = retry_ticks.saturating_mul(1 << self.attempts.min(16));
        self.patience = ticks.min(retry_ticks_max).max(1);
    }

    /// Counts one tick. When it is time, sets the next.
    pub(super) fn is_due(&mut self, retry_ticks: u32, retry_ticks_max: u32) -> bool {
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.back_off(retry_ticks, retry_ticks_max);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Voter;

    #[test]
    fn waits_twice_as_long_each_time_up_to_a_limit() {
        let mut wait = Wait::new(WaitState::Outcome(Voter::Unknown), 2);
        let mut gaps = Vec::new();
        for _ in 0..5 {
            let mut ticks = 1;
            while !wait.is_due(2, 10) {
                ticks += 1;
            }
            gaps.push(ticks);
        }
        assert_eq!(gaps, [2, 4, 8, 10, 10]);
    }
}
