//! What a run has seen.

use std::collections::BTreeMap;
use std::fmt;

use paxos_commit::protocol::message::Message;

/// Things that must happen in some run, or the simulator does not test what it claims to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sometimes {
    Commit,
    Abort,
    ReadOnlyVote,
    RequestRan,
    PreparedByItself,
    RecoveryCommitsBound,
    RecoveryCommitsUnion,
    RecoveryAborts,
    CommitWithReplicaDown,
    NackSent,
    ExchangeAtBallotZero,
    BusyAnswer,
    SecondRelayAsked,
    RolledBackBeforeCommit,
    WorkLetGo,
    PoisonedBranch,
    ServiceGivesUp,
    UnknownBranch,
    StaleSession,
    InDoubtCommitted,
    InDoubtAborted,
    LatePrepareSurfaced,
    FinishedByAnotherSession,
    CommitAppliedAgain,
    ForcedAbortAborts,
    ForcedAbortFindsCommit,
    InitiatorAskedAfterRestart,
    InitiatorAbandoned,
    LateRelay,
    TwoPhaseCommit,
    GenerationOpened,
    GenerationSettled,
    SettledInParts,
    SettleLists,
    SettleCommits,
    SettleFoundInPhase1,
    ExpiredToBranch,
    ExpiredToInitiator,
    NotOpenAnswer,
    GenerationClosedRefused,
    LeaderMoved,
    StateTakenOver,
    ReplicaReplaced,
    ReplicasAdded,
    ReplicasRemoved,
    AddressMoved,
    RemovedReplicaStopped,
    ReleasedByOperator,
    Unlisted,
    ExpiredButNotPrepared,
    Recalled,
    RecalledForBallot,
    RecalledForInquiry,
    RecalledForCollect,
    RecalledForList,
    RollbackOfPlanAborts,
    RollbackOfPlanFindsCommit,
    CommitWithoutProof,
    PartnerContradicted,
    StoreEntered,
    OtherStoreRefused,
}

impl Sometimes {
    pub const ALL: [Sometimes; 61] = [
        Sometimes::Commit,
        Sometimes::Abort,
        Sometimes::ReadOnlyVote,
        Sometimes::RequestRan,
        Sometimes::PreparedByItself,
        Sometimes::RecoveryCommitsBound,
        Sometimes::RecoveryCommitsUnion,
        Sometimes::RecoveryAborts,
        Sometimes::CommitWithReplicaDown,
        Sometimes::NackSent,
        Sometimes::ExchangeAtBallotZero,
        Sometimes::BusyAnswer,
        Sometimes::SecondRelayAsked,
        Sometimes::RolledBackBeforeCommit,
        Sometimes::WorkLetGo,
        Sometimes::PoisonedBranch,
        Sometimes::ServiceGivesUp,
        Sometimes::UnknownBranch,
        Sometimes::StaleSession,
        Sometimes::InDoubtCommitted,
        Sometimes::InDoubtAborted,
        Sometimes::LatePrepareSurfaced,
        Sometimes::FinishedByAnotherSession,
        Sometimes::CommitAppliedAgain,
        Sometimes::ForcedAbortAborts,
        Sometimes::ForcedAbortFindsCommit,
        Sometimes::InitiatorAskedAfterRestart,
        Sometimes::InitiatorAbandoned,
        Sometimes::LateRelay,
        Sometimes::TwoPhaseCommit,
        Sometimes::GenerationOpened,
        Sometimes::GenerationSettled,
        Sometimes::SettledInParts,
        Sometimes::SettleLists,
        Sometimes::SettleCommits,
        Sometimes::SettleFoundInPhase1,
        Sometimes::ExpiredToBranch,
        Sometimes::ExpiredToInitiator,
        Sometimes::NotOpenAnswer,
        Sometimes::GenerationClosedRefused,
        Sometimes::LeaderMoved,
        Sometimes::StateTakenOver,
        Sometimes::ReplicaReplaced,
        Sometimes::ReplicasAdded,
        Sometimes::ReplicasRemoved,
        Sometimes::AddressMoved,
        Sometimes::RemovedReplicaStopped,
        Sometimes::ReleasedByOperator,
        Sometimes::Unlisted,
        Sometimes::ExpiredButNotPrepared,
        Sometimes::Recalled,
        Sometimes::RecalledForBallot,
        Sometimes::RecalledForInquiry,
        Sometimes::RecalledForCollect,
        Sometimes::RecalledForList,
        Sometimes::RollbackOfPlanAborts,
        Sometimes::RollbackOfPlanFindsCommit,
        Sometimes::StoreEntered,
        Sometimes::OtherStoreRefused,
        Sometimes::CommitWithoutProof,
        Sometimes::PartnerContradicted,
    ];
}

/// Faults that were injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    MessageLost,
    MessageDoubled,
    DelaySpike,
    VeryLateMessage,
    DiskStall,
    FailedSync,
    TornBatch,
    LostBatch,
    ReplicaCrash,
    SessionCrash,
    InitiatorCrash,
    Partition,
    OneWayPartition,
    CannotPrepare,
    UnknownResult,
    ForcedAbort,
    ConfusedInitiator,
    ProcessPaused,
    DiskLost,
    ParticipantGone,
    HostileClient,
    EmptyVolume,
}

impl Fault {
    pub const ALL: [Fault; 21] = [
        Fault::MessageLost,
        Fault::MessageDoubled,
        Fault::DelaySpike,
        Fault::VeryLateMessage,
        Fault::DiskStall,
        Fault::FailedSync,
        Fault::TornBatch,
        Fault::LostBatch,
        Fault::ReplicaCrash,
        Fault::SessionCrash,
        Fault::InitiatorCrash,
        Fault::Partition,
        Fault::OneWayPartition,
        Fault::CannotPrepare,
        Fault::UnknownResult,
        Fault::ForcedAbort,
        Fault::ConfusedInitiator,
        Fault::ProcessPaused,
        Fault::DiskLost,
        Fault::ParticipantGone,
        Fault::HostileClient,
    ];
}

/// Counts over one run or many.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub transactions: u64,
    pub steps: u64,
    /// Messages by kind, in the order of [`KINDS`].
    pub messages: Counts,
    pub saves: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub sometimes: BTreeMap<Sometimes, u64>,
    /// Virtual time from asking for commit to the outcome, summed over `outcomes`.
    pub latency_us: u64,
    pub outcomes: u64,
    pub latency_max_us: u64,
    /// What the first replica remembered when each generation was opened.
    pub memory: Vec<Memory>,
    /// Forced writes that were complete when the first outcome was known: saves of replicas and
    /// prepares of resource managers.
    pub writes_before_outcome: u64,
    pub prepares: u64,
    pub saves_done: u64,
}

/// What a replica and a session keep at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub generation: u32,
    /// Transactions in the memory of a replica: what is under way, and what is finished and not
    /// evicted.
    pub transactions: usize,
    /// Records of transactions on its disk.
    pub records: usize,
    /// Branches in the memory of a session.
    pub branches: usize,
}

/// One count for each of [`KINDS`].
#[derive(Clone, Debug)]
pub struct Counts([u64; KINDS.len()]);

impl Default for Counts {
    fn default() -> Self {
        Counts([0; KINDS.len()])
    }
}

/// The kinds of messages.
pub const KINDS: [&str; 48] = [
    "BeginCommit",
    "Rollback",
    "Ask",
    "Inquire",
    "Resolve",
    "ForceAbort",
    "Prepare",
    "LetGo",
    "Vote",
    "Applied",
    "Phase1a",
    "Phase1b",
    "Phase2a",
    "Phase2b",
    "Nack",
    "Decided",
    "Finish",
    "Undecided",
    "Status",
    "Resolved",
    "Busy",
    "Announce",
    "NotOpen",
    "Expired",
    "Forgotten",
    "Log",
    "Freeze",
    "Frozen",
    "Collect",
    "Collected",
    "Fetch",
    "State",
    "Reconfigure",
    "Release",
    "Declined",
    "Disputed",
    "Contradicted",
    "Unproven",
    "List",
    "Listing",
    "Present",
    "Admission",
    "Enter",
    "Gone",
    "Restored",
    "Named",
    "Probe",
    "Probed",
];

fn kind(message: &Message) -> usize {
    match message {
        Message::BeginCommit(_) => 0,
        Message::Rollback { .. } => 1,
        Message::Ask(_) => 2,
        Message::Inquire { .. } => 3,
        Message::Resolve { .. } => 4,
        Message::ForceAbort { .. } => 5,
        Message::Prepare(_) => 6,
        Message::LetGo { .. } => 7,
        Message::Vote(_) => 8,
        Message::Applied { .. } => 9,
        Message::Phase1a { .. } => 10,
        Message::Phase1b { .. } => 11,
        Message::Phase2a { .. } => 12,
        Message::Phase2b { .. } => 13,
        Message::Nack { .. } => 14,
        Message::Decided(_) => 15,
        Message::Finish { .. } => 16,
        Message::Undecided(_) => 17,
        Message::Status { .. } => 18,
        Message::Resolved { .. } => 19,
        Message::Busy { .. } => 20,
        Message::Announce(_) => 21,
        Message::NotOpen { .. } => 22,
        Message::Expired { .. } => 23,
        Message::Forgotten { .. } => 24,
        Message::Log(_) => 25,
        Message::Freeze { .. } => 26,
        Message::Frozen { .. } => 27,
        Message::Collect { .. } => 28,
        Message::Collected { .. } => 29,
        Message::Fetch { .. } => 30,
        Message::State { .. } => 31,
        Message::Reconfigure { .. } => 32,
        Message::Release { .. } => 33,
        Message::Declined(_) => 34,
        Message::Disputed { .. } => 35,
        Message::Contradicted { .. } => 36,
        Message::Unproven { .. } => 37,
        Message::List { .. } => 38,
        Message::ListPage(_) => 39,
        Message::Present { .. } => 40,
        Message::Admission { .. } => 41,
        Message::Enter { .. } => 42,
        Message::Gone { .. } => 43,
        Message::Restored { .. } => 44,
        Message::Named { .. } => 45,
        Message::Probe { .. } => 46,
        Message::Probed { .. } => 47,
    }
}

impl Stats {
    pub fn count(&mut self, message: &Message) {
        self.messages.0[kind(message)] += 1;
    }

    /// How many messages of this kind were sent.
    pub fn messages_of(&self, name: &str) -> u64 {
        let index = KINDS.iter().position(|kind| *kind == name);
        index.map_or(0, |index| self.messages.0[index])
    }

    pub fn messages(&self) -> u64 {
        self.messages.0.iter().sum()
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn saw(&mut self, what: Sometimes) {
        *self.sometimes.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Stats) {
        self.transactions += other.transactions;
        self.steps += other.steps;
        self.saves += other.saves;
        self.latency_us += other.latency_us;
        self.outcomes += other.outcomes;
        self.prepares += other.prepares;
        self.saves_done += other.saves_done;
        for (count, more) in self.messages.0.iter_mut().zip(&other.messages.0) {
            *count += more;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (what, count) in &other.sometimes {
            *self.sometimes.entry(*what).or_default() += count;
        }
    }

    /// What must happen sometimes and was never seen. (But for what takes a liar that says two things at
    /// one moment: the directed attack of `hostile` shows it, and chance rarely does.)
    pub fn never_seen(&self) -> Vec<String> {
        let events = Sometimes::ALL
            .iter()
            .filter(|what| **what != Sometimes::PartnerContradicted)
            .filter(|what| !self.sometimes.contains_key(what))
            .map(|what| format!("{what:?}"));
        let faults = Fault::ALL
            .iter()
            .filter(|fault| !self.faults.contains_key(fault))
            .map(|fault| format!("{fault:?}"));
        events.chain(faults).collect()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "transactions {:>12}", self.transactions)?;
        writeln!(f, "steps        {:>12}", self.steps)?;
        writeln!(f, "messages     {:>12}", self.messages())?;
        writeln!(f, "saves        {:>12}", self.saves)?;
        writeln!(f, "faults injected")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {:<30}{count:>10}", format!("{fault:?}"))?;
        }
        writeln!(f, "seen sometimes")?;
        for (what, count) in &self.sometimes {
            writeln!(f, "  {:<30}{count:>10}", format!("{what:?}"))?;
        }
        Ok(())
    }
}
