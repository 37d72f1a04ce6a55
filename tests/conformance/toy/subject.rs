//! The server, as the kit sees it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use paxos_commit::protocol::types::{Opening, Request, TxnId};
use paxos_commit::resource::conformance::{Applied, Failure, Processes, Subject};

use super::{Server, Toy, Work};
use crate::faults::Fault;

/// Every opening has one of its own.
static NONCES: AtomicU64 = AtomicU64::new(0);

/// A server in memory, and what is wrong with those who use it.
pub(crate) struct ToySubject {
    server: Arc<Mutex<Server>>,
    fault: Option<Fault>,
    connections: Arc<tokio::sync::Semaphore>,
    others: AtomicU32,
}

/// A server with an empty store, whose identity has this number.
fn server(number: u128) -> Arc<Mutex<Server>> {
    Arc::new(Mutex::new(Server {
        number,
        ..Server::default()
    }))
}

impl ToySubject {
    fn process_of(&self, server: &Arc<Mutex<Server>>) -> Toy {
        let mut opened = server.lock().unwrap();
        opened.processes += 1;
        let number = opened.processes;
        let nonce = match self.fault {
            Some(Fault::NonceOfTheNumber) => number,
            Some(_) | None => NONCES.fetch_add(1, Ordering::Relaxed),
        };
        opened.openings.push(Opening { number, nonce });
        Toy {
            server: server.clone(),
            process: opened.processes,
            openings: opened.openings.clone(),
            fault: self.fault,
            memory: Mutex::default(),
        }
    }

    pub(crate) fn new(fault: Option<Fault>) -> Self {
        ToySubject {
            server: server(1),
            fault,
            connections: Arc::new(tokio::sync::Semaphore::new(4)),
            others: AtomicU32::new(1),
        }
    }

    /// The process is gone, and with it all that was only in its memory.
    fn forget(&self, process: u64) {
        let mut server = self.server.lock().unwrap();
        server.work.retain(|(of, _), _| *of != process);
        if let Some(Fault::PrepareNotSaved | Fault::CommitNotSaved | Fault::RollbackNotSaved)
        | Some(Fault::ExpireNotSaved) = self.fault
        {
            server.current = server.durable.clone();
        }
        let emptied = self.fault == Some(Fault::ReadersAreDropped);
        let unlocked = self.fault == Some(Fault::LocksLostAtRestart);
        server
            .current
            .prepared
            .retain(|_, standing| !emptied || !standing.work.writes.is_empty());
        for standing in server.current.prepared.values_mut() {
            standing.locks &= !unlocked;
        }
        server.save();
    }
}

impl Subject for ToySubject {
    type Manager = Toy;

    async fn open(&self) -> Result<Toy, Failure> {
        Ok(self.process_of(&self.server))
    }

    async fn open_another(&self) -> Result<Option<Toy>, Failure> {
        let number = self.others.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Some(self.process_of(&server(number.into()))))
    }

    async fn open_copy(&self) -> Result<Option<Toy>, Failure> {
        let copy = self.server.lock().unwrap().copy();
        Ok(Some(self.process_of(&Arc::new(Mutex::new(copy)))))
    }

    async fn kill(&self, toy: Toy) -> Result<(), Failure> {
        self.forget(toy.process);
        self.connections
            .add_permits(4_usize.saturating_sub(self.connections.available_permits()));
        Ok(())
    }

    async fn crash_store(&self) -> Result<Applied, Failure> {
        let mut server = self.server.lock().unwrap();
        server.current = server.durable.clone();
        for work in server.work.values_mut() {
            *work = Work {
                is_lost: true,
                ..Work::default()
            };
        }
        Ok(Applied::Done)
    }

    fn processes(&self) -> Processes {
        Processes::Many
    }

    async fn add(&self, toy: &Toy, txn: TxnId, to: &str, amount: i64) -> Result<(), Failure> {
        if self.fault == Some(Fault::WorkTakesAllConnections) {
            // Kept until the process ends.
            self.connections.acquire().await?.forget();
        }
        Ok(toy.server().add((toy.process, txn), to, amount)?)
    }

    async fn look(&self, toy: &Toy, txn: TxnId, counter: &str) -> Result<i64, Failure> {
        let mut server = toy.server();
        let committed = server.value(counter);
        let work = server.work.entry((toy.process, txn)).or_default();
        work.reads.insert(counter.to_owned());
        Ok(work.writes.get(counter).copied().unwrap_or(committed))
    }

    async fn read(&self, toy: &Toy, counter: &str) -> Result<i64, Failure> {
        Ok(toy.server().value(counter))
    }

    async fn lose_connection(&self, toy: &Toy, txn: TxnId) -> Result<Applied, Failure> {
        let mut server = toy.server();
        let is_lost = !toy.has(Fault::ReconnectsSilently);
        let lost = Work {
            is_lost,
            ..Work::default()
        };
        server.work.insert((toy.process, txn), lost);
        Ok(Applied::Done)
    }

    fn request(&self, counter: &str, amount: i64) -> Option<Request> {
        Some(Request(format!("{counter} {amount}").into_bytes().into()))
    }

    async fn markers(&self, toy: &Toy) -> Result<Option<u64>, Failure> {
        Ok(Some(toy.server().current.markers.len() as u64))
    }
}
