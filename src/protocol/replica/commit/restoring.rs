//! From the records of transactions back to what was known of them.

use std::collections::BTreeMap;

use crate::protocol::message::Unapplied;
use crate::protocol::paxos::Ballot;
use crate::protocol::types::{CommitId, Outcome, Roster, Vote};

use crate::protocol::replica::record::Record;
use crate::protocol::replica::terms::Terms;

use super::instance::{Dispute, Instance, Phase};
use super::{End, Instances};

impl Instances {
    /// Rebuilds the instances from records in any order, and from the settled commits that wait.
    pub(crate) fn restore(
        &mut self,
        saved: Vec<Record>,
        listed: BTreeMap<CommitId, Unapplied>,
        terms: Terms<'_>,
    ) {
        let mut transactions = Vec::new();
        let mut disputed = Vec::new();
        for record in saved {
            match record {
                Record::Round { round } => self.recovery.restore_round(round),
                Record::Disputed { id } => disputed.push(id),
                Record::Vote { .. }
                | Record::Promise { .. }
                | Record::Accept { .. }
                | Record::Committed { .. }
                | Record::Finished { .. } => transactions.push(record),
                Record::Log(_)
                | Record::Frozen { .. }
                | Record::Chosen { .. }
                | Record::State { .. } => {}
            }
        }
        self.restore_transactions(transactions, listed, terms);
        for id in disputed {
            if let Some(instance) = self.under_way.get_mut(&id)
                && instance.phase == Phase::Committed
            {
                instance.dispute = Dispute::Aborted;
            }
        }
    }

    /// Takes back instances from their records, all of each: exactly what they would be after a
    /// restart. What is in memory is newer, and what is settled is no longer asked for.
    pub(crate) fn recall(&mut self, records: Vec<Record>, terms: Terms<'_>) {
        let is_unknown = |record: &Record| record.id().is_some_and(|id| !self.holds(id));
        let records: Vec<Record> = records.into_iter().filter(is_unknown).collect();
        // By the code of a restart, with nothing in memory but these.
        let under_way = std::mem::take(&mut self.under_way);
        let finished = std::mem::take(&mut self.finished);
        let undecided = std::mem::take(&mut self.undecided);
        self.restore_transactions(records, BTreeMap::new(), terms);
        let recalled = std::mem::replace(&mut self.under_way, under_way);
        self.under_way.extend(recalled);
        let recalled = std::mem::replace(&mut self.finished, finished);
        self.finished.extend(recalled);
        self.undecided += undecided;
    }

    /// Takes back transactions, all of whose records are here.
    fn restore_transactions(
        &mut self,
        saved: Vec<Record>,
        listed: BTreeMap<CommitId, Unapplied>,
        terms: Terms<'_>,
    ) {
        // Votes name their branch by its position, so rosters come first.
        let (mut votes, mut finished) = (Vec::new(), Vec::new());
        // Of each instance the highest counts, with whom to tell of it.
        let mut accepts: BTreeMap<CommitId, (Ballot, Outcome, Option<Unapplied>)> = BTreeMap::new();
        for record in saved {
            match record {
                Record::Finished { id, outcome } => {
                    if !terms.is_settled(&id) {
                        finished.push((id, outcome));
                    }
                }
                // Dropped when it was settled.
                Record::Vote { id, .. }
                | Record::Promise { id, .. }
                | Record::Accept { id, .. }
                | Record::Committed { id, .. }
                    if terms.is_settled(&id) => {}
                Record::Vote {
                    id,
                    index,
                    vote,
                    roster,
                } => {
                    self.restored(id, roster, terms);
                    votes.push((id, usize::from(index), vote));
                }
                Record::Promise { id, ballot } => {
                    self.restored(id, None, terms)
                        .acceptor
                        .restore_promise(ballot);
                }
                Record::Accept {
                    id,
                    ballot,
                    outcome,
                    unapplied,
                } => {
                    let highest = accepts.get(&id);
                    if highest.is_none_or(|(at, _, _)| *at < ballot) {
                        accepts.insert(id, (ballot, outcome, unapplied));
                    }
                }
                Record::Committed { id, unapplied } => {
                    let instance = self.restored(id, None, terms);
                    instance.take(&unapplied);
                    instance.phase = Phase::Committed;
                }
                Record::Round { .. }
                | Record::Disputed { .. }
                | Record::Log(_)
                | Record::Frozen { .. }
                | Record::Chosen { .. }
                | Record::State { .. } => {}
            }
        }
        for (id, (ballot, outcome, unapplied)) in accepts {
            let instance = self.restored(id, None, terms);
            instance.acceptor.restore_accept(ballot, outcome);
            if let Some(unapplied) = unapplied {
                instance.take(&unapplied);
            }
        }
        for (id, index, vote) in votes {
            self.restore_vote(id, index, vote, terms);
        }
        for (id, unapplied) in listed {
            let instance = self.restored(id, None, terms);
            instance.take(&unapplied);
            instance.phase = Phase::Committed;
        }
        let finished = finished.into_iter();
        let end = |(id, outcome)| {
            let against = None;
            (id, End { outcome, against })
        };
        self.finished.extend(finished.map(end));
        self.settle_restored(terms);
    }

    fn restored(
        &mut self,
        id: CommitId,
        roster: Option<Roster>,
        terms: Terms<'_>,
    ) -> &mut Instance {
        let patience = terms.shortest_vote_ticks(id.txn.generation);
        let instance = self.under_way.entry(id);
        let instance = instance.or_insert_with(|| Instance::new(None, patience));
        if instance.roster.is_none() {
            instance.roster = roster;
        }
        instance
    }

    fn restore_vote(&mut self, id: CommitId, index: usize, vote: Vote, terms: Terms<'_>) {
        let instance = self.restored(id, None, terms);
        let roster = instance.roster.clone();
        let roster = roster.filter(|roster| index < roster.len());
        // The roster was saved with or before the vote. To go on without the one or the other would
        // be to forget what may have been told.
        let roster = roster.unwrap_or_else(|| {
            panic!(
                "{id}: the store has a vote and not its roster: it lost a record and kept a later \
                 one; replace this replica, do not restart it"
            )
        });
        instance.acceptor.restore_vote(&roster, index, vote);
    }

    /// Drops what is finished, and settles what the votes alone decide.
    fn settle_restored(&mut self, terms: Terms<'_>) {
        let (finished, config) = (&mut self.finished, terms.config);
        let generations = terms.generations;
        self.under_way.retain(|id, instance| {
            // One Aborted at ballot 0 is final; so is one acceptance where one is a majority.
            if instance.acceptor.holds_aborted() {
                finished.insert(*id, aborted(instance));
            }
            let accepted = instance.acceptor.accepted().map(|(_, outcome)| outcome);
            let acceptors = generations.acceptors(id.txn.generation);
            if acceptors.is_some_and(|acceptors| acceptors.majority() == 1) {
                match accepted {
                    Some(Outcome::Commit) => instance.phase = Phase::Committed,
                    Some(Outcome::Abort) => drop(finished.insert(*id, aborted(instance))),
                    None => {}
                }
            }
            if instance.phase == Phase::Committed {
                instance.patience = config.push_ticks;
                if instance.is_applied() && !generations.is_settled(id) {
                    let (outcome, against) = (Outcome::Commit, None);
                    finished.insert(*id, End { outcome, against });
                }
            }
            !finished.contains_key(id)
        });
        let undecided = |instance: &&Instance| instance.phase == Phase::Undecided;
        self.undecided = self.under_way.values().filter(undecided).count();
    }
}

fn aborted(instance: &Instance) -> End {
    End {
        outcome: Outcome::Abort,
        against: instance.against(),
    }
}
