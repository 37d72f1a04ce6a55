//! What a resource manager must do, as a checklist, and a kit that checks it.
//!
//! Whoever writes a [`ResourceManager`](crate::participant::ResourceManager) of their own implements
//! [`Subject`] for it (open the store, end the process, add to a counter, read it) and runs [`check`]
//! over an empty store:
//!
//! ```no_run
//! # async fn example<S: paxos_commit::resource::conformance::Subject>(subject: S) {
//! let report = paxos_commit::resource::conformance::check(&subject).await;
//! println!("{report}");
//! assert!(report.is_passed());
//! # }
//! ```
//!
//! A check that fails says which rule of the checklist is broken, what was expected, what came, and
//! where to look. Nothing is skipped in silence: a check does not apply only where the subject says
//! so, and then the report says why.
//!
//! # The checklist
//!
//! 1. **Prepared is durable.** Once `prepare` has answered `Prepared`, the branch survives the end of
//!    the process and a crash of the store, whole, under its name; commit and rollback are possible
//!    in a later process.
//! 2. **Prepared is not committed.** Nobody sees a change before the commit, in no process; after it
//!    everybody does.
//! 3. **Prepared keeps its locks** until the outcome, across crashes: nobody else overwrites what it
//!    changed.
//! 4. **Committed is durable** when `commit` returns.
//! 5. **Commit may come again**, to this process and to later ones, whatever was committed since. It
//!    answers `Ok` and changes nothing.
//! 6. **No commit without proof.** A branch that is not there counts as committed only if the marker
//!    is there that its own commit wrote. Otherwise `commit` answers `Missing`, changes nothing, and
//!    answers so for ever: no restart, no horizon and no list makes it a success. This also holds
//!    for another store of the same name, which has neither the branch nor the marker. (`Found`
//!    would be half a transaction; an error would be repeated.)
//! 7. **Rolled back is durable** when `rollback` returns, and rollback may come again.
//! 8. **Rollback of the unknown is done**: of a branch that never was, and of work that was never
//!    prepared, which lets go of its locks.
//! 9. **What is over does not come back.** A prepare that comes after the rollback of its branch, or
//!    after `let_go`, in the same process, does not prepare.
//! 10. **What is committed stays committed**, even if a rollback or an expire comes.
//! 11. **In doubt is complete and exact**: every branch that stands prepared, of every session that
//!     ever was, by its commit id and session, and no other.
//! 12. **Gone means gone.** The owner of a branch is `Gone` only if it is certain that its session
//!     does not live: replicas stop waiting for its vote.
//! 13. **A branch is one session's.** Two sessions of one participant in one transaction are two
//!     branches; what is done to one is not done to the other.
//! 14. **`ReadOnly` is said only** where it is allowed, of a branch that changed nothing, and then
//!     nothing is left of it: no lock and nothing in doubt. Never to say it is right, too; then such a
//!     branch is prepared like any other. Two branches that have only read the same row can stand
//!     prepared at the same time: read locks are shared.
//! 15. **Expire rolls back what stands prepared**, durably, and says so; of anything else it says
//!     `NotPrepared`, and changes nothing.
//! 16. **Markers go with the list.** `settled(through, listed)` deletes the markers of all commits up
//!     to `through` but those of `listed`, and no other: a listed commit may be told again, and its
//!     marker is the proof. An older call that comes late deletes nothing above its own `through`.
//!     What stands prepared stays prepared.
//! 17. **Prepare may come again** while the branch stands prepared: it answers as before, and a
//!     request runs no second time.
//! 18. **A lost connection poisons.** A branch part of whose work was lost does not prepare the rest.
//! 19. **Calls come at the same time**, for different branches; and where several processes share a
//!     store, for the same branch from several of them.
//!     A call may wait as long as it must, but not block its thread: the other branches' calls run
//!     there, too. (Use `spawn_blocking` for a library that blocks.)
//! 20. **A call cut short leaves all or nothing.** After a crash in the middle of `prepare` the branch
//!     stands prepared, whole, or not at all; after one in the middle of `commit` or `rollback`, the
//!     same call ends it.
//! 21. **A store has an identity**, which is drawn at random when the store is created, is kept inside
//!     of it and is the same in every process. A new store has another one, whatever its name and
//!     place. A physical copy keeps it: the kit cannot tell a copy from the original, and neither can
//!     a replica. So a store that only one process can have open remembers its openings, durably,
//!     each with a number drawn at random: a copy does not remember those that come after it.
//!
//! What no kit can check is in the list all the same: that "durable" means that the disk was told to
//! keep it, and not only the operating system's memory. The [`Subject`]'s crash of the store is as
//! good as what it does: a `SIGKILL` finds less than a machine that loses its power.
//!
//! # A store without a prepare of its own
//!
//! If the backend can only commit, the embedded store (`resource::embedded`) is the model to follow.
//! Prepare writes what the branch changed, and what it has locked, as *one row* under the branch's
//! name, in a transaction of the backend (rule 1); its data are untouched (rule 2). At start those
//! rows are read and the locks taken again before anybody works (rule 3). Commit is one transaction:
//! it applies the row, deletes it and writes a marker under the same name (rules 4 to 6); rollback
//! deletes the row (rules 7, 8). In doubt is the list of the rows (rule 11). The identity is one more
//! row, written with the schema (rule 21).

mod branches;
mod crashes;
mod finishing;
mod identity;
mod many;
mod process;
mod readers;
mod report;
mod settling;
mod subject;

use std::time::Duration;

use process::{Broken, Scene, Verdict};

pub use report::{Finding, Report, Rule, Status};
pub use subject::{Applied, Failure, Processes, Subject};

/// How long a call may take, or go on failing, before that is a failure of the check. A resource
/// manager whose backend hands branches over slowly needs as much.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs all checks over an empty store, one after another, and reports on each.
pub async fn check<S: Subject>(subject: &S) -> Report {
    check_with(subject, PATIENCE).await
}

/// Like [`check`]; a call that does not end, or that goes on failing, fails its check after
/// `patience`, and not after 20 s.
pub async fn check_with<S: Subject>(subject: &S, patience: Duration) -> Report {
    let mut checks = Checks {
        subject,
        patience,
        findings: Vec::new(),
    };
    crashes::all(&mut checks).await;
    finishing::all(&mut checks).await;
    branches::all(&mut checks).await;
    readers::all(&mut checks).await;
    settling::all(&mut checks).await;
    identity::all(&mut checks).await;
    many::all(&mut checks).await;
    checks.findings.sort_by_key(|finding| finding.rule);
    Report {
        findings: checks.findings,
    }
}

/// The checks so far.
struct Checks<'s, S> {
    subject: &'s S,
    patience: Duration,
    findings: Vec<Finding>,
}

impl<'s, S: Subject> Checks<'s, S> {
    /// Runs one check, on counters and in transactions of its own.
    async fn run(
        &mut self,
        rule: Rule,
        name: &'static str,
        check: impl AsyncFnOnce(&Scene<'s, S>) -> Result<(), Verdict>,
    ) {
        // Each in a later generation than the last: what one settles lies behind the next.
        let generation = self.findings.len() as u32 + 1;
        let scene = Scene::new(self.subject, generation, self.patience);
        // Checks make a few dozen calls, each with its own bound.
        let bound = self.patience.saturating_mul(10);
        let verdict = match tokio::time::timeout(bound, check(&scene)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Verdict::Broken(Broken {
                expected: "the check to come to its end".to_owned(),
                got: format!("nothing for {bound:?}: a call waits for ever"),
            })),
        };
        let status = match verdict {
            Ok(()) => Status::Passed,
            Err(Verdict::NotApplicable(reason)) => Status::NotApplicable(reason),
            Err(Verdict::Broken(broken)) => {
                Status::Failed(format!("expected {}; got {}", broken.expected, broken.got))
            }
        };
        self.findings.push(Finding { rule, name, status });
    }
}
