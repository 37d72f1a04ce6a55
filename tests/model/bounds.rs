//! What one model holds. Everything else is left out, and the model's test says so.

use paxos_commit::protocol::types::Vote;

/// The bounds of one model.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// One or three.
    pub(crate) replicas: usize,
    /// What the resource manager of each branch may answer.
    pub(crate) votes: Vec<Vec<Vote>>,
    /// How many ballots each replica may start.
    pub(crate) ballots: [u8; 3],
    /// Which of them start one before anything else happens, because an operator asks for it. (A
    /// ballot that starts at once and whose `Phase1a` arrives late is one that starts late.)
    pub(crate) leads: [bool; 3],
    /// Which of them an operator may ask to start one later.
    pub(crate) forced: [bool; 3],
    /// How many ticks each replica hears.
    pub(crate) ticks: [u8; 3],
    pub(crate) lag: Lag,
    /// Who crashes and restarts once: one of these, and in the models without any, nobody.
    pub(crate) victims: Vec<Victim>,
    pub(crate) sessions: Sessions,
    pub(crate) begin: Begin,
    pub(crate) network: Keep,
    /// The mistake that is planted, to judge the judge.
    pub(crate) plant: Option<Plant>,
}

/// How far what is saved and sent stays behind what was done.
///
/// A step's effects leave once they are saved. If nobody crashes, an effect that has not left yet is
/// the same as a message that has left and is not delivered yet: the host's own next steps depend on
/// its memory, not on its disk, and the network may hold anything back for as long as it likes. So
/// **save lag commutes with network delay**, and only a replica that will crash need be given any.
/// (`lag_commutes_with_delay` checks this claim itself.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    /// A step's effects are saved and released with it, but at the replica that will crash: there
    /// step, save and release are apart until it has crashed.
    Victim,
    /// Step, save and release are apart at these replicas.
    Apart([bool; 3]),
}

/// What stays in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Everything that was ever sent.
    Everything,
    /// What can still make a difference to whoever gets it; see
    /// [`useful`](crate::tables::Tables::useful), and `useless_messages_change_nothing`, which
    /// checks that claim.
    Useful,
}

/// Who crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Victim {
    Replica(usize),
    /// The session of this branch.
    Session(usize),
}

/// What the sessions do once they have voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// They learn, and nothing that they learn goes back to anybody: resource managers never say
    /// that they applied an outcome. Such a leaf needs no place in the state; what it can be told
    /// follows from what was sent to it. See [`leaf`](crate::leaf).
    Leaves,
    /// Message by message; resource managers do not answer `Finish`.
    Silent,
    /// Message by message; resource managers answer `Finish`, so commits are applied and finished.
    Apply,
}

/// How the branches come to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// By themselves, before anything else happens.
    Itself,
    /// A relay asks them; the work was done before.
    Relay {
        /// How many more relays the initiator asks.
        hedges: u8,
    },
    /// A relay asks them and brings the work along.
    RelayWithRequest {
        /// How many more relays the initiator asks.
        hedges: u8,
    },
}

/// A mistake, made around the hosts: in what they are given, what of theirs is saved and when it
/// leaves. The product has no hooks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Messages leave before what they tell is saved.
    SendBeforeSave,
    /// A step that saves nothing is released at once, although an earlier one is not saved yet.
    ReleaseNotFifo,
    /// A replica restarts with an empty disk.
    Amnesia,
    /// On load, a promise hides the votes below it.
    PromiseHidesVotes,
    /// A session that restarts calls itself by its old number, and votes anew.
    SessionVotesAgain,
    /// Learners count reports of different ballots together.
    BallotsCountedTogether,
    /// One replica's Abort is believed at any ballot.
    AbortBelievedAlone,
    /// Which rounds were used is forgotten at restart.
    RoundsForgotten,
}
