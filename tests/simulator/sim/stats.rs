//! What a run has seen.

use std::collections::BTreeMap;
use std::fmt;

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
}

impl Sometimes {
    pub const ALL: [Sometimes; 29] = [
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
}

impl Fault {
    pub const ALL: [Fault; 16] = [
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
    ];
}

/// Counts over one run or many.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub transactions: u64,
    pub steps: u64,
    pub messages: BTreeMap<&'static str, u64>,
    pub saves: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub sometimes: BTreeMap<Sometimes, u64>,
    /// Virtual time from asking for commit to the outcome, summed over `outcomes`.
    pub latency_us: u64,
    pub outcomes: u64,
}

impl Stats {
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
        for (kind, count) in &other.messages {
            *self.messages.entry(kind).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (what, count) in &other.sometimes {
            *self.sometimes.entry(*what).or_default() += count;
        }
    }

    /// What must happen sometimes and was never seen.
    pub fn never_seen(&self) -> Vec<String> {
        let events = Sometimes::ALL
            .iter()
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
        writeln!(
            f,
            "messages     {:>12}",
            self.messages.values().sum::<u64>()
        )?;
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
