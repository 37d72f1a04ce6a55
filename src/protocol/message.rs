//! Every message, with the papers' names where they have one.
//!
//! Variants are only ever appended: the encoding is positional. Whoever receives a message checks
//! it before it changes anything; what does not fit (a roster that is not the commit id's, a vote
//! for somebody else's branch) is dropped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::paxos::{Ballot, ReplicaId};
use super::types::{
    Branch, BranchSet, CommitId, Outcome, ParticipantName, ReadOnly, Request, Roster, Session,
    TxnId, Vote,
};

/// The most transactions that one recovery message carries.
pub const BATCH_MAX: usize = 256;

/// A message between two hosts. [`super`] tells who sends which to whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Initiator to relay: get these branches to prepare.
    BeginCommit(BeginCommit),
    /// Initiator to relay: commit will never be asked for; the branches may let go.
    Rollback {
        /// The transaction.
        txn: TxnId,
        /// The sessions that work under it.
        branches: Vec<Branch>,
        /// The lowest sequence number that the initiator still cares about.
        floor: u32,
    },
    /// Initiator, session or operator to replica: what came of this transaction?
    Ask(Question),
    /// Anyone to replica: what do you know of this transaction? Starts nothing.
    Inquire {
        /// The transaction.
        txn: TxnId,
    },
    /// Initiator to replica: which sessions of this participant are connected?
    Resolve {
        /// The participant.
        participant: ParticipantName,
    },
    /// Operator to replica: start a ballot now, so that the transaction ends.
    ForceAbort {
        /// The instance.
        id: CommitId,
    },

    /// Relay to session: make the branch durable and vote.
    Prepare(Prepare),
    /// Relay to session: commit will never be asked for, let go.
    LetGo {
        /// The transaction.
        txn: TxnId,
        /// The initiator's floor.
        floor: u32,
    },

    /// Session to replica: phase 2a of ballot 0, sent by the branch itself.
    Vote(CastVote),
    /// Session to replica: this branch has durably applied the commit.
    Applied {
        /// The instance.
        id: CommitId,
        /// The branch; not the sender's own if its session is gone.
        branch: Branch,
    },

    /// Recovering replica to replicas.
    Phase1a {
        /// The ballot.
        ballot: Ballot,
        /// At most [`BATCH_MAX`] instances.
        ids: Vec<CommitId>,
    },
    /// Replica to recovering replica: promised, and this is what was accepted before.
    Phase1b {
        /// The ballot promised.
        ballot: Ballot,
        /// One for each instance promised.
        reports: Vec<Report>,
    },
    /// Recovering replica to replicas.
    Phase2a {
        /// The ballot.
        ballot: Ballot,
        /// What is proposed, for each instance.
        proposals: Vec<Decision>,
    },
    /// Replica to learners: accepted. At ballot 0 it stands for all votes of the roster.
    Phase2b {
        /// The instance.
        id: CommitId,
        /// The ballot.
        ballot: Ballot,
        /// The value.
        outcome: Outcome,
    },
    /// Replica to recovering replica: refused, higher ballots were promised.
    Nack {
        /// The ballot refused.
        ballot: Ballot,
        /// The instances, and what was promised in each.
        refused: Vec<(CommitId, Ballot)>,
    },

    /// Replica to replicas, initiators and operators: this was chosen.
    Decided(Decision),
    /// Replica to session: this was chosen, apply it to this branch.
    Finish {
        /// The instance.
        id: CommitId,
        /// The branch; not the receiver's own if its session is gone.
        branch: Branch,
        /// What was chosen.
        outcome: Outcome,
    },
    /// Replica to whoever asked: no outcome is known here yet.
    Undecided(Undecided),
    /// Replica to whoever inquired: all instances of the transaction that it knows. None: unknown.
    Status {
        /// The transaction.
        txn: TxnId,
        /// Each instance and its state.
        instances: Vec<(CommitId, State)>,
    },
    /// Replica to initiator: the sessions of the participant that are connected here.
    Resolved {
        /// The participant.
        participant: ParticipantName,
        /// Its sessions.
        sessions: Vec<Session>,
    },
    /// Replica to initiator, session or operator: too many undecided transactions; try later.
    Busy {
        /// The instance that was not taken on. Nothing is lost.
        id: CommitId,
    },
}

/// Body of [`Message::BeginCommit`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BeginCommit {
    /// The instance.
    pub id: CommitId,
    /// The roster, of which `id` holds the digest.
    pub roster: Roster,
    /// The requests, one for each branch of the roster in order; or none at all.
    pub requests: Vec<Option<Request>>,
    /// The lowest sequence number that the initiator still cares about.
    pub floor: u32,
    /// How long replicas wait for votes before they start a ballot.
    pub vote_timeout: Duration,
}

/// Body of [`Message::Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prepare {
    /// The instance.
    pub id: CommitId,
    /// The roster.
    pub roster: Roster,
    /// Work to run before preparing.
    pub request: Option<Request>,
    /// Whether the branch may vote `ReadOnly`.
    pub read_only: ReadOnly,
    /// The initiator's floor.
    pub floor: u32,
    /// How long replicas wait for votes before they start a ballot.
    pub vote_timeout: Duration,
}

/// Body of [`Message::Vote`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CastVote {
    /// The instance.
    pub id: CommitId,
    /// The roster.
    pub roster: Roster,
    /// What the sender says, for its own branch.
    pub vote: Vote,
    /// How long to wait for the other votes before starting a ballot; replicas have a floor.
    pub vote_timeout: Duration,
}

/// Body of [`Message::Ask`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// The instance.
    pub id: CommitId,
    /// Which branch waits for the outcome, if a session asks.
    pub branch: Option<Branch>,
    /// What the asker knows of the session that should vote for `branch`.
    pub voter: Voter,
    /// How long to wait for votes before starting a ballot, if nothing is known of the instance.
    pub vote_timeout: Duration,
}

/// What is known of the session of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Voter {
    /// It may still live and vote.
    Unknown,
    /// It is certainly gone; if its vote is not here, waiting for it is vain.
    Gone,
}

/// One instance in a [`Message::Phase1b`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Report {
    /// The instance.
    pub id: CommitId,
    /// The proposal with the highest ballot that was accepted.
    pub accepted: Option<(Ballot, Outcome)>,
    /// The branches whose vote, `Prepared` or `ReadOnly`, is held at ballot 0.
    pub held: BranchSet,
    /// The branches known to have voted `ReadOnly`: their vote is held, or an accepted Commit said
    /// so.
    pub read_only: BranchSet,
    /// The roster, if it is known.
    pub roster: Option<Roster>,
}

/// An outcome of an instance, proposed in [`Message::Phase2a`] or chosen in [`Message::Decided`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// The instance.
    pub id: CommitId,
    /// What was proposed or chosen.
    pub outcome: Outcome,
    /// Of a commit that some branch may not have applied yet: whom to tell. Absent from an abort,
    /// and from a commit that all branches have applied.
    pub unapplied: Option<Unapplied>,
}

/// Whom a commit must be told: the roster, less the branches that voted `ReadOnly`.
///
/// It travels with every Commit that is proposed above ballot 0, because whoever accepts it may
/// have seen no vote at all. Without the roster it could tell nobody; and to push a commit to a
/// branch that voted `ReadOnly` would ask a resource manager for something it never had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unapplied {
    /// The roster, of which the commit id holds the digest.
    pub roster: Roster,
    /// The branches that voted `ReadOnly`; all others voted `Prepared`.
    pub read_only: BranchSet,
}

/// Body of [`Message::Undecided`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Undecided {
    /// The instance.
    pub id: CommitId,
    /// The branches whose vote is not held here; empty as long as the roster is unknown.
    pub missing: Vec<Branch>,
    /// The replicas that have not answered the ballot under way.
    pub silent: Vec<ReplicaId>,
}

/// What a replica knows of an instance, in [`Message::Status`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// No outcome is known here.
    Undecided {
        /// The branches whose vote is not held here.
        missing: Vec<Branch>,
        /// The replicas that have not answered the ballot under way.
        silent: Vec<ReplicaId>,
    },
    /// Decided.
    Decided {
        /// The outcome.
        outcome: Outcome,
        /// The branches that have not said that they applied it.
        unapplied: Vec<Branch>,
    },
}
