//! A data directory's first day, and the questions before a replica serves.

use std::collections::BTreeSet;
use std::path::Path;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Configuration, Generations, Member};
use crate::store::{Identity, InitError, Store};
use crate::transport::{Links, Name, draw_into};

use super::builder::ReplicaError;

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
    if members.is_empty() {
        members = seeds.iter().map(|member| member.id).collect();
    }
    members.remove(&me);
    // Of 2F+1 with this one; one that joins has 2F+1 others, of which F are as good as any.
    let needed = members.len() / 2;
    loop {
        let heard = links.heard.notified();
        let mut heard = std::pin::pin!(heard);
        heard.as_mut().enable();
        check(links, me)?;
        if links.lsns().heard.intersection(&members).count() >= needed {
            return Ok(());
        }
        heard.await;
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
