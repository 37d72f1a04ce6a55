//! Every message, with the papers' names where they have one.
//!
//! Variants are only ever appended: the encoding is positional. Whoever receives a message checks
//! it before it changes anything; what does not fit (a roster that is not the commit id's, a vote
//! for somebody else's branch) is dropped.

mod control;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::paxos::log::LogMessage;
use super::paxos::{Ballot, ReplicaId};
use super::types::{
    Branch, BranchSet, CommitId, Configuration, Entered, Entering, Entry, Generations, Listed,
    Opening, Outcome, ParticipantName, ROSTER_MAX, ReadOnly, Request, Roster, StoreId, TxnId, Vote,
    limited,
};

pub use super::types::Unapplied;
pub use control::{Admission, Declined, Frozen, LISTING_MAX, ListPage, StoresPage, Waits};

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
        #[serde(deserialize_with = "limited::<_, _, ROSTER_MAX>")]
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
    /// Operator or initiator to replica: start a ballot now, so that the transaction ends.
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
        /// What would stand in a roster for each of its sessions.
        branches: Vec<Branch>,
    },
    /// Replica to initiator, session or operator: too many undecided transactions; try later.
    Busy {
        /// The instance that was not taken on. Nothing is lost.
        id: CommitId,
    },

    /// Replica to whoever connects, and at every sign of life: the generations as they are now.
    Announce(Generations),
    /// Replica to initiator or session: this transaction cannot run here. Its generation is closed
    /// and nothing is known of it, or it is not open here yet, or this replica does not decide it.
    /// What is known of generations says which, and in which one to begin.
    NotOpen {
        /// The instance.
        id: CommitId,
        /// The generations.
        generations: Generations,
    },
    /// Replica to whoever asked: the generation is settled, and this is not among the commits that
    /// wait for a branch. To a branch that stands prepared this is Abort; to anyone else it says
    /// that the outcome is forgotten.
    Expired {
        /// The instance.
        id: CommitId,
        /// The branch that was asked for.
        branch: Option<Branch>,
    },
    /// Replica to whoever inquired: every instance of this transaction is settled, and none waits
    /// for a branch. What came of it is forgotten.
    Forgotten {
        /// The transaction.
        txn: TxnId,
    },

    /// Between replicas: the control log.
    Log(LogMessage<Entry>),
    /// Leader of the log to the replicas of a generation: freeze it, and tell what is unfinished.
    Freeze {
        /// The generation.
        generation: u32,
        /// Tell of ids after this one.
        after: Option<CommitId>,
    },
    /// Replica to leader: it is frozen, and this is unfinished.
    Frozen {
        /// The generation.
        generation: u32,
        /// As asked.
        after: Option<CommitId>,
        /// The first [`BATCH_MAX`] ids after `after`, in order.
        ids: Vec<CommitId>,
        /// Whether there are more.
        more: bool,
    },
    /// Leader of the log to the replicas of a frozen generation: what do you hold of these?
    Collect {
        /// The generation.
        generation: u32,
        /// At most [`BATCH_MAX`].
        ids: Vec<CommitId>,
    },
    /// Replica to leader: it is frozen, and this is what it holds.
    Collected {
        /// The generation.
        generation: u32,
        /// One for each id.
        records: Vec<Frozen>,
    },
    /// Replica or operator to replica: what do the entries of the log before yours come to?
    Fetch {
        /// As far as the sender has come; an operator that wants the list asks with 0.
        slot: u64,
        /// List commits after this one.
        after: Option<CommitId>,
        /// And stores after this name.
        after_name: Option<ParticipantName>,
    },
    /// Replica to replica or operator: what they come to.
    State {
        /// The generations.
        generations: Generations,
        /// As asked.
        after: Option<CommitId>,
        /// The first [`LIST_MAX`](super::types::LIST_MAX) settled commits after `after` that wait
        /// for a branch, in order.
        listed: Vec<Listed>,
        /// The stores that names stand for. (Seldom more than one page.)
        stores: Box<StoresPage>,
        /// Whether there are more, of commits or of stores.
        more: bool,
    },

    /// Operator to replica: open the next generation on this configuration. Answered with
    /// `Announce` when it is open, or with `Declined`.
    Reconfigure {
        /// The generation that the operator takes for the latest.
        latest: u32,
        /// The replicas of the next one.
        configuration: Configuration,
    },
    /// Operator to replica: let this settled commit go, although some branch has not applied it and
    /// never will. Answered with `Expired` when it is gone, or with `Declined`.
    ///
    /// The operator answers for "never": a branch that stands prepared and comes back after all is
    /// told `Expired`, and rolls back what the others have committed.
    Release {
        /// The commit.
        id: CommitId,
    },
    /// Replica to session: commit was chosen, apply it to this branch; but the sender holds an abort
    /// of it, because a branch of the roster said different things to different replicas. Like
    /// `Finish`, except that a branch without proof answers `Contradicted`.
    Disputed {
        /// The instance.
        id: CommitId,
        /// The branch; not the receiver's own if its session is gone.
        branch: Branch,
    },
    /// Session to replica: commit was chosen and disputed, and this branch had rolled back. Counts as
    /// `Applied`: the branch waits for nothing any more.
    Contradicted {
        /// The instance.
        id: CommitId,
        /// The branch; not the sender's own if its session is gone.
        branch: Branch,
    },
    /// Session to replica: the store that holds this branch was told to commit it, and has neither the
    /// branch nor a marker of its commit. Answered with `Expired` when the commit is settled and off
    /// the list.
    Unproven {
        /// The instance.
        id: CommitId,
        /// The branch; not the sender's own if its session is gone.
        branch: Branch,
    },
    /// Session to replica: which commits up to `through` may its store still be told to apply?
    /// Answered by a replica whose horizon covers `through`.
    List {
        /// A horizon.
        through: CommitId,
        /// List commits after this one.
        after: Option<CommitId>,
    },
    /// Replica to session: which commits its store may still be told to apply. (Rare and large.)
    ListPage(Box<ListPage>),
    /// Replica to operator: nothing was done; or, with [`Declined::LostSight`], nobody knows.
    Declined(Declined),

    /// Session to replica, first of all: may my store work under this name? Answered with `Admission`,
    /// now and whenever the control log says something new of the name.
    Present {
        /// This opening of the store, if it counts them.
        opening: Option<Opening>,
        /// The opening that the log has, if it was told and the store remembers it.
        after: Option<Opening>,
    },
    /// Replica to session.
    Admission {
        /// How many entries of the log this comes from: a later one says more.
        slot: u64,
        /// What it says.
        admission: Admission,
    },
    /// Replica to the leader of the log: these stores have presented themselves, under names that
    /// stand for none.
    Enter {
        /// At most [`LIST_MAX`](super::types::LIST_MAX).
        stores: Vec<Entering>,
    },
    /// Operator to replica: this store is gone for good. Answered with `Named` when the name stands for
    /// it no longer, or with `Declined`.
    Gone {
        /// The name.
        participant: ParticipantName,
        /// The store.
        store: StoreId,
    },
    /// Operator to replica: the store of this participant was restored from a copy. Answered with
    /// `Named` when the next opening is entered whichever it is, or with `Declined`.
    Restored {
        /// The name.
        participant: ParticipantName,
        /// The store.
        store: StoreId,
    },
    /// Replica to operator: done; and what the name stands for now.
    Named {
        /// The name.
        participant: ParticipantName,
        /// The store; none if the next one that presents itself is entered.
        entered: Option<Entered>,
    },
    /// Leader of the log to a replica that is to decide the next generation: do you know what was chosen
    /// before this slot? Leaves only over a connection that the leader has dialed.
    Probe {
        /// The slot.
        slot: u64,
    },
    /// The answer to `Probe`.
    Probed {
        /// The first slot of which the sender does not know what was chosen.
        slot: u64,
    },
}

/// A message is moved a dozen times on its way, in its full size whatever it is: what is bulky and
/// rare is kept behind a pointer.
const _: () = assert!(size_of::<Message>() <= 120);

/// Body of [`Message::BeginCommit`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BeginCommit {
    /// The instance.
    pub id: CommitId,
    /// The roster, of which `id` holds the digest.
    pub roster: Roster,
    /// The requests, one for each branch of the roster in order; or none at all.
    #[serde(deserialize_with = "limited::<_, _, ROSTER_MAX>")]
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
