//! What may be forgotten: the initiators' floors, and the settled horizon.

use std::ops::Bound;

use crate::protocol::effects::Effects;
use crate::protocol::types::{
    Branch, CommitId, Generations, InitiatorId, Outcome, Session, TxnId, Vote,
};

use super::branch::{Done, Phase, Wait, WaitState};
use super::{Participant, ParticipantNotice};

/// The most runs of one initiator's name whose floors a session remembers: eight times as many as
/// can be connected to a replica at a time.
const FLOORS_OF_A_NAME_MAX: usize = 4_096;

/// The lowest sequence number that an initiator still cares about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Floor {
    sequence: u32,
    /// The latest generation below it: when that is settled, the horizon says all that it says.
    generation: u32,
}

impl Floor {
    pub(super) fn sequence(self) -> u32 {
        self.sequence
    }
}

impl Participant {
    /// Whether nothing can be voted for `txn` any more: its initiator no longer cares, or it is
    /// settled. What this session voted for it may be forgotten.
    pub(super) fn is_below_floor(&self, txn: TxnId) -> bool {
        let floor = self.floors.get(&txn.initiator);
        let below = floor.is_some_and(|floor| txn.sequence < floor.sequence);
        below || self.generations.is_txn_settled(txn)
    }

    /// Raises the floor of the initiator of `txn`, which told it, and forgets what lies below it
    /// and is done.
    pub(super) fn raise_floor(&mut self, txn: TxnId, floor: u32) {
        let initiator = txn.initiator;
        let is_open = self.generations.acceptors(txn.generation).is_some();
        if !is_open || self.generations.is_txn_settled(txn) {
            return;
        }
        if !self.has_room_for_floor(initiator) {
            // Without a floor only the horizon tells what can be forgotten.
            return;
        }
        self.branches.vouch(initiator);
        let held = self.floors.entry(initiator).or_default();
        held.generation = held.generation.max(txn.generation);
        if held.sequence >= floor {
            return;
        }
        let passed = held.sequence..floor;
        held.sequence = floor;
        // Ids sort by generation first; only a few generations are open at a time.
        let mut generation = self.branches.keys().next().map(|txn| txn.generation);
        while let Some(current) = generation {
            let at = |sequence| TxnId {
                generation: current,
                initiator,
                sequence,
                nonce: 0,
            };
            let below = self.branches.range(at(passed.start)..at(passed.end));
            let forgotten: Vec<TxnId> = below
                .filter(|(_, phase)| phase.may_be_forgotten())
                .map(|(txn, _)| *txn)
                .collect();
            for txn in forgotten {
                self.branches.remove(&txn);
            }
            let last = TxnId::last_of(current);
            let later = self
                .branches
                .range((Bound::Excluded(last), Bound::Unbounded));
            generation = later.map(|(txn, _)| txn.generation).next();
        }
    }

    /// Whether the floor of one more run of an initiator of this name is remembered.
    fn has_room_for_floor(&self, initiator: InitiatorId) -> bool {
        let (first, last) = initiator.of_its_name();
        self.floors.contains_key(&initiator)
            || self.floors.range(first..=last).count() < FLOORS_OF_A_NAME_MAX
    }

    /// A replica announces the generations. What is settled and done is forgotten; who still waits
    /// for an outcome asks those who know it now.
    pub(super) fn on_generations(&mut self, generations: Generations, out: &mut Effects<Self>) {
        if !self.generations.is_older_than(&generations) {
            return;
        }
        let before = std::mem::replace(&mut self.generations, generations);
        if let Some(through) = self.generations.horizon()
            && before.horizon() != Some(through)
        {
            self.forget_settled(out);
            self.read_list(through, out);
        }
        self.begin_early(out);
    }

    fn forget_settled(&mut self, out: &mut Effects<Self>) {
        let generations = &self.generations;
        let branches = &mut self.branches;
        self.floors.retain(|initiator, floor| {
            let is_settled = generations.is_settled(&Generations::last_id(floor.generation));
            if is_settled {
                branches.forget(*initiator);
            }
            !is_settled
        });
        let settled = |txn: &&TxnId| generations.is_txn_settled(**txn);
        let settled: Vec<TxnId> = self.branches.keys().take_while(settled).copied().collect();
        for txn in settled {
            match self.branches.get_mut(&txn) {
                Some(phase) if phase.may_be_forgotten() => drop(self.branches.remove(&txn)),
                // Nobody can ask it to prepare any more.
                Some(Phase::Working(_)) => self.end_unasked(txn, out),
                Some(Phase::Preparing(_)) => self.poison(txn),
                Some(Phase::Voted(voted)) => voted.wait.patience = 1,
                Some(Phase::Applying { .. } | Phase::Expiring { .. } | Phase::Done(_)) | None => {}
            }
        }
        for ((id, _), wait) in &mut self.others {
            if self.generations.is_settled(id) {
                wait.patience = 1;
            }
        }
    }

    /// The transaction is settled, and no commit that waits for this branch. If the branch still
    /// stands prepared, that is Abort: a commit would be listed until the branch had applied it.
    ///
    /// Only the resource manager knows whether it does. (The counter-example: a session votes
    /// `Prepared` and is cut off. Another session of the participant finds the branch, learns
    /// Commit, applies it and says so; the commit is forgotten. The first session comes back, asks
    /// by its vote, and is told Expired. Its branch is committed, whatever it remembers.)
    pub(super) fn on_expired(&mut self, id: CommitId, branch: Branch, out: &mut Effects<Self>) {
        if !self.is_of_this_store(&branch) {
            return;
        }
        let is_mine = self.is_mine(&branch);
        let vote = match self.branches.get(&id.txn) {
            Some(Phase::Voted(voted)) if is_mine && voted.id == id => voted.vote,
            // It never votes, so no commit can be chosen.
            Some(Phase::Preparing(preparing)) if is_mine && preparing.id == id => Vote::Aborted,
            Some(_) | None => {
                self.expire_other(id, branch.session, out);
                return;
            }
        };
        match vote {
            Vote::Prepared => {
                self.branches.insert(id.txn, Phase::Expiring { id });
                out.notify.push(ParticipantNotice::Expired { id, branch });
            }
            Vote::Aborted => self.on_outcome(id, Outcome::Abort, out),
            // It needed no outcome.
            Vote::ReadOnly => self.done(id.txn, Done::Forgotten { id }),
        }
    }

    /// A branch that was asked about because it stood prepared. By now it may have its outcome.
    fn expire_other(&mut self, id: CommitId, session: Session, out: &mut Effects<Self>) {
        let Some(wait) = self.others.get_mut(&(id, session)) else {
            return;
        };
        match wait.state {
            WaitState::Applying(_) | WaitState::Disputed => return,
            // The commit is off the list: this branch is committed by the store that holds it, or an
            // operator has answered for it.
            WaitState::Unproven => {
                self.others.remove(&(id, session));
                return;
            }
            WaitState::Outcome(_) => {}
        }
        *wait = Wait::new(WaitState::Applying(Outcome::Abort), self.config.retry_ticks);
        let branch = self.branch_of(session);
        out.notify.push(ParticipantNotice::Expired { id, branch });
    }

    /// The resource manager was to roll the branch back if it stood prepared, and it does not:
    /// another session saw it to its end.
    pub(super) fn on_not_prepared(
        &mut self,
        id: CommitId,
        branch: Branch,
        out: &mut Effects<Self>,
    ) {
        match self.branches.get(&id.txn) {
            Some(Phase::Expiring { id: of }) if *of == id && self.is_mine(&branch) => {
                self.done(id.txn, Done::Forgotten { id });
                out.notify.push(ParticipantNotice::Forgotten { id });
            }
            Some(_) | None => {
                let key = (id, branch.session);
                let wait = self.others.get(&key).map(|wait| wait.state);
                if let Some(WaitState::Applying(_)) = wait {
                    self.others.remove(&key);
                }
            }
        }
    }
}
