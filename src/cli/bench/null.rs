//! A participant that only votes: it forces one record to its log and keeps nothing else.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use paxos_commit::participant::{BranchId, Expiry, Proof, ResourceManager};
use paxos_commit::protocol::participant::InDoubt;
use paxos_commit::protocol::types::{CommitId, ReadOnly, Request, StoreId, TxnId, Vote};
use tokio::sync::oneshot;

/// About what a branch of one row takes.
const RECORD_BYTES: usize = 100;

type Done = oneshot::Sender<()>;

/// Votes when its record is on disk; whoever votes meanwhile shares the next write.
pub(super) struct NullManager {
    queue: Sender<Done>,
    forced: Arc<AtomicU64>,
}

impl NullManager {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(path)?;
        let (queue, waiting) = channel();
        let forced = Arc::new(AtomicU64::new(0));
        let counter = forced.clone();
        thread::Builder::new()
            .name("null-log".into())
            .spawn(move || write(log, &waiting, &counter))?;
        Ok(NullManager { queue, forced })
    }

    /// Counts its forced writes.
    pub(super) fn forced(&self) -> Arc<AtomicU64> {
        self.forced.clone()
    }
}

fn write(mut log: File, waiting: &Receiver<Done>, forced: &AtomicU64) {
    let mut done = Vec::new();
    while let Ok(first) = waiting.recv() {
        done.push(first);
        done.extend(waiting.try_iter());
        let bytes = vec![0x5a; RECORD_BYTES * done.len()];
        let written = log.write_all(&bytes).and_then(|()| log.sync_data());
        if let Err(error) = written {
            // Nobody who waits is told that it is durable.
            crate::cli::show::complain(format_args!("cannot write the participant's log: {error}"));
            std::process::exit(1);
        }
        forced.fetch_add(1, Ordering::Relaxed);
        for done in done.drain(..) {
            let _ = done.send(());
        }
    }
}

impl ResourceManager for NullManager {
    type Error = Infallible;

    fn store(&self) -> StoreId {
        StoreId::from_u128(1)
    }

    async fn prepare(
        &self,
        _: &BranchId,
        _: Option<Request>,
        _: ReadOnly,
    ) -> Result<Vote, Infallible> {
        let (done, durable) = oneshot::channel();
        let queued = self.queue.send(done).is_ok();
        Ok(match queued && durable.await.is_ok() {
            true => Vote::Prepared,
            false => Vote::Aborted,
        })
    }

    async fn commit(&self, _: &BranchId) -> Result<Proof, Infallible> {
        Ok(Proof::Found)
    }

    async fn rollback(&self, _: &BranchId) -> Result<(), Infallible> {
        Ok(())
    }

    async fn let_go(&self, _: TxnId) {}

    async fn in_doubt(&self) -> Result<Vec<InDoubt>, Infallible> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: &BranchId) -> Result<Expiry, Infallible> {
        Ok(Expiry::NotPrepared)
    }

    async fn settled(&self, _: CommitId, _: &[BranchId]) -> Result<(), Infallible> {
        Ok(())
    }
}
