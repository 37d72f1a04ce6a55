//! Whole-system invariants, shared by the simulator and the model checker.
//!
//! [`Facts`] is an omniscient observer. It is told what became durable, what left a host, and what
//! resource managers did, and says at once which invariant is broken:
//!
//! 1. No branch commits what another aborts; nobody is told otherwise ([`Violation::TwoOutcomes`]).
//! 2. Commit only if every branch of the roster voted `Prepared` or `ReadOnly`
//!    ([`Violation::CommitWithoutVotes`]); a branch says one thing ([`Violation::TwoVotes`]); a
//!    request runs at most once per branch ([`Violation::RequestRanTwice`]).
//! 3. At most one value is ever chosen per instance ([`Violation::TwoChosen`]), one proposed per
//!    ballot ([`Violation::TwoProposals`]), no ballot used twice
//!    ([`Violation::BallotUsedTwice`]), and nobody is told what was not chosen
//!    ([`Violation::NotChosen`]).
//! 4. Promises and accepts never go back ([`Violation::WentBack`]); what a peer was told is on disk
//!    ([`Violation::NotDurable`]).
//!
//! And for the control log: one entry per slot ([`Violation::TwoEntries`]), learned only when chosen;
//! nothing of a frozen generation is touched ([`Violation::FrozenTouched`]); above all, a commit
//! that some branch has not applied is never forgotten ([`Violation::CommitForgotten`]).
//!
//! (5, liveness, is checked where time is known: in the simulator.)

mod control;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use paxos_commit::protocol::message::{Decision, Message, Report};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, Configuration, Outcome, Peer, Roster, RosterDigest, Vote,
};

use control::Control;
pub(crate) use violation::Violation;

/// Everything that an omniscient observer knows of a system.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    instances: BTreeMap<CommitId, Instance>,
    /// The highest round on disk.
    rounds: BTreeMap<ReplicaId, u64>,
    control: Control,
}

#[derive(Clone, Debug, Default)]
struct Instance {
    roster: Option<Roster>,
    /// What each branch said, in the order in which they first spoke.
    votes: Vec<(Branch, Vote)>,
    /// What each ballot above 0 proposed.
    proposed: Vec<(Ballot, Outcome)>,
    /// Who has accepted what, durably.
    accepted: Vec<(Ballot, Outcome, BTreeSet<ReplicaId>)>,
    chosen: Option<Outcome>,
    told: Option<Outcome>,
    /// What is on disk.
    disks: BTreeMap<ReplicaId, Disk>,
    requests: Vec<Branch>,
    /// The branches that said that they applied the commit.
    applied: BTreeSet<Branch>,
    /// An operator let it go although some branch has not applied it.
    released: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    promised: Option<Ballot>,
    held: BranchSet,
    aborted: BranchSet,
}

impl Facts {
    /// Nothing has happened yet.
    pub(crate) fn new(genesis: impl Into<Configuration>) -> Self {
        Facts {
            rounds: BTreeMap::new(),
            instances: BTreeMap::new(),
            control: Control::new(genesis.into()),
        }
    }

    /// The outcome that was chosen for `id`, as the disks of the replicas show.
    pub(crate) fn chosen(&self, id: &CommitId) -> Option<Outcome> {
        self.instances.get(id)?.chosen
    }

    /// The outcome that somebody was told, or that a resource manager applied.
    pub(crate) fn told(&self, id: &CommitId) -> Option<Outcome> {
        self.instances.get(id)?.told
    }

    /// The branches that voted `Prepared`.
    pub(crate) fn prepared(&self, id: &CommitId) -> Vec<Branch> {
        let votes = self.instances.get(id).map(|instance| &instance.votes);
        let prepared = votes.into_iter().flatten();
        prepared
            .filter(|(_, vote)| *vote == Vote::Prepared)
            .map(|(branch, _)| branch.clone())
            .collect()
    }

    /// All instances of which anything was heard.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.instances.keys()
    }

    /// Forgets `id`: nothing will ever be heard of it again, or it need not be judged.
    pub(crate) fn forget(&mut self, id: &CommitId) {
        self.instances.remove(id);
    }

    /// `record` has become durable at `replica`, after all that it saved before.
    ///
    /// # Errors
    /// [`Violation::WentBack`], [`Violation::TwoChosen`] and [`Violation::BallotUsedTwice`].
    pub(crate) fn durable(&mut self, replica: ReplicaId, record: &Record) -> Result<(), Violation> {
        self.may_touch(replica, record)?;
        match record {
            Record::Round { round } => {
                let used = self.rounds.entry(replica).or_default();
                if *round <= *used {
                    let round = *round;
                    return Err(Violation::BallotUsedTwice { replica, round });
                }
                *used = *round;
            }
            Record::Vote {
                id,
                index: branch,
                vote,
                roster,
            } => self.durable_vote(replica, *id, usize::from(*branch), *vote, roster.as_ref())?,
            Record::Promise { id, ballot } => {
                let disk = self.disk(*id, replica);
                if disk.promised.is_some_and(|promised| *ballot < promised) {
                    return Err(Violation::WentBack { id: *id, replica });
                }
                disk.promised = Some(*ballot);
            }
            Record::Accept {
                id,
                ballot,
                outcome,
                ..
            } => {
                let disk = self.disk(*id, replica);
                if disk.promised.is_some_and(|promised| *ballot < promised) {
                    return Err(Violation::WentBack { id: *id, replica });
                }
                disk.promised = Some(*ballot);
                self.accepted(replica, *id, *ballot, *outcome)?;
            }
            Record::Committed { id, .. } => self.is_chosen(*id, Outcome::Commit)?,
            Record::Finished { id, outcome } => self.is_chosen(*id, *outcome)?,
            Record::Disputed { .. } => {}
            Record::Log(_)
            | Record::Frozen { .. }
            | Record::Chosen { .. }
            | Record::State { .. } => self.durable_control(replica, record)?,
        }
        Ok(())
    }

    /// `message` has left `from`. Call it once for each time that it leaves.
    ///
    /// # Errors
    /// Whatever the message gives away.
    pub(crate) fn sent(&mut self, from: &Peer, message: &Message) -> Result<(), Violation> {
        match (from, message) {
            (Peer::Session(branch), Message::Vote(cast)) => {
                // A branch votes in one instance only.
                let elsewhere = |of: &Instance| of.votes.iter().any(|(voter, _)| voter == branch);
                if self.others_of(cast.id).any(elsewhere) {
                    let (id, branch) = (cast.id, branch.clone());
                    return Err(Violation::TwoVotes { id, branch });
                }
                let instance = self.instances.entry(cast.id).or_default();
                instance.roster.get_or_insert_with(|| cast.roster.clone());
                instance.vote(cast.id, branch, cast.vote)
            }
            (Peer::Replica(replica), Message::Phase1a { ballot, .. }) => {
                let durable = self.rounds.get(replica).copied().unwrap_or(0);
                if durable < ballot.round {
                    return Err(Violation::RoundNotDurable { ballot: *ballot });
                }
                Ok(())
            }
            (Peer::Replica(replica), Message::Phase1b { ballot, reports }) => {
                let mut reports = reports.iter();
                reports.try_for_each(|report| self.promised(*replica, *ballot, report))
            }
            (Peer::Replica(_), Message::Phase2a { ballot, proposals }) => {
                let mut proposals = proposals.iter();
                proposals.try_for_each(|proposal| self.proposed(*ballot, proposal))
            }
            (
                Peer::Replica(replica),
                Message::Phase2b {
                    id,
                    ballot,
                    outcome,
                },
            ) => self.reported(*replica, *id, *ballot, *outcome),
            (_, Message::Decided(decision)) => self.tell(decision.id, decision.outcome),
            (_, Message::Finish { id, outcome, .. }) => self.tell(*id, *outcome),
            (_, Message::Disputed { id, .. }) => self.tell(*id, Outcome::Commit),
            (_, Message::Applied { id, branch } | Message::Contradicted { id, branch }) => {
                self.tell(*id, Outcome::Commit)?;
                let instance = self.instances.entry(*id).or_default();
                instance.applied.insert(branch.clone());
                Ok(())
            }
            (Peer::Replica(replica), message) => self.sent_control(*replica, message),
            (_, _) => Ok(()),
        }
    }

    /// Somebody was told the outcome of `id`, or a resource manager applied it.
    ///
    /// # Errors
    /// [`Violation::TwoOutcomes`], [`Violation::NotChosen`], [`Violation::CommitWithoutVotes`].
    pub(crate) fn tell(&mut self, id: CommitId, outcome: Outcome) -> Result<(), Violation> {
        self.settle_unheard(id);
        let instance = self.instances.entry(id).or_default();
        if instance.told == Some(outcome) {
            return Ok(());
        }
        if instance.told.is_some() {
            return Err(Violation::TwoOutcomes { id });
        }
        if instance.chosen != Some(outcome) {
            return Err(Violation::NotChosen { id, outcome });
        }
        if outcome == Outcome::Commit {
            instance.all_voted(id)?;
        }
        instance.told = Some(outcome);
        Ok(())
    }

    /// The request of `branch` was run.
    ///
    /// # Errors
    /// [`Violation::RequestRanTwice`].
    pub(crate) fn request_ran(&mut self, id: CommitId, branch: &Branch) -> Result<(), Violation> {
        let elsewhere = |of: &Instance| of.requests.contains(branch);
        let ran_elsewhere = self.others_of(id).any(elsewhere);
        let instance = self.instances.entry(id).or_default();
        if ran_elsewhere || instance.requests.contains(branch) {
            let branch = branch.clone();
            return Err(Violation::RequestRanTwice { id, branch });
        }
        instance.requests.push(branch.clone());
        Ok(())
    }

    /// The other instances of the same transaction.
    fn others_of(&self, id: CommitId) -> impl Iterator<Item = &Instance> {
        let of = |roster| CommitId {
            txn: id.txn,
            roster,
        };
        let all = self
            .instances
            .range(of(RosterDigest::MIN)..=of(RosterDigest::MAX));
        all.filter(move |(other, _)| **other != id)
            .map(|(_, instance)| instance)
    }

    fn is_chosen(&self, id: CommitId, outcome: Outcome) -> Result<(), Violation> {
        if self.chosen(&id) == Some(outcome) {
            Ok(())
        } else {
            Err(Violation::NotChosen { id, outcome })
        }
    }

    fn disk(&mut self, id: CommitId, replica: ReplicaId) -> &mut Disk {
        let instance = self.instances.entry(id).or_default();
        instance.disks.entry(replica).or_default()
    }

    fn durable_vote(
        &mut self,
        replica: ReplicaId,
        id: CommitId,
        branch: usize,
        vote: Vote,
        roster: Option<&Roster>,
    ) -> Result<(), Violation> {
        let disk = self.disk(id, replica);
        // A vote is held at ballot 0 only as long as no higher ballot was promised.
        if disk.promised.is_some() {
            return Err(Violation::WentBack { id, replica });
        }
        match vote {
            Vote::Prepared | Vote::ReadOnly => disk.held = disk.held.union(BranchSet::of(branch)),
            Vote::Aborted => disk.aborted = disk.aborted.union(BranchSet::of(branch)),
        }
        let disk = *disk;
        if disk.held.minus(disk.aborted) != disk.held {
            return Err(Violation::TwoVotesHeld { id, replica });
        }
        let instance = self.instances.entry(id).or_default();
        if let Some(roster) = roster {
            instance.roster.get_or_insert_with(|| roster.clone());
        }
        let all = instance.roster.as_ref().map(Roster::all);
        let voter = instance
            .roster
            .as_ref()
            .and_then(|roster| roster.iter().nth(branch));
        if let Some(voter) = voter.cloned() {
            self.is_of_entered_store(replica, id, &voter)?;
        }
        if !disk.aborted.is_empty() {
            self.accepted(replica, id, Ballot::ZERO, Outcome::Abort)
        } else if all.is_some_and(|all| disk.held.covers(all)) {
            self.accepted(replica, id, Ballot::ZERO, Outcome::Commit)
        } else {
            Ok(())
        }
    }

    fn accepted(
        &mut self,
        replica: ReplicaId,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
    ) -> Result<(), Violation> {
        let majority = self.control.majority(id.txn.generation);
        let instance = self.instances.entry(id).or_default();
        let accepted = &mut instance.accepted;
        let same = |(at, value, _): &(Ballot, Outcome, _)| *at == ballot && *value == outcome;
        let position = accepted.iter().position(same).unwrap_or_else(|| {
            accepted.push((ballot, outcome, BTreeSet::new()));
            accepted.len() - 1
        });
        let by = &mut accepted[position].2;
        by.insert(replica);
        let alone = ballot.is_zero() && outcome == Outcome::Abort;
        if alone || by.len() >= majority {
            if instance.chosen.is_some_and(|chosen| chosen != outcome) {
                return Err(Violation::TwoChosen { id });
            }
            instance.chosen = Some(outcome);
        }
        Ok(())
    }

    fn promised(
        &mut self,
        replica: ReplicaId,
        ballot: Ballot,
        report: &Report,
    ) -> Result<(), Violation> {
        let id = report.id;
        let disk = self.disk(id, replica);
        if disk.promised.is_none_or(|promised| promised < ballot) {
            return Err(Violation::NotDurable { id, replica });
        }
        // It reports what the disk shows: no vote and no acceptance more, and none less, for one
        // that is hidden lets the leader think that it is free. Behind a promise nothing changes
        // any more, so this holds whenever it is looked at.
        let held = disk.held;
        let instance = self.instances.entry(id).or_default();
        let mut accepted = instance.accepted_by(replica);
        let shown = match report.accepted {
            Some(reported) if reported.0 >= ballot => accepted.any(|it| it == reported),
            below => accepted.filter(|(at, _)| *at < ballot).max() == below,
        };
        if report.held == held && shown {
            Ok(())
        } else {
            Err(Violation::NotDurable { id, replica })
        }
    }

    fn proposed(&mut self, ballot: Ballot, proposal: &Decision) -> Result<(), Violation> {
        let Decision { id, outcome, .. } = *proposal;
        let instance = self.instances.entry(id).or_default();
        match instance.proposed.iter().find(|(at, _)| *at == ballot) {
            Some((_, value)) if *value != outcome => {
                return Err(Violation::TwoProposals { id, ballot });
            }
            Some(_) => {}
            None => instance.proposed.push((ballot, outcome)),
        }
        if outcome == Outcome::Commit {
            instance.all_voted(id)?;
        }
        Ok(())
    }

    fn reported(
        &mut self,
        replica: ReplicaId,
        id: CommitId,
        ballot: Ballot,
        outcome: Outcome,
    ) -> Result<(), Violation> {
        let instance = self.instances.entry(id).or_default();
        let mut accepted = instance.accepted_by(replica);
        if accepted.any(|accepted| accepted == (ballot, outcome)) {
            Ok(())
        } else {
            Err(Violation::NotDurable { id, replica })
        }
    }
}

impl Instance {
    /// What `replica` has accepted, durably.
    fn accepted_by(&self, replica: ReplicaId) -> impl Iterator<Item = (Ballot, Outcome)> {
        let accepted = self.accepted.iter();
        accepted
            .filter(move |(_, _, by)| by.contains(&replica))
            .map(|(ballot, outcome, _)| (*ballot, *outcome))
    }

    fn vote(&mut self, id: CommitId, branch: &Branch, vote: Vote) -> Result<(), Violation> {
        match self.votes.iter().find(|(of, _)| of == branch) {
            Some((_, said)) if *said != vote => {
                let branch = branch.clone();
                Err(Violation::TwoVotes { id, branch })
            }
            Some(_) => Ok(()),
            None => {
                self.votes.push((branch.clone(), vote));
                Ok(())
            }
        }
    }

    fn all_voted(&self, id: CommitId) -> Result<(), Violation> {
        let voted = |branch: &Branch| {
            let vote = self.votes.iter().find(|(of, _)| of == branch);
            vote.is_some_and(|(_, vote)| *vote != Vote::Aborted)
        };
        let complete = |roster: &Roster| roster.iter().all(voted);
        if self.roster.as_ref().is_some_and(complete) {
            Ok(())
        } else {
            Err(Violation::CommitWithoutVotes { id })
        }
    }
}
