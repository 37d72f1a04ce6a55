//! The resource managers: one per participant, durable, shared by its sessions. They outlive the
//! sessions as a database server does; an operation under way when its session dies may still
//! happen, or not.

use std::collections::BTreeSet;

use paxos_commit::participant::Proof;
use paxos_commit::protocol::participant::{
    InDoubt, Owner, ParticipantCommand, ParticipantNotice, Standing,
};
use paxos_commit::protocol::types::{
    Branch, CommitId, Outcome, Peer, ReadOnly, Request, Session, Vote,
};

use super::plan::{MILLISECOND, SECOND, chance};
use super::stats::{Fault, Sometimes};
use super::world::{At, Event, World};

/// What one resource manager has on disk.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    /// Branches that are prepared.
    pub prepared: BTreeSet<(CommitId, Session)>,
    /// Branches that were committed.
    pub committed: BTreeSet<(CommitId, Session)>,
    /// The markers by which a second commit is recognised.
    markers: BTreeSet<(CommitId, Session)>,
}

impl Resource {
    /// Nothing will be heard of the transaction any more.
    pub fn forget(&mut self, id: &CommitId) {
        let of_id = (*id, Session(0))..=(*id, Session(u64::MAX));
        let entries: Vec<_> = self.committed.range(of_id).copied().collect();
        for entry in entries {
            self.committed.remove(&entry);
            self.markers.remove(&entry);
        }
    }
}

/// What a resource manager is asked to do.
#[derive(Clone, Debug)]
pub enum Operation {
    Prepare {
        id: CommitId,
        branch: Branch,
        request: Option<Request>,
        read_only: ReadOnly,
    },
    /// A prepare whose result was unknown turns out to have worked.
    Surface { id: CommitId, branch: Branch },
    Finish {
        id: CommitId,
        branch: Branch,
        outcome: Outcome,
    },
    /// Roll back if it still stands prepared.
    Expire { id: CommitId, branch: Branch },
    /// List the prepared branches.
    Scan,
}

impl World {
    /// A session asks its resource manager for something.
    pub fn ask_resource(&mut self, session: usize, notice: ParticipantNotice) {
        let me = self.sessions[session].config.me.clone();
        self.trace(|| format!("{me} asks {notice:?}"));
        self.judge_notice(session, &notice);
        let operation = match notice {
            ParticipantNotice::Prepare {
                id,
                request,
                read_only,
            } => Operation::Prepare {
                id,
                branch: me,
                request,
                read_only,
            },
            ParticipantNotice::Finish {
                id,
                branch,
                outcome,
            } => Operation::Finish {
                id,
                branch,
                outcome,
            },
            ParticipantNotice::Expired { id, branch } => Operation::Expire { id, branch },
            ParticipantNotice::Settled { through, listed } => {
                let listed: BTreeSet<(CommitId, Session)> = listed
                    .into_iter()
                    .map(|(id, branch)| (id, branch.session))
                    .collect();
                let resource = self.resource(session);
                let stays =
                    |entry: &(CommitId, Session)| entry.0 > through || listed.contains(entry);
                resource.markers.retain(stays);
                return;
            }
            ParticipantNotice::Unproven { .. } => {
                self.stats.saw(Sometimes::CommitWithoutProof);
                return;
            }
            ParticipantNotice::Contradicted { id, branch } => {
                self.stats.saw(Sometimes::PartnerContradicted);
                if self.is_judged(&id) {
                    let text = format!("{id}: {branch} is contradicted among honest participants");
                    self.check(Err::<(), _>(text));
                }
                return;
            }
            ParticipantNotice::Forgotten { .. } | ParticipantNotice::Unasked { .. } => return,
            ParticipantNotice::LetGo(_) => {
                self.stats.saw(Sometimes::WorkLetGo);
                return;
            }
            ParticipantNotice::Began(_)
            | ParticipantNotice::Refused { .. }
            | ParticipantNotice::Stands(Standing::Entered | Standing::Asking) => return,
            ParticipantNotice::Stands(_) => {
                self.stats.saw(Sometimes::OtherStoreRefused);
                return;
            }
            ParticipantNotice::Outcome { id, outcome } => {
                self.judge_told(id, outcome);
                return;
            }
        };
        let life = self.sessions[session].life;
        let after = self.between(self.plan.resource_min, self.plan.resource_max);
        let event = Event::Resource {
            session,
            life,
            operation,
        };
        self.schedule(after, event);
    }

    pub fn operate(&mut self, session: usize, life: u32, operation: Operation) {
        let alive = self.sessions[session].life == life && self.sessions[session].is_up();
        // (An operation of an earlier life was for another volume.)
        let remounted = !alive && self.empty_volumes.contains_key(&session);
        if remounted || !alive && self.rng.bool() {
            return;
        }
        match operation {
            Operation::Prepare {
                id,
                branch,
                request,
                read_only,
            } => {
                let vote = self.prepare(session, id, &branch, request, read_only);
                self.answer(session, life, ParticipantCommand::Prepared { id, vote });
            }
            Operation::Surface { id, branch } => {
                self.stats.saw(Sometimes::LatePrepareSurfaced);
                let resource = self.resource(session);
                resource.prepared.insert((id, branch.session));
            }
            Operation::Finish { .. } if self.is_stuck(session, &operation) => {
                let event = Event::Resource {
                    session,
                    life,
                    operation,
                };
                self.schedule(SECOND, event);
            }
            Operation::Finish {
                id,
                branch,
                outcome,
            } => {
                let command = match self.finish(session, id, &branch, outcome) {
                    Proof::Found => ParticipantCommand::Finished { id, branch },
                    Proof::Missing => ParticipantCommand::NotProven { id, branch },
                };
                self.answer(session, life, command);
            }
            Operation::Expire { id, branch } => {
                let entry = (id, branch.session);
                let answer = if self.resource(session).prepared.contains(&entry) {
                    self.judge_told(id, Outcome::Abort);
                    self.finish(session, id, &branch, Outcome::Abort);
                    ParticipantCommand::Finished { id, branch }
                } else {
                    self.stats.saw(Sometimes::ExpiredButNotPrepared);
                    ParticipantCommand::NotPrepared { id, branch }
                };
                self.answer(session, life, answer);
            }
            Operation::Scan => {
                if alive {
                    self.scan(session, life);
                }
            }
        }
        self.judge_volumes(session);
    }

    /// Whether the first branch of an early commit is not to be applied yet.
    fn is_stuck(&self, session: usize, operation: &Operation) -> bool {
        match operation {
            Operation::Finish { id, .. } => {
                let early = id.txn.sequence < self.plan.stuck as u32;
                session == 0 && early && !self.is_all_begun()
            }
            _ => false,
        }
    }

    fn answer(&mut self, session: usize, life: u32, command: ParticipantCommand) {
        let event = Event::Service {
            session,
            life,
            command,
        };
        self.schedule(1, event);
    }

    fn resource(&mut self, session: usize) -> &mut Resource {
        let own = &mut self.resources[session % self.plan.participants];
        self.empty_volumes.get_mut(&session).unwrap_or(own)
    }

    fn prepare(
        &mut self,
        session: usize,
        id: CommitId,
        branch: &Branch,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Vote {
        let has_request = request.is_some();
        if has_request {
            self.stats.saw(Sometimes::RequestRan);
            if self.is_judged(&id) {
                let result = self.facts.request_ran(id, branch);
                self.check(result);
            }
        }
        let faulty = self.healing.is_none();
        if faulty && chance(&mut self.rng, self.plan.cannot_prepare) {
            self.stats.fault(Fault::CannotPrepare);
            return Vote::Aborted;
        }
        if faulty && chance(&mut self.rng, self.plan.unknown_result) {
            self.stats.fault(Fault::UnknownResult);
            if self.rng.bool() {
                let after = self.between(0, 5 * SECOND);
                let life = self.sessions[session].life;
                let branch = branch.clone();
                let operation = Operation::Surface { id, branch };
                let event = Event::Resource {
                    session,
                    life,
                    operation,
                };
                self.schedule(after, event);
            }
            return Vote::Aborted;
        }
        let may = read_only == ReadOnly::Allowed && !has_request;
        if may && chance(&mut self.rng, self.plan.read_only) {
            self.stats.saw(Sometimes::ReadOnlyVote);
            return Vote::ReadOnly;
        }
        let entry = (id, branch.session);
        self.stats.prepares += 1;
        self.resource(session).prepared.insert(entry);
        Vote::Prepared
    }

    /// Commit and rollback are durable and idempotent; to commit what was never prepared is an
    /// error, to roll it back is nothing.
    fn finish(&mut self, session: usize, id: CommitId, branch: &Branch, outcome: Outcome) -> Proof {
        let judged = self.is_judged(&id);
        let entry = (id, branch.session);
        let mine = self.sessions[session].config.me.session == branch.session;
        let resource = self.resource(session);
        let was_prepared = resource.prepared.remove(&entry);
        let was_committed = resource.committed.contains(&entry);
        match outcome {
            Outcome::Commit => {
                let resource = self.resource(session);
                if !was_prepared && !resource.markers.contains(&entry) {
                    // A marker is deleted when its commit is off the list; a replica that is behind
                    // may still tell of it.
                    // A partner that lied may have had it rolled back.
                    if !was_committed && judged {
                        let text = format!("{id}: {branch} told to commit, and is not prepared");
                        self.check(Err::<(), _>(text));
                    }
                    return Proof::Missing;
                }
                resource.markers.insert(entry);
                self.resource(session).committed.insert(entry);
                self.judge_told(id, outcome);
                if judged && self.rolled_back.contains(&id) {
                    let text = format!("{id}: {branch} commits what another rolled back");
                    self.check(Err::<(), _>(text));
                }
                if was_committed {
                    self.stats.saw(Sometimes::CommitAppliedAgain);
                }
                if !mine {
                    self.stats.saw(Sometimes::FinishedByAnotherSession);
                    if was_prepared {
                        self.stats.saw(Sometimes::InDoubtCommitted);
                    }
                }
            }
            Outcome::Abort => {
                if judged && (was_committed || self.facts.told(&id) == Some(Outcome::Commit)) {
                    let text = format!("{id}: {branch} rolls back what was committed");
                    self.check(Err::<(), _>(text));
                }
                if was_prepared {
                    self.rolled_back.insert(id);
                    if !mine {
                        self.stats.saw(Sometimes::InDoubtAborted);
                    }
                }
            }
        }
        Proof::Found
    }

    /// Tells a session which branches stand prepared. Those of live sessions are mostly left out;
    /// to ask about one is harmless.
    fn scan(&mut self, session: usize, life: u32) {
        let prepared: Vec<_> = self.resource(session).prepared.iter().copied().collect();
        let mut found = Vec::new();
        for (id, of) in prepared {
            let lives = self.session_lives(of);
            if lives && self.rng.u32(..5) != 0 {
                continue;
            }
            let owner = if !lives && self.rng.bool() {
                Owner::Gone
            } else {
                Owner::Unknown
            };
            found.push(InDoubt {
                id,
                session: of,
                owner,
            });
        }
        if !found.is_empty() {
            self.answer(session, life, ParticipantCommand::InDoubt(found));
        }
        let after = self.between(200 * MILLISECOND, 2 * SECOND);
        self.schedule_scan(session, life, after);
    }

    pub fn schedule_scan(&mut self, session: usize, life: u32, after: u64) {
        let operation = Operation::Scan;
        let event = Event::Resource {
            session,
            life,
            operation,
        };
        self.schedule(after, event);
    }

    fn session_lives(&self, session: Session) -> bool {
        let At::Session(index) = self.numbers[session.0 as usize] else {
            return false;
        };
        let node = &self.sessions[index];
        let is_it = matches!(&node.me, Peer::Session(branch) if branch.session == session);
        is_it && node.is_up()
    }
}
