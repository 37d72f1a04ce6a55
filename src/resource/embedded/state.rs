//! What the store knows in memory: who works, who stands prepared, and who holds which lock.
//!
//! Everything here is changed under one mutex and never across a disk access. What must be durable
//! first changes on the committer's thread, after the save.

use std::collections::{BTreeMap, VecDeque};

use fjall::Slice;
use tokio::sync::oneshot;

use crate::participant::BranchId;
use crate::protocol::participant::{InDoubt, Owner as Session};
use crate::protocol::types::{CommitId, RosterDigest, TxnId};

use super::error::{Holder, WorkError};
use super::footprint::Footprint;
use super::locks::{Held, Locks, Owner};
use super::meta::Served;

/// How many transactions that ended are remembered, so that a prepare which comes late for one of
/// them aborts. (Late work is refused without this memory: its session has ended the branch.)
pub const ENDED_MAX: usize = 64 * 1024;

/// See the [module](self).
#[derive(Default)]
pub(super) struct State {
    pub(super) is_closed: bool,
    pub(super) locks: Locks,
    /// Whose branches the store keeps, as it is saved.
    pub(super) served: Option<Served>,
    last_owner: u64,
    holders: BTreeMap<Owner, Holder>,
    /// Work under way.
    buffers: BTreeMap<Owner, Buffer>,
    /// The transactions that work, are being prepared, or stand prepared since the start.
    owners: BTreeMap<TxnId, Owner>,
    branches: BTreeMap<BranchId, Standing>,
    ended: Ended,
}

/// Work that is not prepared.
pub(super) struct Buffer {
    pub(super) footprint: Footprint,
    /// The bytes of all keys and values written.
    pub(super) bytes: usize,
    pub(super) health: Health,
    phase: Phase,
}

/// Whether a transaction can still commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Poisoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The service works.
    Working,
    /// Only the request that travels in the prepare works.
    Preparing,
}

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Service,
    Request,
}

/// A branch from the moment when it is asked to prepare.
struct Standing {
    owner: Owner,
    session: Session,
    stage: Stage,
}

enum Stage {
    /// It is being prepared, committed or rolled back; who wants something of it waits.
    Busy(Vec<oneshot::Sender<()>>),
    Prepared(Footprint),
}

/// How a transaction ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It voted `ReadOnly`.
    ReadOnly,
    /// It was committed, or rolled back, or let go.
    Over,
}

/// The transactions that ended last.
#[derive(Default)]
struct Ended {
    ends: BTreeMap<TxnId, End>,
    order: VecDeque<TxnId>,
}

impl Ended {
    fn push(&mut self, txn: TxnId, end: End) {
        if self.ends.insert(txn, end).is_none() {
            self.order.push_back(txn);
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }
}

/// What to do about a branch that may stand prepared.
pub(super) enum Claim {
    /// It stood prepared, and is the caller's to finish.
    Mine(Owner, Footprint),
    /// Someone else is at it: wait, and ask again.
    Wait(oneshot::Receiver<()>),
    /// It does not stand prepared.
    NotPrepared,
}

/// What to do about a branch that is to be prepared.
pub(super) enum Preparing {
    /// It is the caller's to prepare.
    Mine(Owner),
    Wait(oneshot::Receiver<()>),
    /// It stands prepared.
    Prepared,
    /// The transaction came to its end here.
    Ended(End),
    /// The transaction is being prepared under another name: a branch votes in one instance only.
    Elsewhere,
}

impl State {
    pub(super) fn new(served: Option<Served>) -> Self {
        State {
            served,
            ..State::default()
        }
    }

    fn add_owner(&mut self, holder: Holder) -> Owner {
        self.last_owner += 1;
        let owner = Owner(self.last_owner);
        self.holders.insert(owner, holder);
        owner
    }

    /// New work.
    pub(super) fn begin(&mut self, holder: Holder) -> Owner {
        let owner = self.add_owner(holder);
        let buffer = Buffer {
            footprint: Footprint::default(),
            bytes: 0,
            health: Health::Good,
            phase: Phase::Working,
        };
        self.buffers.insert(owner, buffer);
        if let Holder::Transaction(txn) = holder {
            self.owners.insert(txn, owner);
        }
        owner
    }

    /// The work of a transaction; none if the transaction is over here, or the store is closed.
    ///
    /// `is_open` says whether the session still has the branch. Every end of a branch first makes
    /// it false, and then takes the lock of this state to release the branch's locks; so work that
    /// begins here is released by its session. (Counter-example: the end of a transaction is only
    /// remembered here, among so many that end later that it is forgotten, and a handle that was
    /// kept begins work that no session ends.)
    pub(super) fn join(&mut self, txn: TxnId, is_open: impl FnOnce() -> bool) -> Option<Owner> {
        if self.is_closed || !is_open() {
            return None;
        }
        match self.owners.get(&txn) {
            Some(owner) => Some(*owner),
            None if self.ended.ends.contains_key(&txn) => None,
            None => Some(self.begin(Holder::Transaction(txn))),
        }
    }

    /// The buffer of work under way, and the lock table.
    pub(super) fn work(
        &mut self,
        owner: Owner,
        role: Role,
    ) -> Result<(&mut Buffer, &mut Locks), WorkError> {
        if self.is_closed {
            return Err(WorkError::Closed);
        }
        let buffer = self.buffers.get_mut(&owner).ok_or(WorkError::Ended)?;
        match (buffer.phase, role) {
            (Phase::Working, Role::Service) | (Phase::Preparing, Role::Request) => {}
            (Phase::Working, Role::Request) | (Phase::Preparing, Role::Service) => {
                return Err(WorkError::Ended);
            }
        }
        match buffer.health {
            Health::Good => Ok((buffer, &mut self.locks)),
            Health::Poisoned => Err(WorkError::Poisoned),
        }
    }

    /// An operation of the work failed: it can only abort from now on.
    pub(super) fn poison(&mut self, owner: Owner) {
        if let Some(buffer) = self.buffers.get_mut(&owner) {
            buffer.health = Health::Poisoned;
        }
    }

    /// Sets rows that the work has written to what they were before an attempt.
    pub(super) fn undo(&mut self, owner: Owner, rows: BTreeMap<Slice, Option<Option<Slice>>>) {
        let Some(buffer) = self.buffers.get_mut(&owner) else {
            return;
        };
        let Footprint { writes, reads, .. } = &mut buffer.footprint;
        for (key, before) in rows {
            let bytes = |value: &Option<Slice>| key.len() + value.as_ref().map_or(0, |it| it.len());
            let restored = before.as_ref().map_or(0, bytes);
            let undone = match before {
                Some(value) => writes.insert(key.clone(), value),
                None => {
                    self.locks.relax(owner, &key, reads.contains(&key));
                    writes.remove(&key)
                }
            };
            buffer.bytes = buffer.bytes + restored - undone.as_ref().map_or(0, bytes);
        }
    }

    pub(super) fn conflict(&self, held: &Held) -> WorkError {
        let held_by = self.holders.get(&held.by);
        WorkError::Conflict {
            key: held.key.to_vec(),
            held_by: *held_by.expect("whoever holds a lock has not ended"),
        }
    }

    /// Ends work that nobody can prepare any more; its locks are let go.
    pub(super) fn drop_work(&mut self, owner: Owner) {
        if let Some(buffer) = self.buffers.remove(&owner) {
            self.end(owner, &buffer.footprint, End::Over);
        }
    }

    /// Takes the buffer of work that is to be saved. Its locks stay.
    pub(super) fn take_work(&mut self, owner: Owner) -> Option<Buffer> {
        self.buffers.remove(&owner)
    }

    /// Drops the work of a transaction, unless it is being prepared.
    pub(super) fn let_go(&mut self, txn: TxnId) {
        if let Some(owner) = self.owners.get(&txn).copied() {
            let buffer = self.buffers.get(&owner);
            if buffer.is_some_and(|buffer| buffer.phase == Phase::Working) {
                self.drop_work(owner);
            }
        } else {
            self.ended.push(txn, End::Over);
        }
    }

    /// Lets go of work under transactions that are settled: nobody will ask about it any more.
    pub(super) fn let_go_settled(&mut self, through: CommitId) {
        let is_settled = |txn: &TxnId| {
            let last = CommitId {
                txn: *txn,
                roster: RosterDigest::MAX,
            };
            last <= through
        };
        let settled = self.owners.keys().copied().take_while(is_settled);
        for txn in settled.collect::<Vec<_>>() {
            self.let_go(txn);
        }
    }

    /// A lock is held until here, and no longer.
    pub(super) fn end(&mut self, owner: Owner, of: &Footprint, end: End) {
        self.locks.let_go(owner, of);
        if let Some(Holder::Transaction(txn)) = self.holders.remove(&owner) {
            if self.owners.get(&txn) == Some(&owner) {
                self.owners.remove(&txn);
            }
            self.ended.push(txn, end);
        }
    }

    /// A branch is to be prepared: nobody else works under it from now on, but its request.
    pub(super) fn prepare(&mut self, branch: &BranchId) -> Preparing {
        let txn = branch.id.txn;
        match self.branches.get_mut(branch) {
            Some(Standing {
                stage: Stage::Busy(waiters),
                ..
            }) => return Preparing::Wait(wait(waiters)),
            Some(_) => return Preparing::Prepared,
            None => {}
        }
        let owner = match (self.owners.get(&txn), self.ended.ends.get(&txn)) {
            (Some(owner), _) => *owner,
            (None, Some(end)) => return Preparing::Ended(*end),
            (None, None) => self.begin(Holder::Transaction(txn)),
        };
        match self.buffers.get_mut(&owner) {
            Some(buffer) if buffer.phase == Phase::Working => buffer.phase = Phase::Preparing,
            Some(_) | None => return Preparing::Elsewhere,
        }
        let standing = Standing {
            owner,
            // The session that prepares it here may live on while this process does.
            session: Session::Unknown,
            stage: Stage::Busy(Vec::new()),
        };
        self.branches.insert(branch.clone(), standing);
        Preparing::Mine(owner)
    }

    /// It is durable. Returns those who waited.
    pub(super) fn prepared(
        &mut self,
        branch: &BranchId,
        footprint: Footprint,
    ) -> Vec<oneshot::Sender<()>> {
        let standing = self.branches.get_mut(branch);
        let standing = standing.expect("a branch that is being prepared stays until it is");
        match std::mem::replace(&mut standing.stage, Stage::Prepared(footprint)) {
            Stage::Busy(waiters) => waiters,
            Stage::Prepared(_) => Vec::new(),
        }
    }

    /// A branch that stood prepared when the store was opened.
    pub(super) fn restore(&mut self, branch: BranchId, footprint: Footprint) -> Result<(), Held> {
        let owner = self.add_owner(Holder::Transaction(branch.id.txn));
        self.locks.restore(owner, &footprint)?;
        let standing = Standing {
            owner,
            // One process at a time has the store: the one that prepared it is gone.
            session: Session::Gone,
            stage: Stage::Prepared(footprint),
        };
        self.branches.insert(branch, standing);
        Ok(())
    }

    /// Takes a prepared branch, to finish it.
    pub(super) fn claim(&mut self, branch: &BranchId) -> Claim {
        let Some(standing) = self.branches.get_mut(branch) else {
            return Claim::NotPrepared;
        };
        match &mut standing.stage {
            Stage::Busy(waiters) => Claim::Wait(wait(waiters)),
            Stage::Prepared(footprint) => {
                let footprint = std::mem::take(footprint);
                standing.stage = Stage::Busy(Vec::new());
                Claim::Mine(standing.owner, footprint)
            }
        }
    }

    /// A branch came to its end, durably where that matters. Returns those who waited.
    pub(super) fn finished(
        &mut self,
        branch: &BranchId,
        owner: Owner,
        footprint: &Footprint,
        end: End,
    ) -> Vec<oneshot::Sender<()>> {
        self.end(owner, footprint, end);
        match self.branches.remove(branch).map(|standing| standing.stage) {
            Some(Stage::Busy(waiters)) => waiters,
            Some(Stage::Prepared(_)) | None => Vec::new(),
        }
    }

    pub(super) fn in_doubt(&self) -> Vec<InDoubt> {
        let standing = self.branches.iter();
        let prepared = standing.filter(|(_, standing)| match standing.stage {
            Stage::Prepared(_) => true,
            Stage::Busy(_) => false,
        });
        prepared
            .map(|(branch, standing)| InDoubt {
                id: branch.id,
                session: branch.branch.session,
                owner: standing.session,
            })
            .collect()
    }

    /// Everyone who waits is told to look again: the store is closed.
    pub(super) fn wake_all(&mut self) {
        for standing in self.branches.values_mut() {
            match &mut standing.stage {
                Stage::Busy(waiters) => waiters.clear(),
                Stage::Prepared(_) => {}
            }
        }
    }
}

/// A waiter. It is woken by the end of the other side, whatever that says.
fn wait(waiters: &mut Vec<oneshot::Sender<()>>) -> oneshot::Receiver<()> {
    // Whoever gave up waiting is forgotten, so that retries cannot pile up.
    waiters.retain(|waiter| !waiter.is_closed());
    let (waiter, woken) = oneshot::channel();
    waiters.push(waiter);
    woken
}
