//! A data directory's first day, and the questions before a replica serves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Configuration, Generations, Member};
use crate::random::draw_into;
use crate::store::{Identity, InitError, Store};
use crate::transport::{Links, Name};

use super::builder::ReplicaError;

/// For how long no other replica answers before what to do about it is said.
const ALONE_AFTER: Duration = Duration::from_secs(30);

/// How often it is looked whether the data directory is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Makes the data directory of a new replica; never done by a start.
///
/// `genesis` is the configuration of the cluster's first generation, with this replica in it; None
/// for a replica that joins later. An id that was used once is never used again.
///
/// # Errors
/// When the directory is not empty, or cannot be written.
pub fn init(
    data: &Path,
    cluster: &Name,
    replica: ReplicaId,
    genesis: Option<Configuration>,
) -> Result<(), InitError> {
    let mut reset_key = [0; 64];
    draw_into(&mut reset_key);
    let identity = Identity::new(cluster.to_string(), replica, genesis, reset_key)
        .expect("the name of a cluster is one for a store, too");
    Store::init(data, &identity)
}

/// Waits until F of the others have told how far they remember this replica's store to be, and
/// fails if one of them remembers more than there is.
pub(super) async fn hear_peers(
    links: &Links,
    me: ReplicaId,
    generations: &Generations,
    seeds: &[Member],
) -> Result<(), ReplicaError> {
    let mut members: BTreeSet<ReplicaId> = generations
        .in_force()
        .map_or_else(BTreeSet::new, |configuration| {
            configuration.acceptors().iter().collect()
        });
    let is_new = members.is_empty();
    if is_new {
        members = seeds.iter().map(|member| member.id).collect();
    }
    members.remove(&me);
    // Of 2F+1 with this one; one that joins has 2F+1 others, of which F are as good as any.
    let needed = members.len() / 2;
    let mut told = Told::Nothing;
    loop {
        let heard = links.heard.notified();
        let mut heard = std::pin::pin!(heard);
        heard.as_mut().enable();
        check(links, me)?;
        let heard_of = links.lsns().heard.clone();
        if heard_of.intersection(&members).count() >= needed {
            return Ok(());
        }
        let silent: Vec<String> = members
            .difference(&heard_of)
            .map(ToString::to_string)
            .collect();
        let is_alone = heard_of.is_disjoint(&members);
        told = told.tell(needed, &silent.join(", "), is_alone, is_new);
        let _ = tokio::time::timeout(told.pause(), heard).await;
    }
}

/// What a replica that waits for others has said of it in its log.
#[derive(Clone, Copy)]
enum Told {
    Nothing,
    Waiting,
    Alone,
}

impl Told {
    fn pause(self) -> Duration {
        match self {
            Told::Nothing | Told::Waiting => ALONE_AFTER,
            Told::Alone => Duration::MAX,
        }
    }

    fn tell(self, needed: usize, silent: &str, is_alone: bool, is_new: bool) -> Told {
        match self {
            Told::Nothing => {
                tracing::info!(
                    replicas = silent,
                    needed,
                    "waiting for other replicas to answer"
                );
                Told::Waiting
            }
            Told::Waiting if is_alone && is_new => {
                tracing::warn!(
                    replicas = silent,
                    "no replica that this new one was told of has answered: they are down, or were \
                     replaced. Start them, or name replicas that are up in its replica.toml \
                     ([[replica]])"
                );
                Told::Alone
            }
            Told::Waiting if is_alone => {
                tracing::warn!(
                    replicas = silent,
                    "no replica that this one knows has answered: they are down, or were replaced while \
                     this one was down. Ask `paxos-commit cluster retire` about this replica: if it may \
                     go, delete it; if it is still needed, start them again"
                );
                Told::Alone
            }
            told => told,
        }
    }
}

/// For ever: fails when somebody remembers this replica's store to have been further than it is.
pub(super) async fn watch_amnesia(links: &Links, me: ReplicaId) -> ReplicaError {
    loop {
        let heard = links.heard.notified();
        let mut heard = std::pin::pin!(heard);
        heard.as_mut().enable();
        if let Err(error) = check(links, me) {
            return error;
        }
        heard.await;
    }
}

/// Completes when the data directory has gone, or another one stands in its place.
pub(super) async fn watch_data(store: &Arc<Store>) -> ReplicaError {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let looked = store.clone();
        let there = tokio::task::spawn_blocking(move || looked.is_there()).await;
        if let Ok(Err(why)) = there {
            return ReplicaError::DataGone {
                data: store.place().to_owned(),
                why,
            };
        }
    }
}

fn check(links: &Links, replica: ReplicaId) -> Result<(), ReplicaError> {
    let lsns = links.lsns();
    match lsns.lost {
        Some((by, remembered)) => Err(ReplicaError::Amnesia {
            replica,
            by,
            remembered,
            found: lsns.start,
        }),
        None => Ok(()),
    }
}
