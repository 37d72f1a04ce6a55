//! Bodies of messages about the control log, and about what operators ask of it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{
    Branch, CommitId, Entered, LIST_MAX, Opening, Outcome, ParticipantName, ROSTER_MAX, StoreId,
    limited,
};

use super::Report;

/// The most branches on one page of a [`ListPage`].
pub const LISTING_MAX: usize = LIST_MAX * ROSTER_MAX;

/// What the control log says to a session, in [`Message::Admission`](super::Message::Admission).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Admission {
    /// The name stands for its store, and the log has entered this opening of it.
    Entered,
    /// Its name, or its store's opening, is about to be entered: the log has none.
    Vacant,
    /// The name stands for another store. The session may finish what its own store holds.
    OtherStore {
        /// The other store.
        entered: StoreId,
    },
    /// The name stands for its store, of which the log has this opening. If the store remembers it,
    /// the session presents its own after that; if not, it is an older copy.
    Opened {
        /// The opening.
        seen: Opening,
    },
    /// The log has entered as many names as it can.
    TooManyNames,
}

/// One page of the stores that names stand for, in [`Message::State`](super::Message::State).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoresPage {
    /// As asked.
    pub after: Option<ParticipantName>,
    /// The first names after `after`, in order.
    pub stores: Vec<(ParticipantName, Entered)>,
}

/// Body of [`Message::ListPage`](super::Message::ListPage): one page of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListPage {
    /// As asked.
    pub through: CommitId,
    /// As asked.
    pub after: Option<CommitId>,
    /// The listed branches of the asker's participant and store, with their commits, in order.
    #[serde(deserialize_with = "limited::<_, _, LISTING_MAX>")]
    pub listed: Vec<(CommitId, Branch)>,
    /// Ask for those after this one; nothing if there are no more.
    pub next: Option<CommitId>,
}

/// Why a replica did not do what an operator asked, or cannot tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum Declined {
    /// Another replica leads the log, or none does for the moment.
    #[error("this replica does not lead the control log; {}", ask(*leader))]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<ReplicaId>,
    },
    /// An entry is being decided already.
    #[error("another change is under way; look at what came of it and try again")]
    UnderWay,
    /// The operator does not know the latest generation.
    #[error("generation {latest} is the latest; look at it before you change it")]
    Changed {
        /// The latest.
        latest: u32,
    },
    /// A new replica has a name that was used before.
    #[error("replica id {0} was used before; a new replica needs an id above all former ones")]
    UsedId(ReplicaId),
    /// Too many generations wait to be settled.
    #[error("{0} generations wait to be settled; a majority of each must be up for that")]
    TooManyUnsettled(usize),
    /// This replica fell behind while the entry was being decided. It may have been done.
    #[error("it is not known whether it was done; look at what there is before you try again")]
    LostSight,
    /// A participant that should be gone for good is connected.
    #[error("participant {0} is connected, and will apply the commit: it needs no release")]
    Connected(ParticipantName),
    /// The name does not stand for that store.
    #[error("participant {participant} stands for {}, not for store {store}", or_none(*.entered))]
    NotItsStore {
        /// The name.
        participant: ParticipantName,
        /// The store that the operator named.
        store: StoreId,
        /// What the name stands for.
        entered: Option<StoreId>,
    },
    /// A store that should be gone, or was restored, is at work.
    #[error("store {store} of participant {participant} is connected: stop its service first")]
    StoreConnected {
        /// The name.
        participant: ParticipantName,
        /// The store.
        store: StoreId,
    },
    /// The commit is not settled, or waits for nobody.
    #[error("{0} is not among the settled commits that wait for a branch")]
    NotListed(CommitId),
    /// Replicas that have to take part from then on do not answer the leader.
    #[error(
        "not heard: replica {}. Every new replica and a majority of the new configuration must run and \
         be reachable from the leader: start them, look at their addresses, and try again",
        listed(.0)
    )]
    Unheard(Vec<ReplicaId>),
}

fn or_none(entered: Option<StoreId>) -> String {
    entered.map_or_else(|| "no store".into(), |store| format!("store {store}"))
}

fn listed(replicas: &[ReplicaId]) -> String {
    let ids: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

fn ask(leader: Option<ReplicaId>) -> String {
    match leader {
        Some(leader) => format!("ask replica {leader}"),
        None => "it knows of no leader, as when a majority of the replicas is down: see \
                 `paxos-commit status`"
            .into(),
    }
}

/// What a frozen replica holds of an instance, in [`Message::Collected`](super::Message::Collected).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frozen {
    /// What it would report in phase 1b.
    pub report: Report,
    /// The outcome, if it knows it, and whether nobody waits for it any more.
    pub decided: Option<(Outcome, Waits)>,
}

/// Whether some branch waits for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Waits {
    /// Some branch may not have applied it.
    Some,
    /// An abort, or all branches have applied it.
    None,
}
