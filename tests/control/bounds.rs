//! What one model holds. Everything else is left out, and the model's test says so.

use crate::cast::REPLICAS;

/// A state to start from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Which branches have voted. (They voted Prepared.)
    pub(crate) voted: [bool; 2],
    /// Whose votes each replica holds.
    pub(crate) held: [[bool; 2]; 3],
    /// To which replicas the votes are on their way, again if they are held.
    pub(crate) late: [bool; 3],
    /// Which replicas know of the transaction all the same: they were asked to be its relay, before
    /// its generation was closed. (Those that do not know it take no part in it.)
    pub(crate) relays: [bool; 3],
}

/// The bounds of one model.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// One or two.
    pub(crate) branches: usize,
    pub(crate) starts: Vec<Start>,
    /// What each replica has learned of the log.
    pub(crate) known: [Known; REPLICAS],
    /// Which replicas start a ballot of the log.
    pub(crate) leads: [bool; REPLICAS],
    /// Which replicas an operator asks for a ballot about the transaction.
    pub(crate) forced: [bool; REPLICAS],
    /// Whether branches apply a commit that they can have learned, and say so.
    pub(crate) applies: bool,
    /// Who may crash and come back, once in all.
    pub(crate) victims: Vec<usize>,
    /// Generations 2 and 3 run on the second configuration.
    pub(crate) moves: bool,
    pub(crate) answers: Answers,
    /// Whether replicas hear from others what was chosen. (Else from their own ballots alone.)
    pub(crate) news: bool,
    /// Of how many states one is run to its end; 0: none.
    pub(crate) sample: u64,
    pub(crate) plant: Option<Plant>,
}

/// What a replica has learned of the log when the model starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It takes no part in this model.
    Absent,
    /// Nothing: the first generation, or none.
    Nothing,
    /// That generation 2 is open.
    Second,
    /// The same, and it has accepted the opening of generation 3.
    ThirdAccepted,
    /// That generation 3 is open.
    Third,
}

/// When an answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// At any time, or never, like all messages.
    Anytime,
    /// Answers arrive at once if they arrive at all. (A promise that arrives late is a question that
    /// arrives late, but for what it keeps its giver from meanwhile.)
    AtOnce,
    /// And the leader's second question goes to those replicas that are frozen already, and arrives
    /// at once: what they hold does not change any more. A promise that nobody will count is not
    /// given: it could only keep its giver from something. And a proposal reaches the replica that
    /// makes it before all others.
    Straight,
}

/// A mistake, made around the hosts: in what they are given, what of theirs is saved and what they
/// send. The product has no hooks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Questions about a frozen generation are answered by replicas that do not freeze.
    NoFreezing,
    /// That a generation is frozen is forgotten on restart.
    FreezeForgotten,
    /// The leader tells what it has collected.
    CollectionTold,
    /// A Settle found in phase 1 is replaced by a fresh one.
    FreshList,
    /// A replica takes a Settle for chosen that it has accepted.
    ExpiredEarly,
    /// A new replica answers in place of the one that it replaced.
    NewConfigurationAsked,
    /// A crash comes between the horizon and the list.
    HorizonBeforeList,
    /// A replica that lost its disk comes back under its name.
    LostDisk,
}
