//! What the adapter knows in memory: who works on which connection, and what this process prepared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

use crate::participant::BranchId;
use crate::protocol::types::{CommitId, RosterDigest, TxnId};

use super::connection::Lease;

/// How many transactions that ended are remembered, so that work which comes late for one of them
/// is refused. Work that comes later still is let go of when its transaction is settled.
pub const ENDED_MAX: usize = 64 * 1024;

/// Where the work of one transaction takes place: one connection, for one user at a time.
pub(super) struct Seat {
    pub(super) txn: TxnId,
    /// Shared, so that a guard can own it.
    pub(super) slot: Arc<Mutex<Slot>>,
    /// A session of the server works for it, or may. It outlives our end of the connection: the server
    /// must be told to end it when nobody knows what it does.
    has_begun: AtomicBool,
    /// Nobody is to work here any more. Who waits for the server meanwhile waits for this, too.
    is_over: watch::Sender<bool>,
    /// `XA PREPARE` was sent, or may have been.
    is_asked: AtomicBool,
}

/// The place of the connection.
pub(super) enum Slot {
    /// Nothing was done so far.
    Empty,
    /// A branch is open on it.
    Open(Lease),
    /// It broke, or a statement on it was cut short.
    Lost,
    /// It was let go of.
    Over,
}

impl Seat {
    fn new(txn: TxnId) -> Arc<Seat> {
        Arc::new(Seat {
            txn,
            slot: Arc::new(Mutex::new(Slot::Empty)),
            has_begun: AtomicBool::new(false),
            is_over: watch::Sender::new(false),
            is_asked: AtomicBool::new(false),
        })
    }

    pub(super) fn close(&self) {
        self.is_over.send_replace(true);
    }

    pub(super) fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    /// Returns when it is over.
    pub(super) async fn closed(&self) {
        let mut is_over = self.is_over.subscribe();
        let over = is_over.wait_for(|is_over| *is_over).await;
        over.expect("a seat outlives what waits for it");
    }

    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    pub(super) fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }
}

/// What to do about a branch that is to be prepared.
pub(super) enum Preparing {
    /// It is the caller's to prepare.
    Mine(Arc<Seat>),
    /// An earlier call prepares it, or has failed at that and was not rolled back so far.
    Busy,
    /// It stands prepared.
    Prepared,
    /// The transaction came to its end here, or is being prepared under another name: a branch votes
    /// in one instance only.
    Over,
}

/// A branch that is to be finished, as far as it is known here.
pub(super) enum Known {
    /// This process prepared it, and still has its connection. It is the caller's now.
    Held(Lease),
    /// This process prepared it; any session can finish it.
    Mine,
    /// Another process did, or nobody.
    No,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Registry {
    standing: BTreeMap<TxnId, Standing>,
    /// The transactions whose prepared branches keep their connections, and since when, the oldest
    /// first. Some may not keep it any more.
    holding: VecDeque<(TxnId, Instant)>,
    ends: BTreeSet<TxnId>,
    order: VecDeque<TxnId>,
}

struct Standing {
    seat: Arc<Seat>,
    stage: Stage,
}

enum Stage {
    Working,
    /// It is being prepared or rolled back; no service works on it any more.
    Closed(BranchId),
    Prepared(BranchId, Option<Lease>),
}

impl Registry {
    /// Where a transaction works; none if it is being prepared, or over.
    pub(super) fn join(&mut self, txn: TxnId) -> Option<Arc<Seat>> {
        if self.ends.contains(&txn) {
            return None;
        }
        let standing = self.standing.entry(txn).or_insert_with(|| Standing {
            seat: Seat::new(txn),
            stage: Stage::Working,
        });
        matches!(standing.stage, Stage::Working).then(|| standing.seat.clone())
    }

    /// A branch is to be prepared: from now on no service works on it.
    pub(super) fn prepare(&mut self, branch: &BranchId) -> Preparing {
        let txn = branch.id.txn;
        let Some(seat) = self.join(txn) else {
            return match self.standing.get(&txn).map(|standing| &standing.stage) {
                Some(Stage::Prepared(of, _)) if of == branch => Preparing::Prepared,
                Some(Stage::Closed(of)) if of == branch => Preparing::Busy,
                Some(_) | None => Preparing::Over,
            };
        };
        if let Some(standing) = self.standing.get_mut(&txn) {
            standing.stage = Stage::Closed(branch.clone());
        }
        Preparing::Mine(seat)
    }

    /// It stands prepared, and keeps its connection for now.
    pub(super) fn prepared(&mut self, branch: &BranchId, held: Lease) {
        if let Some(standing) = self.standing.get_mut(&branch.id.txn) {
            standing.stage = Stage::Prepared(branch.clone(), Some(held));
            self.holding.push_back((branch.id.txn, Instant::now()));
        }
    }

    /// Takes the connection away that a prepared branch keeps, if it still does.
    pub(super) fn hand_over(&mut self, txn: TxnId) -> Option<Lease> {
        self.holding.retain(|(held, _)| *held != txn);
        match self
            .standing
            .get_mut(&txn)
            .map(|standing| &mut standing.stage)
        {
            Some(Stage::Prepared(_, held)) => held.take(),
            Some(Stage::Working | Stage::Closed(_)) | None => None,
        }
    }

    /// Takes the connection away that a prepared branch has kept for the longest time, and at least
    /// for so long.
    pub(super) fn hand_over_oldest(&mut self, kept: Duration) -> Option<Lease> {
        while let Some((txn, since)) = self.holding.front().copied() {
            if since.elapsed() < kept {
                return None;
            }
            if let Some(held) = self.hand_over(txn) {
                return Some(held);
            }
        }
        None
    }

    /// A prepared branch is to be finished. It stays until [`ended`](Self::ended), so that a call
    /// that fails, or is cut short, can come again.
    pub(super) fn finish(&mut self, branch: &BranchId) -> Known {
        let txn = branch.id.txn;
        match self.standing.get(&txn).map(|standing| &standing.stage) {
            Some(Stage::Prepared(of, _)) if of == branch => {}
            Some(_) | None => return Known::No,
        }
        self.hand_over(txn).map_or(Known::Mine, Known::Held)
    }

    /// Whether a service works under a transaction, or may.
    pub(super) fn is_working(&self, txn: TxnId) -> bool {
        let standing = self.standing.get(&txn);
        standing.is_some_and(|standing| matches!(standing.stage, Stage::Working))
    }

    /// A branch is to be rolled back: where its work is, if there is any here that does not stand
    /// prepared. It stays until [`ended`](Self::ended).
    pub(super) fn roll_back(&mut self, branch: &BranchId) -> Option<Arc<Seat>> {
        let standing = self.standing.get_mut(&branch.id.txn)?;
        match &standing.stage {
            Stage::Working => standing.stage = Stage::Closed(branch.clone()),
            Stage::Closed(of) if of == branch => {}
            Stage::Closed(_) | Stage::Prepared(..) => return None,
        }
        standing.seat.close();
        Some(standing.seat.clone())
    }

    /// Takes the work of a transaction away that was never asked to prepare.
    pub(super) fn let_go(&mut self, txn: TxnId) -> Option<Arc<Seat>> {
        match self.standing.get(&txn).map(|standing| &standing.stage) {
            Some(Stage::Working) => {}
            Some(Stage::Closed(_) | Stage::Prepared(..)) => return None,
            None => {
                self.push(txn);
                return None;
            }
        }
        let standing = self.standing.remove(&txn)?;
        self.push(txn);
        standing.seat.close();
        Some(standing.seat)
    }

    /// The branch came to its end. Another one of the same transaction stays what it is.
    pub(super) fn ended(&mut self, branch: &BranchId) {
        let txn = branch.id.txn;
        match self.standing.get(&txn).map(|standing| &standing.stage) {
            Some(Stage::Closed(of) | Stage::Prepared(of, _)) if of == branch => {
                self.standing.remove(&txn);
            }
            Some(_) => return,
            None => {}
        }
        self.push(txn);
    }

    /// Forgets what is settled. Returns the seats of those who still work there, or whose rollback has
    /// failed: nobody will ask about them any more. What stands prepared waits for its outcome.
    pub(super) fn settle(&mut self, through: CommitId) -> Vec<Arc<Seat>> {
        let is_settled = |txn: &&TxnId| {
            let last = CommitId {
                txn: **txn,
                roster: RosterDigest::MAX,
            };
            last <= through
        };
        let settled = self.standing.keys().take_while(is_settled);
        let settled: Vec<TxnId> = settled.copied().collect();
        settled
            .into_iter()
            .filter_map(|txn| self.sweep(txn))
            .collect()
    }

    fn sweep(&mut self, txn: TxnId) -> Option<Arc<Seat>> {
        match self.standing.get(&txn).map(|standing| &standing.stage)? {
            Stage::Working => self.let_go(txn),
            Stage::Closed(_) => {
                let standing = self.standing.remove(&txn)?;
                self.push(txn);
                standing.seat.close();
                Some(standing.seat)
            }
            // Another process may have finished it, and nobody tells: its row says all that is known
            // here.
            Stage::Prepared(_, None) => {
                self.standing.remove(&txn);
                self.push(txn);
                None
            }
            Stage::Prepared(_, Some(_)) => None,
        }
    }

    /// Forgets everything, and tells those who work.
    pub(super) fn close(&mut self) {
        for standing in std::mem::take(self).standing.into_values() {
            standing.seat.close();
        }
    }

    fn push(&mut self, txn: TxnId) {
        if self.ends.insert(txn) {
            self.order.push_back(txn);
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::StoreId;

    use crate::protocol::types::{Branch, InitiatorId, Roster, Session};

    fn branch(sequence: u32) -> BranchId {
        let branch = Branch {
            participant: "ledger".parse().unwrap(),
            session: Session(1),
            store: StoreId::from_u128(1),
        };
        let txn = TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(7),
            sequence,
            nonce: 9,
        };
        let roster = Roster::new([branch.clone()]).unwrap();
        BranchId {
            id: CommitId::new(txn, &roster),
            branch,
        }
    }

    #[test]
    fn nothing_is_left_of_what_is_settled() {
        let mut registry = Registry::default();
        let [working, closed, prepared, later] = [1, 2, 3, 4].map(branch);
        for branch in [&working, &closed, &prepared, &later] {
            registry.join(branch.id.txn).unwrap();
        }
        assert!(matches!(registry.prepare(&closed), Preparing::Mine(_)));
        registry.standing.get_mut(&prepared.id.txn).unwrap().stage =
            Stage::Prepared(prepared.clone(), None);
        let through = CommitId {
            roster: RosterDigest::MAX,
            ..prepared.id
        };
        let seats = registry.settle(through);
        let txns: Vec<TxnId> = seats.iter().map(|seat| seat.txn).collect();
        assert_eq!(txns, [working.id.txn, closed.id.txn]);
        let left: Vec<TxnId> = registry.standing.keys().copied().collect();
        assert_eq!(left, [later.id.txn]);
        // Nor does anything begin there again.
        assert!(registry.join(closed.id.txn).is_none());
        assert!(matches!(registry.prepare(&prepared), Preparing::Over));
    }
}
