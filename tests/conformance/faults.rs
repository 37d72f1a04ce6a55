//! One planted fault after another, each found by the rule that it breaks.

use std::collections::BTreeSet;
use std::time::Duration;

use paxos_commit::resource::conformance::{Rule, Status, check_with};
use tokio::task::JoinSet;

use super::toy::ToySubject;

/// What is wrong with a resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Prepared is only in the memory of the process.
    PrepareNotSaved,
    /// Prepared is only in the memory of the server.
    PrepareNotSynced,
    PreparedShows,
    CommitShowsNothing,
    LocksLostAtPrepare,
    LocksLostAtRestart,
    CommitNotSaved,
    NoMarker,
    CommitAgainApplies,
    ProofInMemory,
    CommitMissingIsOk,
    MarkerWithoutSession,
    MarkerWithoutRoster,
    RollbackNotSaved,
    RollbackOfTheUnknownFails,
    RollbackKeepsWork,
    LatePrepare,
    LetGoKeepsWork,
    RollbackUndoesCommit,
    ExpireUndoesCommit,
    InDoubtOnlyMine,
    InDoubtOnlyOthers,
    InDoubtListsCommitted,
    InDoubtUnderOneSession,
    OwnersAreGone,
    OthersAreGone,
    SessionIgnored,
    ReadOnlyThoughChanged,
    ReadOnlyForbidden,
    ReadOnlyKeepsLocks,
    /// Branches that changed nothing do not stay prepared when their process ends.
    ReadersAreDropped,
    ExpireDoesNothing,
    ExpireSaysRolledBack,
    ExpireNotSaved,
    HorizonIsProof,
    /// A store without any marker takes that for the end of all branches.
    EmptyIsProof,
    MissingIsAnError,
    /// The horizon of an earlier call counts with the list of this one.
    OlderListDeletesLater,
    ListIsIgnored,
    HorizonDropsPrepared,
    HorizonDropsAllMarkers,
    MarkersStay,
    ListedMarkersStayForEver,
    IdentityOfTheProcess,
    IdentityOfTheName,
    OpeningsNotSaved,
    /// A copy that is opened as often as the original looks like it.
    NonceOfTheNumber,
    PrepareAgainAborts,
    RequestRunsTwice,
    ReconnectsSilently,
    WorkTakesAllConnections,
    FinishersClash,
    PrepareInTwoSteps,
    CommitInTwoSteps,
    /// A call that is dropped leaves the branch claimed.
    ClaimOutlivesItsCall,
}

/// Each fault with the rule that must find it.
const FAULTS: &[(Fault, Rule)] = &[
    (Fault::PrepareNotSaved, Rule::PreparedIsDurable),
    (Fault::PrepareNotSynced, Rule::PreparedIsDurable),
    (Fault::PreparedShows, Rule::PreparedIsNotCommitted),
    (Fault::CommitShowsNothing, Rule::PreparedIsNotCommitted),
    (Fault::LocksLostAtPrepare, Rule::PreparedKeepsItsLocks),
    (Fault::LocksLostAtRestart, Rule::PreparedKeepsItsLocks),
    (Fault::CommitNotSaved, Rule::CommittedIsDurable),
    (Fault::NoMarker, Rule::CommitMayComeAgain),
    (Fault::CommitAgainApplies, Rule::CommitMayComeAgain),
    (Fault::ProofInMemory, Rule::CommitMayComeAgain),
    (Fault::CommitMissingIsOk, Rule::NoCommitWithoutProof),
    (Fault::MarkerWithoutSession, Rule::NoCommitWithoutProof),
    (Fault::MarkerWithoutRoster, Rule::NoCommitWithoutProof),
    (Fault::RollbackNotSaved, Rule::RolledBackIsDurable),
    (Fault::RollbackOfTheUnknownFails, Rule::RollbackOfTheUnknown),
    (Fault::RollbackKeepsWork, Rule::RollbackOfTheUnknown),
    (Fault::LatePrepare, Rule::LatePrepareAborts),
    (Fault::LetGoKeepsWork, Rule::LatePrepareAborts),
    (Fault::RollbackUndoesCommit, Rule::CommittedStays),
    (Fault::ExpireUndoesCommit, Rule::CommittedStays),
    (Fault::InDoubtOnlyMine, Rule::InDoubtIsComplete),
    (Fault::InDoubtOnlyOthers, Rule::InDoubtIsComplete),
    (Fault::InDoubtListsCommitted, Rule::InDoubtIsComplete),
    (Fault::InDoubtUnderOneSession, Rule::InDoubtIsComplete),
    (Fault::OwnersAreGone, Rule::GoneMeansGone),
    (Fault::OthersAreGone, Rule::GoneMeansGone),
    (Fault::SessionIgnored, Rule::OneSessionsBranch),
    (Fault::ReadOnlyThoughChanged, Rule::ReadOnlyIsTrue),
    (Fault::ReadOnlyForbidden, Rule::ReadOnlyIsTrue),
    (Fault::ReadOnlyKeepsLocks, Rule::ReadOnlyIsTrue),
    (Fault::ReadersAreDropped, Rule::ReadOnlyIsTrue),
    (Fault::ExpireDoesNothing, Rule::ExpireRollsBack),
    (Fault::ExpireSaysRolledBack, Rule::ExpireRollsBack),
    (Fault::ExpireNotSaved, Rule::ExpireRollsBack),
    (Fault::HorizonIsProof, Rule::NoCommitWithoutProof),
    (Fault::EmptyIsProof, Rule::NoCommitWithoutProof),
    (Fault::MissingIsAnError, Rule::NoCommitWithoutProof),
    (Fault::OlderListDeletesLater, Rule::MarkersGoWithTheList),
    (Fault::ListIsIgnored, Rule::MarkersGoWithTheList),
    (Fault::HorizonDropsPrepared, Rule::MarkersGoWithTheList),
    (Fault::HorizonDropsAllMarkers, Rule::MarkersGoWithTheList),
    (Fault::MarkersStay, Rule::MarkersGoWithTheList),
    (Fault::ListedMarkersStayForEver, Rule::MarkersGoWithTheList),
    (Fault::IdentityOfTheProcess, Rule::StoreIdentity),
    (Fault::IdentityOfTheName, Rule::StoreIdentity),
    (Fault::OpeningsNotSaved, Rule::StoreIdentity),
    (Fault::NonceOfTheNumber, Rule::StoreIdentity),
    (Fault::PrepareAgainAborts, Rule::PrepareMayComeAgain),
    (Fault::RequestRunsTwice, Rule::PrepareMayComeAgain),
    (Fault::ReconnectsSilently, Rule::LostConnectionPoisons),
    (Fault::WorkTakesAllConnections, Rule::CallsAtTheSameTime),
    (Fault::FinishersClash, Rule::CallsAtTheSameTime),
    (Fault::PrepareInTwoSteps, Rule::CutShort),
    (Fault::CommitInTwoSteps, Rule::CutShort),
    (Fault::ClaimOutlivesItsCall, Rule::CutShort),
];

/// Enough for a server in memory.
const PATIENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_store_without_faults_keeps_every_rule() {
    let report = check_with(&ToySubject::new(None), Duration::from_secs(20)).await;
    for finding in &report.findings {
        assert_eq!(finding.status, Status::Passed, "{finding}");
    }
    let rules: BTreeSet<u8> = report
        .findings
        .iter()
        .map(|finding| finding.rule.number())
        .collect();
    assert_eq!(rules, (1..=21).collect(), "every rule has its checks");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_is_found_by_its_rule() {
    let mut checks = JoinSet::new();
    for (fault, rule) in FAULTS {
        checks.spawn(async move {
            let report = check_with(&ToySubject::new(Some(*fault)), PATIENCE).await;
            (*fault, *rule, report)
        });
    }
    let (mut found, mut missed) = (BTreeSet::new(), Vec::new());
    while let Some(checked) = checks.join_next().await {
        let (fault, rule, report) = checked.unwrap();
        let finding = report.failed().find(|finding| finding.rule == rule);
        let Some(finding) = finding else {
            missed.push(format!("{fault:?} was not found by {rule:?}:\n{report}"));
            continue;
        };
        let text = finding.to_string();
        let number = format!("rule {} of the checklist: {}", rule.number(), rule.title());
        for part in ["expected ", "; got ", &number, rule.look_at()] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
        found.insert(rule);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_eq!(
        found.len(),
        21,
        "every rule has a fault that only it was made for"
    );
}
