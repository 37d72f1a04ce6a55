//! Plans in the hands of services: they prepare by themselves, and their application asks for an
//! end at any time later.

use std::time::Duration;

use paxos_commit::protocol::initiator::{InitiatorCommand, PrepareBy};
use paxos_commit::protocol::message::Prepare;
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::{CommitId, ReadOnly, Roster};

use super::app::{AppEvent, Enlisted};
use super::stats::Sometimes;
use super::world::World;

impl World {
    /// The services are given the plan, and prepare by themselves. From now on the application
    /// wants to know the outcome.
    pub fn hand_out(&mut self, initiator: usize, id: CommitId) {
        let Some(enlisted) = self.apps[initiator].planning.remove(&id.txn) else {
            return;
        };
        self.stats.saw(Sometimes::PreparedByItself);
        let now = self.now;
        self.apps[initiator].open.insert(id, now);
        self.prepare_by_themselves(id, &enlisted);
        if self.plan.is_fair() || self.rng.bool() {
            let itself = PrepareBy::Itself;
            return self.ask_for_planned(initiator, id, itself);
        }
        // Perhaps so late that the services have ended it.
        let after = match self.rng.u32(..4) {
            0 => self.between(0, self.plan.think_max),
            1 => self.between(0, 10 * self.plan.vote_timeout),
            _ => self.between(0, 6 * self.plan.delay_max),
        };
        self.soon(initiator, after, AppEvent::EndPlan(id));
    }

    fn ask_for_planned(&mut self, initiator: usize, id: CommitId, prepare: PrepareBy) {
        let commit = InitiatorCommand::Commit {
            txn: id.txn,
            branches: Vec::new(),
            prepare,
            vote_timeout: Duration::ZERO,
        };
        self.command(initiator, commit);
    }

    /// A plan is out; the application asks for commit, or rolls it back, or drops it.
    pub fn end_plan(&mut self, initiator: usize, id: CommitId) {
        if !self.apps[initiator].open.contains_key(&id) {
            return;
        }
        let (txn, branches) = (id.txn, Vec::new());
        match self.rng.u32(..6) {
            0 => self.ask_for_planned(initiator, id, PrepareBy::Itself),
            1 => self.ask_for_planned(initiator, id, PrepareBy::Relay),
            2 => {
                // It asks; then it rolls back all the same.
                self.command(initiator, InitiatorCommand::Ask(id));
                self.rolls_back(initiator, id);
                self.command(initiator, InitiatorCommand::Rollback { txn, branches });
            }
            3 => {
                // It is rolled back by its id while the holder asks for commit.
                self.rolls_back(initiator, id);
                self.command(initiator, InitiatorCommand::ForceAbort(id));
                self.ask_for_planned(initiator, id, PrepareBy::Itself);
            }
            4 => {
                self.rolls_back(initiator, id);
                self.command(initiator, InitiatorCommand::Rollback { txn, branches });
            }
            _ => {
                // It drops the transaction: the rollback goes on in the background.
                self.apps[initiator].open.remove(&id);
                self.command(initiator, InitiatorCommand::Rollback { txn, branches });
                self.next_transaction(initiator);
            }
        }
    }

    fn rolls_back(&mut self, initiator: usize, id: CommitId) {
        self.apps[initiator].rolled_back.insert(id);
    }

    /// After a restart, the application asks about what it does not know, or rolls it back.
    pub fn ask_later(&mut self, initiator: usize, id: CommitId) {
        if self.rng.u32(..4) == 0 {
            self.rolls_back(initiator, id);
            return self.command(initiator, InitiatorCommand::ForceAbort(id));
        }
        self.command(initiator, InitiatorCommand::Ask(id));
    }

    fn prepare_by_themselves(&mut self, id: CommitId, enlisted: &[Enlisted]) {
        let vote_timeout = Duration::from_micros(self.plan.vote_timeout);
        let roster = Roster::new(enlisted.iter().map(|e| e.branch.clone()));
        let roster = roster.expect("distinct sessions");
        for one in enlisted {
            let prepare = Prepare {
                id,
                roster: roster.clone(),
                request: None,
                read_only: ReadOnly::Allowed,
                floor: 0,
                vote_timeout,
            };
            self.service(one.session, ParticipantCommand::Prepare(prepare));
        }
    }
}
