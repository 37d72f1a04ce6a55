//! What a replica saves, and what of it a store must keep.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use serde::{Deserialize, Serialize};

use crate::protocol::message::Unapplied;
use crate::protocol::paxos::Ballot;
use crate::protocol::paxos::log::LogRecord;
use crate::protocol::types::{
    Applies, CommitId, Configuration, Entry, Generations, Listed, Outcome, Roster, Stores, Vote,
};

use super::front::Stored;
use super::recalling::Lookup;

/// What a replica saves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Record {
    /// A branch's vote, held at ballot 0.
    Vote {
        /// The instance.
        id: CommitId,
        /// The branch's position in the roster.
        index: u8,
        /// Its vote.
        vote: Vote,
        /// The roster, with the first vote of an instance.
        roster: Option<Roster>,
    },
    /// A promise.
    Promise {
        /// The instance.
        id: CommitId,
        /// The ballot promised.
        ballot: Ballot,
    },
    /// An outcome accepted at a ballot above 0.
    Accept {
        /// The instance.
        id: CommitId,
        /// The ballot.
        ballot: Ballot,
        /// The outcome.
        outcome: Outcome,
        /// Whom to tell, with Commit.
        unapplied: Option<Unapplied>,
    },
    /// Commit was chosen and some branch has not applied it, where votes alone do not show it.
    Committed {
        /// The instance.
        id: CommitId,
        /// Whom to tell.
        unapplied: Unapplied,
    },
    /// Decided, and nobody waits for it any more.
    Finished {
        /// The instance.
        id: CommitId,
        /// The outcome.
        outcome: Outcome,
    },
    /// A listed commit was aborted here. As long as it is listed.
    Disputed {
        /// The commit.
        id: CommitId,
    },
    /// A round was used for a ballot.
    Round {
        /// The round.
        round: u64,
    },
    /// For the control log.
    Log(LogRecord<Entry>),
    /// A generation is frozen, for ever.
    Frozen {
        /// The generation.
        generation: u32,
    },
    /// An entry of the control log was chosen, with all that follows from it: what a `Settle` does
    /// not list is dropped, and what it lists is adopted, in this one record.
    Chosen {
        /// Its slot.
        slot: u64,
        /// The entry.
        entry: Entry,
    },
    /// What the entries before this replica's next slot come to, taken over from another replica:
    /// horizon and list together. Every record up to the horizon that is not listed is dropped.
    State {
        /// The generations.
        generations: Generations,
        /// The settled commits that wait for a branch.
        listed: Vec<Listed>,
        /// The stores that names stand for.
        stores: Stores,
    },
}

impl Record {
    /// The instance that it is about, if it is about one.
    pub fn id(&self) -> Option<&CommitId> {
        match self {
            Record::Vote { id, .. }
            | Record::Promise { id, .. }
            | Record::Accept { id, .. }
            | Record::Committed { id, .. }
            | Record::Finished { id, .. } => Some(id),
            Record::Round { .. }
            | Record::Log(_)
            | Record::Disputed { .. }
            | Record::Frozen { .. }
            | Record::Chosen { .. }
            | Record::State { .. } => None,
        }
    }

    /// Whether it is about the control log, and not about transactions.
    pub(super) fn is_of_log(&self) -> bool {
        match self {
            Record::Log(_)
            | Record::Frozen { .. }
            | Record::Chosen { .. }
            | Record::State { .. } => true,
            Record::Vote { .. }
            | Record::Promise { .. }
            | Record::Accept { .. }
            | Record::Committed { .. }
            | Record::Finished { .. }
            | Record::Disputed { .. }
            | Record::Round { .. } => false,
        }
    }

    /// Whether this record alone shows that its transaction is finished. (One `Aborted` at ballot 0
    /// is a final abort, and nothing else is saved of it.)
    pub fn is_final(&self) -> bool {
        match self {
            Record::Finished { .. } => true,
            Record::Vote { vote, .. } => *vote == Vote::Aborted,
            Record::Promise { .. }
            | Record::Accept { .. }
            | Record::Committed { .. }
            | Record::Disputed { .. }
            | Record::Round { .. }
            | Record::Log(_)
            | Record::Frozen { .. }
            | Record::Chosen { .. }
            | Record::State { .. } => false,
        }
    }
}

/// What a store must keep of all that a replica ever saved: what [`recover`] needs, and no more.
///
/// It says which records replace which, and which are dropped when a generation is settled. To
/// recover from it is to recover from everything that was saved.
///
/// [`recover`]: crate::protocol::Host::recover
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    round: u64,
    log_round: u64,
    log_promise: Option<Ballot>,
    log_accept: Option<(u64, Ballot, Entry)>,
    frozen: BTreeSet<u32>,
    generations: Generations,
    stores: Stores,
    listed: BTreeMap<CommitId, Unapplied>,
    disputed: BTreeSet<CommitId>,
    transactions: BTreeMap<CommitId, Vec<Record>>,
}

impl Records {
    /// Nothing was saved yet, by a replica with this first configuration.
    pub fn new(genesis: Option<Configuration>) -> Self {
        Records {
            round: 0,
            log_round: 0,
            log_promise: None,
            log_accept: None,
            frozen: BTreeSet::new(),
            generations: genesis.map(Generations::genesis).unwrap_or_default(),
            stores: Stores::default(),
            listed: BTreeMap::new(),
            disputed: BTreeSet::new(),
            transactions: BTreeMap::new(),
        }
    }

    /// A record is durable.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Vote { id, .. } => self.of(id).push(record),
            // The last one of its kind stands for those before it.
            Record::Promise { id, .. }
            | Record::Accept { id, .. }
            | Record::Committed { id, .. } => {
                let kind = discriminant(&record);
                let records = self.of(id);
                records.retain(|record| discriminant(record) != kind);
                records.push(record);
            }
            // The list changes by the log alone.
            Record::Finished { id, .. } if self.generations.is_settled(&id) => {}
            // Nothing else about it will ever be asked for.
            Record::Finished { id, .. } => *self.of(id) = vec![record],
            Record::Round { round } => self.round = round,
            Record::Log(LogRecord::Round { round }) => self.log_round = round,
            Record::Log(LogRecord::Promise { ballot }) => self.promised(ballot),
            Record::Log(LogRecord::Accept {
                slot,
                ballot,
                entry,
            }) => {
                self.promised(ballot);
                self.log_accept = Some((slot, ballot, entry));
            }
            Record::Frozen { generation } => drop(self.frozen.insert(generation)),
            Record::Disputed { id } => {
                if self.listed.contains_key(&id) {
                    self.disputed.insert(id);
                }
            }
            Record::Chosen { slot, entry } => {
                if slot == self.generations.slot() {
                    self.chosen(entry);
                }
            }
            Record::State {
                generations,
                listed,
                stores,
            } => {
                self.generations = generations;
                self.stores = stores;
                self.listed.clear();
                self.adopt(listed);
            }
        }
    }

    /// The records to recover from.
    pub fn iter(&self) -> impl Iterator<Item = Record> + '_ {
        self.unfinished().chain(self.finished())
    }

    /// The records to recover from, but those of finished transactions.
    pub fn unfinished(&self) -> impl Iterator<Item = Record> + '_ {
        self.control().chain(self.of_transactions(false))
    }

    /// The records of finished transactions.
    pub fn finished(&self) -> impl Iterator<Item = Record> + '_ {
        self.of_transactions(true)
    }

    /// What a replica is told at start, if it recovers without the finished transactions.
    pub fn stored(&self) -> Stored {
        let finished = self.transactions.iter();
        let finished = finished.filter(|(_, records)| records.iter().any(Record::is_final));
        finished.map(|(id, _)| id.txn).collect()
    }

    /// The records of what a step consults and the memory does not hold.
    pub fn look_up(&self, lookup: Lookup) -> impl Iterator<Item = Record> + '_ {
        let ids = match lookup {
            Lookup::Instance(id) => id..=id,
            Lookup::Transaction(txn) => CommitId::all_of(txn),
        };
        let found = self.transactions.range(ids);
        found.flat_map(|(_, records)| records).cloned()
    }

    fn of_transactions(&self, finished: bool) -> impl Iterator<Item = Record> + '_ {
        let all = self.transactions.values();
        let some = all.filter(move |all| all.iter().any(Record::is_final) == finished);
        some.flatten().cloned()
    }

    /// What is saved of anything but transactions.
    fn control(&self) -> impl Iterator<Item = Record> + '_ {
        let listed = self.listed.iter().map(|(id, unapplied)| Listed {
            id: *id,
            unapplied: unapplied.clone(),
        });
        let state = (self.generations.slot() > 0).then(|| Record::State {
            generations: self.generations.clone(),
            listed: listed.collect(),
            stores: self.stores.clone(),
        });
        let round = (self.round > 0).then_some(Record::Round { round: self.round });
        let log_round = (self.log_round > 0).then_some(LogRecord::Round {
            round: self.log_round,
        });
        let promise = self.log_promise.map(|ballot| LogRecord::Promise { ballot });
        let accept = self
            .log_accept
            .clone()
            .map(|(slot, ballot, entry)| LogRecord::Accept {
                slot,
                ballot,
                entry,
            });
        let log = log_round.into_iter().chain(promise).chain(accept);
        let frozen = self.frozen.iter().map(|generation| Record::Frozen {
            generation: *generation,
        });
        let disputed = self.disputed.iter().map(|id| Record::Disputed { id: *id });
        let state = state.into_iter().chain(disputed).chain(round);
        state.chain(log.map(Record::Log)).chain(frozen)
    }

    /// How many records of transactions are kept: those that are not settled, and one for each
    /// settled commit that waits for a branch.
    pub fn transactions(&self) -> usize {
        let records = self.transactions.values().map(Vec::len);
        records.sum::<usize>() + self.listed.len()
    }

    /// The settled commits that wait for a branch.
    pub fn listed(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.listed.keys()
    }

    /// What the entries of the control log come to.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    fn of(&mut self, id: CommitId) -> &mut Vec<Record> {
        self.transactions.entry(id).or_default()
    }

    fn promised(&mut self, ballot: Ballot) {
        self.log_promise = self.log_promise.max(Some(ballot));
    }

    fn chosen(&mut self, entry: Entry) {
        let applies = self.generations.apply(&entry);
        self.stores.apply(&entry);
        match (entry, applies) {
            (
                Entry::Open(_) | Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. },
                _,
            )
            | (_, Applies::No) => {}
            (Entry::Settle(settle), Applies::Yes) => self.adopt(settle.unfinished),
            (Entry::Release { id }, Applies::Yes) => self.unlist(&[id]),
            (Entry::Unlist { ids }, Applies::Yes) => self.unlist(&ids),
        }
    }

    fn unlist(&mut self, ids: &[CommitId]) {
        for id in ids {
            self.listed.remove(id);
            self.disputed.remove(id);
        }
    }

    /// Drops everything up to the horizon, and adopts what is listed.
    fn adopt(&mut self, listed: Vec<Listed>) {
        let listed = listed.into_iter();
        self.listed.extend(listed.map(|of| (of.id, of.unapplied)));
        let listed = &self.listed;
        self.disputed.retain(|id| listed.contains_key(id));
        let generations = &self.generations;
        self.frozen
            .retain(|generation| generations.acceptors(*generation).is_some());
        while let Some(entry) = self.transactions.first_entry()
            && generations.is_settled(entry.key())
        {
            entry.remove();
        }
    }
}
