//! Evicting what is finished from memory, and recalling it from the store.
//!
//! See [the section on memory](super#what-is-finished-leaves-the-memory) for the order of calls and
//! for what goes wrong without it.

use crate::protocol::message::Message;
use crate::protocol::types::{CommitId, TxnId};

use super::vocabulary::ReplicaCommand;
use super::{Replica, Stored};

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
        if self.front.stored().is_empty() {
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
                let asked = self.front.stored().may_hold(*txn)
                    && !self.control.generations().is_txn_settled(*txn);
                let lookup = asked.then_some(Lookup::Transaction(*txn));
                lookup.into_iter().collect()
            }
            // What is finished here must not be adopted again.
            Message::Log(message) => match self.control.settles(message) {
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
                let earlier = self.control.fetched();
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
        self.commit.finished()
    }

    /// Up to where the store may hold what is not in memory.
    pub fn stored(&self) -> &Stored {
        self.front.stored()
    }

    /// What its driver tells it of its store.
    pub(super) fn on_command(&mut self, command: ReplicaCommand) {
        match command {
            ReplicaCommand::Stored(stored) => {
                self.front.take_stored(stored, self.control.generations());
            }
            // What is finished, and only that.
            ReplicaCommand::Evict(ids) => {
                for id in ids {
                    if self.commit.evict(&id) {
                        self.front.note_stored(id.txn);
                    }
                }
            }
            ReplicaCommand::Recall(records) => {
                let terms = self.control.terms(&self.config);
                self.commit.recall(records, terms);
            }
        }
    }

    fn lookups<'i>(&self, ids: impl IntoIterator<Item = &'i CommitId>) -> Vec<Lookup> {
        let generations = self.control.generations();
        let unknown = ids.into_iter().filter(|id| {
            let is_new = !self.front.stored().may_hold(id.txn);
            !is_new && !generations.is_settled(id) && !self.commit.holds(id)
        });
        unknown.map(|id| Lookup::Instance(*id)).collect()
    }
}
