//! What can be broken.

use thiserror::Error;

use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::types::{Branch, CommitId, Outcome};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub(crate) enum Violation {
    #[error("{id}: one was told commit, another abort")]
    TwoOutcomes { id: CommitId },
    #[error("{id}: {outcome} was told, and is not chosen")]
    NotChosen { id: CommitId, outcome: Outcome },
    #[error("{id}: commit without the votes of the whole roster")]
    CommitWithoutVotes { id: CommitId },
    #[error("{id}: branch {branch} voted twice, differently")]
    TwoVotes { id: CommitId, branch: Branch },
    #[error("{id}: replica {replica} holds two votes of one branch")]
    TwoVotesHeld { id: CommitId, replica: ReplicaId },
    #[error("{id}: the request of branch {branch} ran twice")]
    RequestRanTwice { id: CommitId, branch: Branch },
    #[error("{id}: two values were chosen")]
    TwoChosen { id: CommitId },
    #[error("{id}: ballot {ballot} proposed two values")]
    TwoProposals { id: CommitId, ballot: Ballot },
    #[error("{id}: replica {replica} went back behind a promise")]
    WentBack { id: CommitId, replica: ReplicaId },
    #[error("{id}: replica {replica} said what is not on its disk")]
    NotDurable { id: CommitId, replica: ReplicaId },
    #[error("replica {replica} used its ballot of round {round} twice")]
    BallotUsedTwice { replica: ReplicaId, round: u64 },
    #[error("ballot {ballot} left before its round was on disk")]
    RoundNotDurable { ballot: Ballot },
    #[error("{id}: replica {replica} is none of its generation's, and takes part")]
    Stranger { id: CommitId, replica: ReplicaId },
    #[error("{id}: replica {replica} touched it after it had frozen its generation")]
    FrozenTouched { id: CommitId, replica: ReplicaId },
    #[error("{id}: a commit that {branch} has not applied was forgotten")]
    CommitForgotten { id: CommitId, branch: Branch },
    #[error("{id}: replica {replica} said that it is settled, and has not learned so")]
    ExpiredTooEarly { id: CommitId, replica: ReplicaId },
    #[error("{id}: aborted, and settled as a commit")]
    AbortListed { id: CommitId },
    #[error("slot {slot}: two entries were chosen")]
    TwoEntries { slot: u64 },
    #[error("slot {slot}: ballot {ballot} proposed two entries")]
    TwoEntriesProposed { slot: u64, ballot: Ballot },
    #[error("slot {slot}: replica {replica} learned an entry that was not chosen")]
    EntryNotChosen { slot: u64, replica: ReplicaId },
    #[error("slot {slot}: replica {replica} took part before it had learned the slot before")]
    SlotSkipped { slot: u64, replica: ReplicaId },
    #[error("slot {slot}: replica {replica} took over another list than the log has")]
    OtherList { slot: u64, replica: ReplicaId },
    #[error("slot {slot}: replica {replica} took over other stores than the log has")]
    OtherStores { slot: u64, replica: ReplicaId },
    #[error("{id}: the vote of {branch} was counted, and its name stands for another store")]
    OtherStoreVoted { id: CommitId, branch: Branch },
    #[error("slot {slot}: replica {replica} went back behind a promise")]
    SlotWentBack { slot: u64, replica: ReplicaId },
    #[error("slot {slot}: replica {replica} said what is not on its disk")]
    SlotNotDurable { slot: u64, replica: ReplicaId },
    #[error("replica {replica} told of generations that it has not learned")]
    Announced { replica: ReplicaId },
    #[error("replica {replica} said that generation {generation} is frozen, and it is not on disk")]
    FrozenNotDurable { replica: ReplicaId, generation: u32 },
}
