//! Random histories, such as a replica could save.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;
use crate::protocol::paxos::log::LogRecord;
use crate::protocol::replica::Records;
use crate::protocol::types::{Generations, UNSETTLED_MAX};

/// What happened to a transaction so far.
#[derive(Clone, Default)]
struct Life {
    votes: u8,
    round: u64,
    is_finished: bool,
}

/// A replica that does anything, in no sensible order, but never what no replica does.
pub(super) struct History {
    pub(super) model: Records,
    rng: Rng,
    lives: BTreeMap<CommitId, Life>,
    round: u64,
    log_round: u64,
    log_ballot: u64,
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        History {
            model: Records::new(Some(configuration())),
            rng: Rng::with_seed(seed),
            lives: BTreeMap::new(),
            round: 0,
            log_round: 0,
            log_ballot: 0,
        }
    }

    /// The records of one step, which the model has taken too.
    pub(super) fn step(&mut self) -> Vec<Record> {
        let count = self.rng.usize(1..=4);
        let mut records = Vec::new();
        for _ in 0..count {
            let record = self.record();
            self.model.apply(record.clone());
            records.push(record);
        }
        records
    }

    /// An id that may or may not be there.
    pub(super) fn any_id(&mut self) -> CommitId {
        let generations = self.model.generations();
        let generation = self.rng.u32(generations.oldest()..=generations.latest());
        let txn = TxnId {
            generation,
            initiator: InitiatorId::from_u128(self.rng.u128(1..=3)),
            sequence: self.rng.u32(1..=12),
            nonce: 9,
        };
        CommitId::new(txn, &roster(self.rng.u64(1..=3)))
    }

    fn record(&mut self) -> Record {
        match self.rng.u32(0..100) {
            0..70 => self.of_transaction(),
            70..75 => {
                self.round += self.rng.u64(1..3);
                Record::Round { round: self.round }
            }
            75..85 => self.of_log(),
            85..95 => self.chosen(),
            _ => self.state(),
        }
    }

    fn of_transaction(&mut self) -> Record {
        if self.rng.u32(0..8) == 0
            && let Some(id) = self.any_listed()
        {
            return finished(id);
        }
        let id = self.any_id();
        let life = self.lives.entry(id).or_default();
        if self.model.generations().is_settled(&id) || life.is_finished {
            let outcome = Outcome::Abort;
            return Record::Finished { id, outcome };
        }
        let roster = roster(3);
        life.round += 1;
        let ballot = Ballot {
            round: life.round,
            replica: ReplicaId(2),
        };
        match self.rng.u32(0..10) {
            0..5 if life.votes < 32 => {
                life.votes += 1;
                let first = life.votes == 1;
                Record::Vote {
                    id,
                    index: life.votes - 1,
                    vote: [Vote::Prepared, Vote::ReadOnly, Vote::Aborted][self.rng.usize(0..3)],
                    roster: first.then_some(roster),
                }
            }
            0..6 => Record::Promise { id, ballot },
            6 => Record::Accept {
                id,
                ballot,
                outcome: Outcome::Commit,
                unapplied: Some(listed(id).unapplied),
            },
            7 => Record::Accept {
                id,
                ballot,
                outcome: Outcome::Abort,
                unapplied: None,
            },
            8 => Record::Committed {
                id,
                unapplied: listed(id).unapplied,
            },
            _ => {
                life.is_finished = true;
                finished(id)
            }
        }
    }

    fn any_listed(&mut self) -> Option<CommitId> {
        let listed: Vec<CommitId> = self.model.listed().copied().collect();
        self.rng.choice(listed)
    }

    fn of_log(&mut self) -> Record {
        self.log_round += 1;
        self.log_ballot += 1;
        let ballot = Ballot {
            round: self.log_ballot,
            replica: ReplicaId(self.rng.u32(1..=3)),
        };
        let slot = self.model.generations().slot();
        match self.rng.u32(0..4) {
            0 => Record::Log(LogRecord::Round {
                round: self.log_round,
            }),
            1 => Record::Log(LogRecord::Promise { ballot }),
            2 => {
                let generation = self.rng.u32(..4) + self.model.generations().oldest();
                Record::Frozen { generation }
            }
            _ => {
                let mut entry = self.entry();
                if let Entry::Settle(settle) = &mut entry {
                    // Long enough to be cut into pieces.
                    let many = (0..self.rng.u32(0..256)).map(|sequence| listed(id(1, sequence)));
                    settle.unfinished = many.collect();
                }
                Record::Log(LogRecord::Accept {
                    slot,
                    ballot,
                    entry,
                })
            }
        }
    }

    /// An entry that may or may not follow.
    fn entry(&mut self) -> Entry {
        let generations = self.model.generations().clone();
        match self.rng.u32(0..10) {
            0..4 => Entry::Open(Open {
                generation: generations.latest() + 1,
                configuration: configuration(),
            }),
            4..8 => self.settle(&generations),
            8 => Entry::Release {
                id: self.any_listed().unwrap_or(id(1, 1)),
            },
            _ => Entry::Open(Open {
                generation: generations.latest() + 2,
                configuration: configuration(),
            }),
        }
    }

    fn settle(&mut self, generations: &Generations) -> Entry {
        let oldest = generations.oldest();
        let through = if self.rng.bool() {
            Generations::last_id(oldest)
        } else {
            let mut through = self.any_id();
            through.txn.generation = oldest;
            through
        };
        let after = generations.horizon();
        let in_range = |id: &CommitId| Some(*id) > after && *id <= through;
        let ids: Vec<CommitId> = self.lives.keys().copied().filter(in_range).collect();
        let unfinished = ids.into_iter().filter(|_| self.rng.bool()).map(listed);
        Entry::Settle(Box::new(Settle {
            after,
            through,
            unfinished: unfinished.collect(),
        }))
    }

    fn chosen(&mut self) -> Record {
        // Now and then one that is known already, or too early.
        let slot = self.model.generations().slot();
        let slot = [slot, slot, slot, slot, slot + 1, slot.saturating_sub(1)][self.rng.usize(0..6)];
        let entry = self.entry();
        Record::Chosen { slot, entry }
    }

    /// Some entries that this replica missed, and what came of them elsewhere.
    fn state(&mut self) -> Record {
        let mut generations = self.model.generations().clone();
        for _ in 0..self.rng.usize(1..6) {
            let is_full = generations.latest() - generations.oldest() + 2 > UNSETTLED_MAX as u32;
            let entry = if generations.closed().is_some() && (is_full || self.rng.bool()) {
                self.settle(&generations)
            } else {
                Entry::Open(Open {
                    generation: generations.latest() + 1,
                    configuration: configuration(),
                })
            };
            generations.apply(&entry);
        }
        let mut ids: Vec<CommitId> = self.model.listed().copied().collect();
        ids.extend(self.lives.keys());
        ids.sort();
        ids.dedup();
        ids.retain(|id| generations.is_settled(id) && self.rng.bool());
        Record::State {
            generations,
            listed: ids.into_iter().map(listed).collect(),
            stores: Default::default(),
        }
    }
}
