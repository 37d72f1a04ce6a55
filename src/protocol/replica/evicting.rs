//! Evicting what is finished from memory, and recalling it from the store.
//!
//! See [the section on memory](super#what-is-finished-leaves-the-memory) for the order of calls and
//! for what goes wrong without it.

use crate::protocol::message::Message;
use crate::protocol::paxos::log::LogMessage;
use crate::protocol::types::{CommitId, Entry, Listed, TxnId};

use super::{Record, Replica, Stored};

/// What a step consults that is not in memory, and may be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lookup {
    /// The records of this instance.
    Instance(CommitId),
    /// The records of every instance of this transaction.
    Transaction(TxnId),
}

impl Replica {
    /// What must be read from the store, and given to
    /// [`Recall`](super::ReplicaCommand::Recall), before the step that takes `message`. It allocates
    /// nothing if that is nothing, as nearly always.
    ///
    /// A step that takes anything but a message consults only what is in memory: ticks drive what is
    /// under way, connections change the directory.
    pub fn unknown(&self, message: &Message) -> Vec<Lookup> {
        if self.stored.is_empty() {
            return Vec::new();
        }
        match message {
            Message::BeginCommit(begin) => self.lookups([&begin.id]),
            Message::Vote(cast) => self.lookups([&cast.id]),
            Message::Ask(question) => self.lookups([&question.id]),
            Message::Decided(decision) => self.lookups([&decision.id]),
            Message::Applied { id, .. }
            | Message::Contradicted { id, .. }
            | Message::Unproven { id, .. }
            | Message::ForceAbort { id }
            | Message::Release { id }
            | Message::Expired { id, .. }
            | Message::Phase2b { id, .. } => self.lookups([id]),
            Message::Phase1a { ids, .. } | Message::Collect { ids, .. } => self.lookups(ids),
            Message::Phase1b { reports, .. } => {
                self.lookups(reports.iter().map(|report| &report.id))
            }
            Message::Phase2a { proposals, .. } => {
                self.lookups(proposals.iter().map(|proposal| &proposal.id))
            }
            Message::Nack { refused, .. } => self.lookups(refused.iter().map(|(id, _)| id)),
            // Any number of rosters; even if one of them is in memory, another may be on disk.
            Message::Inquire { txn } => {
                let asked = self.stored.may_hold(*txn) && !self.generations.is_txn_settled(*txn);
                let lookup = asked.then_some(Lookup::Transaction(*txn));
                lookup.into_iter().collect()
            }
            // What is finished here must not be adopted again.
            Message::Log(message) => match self.settles(message) {
                Some(listed) => self.lookups(listed.iter().map(|of| &of.id)),
                None => Vec::new(),
            },
            // A page that is not the last is only kept. With the last one all pages count, and what
            // was recalled for an earlier one may have been evicted since.
            Message::State { more: true, .. } => Vec::new(),
            Message::State {
                listed,
                more: false,
                ..
            } => {
                let earlier = self.fetching.iter().flat_map(|fetching| fetching.listed());
                self.lookups(earlier.chain(listed).map(|of| &of.id))
            }
            // It lists what is unfinished, which is in memory.
            Message::Freeze { .. }
            // The leader's own tally, which touches no instance. What this replica holds itself it
            // tells the leader, itself, in answer to a Collect.
            | Message::Frozen { .. }
            | Message::Collected { .. }
            // They name no instance.
            | Message::Rollback { .. }
            | Message::Resolve { .. }
            | Message::List { .. }
            | Message::Fetch { .. }
            | Message::Reconfigure { .. }
            | Message::Present { .. }
            | Message::Enter { .. }
            | Message::Gone { .. }
            | Message::Restored { .. }
            | Message::Probe { .. }
            | Message::Probed { .. }
            // They are never sent to a replica.
            | Message::Prepare(_)
            | Message::LetGo { .. }
            | Message::Finish { .. }
            | Message::Undecided(_)
            | Message::Status { .. }
            | Message::Resolved { .. }
            | Message::Busy { .. }
            | Message::Announce(_)
            | Message::NotOpen { .. }
            | Message::Forgotten { .. }
            | Message::Disputed { .. }
            | Message::ListPage(_)
            | Message::Admission { .. }
            | Message::Named { .. }
            | Message::Declined(_) => Vec::new(),
        }
    }

    /// The transactions in memory that nobody waits for any more: what can be evicted once the saves
    /// of all steps so far are durable.
    pub fn finished(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.finished.keys()
    }

    /// Up to where the store may hold what is not in memory.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// What the store holds besides the records that this replica has recovered from.
    pub(super) fn take_stored(&mut self, stored: Stored) {
        self.stored.merge(stored);
        self.stored.forget_settled(&self.generations);
    }

    /// Drops what is finished, and only that.
    pub(super) fn evict(&mut self, ids: Vec<CommitId>) {
        for id in ids {
            if self.finished.remove(&id).is_some() {
                self.stored.note(id.txn);
            }
        }
    }

    /// Takes back instances from their records, all of each: exactly what they would be after a
    /// restart. What is in memory is newer, and what is settled is no longer asked for.
    pub(super) fn recall(&mut self, records: Vec<Record>) {
        let is_unknown = |record: &Record| record.id().is_some_and(|id| !self.is_in_memory(id));
        let records: Vec<Record> = records.into_iter().filter(is_unknown).collect();
        // By the code of a restart, with nothing in memory but these.
        let instances = std::mem::take(&mut self.instances);
        let finished = std::mem::take(&mut self.finished);
        let undecided = std::mem::take(&mut self.undecided);
        self.restore_transactions(records, Default::default());
        let recalled = std::mem::replace(&mut self.instances, instances);
        self.instances.extend(recalled);
        let recalled = std::mem::replace(&mut self.finished, finished);
        self.finished.extend(recalled);
        self.undecided += undecided;
    }

    fn lookups<'i>(&self, ids: impl IntoIterator<Item = &'i CommitId>) -> Vec<Lookup> {
        let unknown = ids.into_iter().filter(|id| {
            let is_new = !self.stored.may_hold(id.txn);
            !is_new && !self.generations.is_settled(id) && !self.is_in_memory(id)
        });
        unknown.map(|id| Lookup::Instance(*id)).collect()
    }

    fn is_in_memory(&self, id: &CommitId) -> bool {
        self.instances.contains_key(id) || self.finished.contains_key(id)
    }

    /// The list of the Settle that this message may get chosen: it brings it, or it is the last
    /// acceptance that this replica's own proposal needs.
    fn settles<'l>(&'l self, message: &'l LogMessage<Entry>) -> Option<&'l [Listed]> {
        let entry = match message {
            LogMessage::Chosen { entry, .. } => entry,
            LogMessage::Accepted { .. } => self.log.as_ref()?.proposed()?,
            LogMessage::Prepare { .. }
            | LogMessage::Promise { .. }
            | LogMessage::Accept { .. }
            | LogMessage::Nack { .. }
            | LogMessage::Lead { .. }
            | LogMessage::Following { .. } => return None,
        };
        match entry {
            Entry::Settle(settle) => Some(&settle.unfinished),
            Entry::Open(_)
            | Entry::Release { .. }
            | Entry::Unlist { .. }
            | Entry::Enter { .. }
            | Entry::Gone { .. }
            | Entry::Restored { .. } => None,
        }
    }
}
