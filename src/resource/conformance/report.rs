//! What came of the checks.

use std::fmt;

/// A rule of the [checklist](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// 1: Prepared is durable.
    PreparedIsDurable = 1,
    /// 2: Prepared is not committed.
    PreparedIsNotCommitted,
    /// 3: Prepared keeps its locks.
    PreparedKeepsItsLocks,
    /// 4: Committed is durable.
    CommittedIsDurable,
    /// 5: Commit may come again.
    CommitMayComeAgain,
    /// 6: No commit without proof.
    NoCommitWithoutProof,
    /// 7: Rolled back is durable.
    RolledBackIsDurable,
    /// 8: Rollback of the unknown is done.
    RollbackOfTheUnknown,
    /// 9: What is over does not come back.
    LatePrepareAborts,
    /// 10: What is committed stays committed.
    CommittedStays,
    /// 11: In doubt is complete and exact.
    InDoubtIsComplete,
    /// 12: Gone means gone.
    GoneMeansGone,
    /// 13: A branch is one session's.
    OneSessionsBranch,
    /// 14: `ReadOnly` is said only where it is true and allowed.
    ReadOnlyIsTrue,
    /// 15: Expire rolls back what stands prepared.
    ExpireRollsBack,
    /// 16: Markers go with the list.
    MarkersGoWithTheList,
    /// 17: Prepare may come again.
    PrepareMayComeAgain,
    /// 18: A lost connection poisons.
    LostConnectionPoisons,
    /// 19: Calls come at the same time.
    CallsAtTheSameTime,
    /// 20: A call cut short leaves all or nothing.
    CutShort,
    /// 21: A store has an identity.
    StoreIdentity,
}

impl Rule {
    /// Its number in the checklist.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The rule in a few words.
    pub fn title(self) -> &'static str {
        self.words().0
    }

    /// Where a resource manager that breaks it usually goes wrong.
    pub fn look_at(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Rule::PreparedIsDurable => (
                "prepared is durable",
                "what prepare waits for before it answers; the name under which it is saved",
            ),
            Rule::PreparedIsNotCommitted => (
                "prepared is not committed",
                "whether prepare touches committed data; whether commit does",
            ),
            Rule::PreparedKeepsItsLocks => (
                "prepared keeps its locks",
                "how locks are restored at start, before anybody works; when they are let go",
            ),
            Rule::CommittedIsDurable => (
                "committed is durable",
                "what commit waits for before it answers",
            ),
            Rule::CommitMayComeAgain => (
                "commit may come again",
                "the marker: written in the same local transaction as the commit, and looked up \
                 when a branch is not there",
            ),
            Rule::NoCommitWithoutProof => (
                "no commit without proof",
                "what commit answers when the branch is not there: Missing, whatever the horizon is; \
                 by what name markers are looked up: the commit id, the session and the store \
                 belong to it",
            ),
            Rule::RolledBackIsDurable => (
                "rolled back is durable",
                "what rollback waits for before it answers",
            ),
            Rule::RollbackOfTheUnknown => (
                "rollback of the unknown is done",
                "what rollback answers when the branch is not there; whether it lets go of work \
                 that was never prepared",
            ),
            Rule::LatePrepareAborts => (
                "what is over does not come back",
                "whether the process remembers transactions that it rolled back or let go",
            ),
            Rule::CommittedStays => (
                "what is committed stays committed",
                "what rollback and expire do when the branch is not prepared: nothing",
            ),
            Rule::InDoubtIsComplete => (
                "in doubt is complete and exact",
                "whether the list comes from what is durable, or from this process's memory; \
                 whether it is filtered by session",
            ),
            Rule::GoneMeansGone => (
                "gone means gone",
                "when the owner of a branch is said to be Gone: only if its process cannot live",
            ),
            Rule::OneSessionsBranch => (
                "a branch is one session's",
                "the name of a prepared branch and of its marker: the session belongs to it",
            ),
            Rule::ReadOnlyIsTrue => (
                "ReadOnly is said only where it is true and allowed",
                "how prepare finds out that nothing was changed; what is left behind after it; \
                 whether the backend drops prepared branches that wrote nothing",
            ),
            Rule::ExpireRollsBack => (
                "expire rolls back what stands prepared",
                "whether expire looks whether the branch stands prepared, and waits until the \
                 rollback is durable",
            ),
            Rule::MarkersGoWithTheList => (
                "markers go with the list",
                "which markers settled deletes: those up to its own horizon that are not in its own \
                 list, by the order of ids; whether it touches what stands prepared",
            ),
            Rule::PrepareMayComeAgain => (
                "prepare may come again",
                "whether prepare looks first if the branch stands prepared",
            ),
            Rule::LostConnectionPoisons => (
                "a lost connection poisons",
                "whether a connection is silently replaced in the middle of a transaction",
            ),
            Rule::CallsAtTheSameTime => (
                "calls come at the same time",
                "what is shared between branches; what a finisher does that finds another one at \
                 the same branch; whether working branches can take the last connection",
            ),
            Rule::CutShort => (
                "a call cut short leaves all or nothing",
                "whether each call changes durable state in one step; what is lost when its future \
                 is dropped",
            ),
            Rule::StoreIdentity => (
                "a store has an identity",
                "where the identity comes from: drawn when the store is created, saved inside of it, \
                 and never taken from a name, an address or a process; when an opening is counted: \
                 durably, before the store is used",
            ),
        }
    }
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that it checks.
    pub rule: Rule,
    /// What it does.
    pub name: &'static str,
    /// What came of it.
    pub status: Status,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The rule is kept, as far as this check sees.
    Passed,
    /// The rule is broken: what was expected, and what came.
    Failed(String),
    /// The subject says that this cannot be, and why.
    NotApplicable(&'static str),
}

/// What came of all checks, by the number of their rules. Displayed, it is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each check.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no check failed.
    pub fn is_passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        let is_failed = |finding: &&Finding| matches!(finding.status, Status::Failed(_));
        self.findings.iter().filter(is_failed)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, name) = (self.rule.number(), self.name);
        match &self.status {
            Status::Passed => write!(f, "{number:>2}  passed  {name}"),
            Status::NotApplicable(reason) => {
                write!(f, "{number:>2}  -       {name}: does not apply, {reason}")
            }
            Status::Failed(what) => {
                let (title, look_at) = self.rule.words();
                writeln!(f, "{number:>2}  FAILED  {name}: {what}")?;
                writeln!(f, "            rule {number} of the checklist: {title}")?;
                write!(f, "            look at: {look_at}")
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        Ok(())
    }
}
