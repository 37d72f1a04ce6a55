//! Forgetting: the leader's side of the last ballot of a generation.
//!
//! The leader works through the oldest generation from the horizon on. For each part it asks the
//! replicas of *that generation's* configuration, twice: which ids are unfinished (the first
//! [`BATCH_MAX`] of each), and what is held of those that anybody named. What it asks for the first
//! time makes them freeze. From a majority of answers follow the outcomes, by the rule of recovery.
//! It tells them nobody: it proposes the list of commits, and the slot decides.
//!
//! Two questions and not one, because a finished transaction stands in no list of unfinished ones:
//! an abort that is finished at one replica may be a complete set of votes at another, and only
//! those who are asked for it by name say that it was decided.

use std::collections::BTreeMap;

use crate::protocol::message::{BATCH_MAX, Frozen, Message, Unapplied, Waits};
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId, Tally};
use crate::protocol::types::{
    CommitId, Entry, Generations, Listed, Openness, Outcome, Peer, Settle,
};

use crate::protocol::replica::commit::Attempt;
use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::{Control, Rest};

/// A part of a generation that this leader is about to settle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Forgetting {
    generation: u32,
    /// Where the part begins: the horizon, if that lies in this generation.
    after: Option<CommitId>,
    stage: Stage,
    /// Ticks until those who are silent are asked again.
    patience: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Which ids are unfinished? A page of each replica, and whether there are more.
    Listing(BTreeMap<ReplicaId, (Vec<CommitId>, bool)>),
    /// What is held of these?
    Collecting(Collecting),
    /// The list is made; it waits for a free slot.
    Ready(Settle),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Collecting {
    through: CommitId,
    /// The ids that are not resolved.
    open: BTreeMap<CommitId, Attempt>,
    /// The commits that may wait for a branch.
    commits: Vec<Listed>,
    /// Who has answered anything.
    answered: Tally,
}

impl Control {
    /// Settles the oldest generation, when it is time; one step further at each answer and tick.
    pub(super) fn forget(&mut self, rest: &mut Rest<'_>) {
        let generation = self.generations.oldest();
        if self.generations.openness(generation) != Openness::Closed {
            self.forgetting = None;
            return;
        }
        // (Whatever moves the horizon ends what was being collected before.)
        if self.forgetting.is_none() {
            // The slot must be free: an entry that was found in it may settle part of this.
            if !self.is_free() || !self.is_quiet(generation, rest) {
                return;
            }
            let horizon = self.generations.horizon();
            let after = horizon.filter(|after| after.txn.generation == generation);
            self.forgetting = Some(Forgetting {
                generation,
                after,
                stage: Stage::Listing(BTreeMap::new()),
                patience: 0,
            });
        }
        self.ask_frozen(rest);
        self.propose_settle(rest);
    }

    /// Whether nothing is under way in the generation any more, as far as is known here, or it has
    /// had the time to finish.
    fn is_quiet(&self, generation: u32, rest: &Rest<'_>) -> bool {
        let last = Generations::last_id(generation);
        // One who does not decide the generation knows nothing of what is under way in it.
        let decides = self.generations.acceptors(generation);
        let decides = decides.is_some_and(|acceptors| acceptors.contains(rest.config.id));
        self.closed_age >= rest.config.grace_ticks
            || self.frozen.contains(&generation)
            || decides && rest.commit.is_quiet(&last)
    }

    /// Asks those who have not answered, when it is time.
    fn ask_frozen(&mut self, rest: &mut Rest<'_>) {
        let Some(forgetting) = &mut self.forgetting else {
            return;
        };
        forgetting.patience = forgetting.patience.saturating_sub(1);
        if forgetting.patience > 0 {
            return;
        }
        forgetting.patience = rest.config.collect_ticks;
        let generation = forgetting.generation;
        let Some(acceptors) = self.generations.acceptors(generation) else {
            return;
        };
        match &forgetting.stage {
            Stage::Listing(pages) => {
                let after = forgetting.after;
                for replica in acceptors.iter().filter(|id| !pages.contains_key(id)) {
                    let freeze = Message::Freeze { generation, after };
                    rest.out.send(Peer::Replica(replica), freeze);
                }
            }
            Stage::Collecting(collecting) => {
                let ids: Vec<CommitId> = collecting.open.keys().copied().collect();
                for replica in acceptors.iter() {
                    collect_from(replica, generation, &ids, rest.out);
                }
            }
            Stage::Ready(_) => {}
        }
    }

    pub(crate) fn on_frozen(
        &mut self,
        from: ReplicaId,
        generation: u32,
        after: Option<CommitId>,
        ids: Vec<CommitId>,
        more: bool,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if ids.len() > BATCH_MAX {
            return Err(Rejection::TooLong);
        }
        let Some(acceptors) = self.generations.acceptors(generation).cloned() else {
            return Ok(());
        };
        let Some(forgetting) = &mut self.forgetting else {
            return Ok(());
        };
        if (forgetting.generation, forgetting.after) != (generation, after) {
            return Ok(());
        }
        let Stage::Listing(pages) = &mut forgetting.stage else {
            return Ok(());
        };
        if !acceptors.contains(from) {
            return Err(Rejection::NotItsGeneration);
        }
        pages.insert(from, (ids, more));
        if pages.len() >= acceptors.majority() {
            let collecting = Collecting::new(generation, pages, &acceptors);
            forgetting.stage = Stage::Collecting(collecting);
            forgetting.patience = 0;
            self.ask_frozen(rest);
            self.finish_collecting(rest);
        }
        Ok(())
    }

    pub(crate) fn on_collected(
        &mut self,
        from: ReplicaId,
        generation: u32,
        records: Vec<Frozen>,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if records.len() > BATCH_MAX {
            return Err(Rejection::TooLong);
        }
        let Some(acceptors) = self.generations.acceptors(generation).cloned() else {
            return Ok(());
        };
        if !acceptors.contains(from) {
            return Err(Rejection::NotItsGeneration);
        }
        if let Some(forgetting) = &mut self.forgetting
            && forgetting.generation == generation
            && let Stage::Collecting(collecting) = &mut forgetting.stage
        {
            collecting.answered.add(&acceptors, from);
            for record in records {
                collecting.take(from, record);
            }
            self.finish_collecting(rest);
        }
        Ok(())
    }

    /// When every id is resolved, the list is made.
    fn finish_collecting(&mut self, rest: &mut Rest<'_>) {
        let list_max = rest.config.list_max();
        if let Some(forgetting) = &mut self.forgetting
            && let Stage::Collecting(collecting) = &mut forgetting.stage
            && collecting.open.is_empty()
        {
            let horizon = self.generations.horizon();
            forgetting.stage = Stage::Ready(collecting.settle(horizon, list_max));
        }
        self.propose_settle(rest);
    }

    fn propose_settle(&mut self, rest: &mut Rest<'_>) {
        let settle = match &self.forgetting {
            Some(Forgetting {
                stage: Stage::Ready(settle),
                ..
            }) => settle.clone(),
            Some(_) | None => return,
        };
        self.propose(Entry::Settle(Box::new(settle)), rest);
    }
}

impl Collecting {
    /// From the pages of a majority: the part goes as far as all of them list, and everyone is
    /// asked for whatever one of them named.
    fn new(
        generation: u32,
        pages: &BTreeMap<ReplicaId, (Vec<CommitId>, bool)>,
        acceptors: &Acceptors,
    ) -> Self {
        let ends = pages.values().filter(|(_, more)| *more);
        let ends = ends.filter_map(|(ids, _)| ids.last().copied());
        let through = ends.min().unwrap_or(Generations::last_id(generation));
        let ids = pages.values().flat_map(|(ids, _)| ids).copied();
        let ids = ids.filter(|id| *id <= through && id.txn.generation == generation);
        // Freezing was the promise of a ballot above all others.
        let attempt = || Attempt::new(Ballot::LAST, acceptors);
        Collecting {
            through,
            open: ids.map(|id| (id, attempt())).collect(),
            commits: Vec::new(),
            answered: Tally::default(),
        }
    }

    /// Takes what one replica holds: the outcome if it knows it, else a report of the last ballot.
    fn take(&mut self, from: ReplicaId, record: Frozen) {
        let Frozen { report, decided } = record;
        let id = report.id;
        if decided == Some((Outcome::Commit, Waits::None)) {
            // Another one has still to hear that nobody waits.
            self.commits.retain(|listed| listed.id != id);
        }
        let Some(attempt) = self.open.get_mut(&id) else {
            return;
        };
        let commit = match decided {
            Some((Outcome::Abort, _) | (Outcome::Commit, Waits::None)) => None,
            Some((Outcome::Commit, Waits::Some)) => {
                // Whoever knows that it is a commit knows whom it must be told.
                let Some(roster) = report.roster else {
                    return;
                };
                Some(Unapplied {
                    roster,
                    read_only: report.read_only,
                })
            }
            None => match attempt.on_report(from, Ballot::LAST, report) {
                None => return,
                Some(proposal) => proposal.unapplied,
            },
        };
        self.open.remove(&id);
        if let Some(unapplied) = commit
            && unapplied.read_only != unapplied.roster.all()
        {
            self.commits.push(Listed { id, unapplied });
        }
    }

    fn settle(&mut self, after: Option<CommitId>, list_max: usize) -> Settle {
        let mut unfinished = std::mem::take(&mut self.commits);
        unfinished.sort_unstable();
        let mut through = self.through;
        if unfinished.len() > list_max {
            unfinished.truncate(list_max);
            if let Some(last) = unfinished.last() {
                through = last.id;
            }
        }
        Settle {
            after,
            through,
            unfinished,
        }
    }
}

fn collect_from(replica: ReplicaId, generation: u32, ids: &[CommitId], out: &mut Out) {
    for ids in ids.chunks(BATCH_MAX) {
        let ids = ids.to_vec();
        let collect = Message::Collect { generation, ids };
        out.send(Peer::Replica(replica), collect);
    }
}
