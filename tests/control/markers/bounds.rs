//! What one model holds. Everything else is left out, and the model's test says so.

use crate::cast::REPLICAS;

/// The bounds of one model.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// One or two, each of a participant of its own.
    pub(crate) branches: usize,
    /// The second store of the first participant.
    pub(crate) second: Second,
    /// What each replica knows of the commit when the model starts.
    pub(crate) knows: [Knows; REPLICAS],
    /// Which replicas start a ballot of the log.
    pub(crate) leads: [bool; REPLICAS],
    /// Which replicas may crash and come back, one of them, once.
    pub(crate) victims: Vec<usize>,
    /// Which replica greets the next session of the first store, if its session may crash once.
    pub(crate) reopens: Option<usize>,
    /// Whether an operator asks each leader to replace replica 1 by replica 4.
    pub(crate) replaces: bool,
    /// How replicas hear what was chosen by the ballots of others.
    pub(crate) news: News,
    /// Whether messages are dropped that change nothing any more.
    pub(crate) drops: bool,
    /// Of how many states one is run to its end; 0: none.
    pub(crate) sample: u64,
    pub(crate) plant: Option<Plant>,
}

/// What a replica knows of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    /// The replica takes no part in this model.
    Absent,
    /// Nothing; the replica has no log yet.
    Nothing,
    /// That it is committed.
    Commit,
    /// The same; and the replica has accepted the Settle that lists it.
    Accepted,
    /// That it is settled and listed.
    Listed,
}

/// How replicas hear what was chosen by the ballots of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Entry by entry.
    Entries,
    /// By a state that they take over.
    States,
    /// Either way.
    Both,
}

/// A second store under the name of the first participant. No roster names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    None,
    /// A new store: neither branches nor markers.
    Empty,
    /// A copy of the first store with an identity of its own: the branch stands prepared in it.
    Copy,
}

/// A mistake, made around the hosts: in what they are told and what they answer. The product has no
/// hooks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// A replica whose log has not reached the horizon answers a question for the list.
    AnswersBeforeHorizon,
    /// A replica leaves out of a page what all branches have applied, as it remembers.
    AnswersFromMemory,
    /// The second store counts as the first: no identity is compared.
    IdentityIgnored,
    /// A replica drops a listed commit when it has heard from all branches that they applied it.
    ShrinksAlone,
    /// An entry found in phase 1 is not proposed again.
    FoundIgnored,
}
