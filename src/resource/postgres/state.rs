//! What the adapter knows in memory: who works on which connection, and what this process prepared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use crate::participant::BranchId;
use crate::protocol::types::{CommitId, RosterDigest, TxnId};

use super::connection::{Backend, Lease};

/// How many transactions that ended are remembered, so that work which comes late for one of them
/// is refused. Work that comes later still is let go of when its transaction is settled.
pub const ENDED_MAX: usize = 64 * 1024;

/// Where the work of one transaction takes place: one connection, for one user at a time.
pub(super) struct Seat {
    pub(super) txn: TxnId,
    /// Shared, so that a guard can own it.
    pub(super) slot: Arc<Mutex<Slot>>,
    /// Which process of the server works for it. Outlives the connection: that process must be
    /// ended when nobody knows what it does.
    pub(super) backend: OnceLock<Backend>,
    /// Nobody is to work here any more.
    is_over: AtomicBool,
    /// Commit was asked for: no service is to begin to work here.
    is_asked: AtomicBool,
}

/// The place of the connection.
pub(super) enum Slot {
    /// Nothing was done so far.
    Empty,
    /// A local transaction is open on it.
    Open(Lease),
    /// It was let go of.
    Over(Process),
}

/// What the process of the server does that worked for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// It has answered the end of the transaction, and may work for somebody else by now.
    Free,
    /// Nobody knows.
    Unknown,
}

impl Seat {
    fn new(txn: TxnId) -> Arc<Seat> {
        Arc::new(Seat {
            txn,
            slot: Arc::new(Mutex::new(Slot::Empty)),
            backend: OnceLock::new(),
            is_over: AtomicBool::new(false),
            is_asked: AtomicBool::new(false),
        })
    }

    pub(super) fn close(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }
}

/// How a transaction ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It voted `ReadOnly`.
    ReadOnly,
    /// It was committed, or rolled back, or let go.
    Over,
}

/// What to do about a branch that is to be prepared.
pub(super) enum Preparing {
    /// It is the caller's to prepare.
    Mine(Arc<Seat>),
    /// An earlier call prepares it, or has failed at that and was not rolled back so far.
    Busy,
    /// It stands prepared.
    Prepared,
    /// The transaction came to its end here.
    Ended(End),
    /// The transaction is being prepared under another name: a branch votes in one instance only.
    Elsewhere,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Registry {
    standing: BTreeMap<TxnId, Standing>,
    ends: BTreeMap<TxnId, End>,
    order: VecDeque<TxnId>,
}

struct Standing {
    seat: Arc<Seat>,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Working,
    /// It is being prepared or rolled back; no service works on it any more.
    Closed(BranchId),
    Prepared(BranchId),
}

impl Registry {
    /// Where a transaction works; none if it is being prepared, or over.
    pub(super) fn join(&mut self, txn: TxnId) -> Option<Arc<Seat>> {
        if self.ends.contains_key(&txn) {
            return None;
        }
        let standing = self.standing.entry(txn).or_insert_with(|| Standing {
            seat: Seat::new(txn),
            stage: Stage::Working,
        });
        (standing.stage == Stage::Working).then(|| standing.seat.clone())
    }

    /// A branch is to be prepared: from now on no service works on it.
    pub(super) fn prepare(&mut self, branch: &BranchId) -> Preparing {
        let txn = branch.id.txn;
        if let Some(end) = self.ends.get(&txn) {
            return Preparing::Ended(*end);
        }
        let Some(seat) = self.join(txn) else {
            return match self.standing.get(&txn).map(|standing| &standing.stage) {
                Some(Stage::Prepared(of)) if of == branch => Preparing::Prepared,
                Some(Stage::Closed(of)) if of == branch => Preparing::Busy,
                Some(_) | None => Preparing::Elsewhere,
            };
        };
        seat.is_asked.store(true, Ordering::SeqCst);
        let stage = Stage::Closed(branch.clone());
        let standing = Standing {
            seat: seat.clone(),
            stage,
        };
        self.standing.insert(txn, standing);
        Preparing::Mine(seat)
    }

    /// It stands prepared, and its connection is free.
    pub(super) fn prepared(&mut self, branch: &BranchId) {
        if let Some(standing) = self.standing.get_mut(&branch.id.txn) {
            standing.stage = Stage::Prepared(branch.clone());
        }
    }

    /// A branch is to be rolled back: where its work is, if there is any here. It stays until
    /// [`ended`](Self::ended), so that a rollback which fails can be tried again. (Work that was
    /// never asked to prepare has no session so far. If the branch is another session's, then the
    /// work goes with it: its transaction aborts.)
    pub(super) fn roll_back(&mut self, branch: &BranchId) -> Option<Arc<Seat>> {
        let standing = self.standing.get_mut(&branch.id.txn)?;
        match &standing.stage {
            Stage::Working => standing.stage = Stage::Closed(branch.clone()),
            Stage::Closed(of) if of == branch => {}
            Stage::Closed(_) | Stage::Prepared(_) => return None,
        }
        standing.seat.close();
        Some(standing.seat.clone())
    }

    /// Takes the work of a transaction away that was never asked to prepare.
    pub(super) fn let_go(&mut self, txn: TxnId) -> Option<Arc<Seat>> {
        match self.standing.get(&txn).map(|standing| &standing.stage) {
            Some(Stage::Working) => {}
            Some(Stage::Closed(_) | Stage::Prepared(_)) => return None,
            None => {
                self.push(txn, End::Over);
                return None;
            }
        }
        let standing = self.standing.remove(&txn)?;
        self.push(txn, End::Over);
        standing.seat.close();
        Some(standing.seat)
    }

    /// The branch came to its end. Another one of the same transaction stays what it is.
    pub(super) fn ended(&mut self, branch: &BranchId, end: End) {
        let txn = branch.id.txn;
        match self.standing.get(&txn).map(|standing| &standing.stage) {
            Some(Stage::Closed(of) | Stage::Prepared(of)) if of == branch => {
                self.standing.remove(&txn);
            }
            Some(_) => return,
            None => {}
        }
        self.push(txn, end);
    }

    /// Forgets what is settled. Returns the seats of those who still work: nobody will ask about
    /// them any more.
    pub(super) fn settle(&mut self, through: CommitId) -> Vec<Arc<Seat>> {
        let is_settled = |txn: &&TxnId| {
            let last = CommitId {
                txn: **txn,
                roster: RosterDigest::MAX,
            };
            last <= through
        };
        let settled = self.standing.keys().take_while(is_settled);
        let mut seats = Vec::new();
        for txn in settled.copied().collect::<Vec<_>>() {
            match self.standing.get(&txn).map(|standing| &standing.stage) {
                Some(Stage::Working) => seats.extend(self.let_go(txn)),
                Some(Stage::Prepared(_)) => drop(self.standing.remove(&txn)),
                // Its rollback has failed, or its prepare hangs.
                Some(Stage::Closed(_)) => {
                    let closed = self.standing.remove(&txn).map(|standing| standing.seat);
                    seats.extend(closed.inspect(|seat| seat.close()));
                    self.push(txn, End::Over);
                }
                None => {}
            }
        }
        seats
    }

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
