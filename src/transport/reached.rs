//! What a process says in its log of the replicas that it reaches.

use std::sync::Mutex;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Configuration, Peer};

use super::links::{Links, lock};

/// Whether a majority was reached when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Reached(Mutex<bool>);

impl Reached {
    /// A connection to a replica has come up, or has ended, not by this process. Replicas say which;
    /// services and applications, whether they reach a majority, without which no transaction comes to
    /// its outcome. (An operator's tool has its own way to say it.)
    pub(super) fn say(&self, links: &Links, replica: ReplicaId, is_up: bool) {
        match (&links.me, is_up) {
            (Peer::Replica(_), true) => tracing::info!(%replica, "connected to a replica"),
            (Peer::Replica(_), false) => {
                tracing::info!(%replica, "lost the connection to a replica")
            }
            (Peer::Operator(_), _) => {}
            (Peer::Session(_) | Peer::Initiator(_), _) => self.say_majority(links),
        }
    }

    fn say_majority(&self, links: &Links) {
        let (reached, all, majority) = {
            let told = links.told.borrow();
            let Some(acceptors) = told.in_force().map(Configuration::acceptors) else {
                return;
            };
            let peers = links.connected();
            let reached = acceptors
                .iter()
                .filter(|id| peers.contains(&Peer::Replica(*id)));
            (reached.count(), acceptors.len(), acceptors.majority())
        };
        let is_majority = reached >= majority;
        let before = std::mem::replace(&mut *lock(&self.0), is_majority);
        match (before, is_majority) {
            (false, true) => {
                tracing::info!(reached, all, "connected to a majority of the replicas")
            }
            (true, false) => tracing::warn!(
                reached,
                all,
                "lost the majority of the replicas: no transaction is decided until they are back"
            ),
            (true, true) | (false, false) => {}
        }
    }
}
