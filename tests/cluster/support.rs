//! A bank of two ledgers on a cluster in this process.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{Initiator, Transaction};
use paxos_commit::participant::Participant;
use paxos_commit::protocol::types::Request;
use paxos_commit::resource::embedded::{Embedded, Options, RequestError, Work};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One service: a store and a session.
pub struct Service {
    pub folder: tempfile::TempDir,
    pub store: Embedded,
    pub participant: Participant,
}

/// Runs a request: `KEY=VALUE`, or `fail`.
fn put(work: &Work, request: &Request) -> Result<(), RequestError> {
    let text = String::from_utf8_lossy(&request.0);
    let (key, value) = text.split_once('=').ok_or("no such thing")?;
    work.put(key, value)?;
    Ok(())
}

pub fn options() -> Options {
    Options::new().requests(put)
}

impl Service {
    pub async fn start(cluster: &LocalCluster, name: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), options()).unwrap();
        let access = cluster.participant(name).unwrap();
        let participant = Participant::builder(access).connect(store.clone());
        let participant = participant.await.unwrap();
        Service {
            folder,
            store,
            participant,
        }
    }

    /// Puts a row under a transaction and enlists the branch.
    pub async fn put(&self, txn: &mut Transaction, key: &str, value: &str) {
        let branch = self.participant.branch(txn.id()).await.unwrap();
        self.store.work(txn.id()).put(key, value).unwrap();
        // Through text, as between processes.
        let ticket = branch.ticket().to_string();
        txn.enlist(ticket.parse().unwrap()).unwrap();
    }

    pub fn read(&self, key: &str) -> Option<String> {
        let value = self.store.read(key).unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    }

    /// Waits until a row is committed here.
    pub async fn wait_for(&self, key: &str, value: &str) {
        let waiting = async {
            while self.read(key).as_deref() != Some(value) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{key} is {:?}, never {value}", self.read(key)));
    }
}

pub async fn initiator(cluster: &LocalCluster) -> Initiator {
    let access = cluster.initiator("shop").unwrap();
    Initiator::builder(access).connect().await.unwrap()
}
