//! What stores remember of each other, over their links.

use super::*;
use crate::transport::{Authority, Role};

/// The links of replica 1, whose store was at `start` when it started.
fn links(start: u64) -> (Arc<Links>, mpsc::Receiver<Inbound>) {
    links_at(start, 8)
}

/// The same, with an inbox for so many messages.
pub(in crate::transport) fn links_with_inbox(max: usize) -> (Arc<Links>, mpsc::Receiver<Inbound>) {
    links_at(0, max)
}

fn links_at(start: u64, max: usize) -> (Arc<Links>, mpsc::Receiver<Inbound>) {
    let authority = Authority::new("c".parse().unwrap()).unwrap();
    let credentials = authority.credentials(Role::Replica(ReplicaId(1))).unwrap();
    let network = (
        crate::transport::endpoint::dial_only().unwrap(),
        Resolver::default(),
    );
    let (inbox, inbound) = mpsc::channel(max);
    let lsns = Lsns {
        run: 7,
        own: start,
        start,
        ..Lsns::default()
    };
    let me = Peer::Replica(ReplicaId(1));
    let links = Links::new(me, credentials, network, inbox, (Serving::Yes, lsns));
    (links, inbound)
}

/// What a peer says in its first run.
fn lsn(own: u64, remembered: u64) -> Lsn {
    Lsn {
        run: 1,
        own,
        remembered,
    }
}

#[tokio::test]
async fn a_peer_that_repeats_what_it_was_just_told_proves_no_amnesia() {
    let (links, _inbound) = links(5);
    links.hear_lsn(ReplicaId(2), lsn(1, 5)).unwrap();
    links.lsns().own = 9;
    let hello = links.lsn_for(ReplicaId(3)).unwrap();
    links.hear_lsn(ReplicaId(3), lsn(0, hello.own)).unwrap();
    assert_eq!(links.lsns().lost, None);
    // From now on it is told, and may repeat, everything.
    let hello = links.lsn_for(ReplicaId(3)).unwrap();
    assert_eq!(hello.own, 9);
    links.hear_lsn(ReplicaId(3), lsn(0, 9)).unwrap();
    assert_eq!(links.lsns().lost, None);
}

#[tokio::test]
async fn a_peer_that_remembers_more_than_there_was_at_the_start_proves_amnesia() {
    let (links, _inbound) = links(5);
    links.hear_lsn(ReplicaId(2), lsn(1, 5)).unwrap();
    // The store has outgrown what was lost: that hides nothing.
    links.lsns().own = 9;
    links.hear_lsn(ReplicaId(3), lsn(1, 8)).unwrap();
    assert_eq!(links.lsns().lost, Some((ReplicaId(3), 8)));
}

#[tokio::test]
async fn a_peer_that_is_behind_what_it_told_is_refused_and_not_counted() {
    let (links, _inbound) = links(5);
    links.lsns().peers.insert(ReplicaId(2), 7);
    assert_eq!(links.hear_lsn(ReplicaId(2), lsn(6, 0)), Err(7));
    assert!(links.lsns().heard.is_empty());
}

#[tokio::test]
async fn a_greeting_that_was_overtaken_proves_no_amnesia() {
    let (links, _inbound) = links(5);
    // Over one connection it is heard, and tells how far it has come.
    links.hear_lsn(ReplicaId(2), lsn(0, 0)).unwrap();
    links.lsns().peers.insert(ReplicaId(2), 209);
    // The greeting of the other connection was on its way all the time.
    assert_eq!(links.hear_lsn(ReplicaId(2), lsn(0, 0)), Ok(()));
    assert_eq!(links.lsns().peers[&ReplicaId(2)], 209);
    // Its next run must be as far.
    let next = |own| Lsn {
        run: 2,
        own,
        remembered: 0,
    };
    assert_eq!(links.hear_lsn(ReplicaId(2), next(208)), Err(209));
    assert_eq!(links.hear_lsn(ReplicaId(2), next(209)), Ok(()));
}
