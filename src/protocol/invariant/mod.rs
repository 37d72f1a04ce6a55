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
//! (5, liveness, is checked where time is known: in the simulator.)

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use thiserror::Error;

use super::message::{Decision, Message, Report};
use super::paxos::{Acceptors, Ballot, ReplicaId, Tally};
use super::replica::Record;
use super::types::{Branch, BranchSet, CommitId, Outcome, Peer, Roster, RosterDigest, Vote};

/// Everything that an omniscient observer knows of a system.
#[derive(Clone, Debug)]
pub struct Facts {
    acceptors: Acceptors,
    instances: BTreeMap<CommitId, Instance>,
    /// The highest round on disk, by position of the replica.
    rounds: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
struct Instance {
    roster: Option<Roster>,
    /// What each branch said, in the order in which they first spoke.
    votes: Vec<(Branch, Vote)>,
    /// What each ballot above 0 proposed.
    proposed: Vec<(Ballot, Outcome)>,
    /// Who has accepted what, durably.
    accepted: Vec<(Ballot, Outcome, Tally)>,
    chosen: Option<Outcome>,
    told: Option<Outcome>,
    /// What is on disk, by position of the replica.
    disks: Vec<Disk>,
    requests: Vec<Branch>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    promised: Option<Ballot>,
    held: BranchSet,
    aborted: BranchSet,
}

impl Facts {
    /// Nothing has happened yet.
    pub fn new(acceptors: Acceptors) -> Self {
        Facts {
            rounds: vec![0; acceptors.len()],
            acceptors,
            instances: BTreeMap::new(),
        }
    }

    /// The outcome that was chosen for `id`, as the disks of the replicas show.
    pub fn chosen(&self, id: &CommitId) -> Option<Outcome> {
        self.instances.get(id)?.chosen
    }

    /// The outcome that somebody was told, or that a resource manager applied.
    pub fn told(&self, id: &CommitId) -> Option<Outcome> {
        self.instances.get(id)?.told
    }

    /// The branches that voted `Prepared`.
    pub fn prepared(&self, id: &CommitId) -> Vec<Branch> {
        let votes = self.instances.get(id).map(|instance| &instance.votes);
        let prepared = votes.into_iter().flatten();
        prepared
            .filter(|(_, vote)| *vote == Vote::Prepared)
            .map(|(branch, _)| branch.clone())
            .collect()
    }

    /// All instances of which anything was heard.
    pub fn instances(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.instances.keys()
    }

    /// Forgets `id`: nothing will ever be heard of it again, or it need not be judged.
    pub fn forget(&mut self, id: &CommitId) {
        self.instances.remove(id);
    }

    /// `record` has become durable at `replica`, after all that it saved before.
    ///
    /// # Errors
    /// [`Violation::WentBack`], [`Violation::TwoChosen`] and [`Violation::BallotUsedTwice`].
    pub fn durable(&mut self, replica: ReplicaId, record: &Record) -> Result<(), Violation> {
        let Some(index) = self.acceptors.index_of(replica) else {
            return Ok(());
        };
        match record {
            Record::Round { round } => {
                if *round <= self.rounds[index] {
                    let round = *round;
                    return Err(Violation::BallotUsedTwice { replica, round });
                }
                self.rounds[index] = *round;
            }
            Record::Vote {
                id,
                index: branch,
                vote,
                roster,
            } => self.durable_vote(replica, *id, usize::from(*branch), *vote, roster.as_ref())?,
            Record::Promise { id, ballot } => {
                let disk = self.disk(*id, index);
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
                let disk = self.disk(*id, index);
                if disk.promised.is_some_and(|promised| *ballot < promised) {
                    return Err(Violation::WentBack { id: *id, replica });
                }
                disk.promised = Some(*ballot);
                self.accepted(replica, *id, *ballot, *outcome)?;
            }
            Record::Committed { id, .. } => self.is_chosen(*id, Outcome::Commit)?,
            Record::Finished { id, outcome } => self.is_chosen(*id, *outcome)?,
        }
        Ok(())
    }

    /// `message` has left `from`. Call it once for each time that it leaves.
    ///
    /// # Errors
    /// Whatever the message gives away.
    pub fn sent(&mut self, from: &Peer, message: &Message) -> Result<(), Violation> {
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
                let index = self.acceptors.index_of(*replica);
                let durable = index.map_or(0, |index| self.rounds[index]);
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
            (_, Message::Applied { id, .. }) => self.tell(*id, Outcome::Commit),
            (_, _) => Ok(()),
        }
    }

    /// Somebody was told the outcome of `id`, or a resource manager applied it.
    ///
    /// # Errors
    /// [`Violation::TwoOutcomes`], [`Violation::NotChosen`], [`Violation::CommitWithoutVotes`].
    pub fn tell(&mut self, id: CommitId, outcome: Outcome) -> Result<(), Violation> {
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
    pub fn request_ran(&mut self, id: CommitId, branch: &Branch) -> Result<(), Violation> {
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

    fn disk(&mut self, id: CommitId, index: usize) -> &mut Disk {
        let replicas = self.acceptors.len();
        let instance = self.instances.entry(id).or_default();
        instance.disks.resize(replicas, Disk::default());
        &mut instance.disks[index]
    }

    fn durable_vote(
        &mut self,
        replica: ReplicaId,
        id: CommitId,
        branch: usize,
        vote: Vote,
        roster: Option<&Roster>,
    ) -> Result<(), Violation> {
        let Some(index) = self.acceptors.index_of(replica) else {
            return Ok(());
        };
        let disk = self.disk(id, index);
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
        let instance = self.instances.entry(id).or_default();
        let same =
            |(at, value, _): &&mut (Ballot, Outcome, Tally)| *at == ballot && *value == outcome;
        let tally = match instance.accepted.iter_mut().find(same) {
            Some((_, _, tally)) => tally,
            None => {
                instance.accepted.push((ballot, outcome, Tally::default()));
                &mut instance.accepted.last_mut().expect("just pushed").2
            }
        };
        tally.add(&self.acceptors, replica);
        let alone = ballot.is_zero() && outcome == Outcome::Abort;
        if alone || tally.is_majority(&self.acceptors) {
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
        let Some(index) = self.acceptors.index_of(replica) else {
            return Ok(());
        };
        let disk = self.disk(id, index);
        if disk.promised.is_none_or(|promised| promised < ballot) {
            return Err(Violation::NotDurable { id, replica });
        }
        // It reports what the disk shows: no vote and no acceptance more, and none less, for one
        // that is hidden lets the leader think that it is free. Behind a promise nothing changes
        // any more, so this holds whenever it is looked at.
        let held = disk.held;
        let instance = self.instances.entry(id).or_default();
        let mut accepted = instance.accepted_by(&self.acceptors, replica);
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
        if !self.acceptors.contains(replica) {
            return Ok(());
        }
        let instance = self.instances.entry(id).or_default();
        let mut accepted = instance.accepted_by(&self.acceptors, replica);
        if accepted.any(|accepted| accepted == (ballot, outcome)) {
            Ok(())
        } else {
            Err(Violation::NotDurable { id, replica })
        }
    }
}

impl Instance {
    /// What `replica` has accepted, durably.
    fn accepted_by(
        &self,
        acceptors: &Acceptors,
        replica: ReplicaId,
    ) -> impl Iterator<Item = (Ballot, Outcome)> {
        let accepted = self.accepted.iter();
        accepted
            .filter(move |(_, _, tally)| tally.contains(acceptors, replica))
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

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Violation {
    #[error("{id}: one was told commit, another abort")]
    TwoOutcomes { id: CommitId },
    #[error("{id}: {outcome} was told, and is not chosen")]
    NotChosen { id: CommitId, outcome: Outcome },
    #[error("{id}: commit without the votes of the whole roster")]
    CommitWithoutVotes { id: CommitId },
    #[error("{id}: branch {branch} voted twice, differently")]
    TwoVotes { id: CommitId, branch: Branch },
    #[error("{id}: replica {replica} holds two votes of one branch")]
    TwoVotesHeld { id: CommitId, replica: ReplicaId },
    #[error("{id}: the request of branch {branch} ran twice")]
    RequestRanTwice { id: CommitId, branch: Branch },
    #[error("{id}: two values were chosen")]
    TwoChosen { id: CommitId },
    #[error("{id}: ballot {ballot} proposed two values")]
    TwoProposals { id: CommitId, ballot: Ballot },
    #[error("{id}: replica {replica} went back behind a promise")]
    WentBack { id: CommitId, replica: ReplicaId },
    #[error("{id}: replica {replica} said what is not on its disk")]
    NotDurable { id: CommitId, replica: ReplicaId },
    #[error("replica {replica} used its ballot of round {round} twice")]
    BallotUsedTwice { replica: ReplicaId, round: u64 },
    #[error("ballot {ballot} left before its round was on disk")]
    RoundNotDurable { ballot: Ballot },
}
