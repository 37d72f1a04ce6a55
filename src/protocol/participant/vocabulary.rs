//! What a session hears from its service and its resource manager, and what it tells them.

use crate::protocol::message::Prepare;
use crate::protocol::types::{Branch, CommitId, Outcome, ReadOnly, Request, Session, TxnId, Vote};

use super::standing::Standing;

/// The timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantTimer {
    /// Every [`ParticipantConfig::tick`](super::ParticipantConfig::tick).
    Tick,
}

/// What a service or its resource manager tells its session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantCommand {
    /// Work begins under this transaction. Answered with [`ParticipantNotice::Began`] or
    /// [`ParticipantNotice::Refused`].
    Begin(TxnId),
    /// The work failed, or its connection broke: the branch can only vote `Aborted`.
    Poison(TxnId),
    /// The service gives the branch up before it has voted.
    Rollback(TxnId),
    /// The work is done and the whole roster known: prepare without being asked.
    ///
    /// `read_only` must be [`ReadOnly::Forbidden`] unless the caller knows that the work of the
    /// transaction has ended in *every* branch: a read lock that is let go while another branch
    /// still works breaks isolation.
    Prepare(Prepare),
    /// The answer to [`ParticipantNotice::Prepare`]. A prepare whose result is unknown is
    /// [`Vote::Aborted`]; if it surfaces after all, it stands among the branches in doubt.
    Prepared {
        /// The instance.
        id: CommitId,
        /// What to vote.
        vote: Vote,
    },
    /// The answer to [`ParticipantNotice::Finish`]: it is durable.
    Finished {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// The other answer to [`ParticipantNotice::Finish`] with a commit: neither the branch nor a
    /// marker of its commit is there.
    NotProven {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// The other answer to [`ParticipantNotice::Expired`]: it does not stand prepared.
    NotPrepared {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// The branches that stand prepared in the resource manager, found at start or later.
    InDoubt(Vec<InDoubt>),
    /// Nothing new begins, and what waits to begin is refused. What has begun goes on.
    Stop,
}

/// One prepared branch that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InDoubt {
    /// The instance, as written when the branch was prepared.
    pub id: CommitId,
    /// The session that prepared it.
    pub session: Session,
    /// What is known of that session.
    pub owner: Owner,
}

/// What is known of the session that prepared a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// It may live, in another process.
    Unknown,
    /// It is certainly gone: the store admits one process at a time.
    Gone,
}

/// What a session asks of the resource manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParticipantNotice {
    /// Run the request, if there is one, and make the branch durable; answer
    /// [`ParticipantCommand::Prepared`].
    Prepare {
        /// The instance; to be written with the branch.
        id: CommitId,
        /// Work to run first.
        request: Option<Request>,
        /// Whether `ReadOnly` may be answered.
        read_only: ReadOnly,
    },
    /// Commit or roll back this branch, durably; answer [`ParticipantCommand::Finished`].
    Finish {
        /// The instance.
        id: CommitId,
        /// The branch, not always of this session.
        branch: Branch,
        /// What to do.
        outcome: Outcome,
    },
    /// The transaction came to its end long ago, and its end is forgotten: if this branch still
    /// stands prepared, roll it back and answer [`ParticipantCommand::Finished`]; if not, another
    /// session saw it to its end, and the answer is [`ParticipantCommand::NotPrepared`].
    Expired {
        /// The instance.
        id: CommitId,
        /// The branch, not always of this session.
        branch: Branch,
    },
    /// Discard work that was never prepared. Needs no answer.
    LetGo(TxnId),
    /// The answer to [`ParticipantCommand::Begin`]: work may go on under this transaction, which has
    /// begun now or before. Needs no answer.
    Began(TxnId),
    /// No work can begin under this transaction. What stands prepared is not touched. Needs no
    /// answer.
    Refused {
        /// The transaction.
        txn: TxnId,
        /// Why.
        why: Refusal,
    },
    /// The outcome of a branch of this session.
    Outcome {
        /// The instance.
        id: CommitId,
        /// The outcome.
        outcome: Outcome,
    },
    /// A branch of this session came to its end by another session; which end is forgotten.
    Forgotten {
        /// The instance.
        id: CommitId,
    },
    /// Everything up to `through` is settled, and of this store's branches only `listed` may still be
    /// told to commit: all other markers up to `through` may be deleted. Needs no answer.
    Settled {
        /// The horizon.
        through: CommitId,
        /// In order.
        listed: Vec<(CommitId, Branch)>,
    },
    /// This branch was told to commit, its store has neither the branch nor a marker, and no replica
    /// says that the commit is off the list. Another store holds the branch, or has lost it. Needs no
    /// answer: the replicas are asked again.
    Unproven {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// This branch has rolled back what the others of its transaction commit: a branch of the
    /// transaction said different things to different replicas. Needs no answer.
    Contradicted {
        /// The instance.
        id: CommitId,
        /// The branch.
        branch: Branch,
    },
    /// Whether this session may work. Told at every change. Needs no answer.
    Stands(Standing),
    /// Work has ended that no process asked to commit or to roll back; it was let go. Its caller
    /// has crashed or has not enlisted the branch: if the transaction is committed, it is so without
    /// this work. Needs no answer.
    Unasked {
        /// The transaction.
        txn: TxnId,
        /// Ticks since the work began.
        age_ticks: u32,
    },
}

/// Why no work can begin under a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is being prepared, or over, or forgotten, or its generation is closed.
    Over,
    /// Its generation is not open: not even after the replicas were asked and had time to answer.
    NotOpen,
    /// This session may not work.
    NotEntered(Standing),
    /// This session remembers as many transactions of the initiator's name as it takes, or of all
    /// runs of initiators that no relay has vouched for; or too many wait for their generation.
    TooMany,
    /// This session stops.
    Stopping,
}
