//! From what was saved back to what was known.

use std::collections::BTreeMap;

use crate::protocol::message::Unapplied;
use crate::protocol::paxos::Ballot;
use crate::protocol::paxos::log::{Log, LogRecord};
use crate::protocol::types::{Applies, CommitId, Entry, Outcome, Roster, Vote};

use super::instance::{Dispute, Instance, Phase};
use super::{End, Record, Replica};

impl Replica {
    /// Rebuilds the state from records in any order.
    pub(super) fn restore(&mut self, saved: impl IntoIterator<Item = Record>) {
        let (mut control, mut log, mut transactions) = (Vec::new(), Vec::new(), Vec::new());
        let mut disputed = Vec::new();
        for record in saved {
            match record {
                Record::Chosen { slot, .. } => control.push((slot.saturating_add(1), record)),
                Record::State {
                    ref generations, ..
                } => control.push((generations.slot(), record)),
                Record::Log(record) => log.push(record),
                Record::Frozen { generation } => drop(self.frozen.insert(generation)),
                Record::Disputed { id } => disputed.push(id),
                Record::Round { round } => self.recovery.restore_round(round),
                Record::Vote { .. }
                | Record::Promise { .. }
                | Record::Accept { .. }
                | Record::Committed { .. }
                | Record::Finished { .. } => transactions.push(record),
            }
        }
        let listed = self.restore_control(control);
        self.restore_log(log);
        self.restore_transactions(transactions, listed);
        for id in disputed {
            if let Some(instance) = self.instances.get_mut(&id)
                && instance.phase == Phase::Committed
            {
                instance.dispute = Dispute::Aborted;
            }
        }
    }

    /// Goes through what was chosen, in order. Answers with the settled commits that waited.
    fn restore_control(
        &mut self,
        mut control: Vec<(u64, Record)>,
    ) -> BTreeMap<CommitId, Unapplied> {
        control.sort_by_key(|(slot, _)| *slot);
        let mut listed: BTreeMap<CommitId, Unapplied> = BTreeMap::new();
        for (_, record) in control {
            match record {
                Record::State {
                    generations,
                    listed: list,
                    stores,
                } if self.generations.is_older_than(&generations) => {
                    self.generations = generations;
                    self.stores = stores;
                    listed = list.into_iter().map(|of| (of.id, of.unapplied)).collect();
                }
                Record::Chosen { slot, entry } if slot >= self.generations.slot() => {
                    let expected = self.generations.slot();
                    assert!(
                        slot == expected,
                        "the store has slot {slot} of the control log and not slot {expected}: it \
                         lost a record and kept a later one; replace this replica, do not restart \
                         it"
                    );
                    let applies = self.generations.apply(&entry);
                    self.stores.apply(&entry);
                    match (entry, applies) {
                        (
                            Entry::Open(_)
                            | Entry::Enter { .. }
                            | Entry::Gone { .. }
                            | Entry::Restored { .. },
                            _,
                        )
                        | (_, Applies::No) => {}
                        (Entry::Settle(settle), Applies::Yes) => {
                            let unfinished = settle.unfinished.into_iter();
                            listed.extend(unfinished.map(|of| (of.id, of.unapplied)));
                        }
                        (Entry::Release { id }, Applies::Yes) => drop(listed.remove(&id)),
                        (Entry::Unlist { ids }, Applies::Yes) => {
                            listed.retain(|id, _| !ids.contains(id));
                        }
                    }
                }
                _ => {}
            }
        }
        let generations = &self.generations;
        self.frozen
            .retain(|generation| generations.acceptors(*generation).is_some());
        listed
    }

    fn restore_log(&mut self, saved: Vec<LogRecord<Entry>>) {
        let Some(configuration) = self.generations.in_force() else {
            return;
        };
        let (slot, acceptors) = (self.generations.slot(), configuration.acceptors().clone());
        let mut log = Log::new(self.config.id, self.config.log, slot, acceptors);
        for record in saved {
            log.restore(record);
        }
        self.log = Some(log);
    }

    /// Takes back transactions, all of whose records are here.
    pub(super) fn restore_transactions(
        &mut self,
        saved: Vec<Record>,
        listed: BTreeMap<CommitId, Unapplied>,
    ) {
        // Votes name their branch by its position, so rosters come first.
        let (mut votes, mut finished) = (Vec::new(), Vec::new());
        // Of each instance the highest counts, with whom to tell of it.
        let mut accepts: BTreeMap<CommitId, (Ballot, Outcome, Option<Unapplied>)> = BTreeMap::new();
        for record in saved {
            match record {
                Record::Finished { id, outcome } => {
                    if !self.generations.is_settled(&id) {
                        finished.push((id, outcome));
                    }
                }
                // Dropped when it was settled.
                Record::Vote { id, .. }
                | Record::Promise { id, .. }
                | Record::Accept { id, .. }
                | Record::Committed { id, .. }
                    if self.generations.is_settled(&id) => {}
                Record::Vote {
                    id,
                    index,
                    vote,
                    roster,
                } => {
                    self.restored(id, roster);
                    votes.push((id, usize::from(index), vote));
                }
                Record::Promise { id, ballot } => {
                    self.restored(id, None).acceptor.restore_promise(ballot);
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
                    let instance = self.restored(id, None);
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
            let instance = self.restored(id, None);
            instance.acceptor.restore_accept(ballot, outcome);
            if let Some(unapplied) = unapplied {
                instance.take(&unapplied);
            }
        }
        for (id, index, vote) in votes {
            self.restore_vote(id, index, vote);
        }
        for (id, unapplied) in listed {
            let instance = self.restored(id, None);
            instance.take(&unapplied);
            instance.phase = Phase::Committed;
        }
        let finished = finished.into_iter();
        let end = |(id, outcome)| {
            let against = None;
            (id, End { outcome, against })
        };
        self.finished.extend(finished.map(end));
        self.settle_restored();
    }

    fn restored(&mut self, id: CommitId, roster: Option<Roster>) -> &mut Instance {
        let patience = self.vote_ticks(self.config.vote_timeout_min, id.txn.generation);
        let instance = self.instances.entry(id);
        let instance = instance.or_insert_with(|| Instance::new(None, patience));
        if instance.roster.is_none() {
            instance.roster = roster;
        }
        instance
    }

    fn restore_vote(&mut self, id: CommitId, index: usize, vote: Vote) {
        let instance = self.restored(id, None);
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
    fn settle_restored(&mut self) {
        let (finished, config) = (&mut self.finished, &self.config);
        let generations = &self.generations;
        self.instances.retain(|id, instance| {
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
        self.undecided = self.instances.values().filter(undecided).count();
    }
}

fn aborted(instance: &Instance) -> End {
    End {
        outcome: Outcome::Abort,
        against: instance.against(),
    }
}
