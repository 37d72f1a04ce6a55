//! Generations that come and go while transactions run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{CommitError, Initiator, Outcome};
use paxos_commit::operator::Operator;
use paxos_commit::protocol::initiator::CommitError as Refused;
use paxos_commit::protocol::types::CommitId;
use paxos_commit::replica::Tuning;
use tokio::task::JoinSet;

use crate::support::{Service, eventually, within};

/// Closed generations are settled at once.
pub(crate) fn impatient() -> Tuning {
    let mut tuning = Tuning::default();
    tuning.grace = Duration::from_millis(100);
    tuning
}

/// Puts `key` everywhere, in one transaction; again, if its generation was closed meanwhile.
pub(crate) async fn put(initiator: &Initiator, services: &[Arc<Service>], key: &str) -> CommitId {
    loop {
        let mut txn = initiator.begin().await.unwrap();
        let mut refused = false;
        for service in services {
            let Ok(branch) = service.participant.branch(txn.id()).await else {
                refused = true;
                break;
            };
            let put = service.store.work(&branch).put(key, "v");
            refused |= put.is_err();
            txn.enlist(branch.ticket()).unwrap();
        }
        if refused {
            txn.rollback().await.unwrap();
            continue;
        }
        let id = txn.plan().await.unwrap().id();
        match txn.commit().await {
            Ok(Outcome::Committed) => return id,
            Err(CommitError::Refused(Refused::GenerationClosed(_))) => {}
            // What came too late for its generation was ended with it.
            Ok(Outcome::Aborted(_)) => {}
            other => panic!("{key}: {other:?}"),
        }
    }
}

/// Transactions without end, a few at a time, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Vec<(String, CommitId)>>,
    services: Vec<Arc<Service>>,
}

impl Load {
    pub(crate) fn start(initiator: &Initiator, services: &[Arc<Service>]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..4 {
            let (stop, initiator, services) = (stop.clone(), initiator.clone(), services.to_vec());
            workers.spawn(async move {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("load-{worker}-{}", done.len());
                    let id = put(&initiator, &services, &key).await;
                    done.push((key, id));
                }
                done
            });
        }
        Load {
            stop,
            workers,
            services: services.to_vec(),
        }
    }

    /// Stops, and looks whether everything that was committed is everywhere.
    pub(crate) async fn stop(self) -> Vec<CommitId> {
        self.stop.store(true, Ordering::Relaxed);
        let done = within("the load ends", self.workers.join_all()).await;
        let mut ids = Vec::new();
        for (key, id) in done.into_iter().flatten() {
            for service in &self.services {
                service.wait_for(&key, "v").await;
            }
            ids.push(id);
        }
        for service in &self.services {
            service.unlocked().await;
        }
        ids
    }
}

pub(crate) async fn services(cluster: &LocalCluster) -> Vec<Arc<Service>> {
    vec![
        Arc::new(Service::start(cluster, "a").await),
        Arc::new(Service::start(cluster, "b").await),
    ]
}

/// The oldest generation that is not settled, as replica `id` knows it.
pub(crate) async fn oldest(cluster: &LocalCluster, id: u32) -> u32 {
    let replica = cluster.replica(id).expect("it runs");
    let oldest = replica.inspect(|core| core.generations().oldest());
    oldest.await.expect("it runs")
}

pub(crate) async fn settled_up_to(cluster: &LocalCluster, generation: u32) {
    for member in cluster.members() {
        let id = member.id.0;
        if cluster.replica(id).is_some() {
            let what = format!("replica {id} knows that generation {generation} is settled");
            eventually(&what, async || oldest(cluster, id).await > generation).await;
        }
    }
}

/// Opens the next generation, on the same replicas.
pub(crate) async fn next_generation(operator: &mut Operator) -> u32 {
    let same = operator.generations().in_force().unwrap().clone();
    operator.reconfigure(same).await.unwrap()
}
