//! From the records of the control log back to what it had come to.

use std::collections::BTreeMap;

use crate::protocol::message::Unapplied;
use crate::protocol::paxos::log::{Log, LogRecord};
use crate::protocol::types::{Applies, CommitId, Entry};

use crate::protocol::replica::config::ReplicaConfig;
use crate::protocol::replica::record::Record;

use super::Control;

impl Control {
    /// Rebuilds the state from records in any order. Answers with the settled commits that waited.
    pub(crate) fn restore(
        &mut self,
        saved: Vec<Record>,
        config: &ReplicaConfig,
    ) -> BTreeMap<CommitId, Unapplied> {
        let (mut chosen, mut log) = (Vec::new(), Vec::new());
        for record in saved {
            match record {
                Record::Chosen { slot, .. } => chosen.push((slot.saturating_add(1), record)),
                Record::State {
                    ref generations, ..
                } => chosen.push((generations.slot(), record)),
                Record::Log(record) => log.push(record),
                Record::Frozen { generation } => drop(self.frozen.insert(generation)),
                Record::Vote { .. }
                | Record::Promise { .. }
                | Record::Accept { .. }
                | Record::Round { .. }
                | Record::Committed { .. }
                | Record::Disputed { .. }
                | Record::Finished { .. } => {}
            }
        }
        let listed = self.restore_chosen(chosen);
        self.restore_log(log, config);
        listed
    }

    /// Goes through what was chosen, in order. Answers with the settled commits that waited.
    fn restore_chosen(&mut self, mut control: Vec<(u64, Record)>) -> BTreeMap<CommitId, Unapplied> {
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

    fn restore_log(&mut self, saved: Vec<LogRecord<Entry>>, config: &ReplicaConfig) {
        let Some(configuration) = self.generations.in_force() else {
            return;
        };
        let (slot, acceptors) = (self.generations.slot(), configuration.acceptors().clone());
        let mut log = Log::new(config.id, config.log, slot, acceptors);
        for record in saved {
            log.restore(record);
        }
        self.log = Some(log);
    }
}
