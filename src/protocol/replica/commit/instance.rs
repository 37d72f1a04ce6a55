//! What a replica keeps of one undecided or unapplied transaction.

use crate::protocol::learn::OutcomeLearner;
use crate::protocol::message::Unapplied;
use crate::protocol::types::{Branch, BranchSet, CommitId, Peer, Roster};

use super::acceptor::VoteAcceptor;
use crate::protocol::replica::front::{Cost, Place};

/// The most askers that one instance remembers; the others ask again.
pub(crate) const WAITERS_MAX: usize = 64;

/// One transaction that is under way: undecided, or a commit that some branch has not applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instance {
    pub(super) roster: Option<Roster>,
    pub(super) acceptor: VoteAcceptor,
    pub(super) learner: OutcomeLearner,
    pub(super) phase: Phase,
    /// The branches that said that they applied the commit.
    pub(super) applied: BranchSet,
    /// The branches whose store said that it has no proof of the commit.
    pub(super) unproven: BranchSet,
    /// Whether this replica held an abort of what is settled as a commit.
    pub(super) dispute: Dispute,
    /// The branches that voted `ReadOnly`, where a Commit brought them and not the votes.
    pub(super) told_read_only: Option<BranchSet>,
    pub(super) waiters: Vec<Waiter>,
    /// Ticks until something is done about it: a ballot while undecided, a push while unapplied.
    pub(super) patience: u32,
    /// Whether `patience` comes from somebody who knows the vote timeout of this transaction.
    timeout: Timeout,
    /// How often something was done about it in this phase.
    pub(super) attempts: u32,
    /// Whose places it takes.
    pub(super) place: Place,
    /// Whether its initiator, or branches of several participants, stand behind it.
    pub(super) vouched: Vouched,
}

/// Where the patience with missing votes comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Timeout {
    /// A replica that restarted, or was only asked, does not know better.
    Guessed,
    /// From the initiator or from a vote.
    Told,
}

/// Whether anybody but the client that made this replica take a transaction on stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Vouched {
    Yes,
    No,
}

/// Whether a replica held an abort of a settled commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dispute {
    None,
    Aborted,
}

/// How far an instance is. (An aborted one is finished at once and leaves.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// No outcome is known here.
    Undecided,
    /// Commit was chosen, and some branch has not said that it applied it.
    Committed,
}

/// Somebody who asked and is told when it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    pub(super) peer: Peer,
    /// The branch that waits, if a session asked.
    pub(super) branch: Option<Branch>,
}

impl Instance {
    pub(super) fn new(roster: Option<Roster>, patience: u32) -> Self {
        Instance {
            roster,
            acceptor: VoteAcceptor::default(),
            learner: OutcomeLearner::default(),
            phase: Phase::Undecided,
            applied: BranchSet::default(),
            unproven: BranchSet::default(),
            dispute: Dispute::None,
            told_read_only: None,
            waiters: Vec::new(),
            patience,
            timeout: Timeout::Guessed,
            attempts: 0,
            place: Place::default(),
            vouched: Vouched::No,
        }
    }

    /// The initiator, or a vote, tells how long votes may take. The first time in this life of the
    /// replica it counts; saying it again does not make it longer.
    pub(super) fn told_timeout(&mut self, patience: u32) {
        let untouched = self.phase == Phase::Undecided && self.attempts == 0;
        if self.timeout == Timeout::Guessed && untouched {
            self.patience = self.patience.max(patience);
        }
        self.timeout = Timeout::Told;
    }

    /// Remembers an asker, once.
    pub(super) fn wait(&mut self, waiter: Waiter) {
        if self.waiters.len() < WAITERS_MAX && !self.waiters.contains(&waiter) {
            self.waiters.push(waiter);
        }
    }

    /// The branches whose vote is not held; empty as long as the roster is unknown.
    pub(super) fn missing(&self) -> Vec<Branch> {
        self.select(|instance, roster| roster.all().minus(instance.acceptor.any()))
    }

    /// Where the branch stands in the roster; none if it does not, or if the roster is unknown.
    pub(super) fn index_of(&self, branch: &Branch) -> Option<usize> {
        self.roster.as_ref()?.index_of(branch)
    }

    /// The branch whose `Aborted` is held here.
    pub(super) fn against(&self) -> Option<Branch> {
        let roster = self.roster.as_ref()?;
        roster.select(self.acceptor.aborted()).next().cloned()
    }

    /// What it costs the name that made this replica take it on when it ends: nothing, if it was
    /// vouched for; else a record on disk until its generation is settled.
    pub(super) fn cost(&self, id: CommitId) -> Cost {
        match (self.phase, self.vouched) {
            (Phase::Undecided, Vouched::No) => Cost::UntilSettled(id.txn),
            // The branches of a commit pay for it, as long as it waits for them.
            (Phase::Committed, _) | (_, Vouched::Yes) => Cost::Nothing,
        }
    }

    /// Takes what a Commit brings with it.
    pub(super) fn take(&mut self, unapplied: &Unapplied) {
        self.roster.get_or_insert_with(|| unapplied.roster.clone());
        self.told_read_only = Some(unapplied.read_only);
    }

    /// Whom a commit must be told, if that is known: all votes are here, or a Commit brought it.
    pub(super) fn to_apply(&self) -> Option<Unapplied> {
        let roster = self.roster.as_ref()?;
        let read_only = if self.acceptor.held().covers(roster.all()) {
            self.acceptor.read_only()
        } else {
            self.told_read_only?
        };
        Some(Unapplied {
            roster: roster.clone(),
            read_only,
        })
    }

    /// The branches known to have voted `ReadOnly`.
    pub(super) fn read_only(&self) -> BranchSet {
        let told = self.told_read_only.unwrap_or_default();
        self.acceptor.read_only().union(told)
    }

    /// The branches that have still to apply the commit. `ReadOnly` branches never will.
    pub(super) fn unapplied(&self) -> Vec<Branch> {
        self.select(|instance, roster| {
            let done = instance.applied.union(instance.read_only());
            roster.all().minus(done)
        })
    }

    /// Whether every branch has applied the commit or needs not.
    pub(super) fn is_applied(&self) -> bool {
        let done = self.applied.union(self.read_only());
        self.to_apply()
            .is_some_and(|unapplied| done.covers(unapplied.roster.all()))
    }

    fn select(&self, set: impl Fn(&Instance, &Roster) -> BranchSet) -> Vec<Branch> {
        self.roster.as_ref().map_or(Vec::new(), |roster| {
            roster.select(set(self, roster)).cloned().collect()
        })
    }
}
