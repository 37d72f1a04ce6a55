//! A database server in memory, and a resource manager for it with faults to plant.

mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use paxos_commit::participant::{BranchId, Expiry, Proof, ResourceManager};
use paxos_commit::protocol::participant::{InDoubt, Owner};
use paxos_commit::protocol::types::{
    CommitId, Opening, ReadOnly, Request, Session, StoreId, TxnId, Vote,
};

use super::faults::Fault;

pub(crate) use subject::ToySubject;

/// The name of a prepared branch.
type Name = (CommitId, Session);

fn name_of(branch: &BranchId) -> Name {
    (branch.id, branch.branch.session)
}

/// What a branch has read and written, with the values before.
#[derive(Clone, Default)]
struct Work {
    writes: BTreeMap<String, i64>,
    before: BTreeMap<String, i64>,
    reads: BTreeSet<String>,
    is_lost: bool,
}

#[derive(Clone)]
struct Standing {
    work: Work,
    process: u64,
    locks: bool,
}

/// What the server keeps.
#[derive(Clone, Default)]
struct Disk {
    data: BTreeMap<String, i64>,
    prepared: BTreeMap<Name, Standing>,
    markers: BTreeMap<Name, Work>,
    settled: Option<CommitId>,
    /// What was ever listed.
    listed: BTreeSet<Name>,
}

#[derive(Default)]
struct Server {
    /// What a crash leaves.
    durable: Disk,
    current: Disk,
    /// Work under way, by process.
    work: BTreeMap<(u64, TxnId), Work>,
    processes: u64,
    /// The identity of the store.
    number: u128,
    openings: Vec<Opening>,
}

impl Server {
    /// A physical copy, without what only processes have.
    fn copy(&self) -> Server {
        Server {
            durable: self.durable.clone(),
            current: self.durable.clone(),
            work: BTreeMap::new(),
            processes: self.processes,
            number: self.number,
            openings: self.openings.clone(),
        }
    }

    fn save(&mut self) {
        self.durable = self.current.clone();
    }

    /// Whether somebody else holds a lock on the counter.
    fn is_locked(&self, counter: &str, by: (u64, TxnId)) -> bool {
        let holds = |work: &Work| work.writes.contains_key(counter) || work.reads.contains(counter);
        let works = self.work.iter().filter(|(of, _)| **of != by);
        let prepared = self.current.prepared.values();
        works.map(|(_, work)| work).any(holds)
            || prepared
                .filter(|standing| standing.locks)
                .any(|standing| holds(&standing.work))
    }

    fn value(&self, counter: &str) -> i64 {
        self.current.data.get(counter).copied().unwrap_or(0)
    }

    fn add(&mut self, by: (u64, TxnId), counter: &str, amount: i64) -> Result<(), ToyError> {
        if self.is_locked(counter, by) {
            return Err(ToyError("locked"));
        }
        let committed = self.value(counter);
        let work = self.work.entry(by).or_default();
        if work.is_lost {
            return Err(ToyError("the connection was lost"));
        }
        work.before.entry(counter.to_owned()).or_insert(committed);
        *work.writes.entry(counter.to_owned()).or_insert(committed) += amount;
        Ok(())
    }

    fn apply(&mut self, writes: &BTreeMap<String, i64>) {
        self.current.data.extend(writes.clone());
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ToyError(&'static str);

/// A process that has the server's data open.
pub(crate) struct Toy {
    server: Arc<Mutex<Server>>,
    process: u64,
    openings: Vec<Opening>,
    fault: Option<Fault>,
    memory: Mutex<Memory>,
}

/// What goes with the process.
#[derive(Default)]
struct Memory {
    over: BTreeSet<TxnId>,
    proofs: BTreeSet<Name>,
    busy: BTreeSet<Name>,
}

impl Toy {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Where another call may come in between, or none at all.
    async fn step(&self) {
        tokio::task::yield_now().await;
    }

    fn save(&self, server: &mut Server, unless: Fault) {
        if !self.has(unless) {
            server.save();
        }
    }

    fn run(&self, server: &mut Server, txn: TxnId, request: &Request) -> Result<(), ToyError> {
        let text = std::str::from_utf8(&request.0).unwrap();
        let (counter, amount) = text.split_once(' ').unwrap();
        server.add((self.process, txn), counter, amount.parse().unwrap())
    }

    /// The name under which a branch stands prepared, if it does.
    fn standing(&self, server: &Server, branch: &BranchId) -> Option<Name> {
        let name = name_of(branch);
        let mut names = server.current.prepared.keys();
        if self.has(Fault::SessionIgnored) {
            return names.find(|(id, _)| *id == branch.id).copied();
        }
        names.any(|other| *other == name).then_some(name)
    }

    fn is_proved(&self, server: &Server, branch: &BranchId) -> bool {
        let name = name_of(branch);
        let mut names = server.current.markers.keys();
        let is_settled = server.current.settled >= Some(branch.id);
        (is_settled && self.has(Fault::HorizonIsProof))
            || (server.current.markers.is_empty() && self.has(Fault::EmptyIsProof))
            || self.has(Fault::CommitMissingIsOk)
            || match self.fault {
                Some(Fault::MarkerWithoutSession) => names.any(|(id, _)| *id == branch.id),
                Some(Fault::MarkerWithoutRoster) => names.any(|(id, session)| {
                    id.txn == branch.id.txn && *session == branch.branch.session
                }),
                Some(Fault::ProofInMemory) => self.memory.lock().unwrap().proofs.contains(&name),
                _ => names.any(|other| *other == name),
            }
    }

    fn prepare_again(
        &self,
        server: &mut Server,
        branch: &BranchId,
        request: Option<Request>,
    ) -> Result<Vote, ToyError> {
        if self.has(Fault::PrepareAgainAborts) {
            return Ok(Vote::Aborted);
        }
        if let Some(request) = request
            && self.has(Fault::RequestRunsTwice)
        {
            let (by, name) = ((self.process, branch.id.txn), name_of(branch));
            let standing = server.current.prepared.remove(&name).unwrap();
            server.work.insert(by, standing.work);
            self.run(server, by.1, &request)?;
            let work = server.work.remove(&by).unwrap();
            let standing = Standing { work, ..standing };
            server.current.prepared.insert(name, standing);
        }
        Ok(Vote::Prepared)
    }

    /// Takes a branch out of the prepared ones and lets its work go.
    async fn undo(&self, branch: &BranchId, unsaved: Fault) -> bool {
        self.step().await;
        let mut server = self.server();
        let Some(name) = self.standing(&server, branch) else {
            return false;
        };
        server.current.prepared.remove(&name);
        self.save(&mut server, unsaved);
        true
    }

    fn undo_commit(&self, branch: &BranchId) {
        let mut server = self.server();
        if let Some(work) = server.current.markers.get(&name_of(branch)).cloned() {
            server.apply(&work.before);
            server.save();
        }
    }
}

impl ResourceManager for Toy {
    type Error = ToyError;

    fn store(&self) -> StoreId {
        StoreId::from_u128(match self.fault {
            Some(Fault::IdentityOfTheProcess) => self.process.into(),
            Some(Fault::IdentityOfTheName) => 7,
            _ => self.server().number,
        })
    }

    fn openings(&self) -> Vec<Opening> {
        match self.has(Fault::OpeningsNotSaved) {
            true => self.openings.last().copied().into_iter().collect(),
            false => self.openings.clone(),
        }
    }

    async fn prepare(
        &self,
        branch: &BranchId,
        request: Option<Request>,
        read_only: ReadOnly,
    ) -> Result<Vote, ToyError> {
        self.step().await;
        let (txn, name) = (branch.id.txn, name_of(branch));
        let by = (self.process, txn);
        let mut rest = BTreeMap::new();
        {
            let mut server = self.server();
            if server.current.prepared.contains_key(&name) {
                return self.prepare_again(&mut server, branch, request);
            }
            if self.memory.lock().unwrap().over.contains(&txn) && !self.has(Fault::LatePrepare) {
                return Ok(Vote::Aborted);
            }
            if let Some(request) = &request {
                self.run(&mut server, txn, request)?;
            }
            let mut work = server.work.remove(&by).unwrap_or_default();
            if work.is_lost {
                return Ok(Vote::Aborted);
            }
            let allowed = read_only == ReadOnly::Allowed || self.has(Fault::ReadOnlyForbidden);
            let unchanged = work.writes.is_empty() || self.has(Fault::ReadOnlyThoughChanged);
            if allowed && unchanged {
                if self.has(Fault::ReadOnlyKeepsLocks) {
                    server.work.insert((0, txn), work);
                }
                return Ok(Vote::ReadOnly);
            }
            if self.has(Fault::PreparedShows) {
                server.apply(&work.writes);
            }
            if self.has(Fault::PrepareInTwoSteps)
                && let Some((last, value)) = work.writes.pop_last()
            {
                rest.insert(last, value);
            }
            let standing = Standing {
                work,
                process: self.process,
                locks: !self.has(Fault::LocksLostAtPrepare),
            };
            server.current.prepared.insert(name, standing);
            match self.fault {
                Some(Fault::PrepareNotSaved | Fault::PrepareNotSynced) => {}
                _ => server.save(),
            }
        }
        if !rest.is_empty() {
            self.step().await;
            let mut server = self.server();
            let standing = server.current.prepared.get_mut(&name).unwrap();
            standing.work.writes.extend(rest);
            server.save();
        }
        Ok(Vote::Prepared)
    }

    async fn commit(&self, branch: &BranchId) -> Result<Proof, ToyError> {
        if self.has(Fault::ClaimOutlivesItsCall)
            && !self.memory.lock().unwrap().busy.insert(name_of(branch))
        {
            return Err(ToyError("somebody is at it"));
        }
        self.step().await;
        let found = {
            let mut server = self.server();
            let name = self.standing(&server, branch);
            let standing = name.and_then(|name| server.current.prepared.get(&name).cloned());
            if let Some(standing) = &standing
                && self.has(Fault::CommitInTwoSteps)
            {
                server.apply(&standing.work.writes);
                server.current.prepared.remove(&name_of(branch));
                server.save();
            }
            name.zip(standing)
        };
        if self.has(Fault::CommitInTwoSteps) || self.has(Fault::FinishersClash) {
            self.step().await;
        }
        let mut server = self.server();
        self.memory.lock().unwrap().busy.remove(&name_of(branch));
        let Some((name, standing)) = found else {
            if self.has(Fault::CommitAgainApplies)
                && let Some(work) = server.current.markers.get(&name_of(branch)).cloned()
            {
                server.apply(&work.writes);
                server.save();
            }
            return match self.is_proved(&server, branch) {
                true => Ok(Proof::Found),
                false if self.has(Fault::MissingIsAnError) => {
                    Err(ToyError("not prepared, and no proof"))
                }
                false => Ok(Proof::Missing),
            };
        };
        if server.current.prepared.remove(&name).is_none() && self.has(Fault::FinishersClash) {
            // The other one was faster, and this one takes that for a missing branch, for ever.
            server.current.markers.remove(&name);
            return Err(ToyError("somebody was faster"));
        }
        if !self.has(Fault::CommitInTwoSteps) && !self.has(Fault::CommitShowsNothing) {
            server.apply(&standing.work.writes);
        }
        if !self.has(Fault::NoMarker) {
            server.current.markers.insert(name, standing.work);
        }
        self.memory.lock().unwrap().proofs.insert(name);
        self.save(&mut server, Fault::CommitNotSaved);
        Ok(Proof::Found)
    }

    async fn rollback(&self, branch: &BranchId) -> Result<(), ToyError> {
        let was_prepared = self.undo(branch, Fault::RollbackNotSaved).await;
        if !self.has(Fault::RollbackKeepsWork) {
            let by = (self.process, branch.id.txn);
            self.server().work.remove(&by);
        }
        if self.has(Fault::RollbackUndoesCommit) {
            self.undo_commit(branch);
        }
        self.memory.lock().unwrap().over.insert(branch.id.txn);
        if !was_prepared && self.has(Fault::RollbackOfTheUnknownFails) {
            return Err(ToyError("there is no such branch"));
        }
        Ok(())
    }

    async fn let_go(&self, txn: TxnId) {
        if !self.has(Fault::LetGoKeepsWork) {
            self.server().work.remove(&(self.process, txn));
            self.memory.lock().unwrap().over.insert(txn);
        }
    }

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, ToyError> {
        let server = self.server();
        let mut found = Vec::new();
        for ((id, session), standing) in &server.current.prepared {
            let is_mine = standing.process == self.process;
            let hidden = match self.fault {
                Some(Fault::InDoubtOnlyMine) => !is_mine,
                Some(Fault::InDoubtOnlyOthers) => is_mine,
                _ => false,
            };
            let is_gone = match self.fault {
                Some(Fault::OwnersAreGone) => true,
                Some(Fault::OthersAreGone) => !is_mine,
                _ => false,
            };
            if !hidden {
                found.push(InDoubt {
                    id: *id,
                    session: match self.has(Fault::InDoubtUnderOneSession) {
                        true => Session(1),
                        false => *session,
                    },
                    owner: if is_gone { Owner::Gone } else { Owner::Unknown },
                });
            }
        }
        if self.has(Fault::InDoubtListsCommitted) {
            let owner = Owner::Unknown;
            let committed = server.current.markers.keys();
            found.extend(committed.map(|&(id, session)| InDoubt { id, session, owner }));
        }
        Ok(found)
    }

    async fn expire(&self, branch: &BranchId) -> Result<Expiry, ToyError> {
        if self.has(Fault::ExpireDoesNothing) {
            return Ok(Expiry::NotPrepared);
        }
        let rolled_back = self.undo(branch, Fault::ExpireNotSaved).await;
        if self.has(Fault::ExpireUndoesCommit) {
            self.undo_commit(branch);
        }
        match rolled_back || self.has(Fault::ExpireSaysRolledBack) {
            true => Ok(Expiry::RolledBack),
            false => Ok(Expiry::NotPrepared),
        }
    }

    async fn settled(&self, through: CommitId, listed: &[BranchId]) -> Result<(), ToyError> {
        let mut server = self.server();
        let last = server.current.settled.max(Some(through));
        let kept = |(id, _): &Name| match self.has(Fault::OlderListDeletesLater) {
            true => Some(*id) > last,
            false => *id > through,
        };
        let listed: BTreeSet<Name> = listed.iter().map(name_of).collect();
        server.current.listed.extend(listed.iter().copied());
        let Disk {
            markers,
            listed: ever_listed,
            ..
        } = &mut server.current;
        match self.fault {
            Some(Fault::MarkersStay) => {}
            Some(Fault::HorizonDropsAllMarkers) => {
                markers.retain(|name, _| listed.contains(name));
            }
            Some(Fault::ListIsIgnored) => markers.retain(|name, _| kept(name)),
            Some(Fault::ListedMarkersStayForEver) => {
                markers.retain(|name, _| kept(name) || ever_listed.contains(name));
            }
            _ => markers.retain(|name, _| kept(name) || listed.contains(name)),
        }
        if self.has(Fault::HorizonDropsPrepared) {
            server.current.prepared.retain(|name, _| kept(name));
        }
        server.current.settled = last;
        server.save();
        Ok(())
    }
}
