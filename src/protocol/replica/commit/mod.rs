//! Paxos Commit: one instance for each transaction that is under way.
//!
//! Read the files in this order:
//!
//! | file | role |
//! |---|---|
//! | `acceptor` | one instance's acceptor; ballot 0 belongs to the votes |
//! | `instance` | what is kept of one transaction |
//! | `voting` | the normal case: begin, prepare, vote, report |
//! | `recovery` | ballots above 0 that this replica leads: what a ballot proposes |
//! | `ballots` | recovery: phase 1 and 2, many transactions in a message |
//! | `deciding` | decided: tell everyone who waits, until all have applied it |
//! | `asking` | questions, and forced aborts |
//! | `settled` | what a `Settle` does to instances; the commits that it lists |
//! | `restoring` | back from what was saved |
//!
//! What the control log says comes as [`Terms`]; who is connected, and the places of names, as the
//! [`Front`]. Nothing here proposes an entry of the log.

mod acceptor;
mod asking;
mod ballots;
mod deciding;
mod instance;
mod recovery;
mod restoring;
mod settled;
mod voting;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeBounds;

use crate::protocol::message::{Message, State};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Branch, CommitId, Outcome, Peer, TxnId};

use super::front::Front;
use super::terms::{Standing, Terms};
use super::vocabulary::Out;

use instance::{Instance, Phase, Vouched};
use recovery::Recovery;

#[cfg(test)]
pub(super) use instance::WAITERS_MAX;
pub(super) use recovery::Attempt;
pub(super) use voting::on_rollback;

/// All transactions in memory, and the ballots that this replica leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instances {
    /// Undecided, or a commit that some branch has not applied.
    under_way: BTreeMap<CommitId, Instance>,
    /// How many of these are undecided.
    undecided: usize,
    /// The finished transactions that have not been evicted.
    finished: BTreeMap<CommitId, End>,
    recovery: Recovery,
    /// How many transactions of the latest generation were vouched for since it was opened, or since
    /// the start of the process if that was later.
    begun: u64,
}

/// How a transaction ended that needs nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct End {
    outcome: Outcome,
    /// The branch whose `Aborted` is held here, if that decided it.
    against: Option<Branch>,
}

/// What one step of the transactions has in hand.
pub(super) struct Turn<'a> {
    pub(super) terms: Terms<'a>,
    pub(super) front: &'a mut Front,
    pub(super) out: &'a mut Out,
}

impl Instances {
    pub(super) fn new(me: ReplicaId) -> Self {
        Instances {
            under_way: BTreeMap::new(),
            undecided: 0,
            finished: BTreeMap::new(),
            recovery: Recovery::new(me),
            begun: 0,
        }
    }

    /// Time passes: what has waited long enough gets a ballot, or is pushed.
    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        let mut undecided = Vec::new();
        let mut unapplied = Vec::new();
        for (id, instance) in &mut self.under_way {
            instance.patience = instance.patience.saturating_sub(1);
            if instance.patience == 0 {
                match instance.phase {
                    Phase::Undecided => undecided.push(*id),
                    Phase::Committed => unapplied.push(*id),
                }
            }
        }
        self.resolve(undecided, turn);
        self.push(unapplied, turn);
    }

    /// What may be done about `id`, which is not settled.
    fn standing(&self, id: &CommitId, terms: Terms<'_>) -> Standing {
        terms.standing(id, || self.under_way.contains_key(id))
    }

    /// Whether this replica may take part in `id`. If not, a client is told what it needs to go on.
    fn admits(&self, from: &Peer, id: CommitId, turn: &mut Turn<'_>) -> bool {
        match self.standing(&id, turn.terms) {
            Standing::Open => true,
            // The peer asks again; the Settle answers.
            Standing::Frozen => false,
            Standing::Elsewhere => {
                let generations = turn.terms.generations.clone();
                let not_open = Message::NotOpen { id, generations };
                turn.out.send(from.clone(), not_open);
                false
            }
        }
    }

    /// The instance `id`, made if it is new here.
    fn instance(&mut self, id: CommitId, patience: u32) -> &mut Instance {
        self.under_way.entry(id).or_insert_with(|| {
            self.undecided += 1;
            Instance::new(None, patience)
        })
    }

    /// The instance `id`, made if it is new here and there is a place for it.
    fn take_on(
        &mut self,
        from: &Peer,
        id: CommitId,
        patience: u32,
        turn: &mut Turn<'_>,
    ) -> Option<&mut Instance> {
        match self.under_way.entry(id) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(free) => {
                let places = turn.front.places_mut();
                let place = places.admit(from, id.txn, self.undecided, turn.terms.config)?;
                self.undecided += 1;
                let instance = free.insert(Instance::new(None, patience));
                instance.place = place;
                Some(instance)
            }
        }
    }

    /// The transaction is not one that a single client invents for others: it counts.
    fn vouch(&mut self, id: CommitId, terms: Terms<'_>) {
        if let Some(instance) = self.under_way.get_mut(&id)
            && instance.vouched == Vouched::No
        {
            instance.vouched = Vouched::Yes;
            if id.txn.generation == terms.generations.latest() {
                self.begun = self.begun.saturating_add(1);
            }
        }
    }

    /// A commit that still waits for branches takes a place of each of their participants.
    fn charge(&mut self, id: CommitId, turn: &mut Turn<'_>) {
        if let Some(instance) = self.under_way.get_mut(&id) {
            let waiting = instance.unapplied();
            turn.front.places_mut().charge(&mut instance.place, waiting);
        }
    }

    /// How many transactions of the latest generation were vouched for.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// A generation was opened: its transactions count from now on.
    pub(super) fn opened(&mut self) {
        self.begun = 0;
    }

    /// Whether nothing is undecided up to `last`.
    pub(super) fn is_quiet(&self, last: &CommitId) -> bool {
        let mut under_way = self.under_way.range(..=last);
        under_way.all(|(_, instance)| instance.phase != Phase::Undecided)
    }

    /// What is undecided, oldest first.
    pub(super) fn undecided(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.in_phase(Phase::Undecided)
    }

    /// The commits that some branch has not said that it applied, oldest first.
    pub(super) fn unapplied(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.in_phase(Phase::Committed)
    }

    fn in_phase(&self, phase: Phase) -> impl Iterator<Item = &CommitId> + '_ {
        let instances = self.under_way.iter();
        instances
            .filter(move |(_, instance)| instance.phase == phase)
            .map(|(id, _)| id)
    }

    /// The finished transactions that are in memory.
    pub(super) fn finished(&self) -> impl Iterator<Item = &CommitId> + '_ {
        self.finished.keys()
    }

    /// How many transactions are in memory.
    pub(super) fn remembered(&self) -> usize {
        self.under_way.len() + self.finished.len()
    }

    /// Whether the transaction is in memory.
    pub(super) fn holds(&self, id: &CommitId) -> bool {
        self.under_way.contains_key(id) || self.finished.contains_key(id)
    }

    /// Whether the transaction is undecided, or a commit that some branch has not applied.
    pub(super) fn is_under_way(&self, id: &CommitId) -> bool {
        self.under_way.contains_key(id)
    }

    /// The outcome of `id`, if it is in memory and known.
    pub(super) fn outcome(&self, id: &CommitId) -> Option<Outcome> {
        // What is under way first: it is what most messages are about, and there is little of it.
        self.outcome_of(id, self.under_way.get(id))
    }

    /// The same, for a caller that has looked up the instance already.
    fn outcome_of(&self, id: &CommitId, known: Option<&Instance>) -> Option<Outcome> {
        match known.map(|instance| instance.phase) {
            Some(Phase::Undecided) => None,
            Some(Phase::Committed) => Some(Outcome::Commit),
            None => self.finished.get(id).map(|end| end.outcome),
        }
    }

    /// What is known of `id`; nothing if it is not in memory.
    pub(super) fn state(&self, id: &CommitId) -> Option<State> {
        match self.under_way.get(id) {
            Some(instance) => Some(self.state_of(id, instance)),
            None => self.finished.get(id).map(|end| end.state()),
        }
    }

    /// What is under way in a range of ids, each with what is known of it.
    pub(super) fn under_way(
        &self,
        range: impl RangeBounds<CommitId>,
    ) -> impl Iterator<Item = (CommitId, State)> + '_ {
        let instances = self.under_way.range(range);
        instances.map(|(id, instance)| (*id, self.state_of(id, instance)))
    }

    /// What is in memory of a transaction, under each of its commit ids.
    fn of_txn(&self, txn: TxnId) -> Vec<(CommitId, State)> {
        let ended = self.finished.range(CommitId::all_of(txn));
        let ended = ended.map(|(id, end)| (*id, end.state()));
        let mut states: Vec<_> = ended.chain(self.under_way(CommitId::all_of(txn))).collect();
        states.sort_unstable();
        states
    }

    fn state_of(&self, id: &CommitId, instance: &Instance) -> State {
        match instance.phase {
            Phase::Undecided => State::Undecided {
                missing: instance.missing(),
                silent: self.recovery.silent(id),
            },
            Phase::Committed => State::Decided {
                outcome: Outcome::Commit,
                unapplied: instance.unapplied(),
            },
        }
    }

    /// Drops what is finished, and only that. Says whether it was.
    pub(super) fn evict(&mut self, id: &CommitId) -> bool {
        self.finished.remove(id).is_some()
    }
}

impl End {
    /// The state of a finished transaction.
    fn state(&self) -> State {
        State::Decided {
            outcome: self.outcome,
            unapplied: Vec::new(),
        }
    }
}
