//! The memory of a replica: what is finished leaves it when it is durable, and is read from disk
//! when somebody asks for it. All as whoever drives a replica does it.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::replica::{Lookup, Record, ReplicaCommand};
use paxos_commit::protocol::types::CommitId;
use paxos_commit::protocol::{Effects, Host, Input, Replica};

use super::plant::Plant;
use super::stats::Sometimes;
use super::world::World;

impl World {
    fn command_replica(&mut self, index: usize, command: ReplicaCommand) {
        if let Some(host) = &mut self.replicas[index].host {
            let mut effects = Effects::default();
            host.step(Input::Command(command), &mut effects);
            assert!(
                effects.is_empty(),
                "nothing follows from what is in memory: {effects:?}"
            );
        }
    }

    /// What a disk gives back at restart. What is finished stays there.
    pub fn load(&self, index: usize, saved: Vec<Record>) -> Vec<Record> {
        let disk = &self.disks[index];
        let kept: Vec<Record> = if self.plan.evicts() {
            disk.unfinished().collect()
        } else {
            disk.iter().collect()
        };
        if let Some(plant) = self.options.plant {
            return plant.load(self.replicas[index].config.id, kept);
        }
        let config = &self.replicas[index].config;
        let recover = |records| Replica::recover(config.clone(), records, &mut Effects::default());
        let all = recover(saved);
        assert!(
            all == recover(disk.iter().collect()),
            "replica {} recovers to something else from what a store keeps",
            index + 1
        );
        assert!(
            all == recalled(recover(disk.unfinished().collect()), disk.finished()),
            "replica {} is something else when it has recalled what is finished",
            index + 1
        );
        kept
    }

    /// Its first input: what the disk holds besides.
    pub fn tell_stored(&mut self, index: usize) {
        let forgotten = [Plant::ForgetsStored, Plant::LostDiskComesBack];
        let forgotten = forgotten.map(Some).contains(&self.options.plant);
        if !self.plan.evicts() || forgotten {
            return;
        }
        let disk = &self.disks[index];
        let (stored, finished) = (disk.stored(), disk.finished());
        let finished: Vec<CommitId> = finished.filter_map(|record| record.id().copied()).collect();
        self.command_replica(index, ReplicaCommand::Stored(stored));
        let host = self.replicas[index].host.as_ref().expect("just started");
        for id in finished {
            let unknown = host.unknown(&Message::ForceAbort { id });
            assert_eq!(unknown, [Lookup::Instance(id)]);
        }
    }

    /// Before a step: what it consults and the memory does not hold is read from disk.
    pub fn recall(&mut self, index: usize, message: &Message) {
        let Some(host) = &self.replicas[index].host else {
            return;
        };
        let unknown = host.unknown(message);
        if unknown.is_empty() || self.options.plant == Some(Plant::ForgetsToRecall) {
            return;
        }
        let disk = &self.disks[index];
        let found = unknown.into_iter().flat_map(|lookup| disk.look_up(lookup));
        let found: Vec<Record> = found.collect();
        if found.is_empty() {
            return;
        }
        self.stats.saw(match message {
            Message::Log(_) | Message::State { .. } => Sometimes::RecalledForList,
            Message::Collect { .. } => Sometimes::RecalledForCollect,
            Message::Inquire { .. } => Sometimes::RecalledForInquiry,
            Message::Phase1a { .. } | Message::Phase2a { .. } => Sometimes::RecalledForBallot,
            _ => Sometimes::Recalled,
        });
        self.command_replica(index, ReplicaCommand::Recall(found));
    }

    /// A save begins: when it is durable, so is all that is finished now.
    pub fn note_leaving(&mut self, index: usize) {
        if !self.plan.evicts() {
            return;
        }
        let node = &mut self.replicas[index];
        let finished = node.host.iter().flat_map(Replica::finished);
        node.leaving = finished.copied().collect();
    }

    /// The save is durable.
    pub fn evict_noted(&mut self, index: usize) {
        let mut leaving = std::mem::take(&mut self.replicas[index].leaving);
        // A few may stay, for those who come late with a message about them.
        let count = leaving.len().saturating_sub(self.plan.keep_finished);
        leaving.truncate(count);
        if !leaving.is_empty() {
            self.command_replica(index, ReplicaCommand::Evict(leaving));
        }
    }

    /// Without faults nothing is heard of a transaction any more once all replicas have finished
    /// it: all its branches have applied it. So a long run needs no more memory than a short one.
    pub fn forget_finished(&mut self, id: CommitId) {
        let replicas = self.replicas.len();
        let finished = self.finished.entry(id).or_insert(0);
        *finished += 1;
        if *finished == replicas {
            self.finished.remove(&id);
            self.facts.forget(&id);
            for resource in &mut self.resources {
                resource.forget(&id);
            }
        }
    }

    /// Nothing waits for a save.
    pub fn evict_finished(&mut self, index: usize) {
        self.note_leaving(index);
        self.evict_noted(index);
    }

    /// A replica as it would be with everything in memory that it can recall.
    pub fn with_everything(&self, index: usize) -> Option<Replica> {
        let host = self.replicas[index].host.clone()?;
        Some(recalled(host, self.disks[index].finished()))
    }
}

fn recalled(mut replica: Replica, records: impl Iterator<Item = Record>) -> Replica {
    let recall = ReplicaCommand::Recall(records.collect());
    replica.step(Input::Command(recall), &mut Effects::default());
    replica
}
