//! The control log, as the omniscient observer sees it.

use std::collections::{BTreeMap, BTreeSet};

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Applies, Branch, CommitId, Configuration, Entry, Generations, Listed, Outcome, Settle, Stores,
    Vote,
};

use super::{Facts, Instance, Violation};

/// The truth about the log, and what each disk knows of it.
#[derive(Clone, Debug)]
pub(super) struct Control {
    /// What the first entries come to, by how many they are.
    truth: Vec<Generations>,
    /// The acceptors of every generation that was ever open.
    acceptors: BTreeMap<u32, Acceptors>,
    chosen: Vec<Entry>,
    /// Who has accepted what, durably, in the slots not yet chosen and in those that are.
    accepted: BTreeMap<(u64, Ballot), (Entry, BTreeSet<ReplicaId>)>,
    /// The commits that are listed.
    listed: BTreeSet<CommitId>,
    /// What was listed after each slot.
    lists: Vec<BTreeSet<CommitId>>,
    /// Which stores were entered after each slot.
    stores: Vec<Stores>,
    disks: BTreeMap<ReplicaId, Disk>,
}

/// What one replica's disk knows of the log.
#[derive(Clone, Debug, Default)]
struct Disk {
    slot: u64,
    round: u64,
    promised: Option<Ballot>,
    frozen: BTreeSet<u32>,
}

impl Control {
    pub(super) fn new(genesis: Configuration) -> Self {
        let acceptors = genesis.acceptors().clone();
        Control {
            truth: vec![Generations::genesis(genesis)],
            acceptors: BTreeMap::from([(1, acceptors)]),
            chosen: Vec::new(),
            accepted: BTreeMap::new(),
            listed: BTreeSet::new(),
            lists: vec![BTreeSet::new()],
            stores: vec![Stores::default()],
            disks: BTreeMap::new(),
        }
    }

    /// The size of a majority in a generation; of one that was never open there is none.
    pub(super) fn majority(&self, generation: u32) -> usize {
        let acceptors = self.acceptors.get(&generation);
        acceptors.map_or(usize::MAX, Acceptors::majority)
    }

    fn now(&self) -> &Generations {
        self.truth
            .last()
            .expect("it begins with the first generation")
    }

    /// What `replica` has learned.
    fn known_to(&self, replica: ReplicaId) -> &Generations {
        let slot = self.disks.get(&replica).map_or(0, |disk| disk.slot);
        &self.truth[slot as usize]
    }
}

impl Facts {
    /// What all entries chosen so far come to.
    pub(crate) fn generations(&self) -> &Generations {
        self.control.now()
    }

    /// What all entries chosen so far say of participants' stores.
    pub(crate) fn stores(&self) -> &Stores {
        let stores = self.control.stores.last();
        stores.expect("it begins with none")
    }

    /// The settled commits that some branch has not applied, and no operator has let go.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &CommitId> + '_ {
        let listed = self.control.listed.iter();
        listed.filter(|id| {
            let instance = self.instances.get(id);
            instance.is_some_and(|instance| instance.unapplied().is_some())
        })
    }

    /// A replica touches only what its generations are, and nothing that it has frozen.
    pub(super) fn may_touch(&self, replica: ReplicaId, record: &Record) -> Result<(), Violation> {
        let id = match record {
            Record::Vote { id, .. } | Record::Promise { id, .. } | Record::Accept { id, .. } => *id,
            Record::Committed { .. }
            | Record::Finished { .. }
            | Record::Disputed { .. }
            | Record::Round { .. }
            | Record::Log(_)
            | Record::Frozen { .. }
            | Record::Chosen { .. }
            | Record::State { .. } => return Ok(()),
        };
        let acceptors = self.control.acceptors.get(&id.txn.generation);
        if !acceptors.is_some_and(|acceptors| acceptors.contains(replica)) {
            return Err(Violation::Stranger { id, replica });
        }
        let disk = self.control.disks.get(&replica);
        let frozen = disk.is_some_and(|disk| disk.frozen.contains(&id.txn.generation));
        if frozen || self.control.known_to(replica).is_settled(&id) {
            return Err(Violation::FrozenTouched { id, replica });
        }
        Ok(())
    }

    /// A replica counts no vote of a store of which it knows that the name stands for another one.
    pub(super) fn is_of_entered_store(
        &self,
        replica: ReplicaId,
        id: CommitId,
        branch: &Branch,
    ) -> Result<(), Violation> {
        let slot = self.control.disks.get(&replica).map_or(0, |disk| disk.slot);
        let stores = self.control.stores.get(slot as usize);
        match stores.and_then(|stores| stores.get(&branch.participant)) {
            Some(entered) if entered.store != branch.store => {
                let branch = branch.clone();
                Err(Violation::OtherStoreVoted { id, branch })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn durable_control(
        &mut self,
        replica: ReplicaId,
        record: &Record,
    ) -> Result<(), Violation> {
        let disk = self.control.disks.entry(replica).or_default();
        match record {
            Record::Log(LogRecord::Round { round }) => {
                if *round <= disk.round {
                    let round = *round;
                    return Err(Violation::BallotUsedTwice { replica, round });
                }
                disk.round = *round;
            }
            Record::Log(LogRecord::Promise { ballot }) => {
                if Some(*ballot) < disk.promised {
                    let slot = disk.slot;
                    return Err(Violation::SlotWentBack { slot, replica });
                }
                disk.promised = Some(*ballot);
            }
            Record::Log(LogRecord::Accept {
                slot,
                ballot,
                entry,
            }) => {
                if *slot != disk.slot {
                    let slot = *slot;
                    return Err(Violation::SlotSkipped { slot, replica });
                }
                if Some(*ballot) < disk.promised {
                    let slot = *slot;
                    return Err(Violation::SlotWentBack { slot, replica });
                }
                disk.promised = Some(*ballot);
                self.entry_accepted(replica, *slot, *ballot, entry)?;
            }
            Record::Frozen { generation } => drop(disk.frozen.insert(*generation)),
            Record::Chosen { slot, entry } => {
                let (slot, skipped) = (*slot, *slot != disk.slot);
                disk.slot = slot + 1;
                if skipped {
                    return Err(Violation::SlotSkipped { slot, replica });
                }
                if self.control.chosen.get(slot as usize) != Some(entry) {
                    return Err(Violation::EntryNotChosen { slot, replica });
                }
            }
            Record::State {
                generations,
                listed,
                stores,
            } => {
                disk.slot = generations.slot();
                self.state_taken_over(replica, generations, listed)?;
                if self.control.stores.get(generations.slot() as usize) != Some(stores) {
                    let slot = generations.slot();
                    return Err(Violation::OtherStores { slot, replica });
                }
            }
            Record::Vote { .. }
            | Record::Promise { .. }
            | Record::Accept { .. }
            | Record::Committed { .. }
            | Record::Finished { .. }
            | Record::Disputed { .. }
            | Record::Round { .. } => {}
        }
        Ok(())
    }

    fn entry_accepted(
        &mut self,
        replica: ReplicaId,
        slot: u64,
        ballot: Ballot,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let control = &mut self.control;
        let empty = || (entry.clone(), BTreeSet::new());
        let (value, by) = control.accepted.entry((slot, ballot)).or_insert_with(empty);
        if value != entry {
            return Err(Violation::TwoEntriesProposed { slot, ballot });
        }
        by.insert(replica);
        // Each slot is decided by the configuration in force.
        let Some(before) = control.truth.get(slot as usize) else {
            return Err(Violation::SlotSkipped { slot, replica });
        };
        let Some(in_force) = before.in_force().map(Configuration::acceptors) else {
            return Ok(());
        };
        let members = by.iter().filter(|replica| in_force.contains(**replica));
        if members.count() < in_force.majority() {
            return Ok(());
        }
        match control.chosen.get(slot as usize) {
            Some(chosen) if chosen == entry => Ok(()),
            Some(_) => Err(Violation::TwoEntries { slot }),
            None => self.entry_chosen(entry),
        }
    }

    /// The next slot is decided, at this very moment.
    fn entry_chosen(&mut self, entry: &Entry) -> Result<(), Violation> {
        let before = self.control.now().clone();
        let mut after = before.clone();
        let applies = after.apply(entry);
        self.control.chosen.push(entry.clone());
        self.control.truth.push(after);
        let result = match applies {
            Applies::Yes => self.entry_applies(&before, entry),
            Applies::No => Ok(()),
        };
        self.control.lists.push(self.control.listed.clone());
        let mut stores = self.control.stores.last().cloned().unwrap_or_default();
        stores.apply(entry);
        self.control.stores.push(stores);
        result
    }

    fn entry_applies(&mut self, before: &Generations, entry: &Entry) -> Result<(), Violation> {
        match entry {
            Entry::Open(open) => {
                let acceptors = open.configuration.acceptors().clone();
                self.control.acceptors.insert(open.generation, acceptors);
                Ok(())
            }
            Entry::Settle(settle) => self.settle(before, settle),
            Entry::Unlist { ids } => self.unlisted(ids),
            Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. } => Ok(()),
            Entry::Release { id } => {
                self.control.listed.remove(id);
                self.instances.entry(*id).or_default().released = true;
                Ok(())
            }
        }
    }

    /// The Settle is the last ballot of every instance in its range.
    fn settle(&mut self, before: &Generations, settle: &Settle) -> Result<(), Violation> {
        for Listed { id, .. } in &settle.unfinished {
            let instance = self.instances.entry(*id).or_default();
            if instance.chosen == Some(Outcome::Abort) {
                return Err(Violation::AbortListed { id: *id });
            }
            instance.chosen = Some(Outcome::Commit);
            instance.all_voted(*id)?;
            self.control.listed.insert(*id);
        }
        for (id, instance) in self.instances.range_mut(..=settle.through) {
            if before.is_settled(id) || self.control.listed.contains(id) {
                continue;
            }
            match (instance.chosen, instance.unapplied()) {
                // Commit or Abort, nobody waits for it, and the list does not say which.
                (None, _) if instance.is_read_only() => {}
                (None, _) => instance.chosen = Some(Outcome::Abort),
                (Some(Outcome::Commit), Some(branch)) => {
                    return Err(Violation::CommitForgotten { id: *id, branch });
                }
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    /// Only what all branches have applied leaves the list.
    fn unlisted(&mut self, ids: &[CommitId]) -> Result<(), Violation> {
        for id in ids {
            let instance = self.instances.get(id);
            if !self.control.listed.remove(id) {
                continue;
            }
            if let Some(branch) = instance.and_then(Instance::unapplied) {
                return Err(Violation::CommitForgotten { id: *id, branch });
            }
        }
        Ok(())
    }

    /// Of what nobody had heard when it was settled, nothing was listed.
    pub(super) fn settle_unheard(&mut self, id: CommitId) {
        if self.control.now().is_settled(&id) && !self.control.listed.contains(&id) {
            let instance = self.instances.entry(id).or_default();
            if !instance.is_read_only() {
                instance.chosen.get_or_insert(Outcome::Abort);
            }
        }
    }

    /// Horizon and list travel together.
    fn state_taken_over(
        &mut self,
        replica: ReplicaId,
        generations: &Generations,
        listed: &[Listed],
    ) -> Result<(), Violation> {
        let slot = generations.slot();
        if self.control.truth.get(slot as usize) != Some(generations) {
            return Err(Violation::EntryNotChosen { slot, replica });
        }
        // The list after a slot is the same everywhere.
        let list = listed.iter().map(|listed| listed.id).collect();
        match self.control.lists.get(slot as usize) {
            Some(known) if *known == list => Ok(()),
            Some(_) | None => Err(Violation::OtherList { slot, replica }),
        }
    }

    /// A message of a replica that is not about a single ballot of a transaction.
    pub(super) fn sent_control(
        &mut self,
        replica: ReplicaId,
        message: &Message,
    ) -> Result<(), Violation> {
        match message {
            Message::Expired { id, .. } => self.expired(replica, *id),
            Message::Announce(generations) | Message::NotOpen { generations, .. } => {
                self.announced(replica, generations)
            }
            Message::State { generations, .. } => self.announced(replica, generations),
            Message::Frozen { generation, .. } | Message::Collected { generation, .. } => {
                let disk = self.control.disks.get(&replica);
                if disk.is_some_and(|disk| disk.frozen.contains(generation)) {
                    return Ok(());
                }
                let generation = *generation;
                Err(Violation::FrozenNotDurable {
                    replica,
                    generation,
                })
            }
            Message::Log(message) => self.sent_log(replica, message),
            _ => Ok(()),
        }
    }

    fn expired(&mut self, replica: ReplicaId, id: CommitId) -> Result<(), Violation> {
        if !self.control.known_to(replica).is_settled(&id) {
            return Err(Violation::ExpiredTooEarly { id, replica });
        }
        match self.instances.get(&id) {
            Some(instance) if instance.chosen == Some(Outcome::Commit) => {
                match instance.unapplied() {
                    Some(branch) if !instance.released => {
                        Err(Violation::CommitForgotten { id, branch })
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What is told of generations is chosen, and on the teller's disk.
    fn announced(&self, replica: ReplicaId, told: &Generations) -> Result<(), Violation> {
        let known = self.control.known_to(replica);
        let nothing = Generations::default();
        let right = told.slot() <= known.slot()
            && self.control.truth.get(told.slot() as usize) == Some(told);
        if right || *told == nothing {
            Ok(())
        } else {
            Err(Violation::Announced { replica })
        }
    }

    fn sent_log(&self, replica: ReplicaId, message: &LogMessage<Entry>) -> Result<(), Violation> {
        let slot = message.slot();
        let empty = Disk::default();
        let disk = self.control.disks.get(&replica).unwrap_or(&empty);
        let accepted = |ballot: Ballot| {
            let accepted = self.control.accepted.get(&(slot, ballot));
            accepted.filter(|(_, by)| by.contains(&replica))
        };
        let shown = match message {
            LogMessage::Prepare { ballot, .. }
            | LogMessage::Accept { ballot, .. }
            | LogMessage::Lead { ballot, .. } => disk.round >= ballot.round,
            LogMessage::Promise {
                ballot,
                accepted: told,
                ..
            } => {
                let promised = disk.promised >= Some(*ballot);
                // Behind a promise nothing below it changes any more.
                let held = self.control.accepted.range(..(slot, *ballot));
                let held = held.filter(|((of, _), (_, by))| *of == slot && by.contains(&replica));
                let highest = held
                    .map(|((_, at), (entry, _))| (*at, entry))
                    .max_by_key(|it| it.0);
                let same = match told {
                    Some((at, entry)) if at >= ballot => {
                        accepted(*at).is_some_and(|(held, _)| held == entry)
                    }
                    told => told.as_ref().map(|(at, entry)| (*at, entry)) == highest,
                };
                promised && same
            }
            LogMessage::Accepted { ballot, .. } => accepted(*ballot).is_some(),
            LogMessage::Chosen { entry, .. } => {
                self.control.chosen.get(slot as usize) == Some(entry) && disk.slot > slot
            }
            LogMessage::Nack { .. } | LogMessage::Following { .. } => true,
        };
        if shown {
            Ok(())
        } else {
            Err(Violation::SlotNotDurable { slot, replica })
        }
    }
}

impl Instance {
    /// Whether every branch voted `ReadOnly`.
    fn is_read_only(&self) -> bool {
        let read_only = |branch: &Branch| self.votes.contains(&(branch.clone(), Vote::ReadOnly));
        let roster = self.roster.as_ref();
        roster.is_some_and(|roster| roster.iter().all(read_only))
    }

    /// A branch that voted `Prepared` and has not said that it applied the commit.
    fn unapplied(&self) -> Option<Branch> {
        let mut votes = self.votes.iter();
        let waits =
            |(branch, vote): &&(_, Vote)| *vote == Vote::Prepared && !self.applied.contains(branch);
        let (branch, _) = votes.find(waits)?;
        (!self.released).then(|| branch.clone())
    }
}
