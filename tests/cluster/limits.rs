//! Peers that send rubbish, or too much, or do not listen.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::Outcome;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::types::{InitiatorId, Peer, TxnId};
use paxos_commit::transport::{Role, draw_initiator};
use paxos_commit::wire::{self, FRAME_BYTES_MAX, Frame, Query, Refusal};

use crate::counters::Counters;
use crate::stranger::{FORBIDDEN, OVERFLOW, Papers, Stranger, address, hello};
use crate::support::{Service, initiator};

fn operator() -> Role {
    Role::Operator("anna".parse().unwrap())
}

fn shop() -> Role {
    Role::Initiator("shop".parse().unwrap())
}

fn peer() -> Peer {
    Peer::Initiator(draw_initiator(&"shop".parse().unwrap()))
}

/// Others are served as if nothing had happened.
async fn commits(cluster: &LocalCluster, service: &Service, value: &str) {
    let initiator = initiator(cluster).await;
    let mut txn = initiator.begin().await.unwrap();
    service.put(&mut txn, "k", value).await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
    service.wait_for("k", value).await;
    service.unlocked().await;
}

/// The answer to these bytes as the first ones.
async fn greeting(cluster: &LocalCluster, bytes: &[u8]) -> Result<Frame, String> {
    let papers = Papers::right(cluster, shop());
    let dialed = Stranger::dial(address(cluster, 1), 1, &papers).await;
    let mut stranger = dialed.unwrap();
    stranger.say_bytes(bytes).await;
    stranger.next().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_as_a_greeting_is_refused() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let mut other = Vec::new();
    wire::encode(&Frame::Query(Query::Status), &mut other).unwrap();
    let too_long = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    let mut garbage = 200_u32.to_le_bytes().to_vec();
    garbage.resize(4 + 200, 0xff);
    // A Hello with something behind it.
    let mut trailing = Vec::new();
    wire::encode(&Frame::Hello(hello(peer(), 1)), &mut trailing).unwrap();
    trailing.push(0);
    let length = trailing.len() as u32 - 4;
    trailing[..4].copy_from_slice(&length.to_le_bytes());
    for bytes in [&other[..], &too_long[..], &garbage[..], &trailing[..]] {
        let answer = greeting(&cluster, bytes).await;
        assert_eq!(answer, Ok(Frame::Refused(Refusal::NoHello)), "{bytes:?}");
    }
    commits(&cluster, &a, "v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_after_the_greeting_ends_the_connection() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..20 {
        let mut stranger = Stranger::enter(&cluster, 1, shop(), peer()).await;
        // Whole frames, of random bytes: some round or other decodes and is forbidden, which
        // comes to the same.
        for _ in 0..64 {
            let length = random.u32(1..64);
            let mut bytes = length.to_le_bytes().to_vec();
            // No variant of a frame has so high a number.
            bytes.push(random.u8(8..));
            bytes.extend((1..length).map(|_| random.u8(..)));
            stranger.say_bytes(&bytes).await;
        }
        let code = stranger.closed().await;
        assert_eq!(code, FORBIDDEN, "seed {seed}, round {round}");
    }
    let mut stranger = Stranger::enter(&cluster, 1, shop(), peer()).await;
    let too_long = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    stranger.say_bytes(&too_long).await;
    assert_eq!(stranger.closed().await, FORBIDDEN);
    commits(&cluster, &a, "v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_disturbs_nobody() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let mut strangers = Vec::new();
    for _ in 0..8 {
        let mut stranger = Stranger::enter(&cluster, 1, shop(), peer()).await;
        let mut bytes = (FRAME_BYTES_MAX as u32).to_le_bytes().to_vec();
        bytes.resize(1024 * 1024, 0);
        stranger.say_bytes(&bytes).await;
        strangers.push(stranger);
    }
    commits(&cluster, &a, "v").await;
    for stranger in &strangers {
        assert!(stranger.connection.close_reason().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_greet_is_not_waited_for() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let papers = Papers::right(&cluster, shop());
    let mut silent = Vec::new();
    for _ in 0..16 {
        let dialed = Stranger::dial(address(&cluster, 1), 1, &papers).await;
        silent.push(dialed.unwrap());
    }
    commits(&cluster, &a, "v").await;
    // In the end they are sent away.
    for stranger in &mut silent {
        stranger.next().await.unwrap_err();
    }
}

/// Questions about so many transactions that nobody began.
fn questions(count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sequence in 0..count {
        let txn = TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(7),
            sequence,
            nonce: 9,
        };
        wire::encode(&Frame::Message(Message::Inquire { txn }), &mut bytes).unwrap();
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_does_not_listen_is_cut_off() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let before = Counters::of("paxos_commit_refusals_total", "overflow");
    let mut papers = Papers::right(&cluster, operator());
    papers.window = 2048;
    let mut deaf = Stranger::enter_with(&cluster, 1, &papers, Peer::Operator(1)).await;
    let bytes = questions(1024);
    // More answers than may wait for one connection.
    for _ in 0..80 {
        deaf.say_bytes(&bytes).await;
    }
    assert_eq!(deaf.closed().await, OVERFLOW);
    let after = Counters::of("paxos_commit_refusals_total", "overflow");
    assert!(after > before);
    commits(&cluster, &a, "v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_much_and_listens_is_answered() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let mut eager = Stranger::enter(&cluster, 1, operator(), Peer::Operator(1)).await;
    let count = 5_000;
    eager.say_bytes(&questions(count)).await;
    let mut next = 0;
    while next < count {
        match eager.next().await {
            Ok(Frame::Message(Message::Status { txn, instances })) => {
                assert_eq!((txn.sequence, instances), (next, Vec::new()));
                next += 1;
            }
            Ok(Frame::Message(Message::Announce(_))) => {}
            other => panic!("expected the answer to question {next}, got {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_of_one_peer_takes_the_place_of_the_first() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let me = peer();
    let first = Stranger::enter(&cluster, 1, shop(), me.clone()).await;
    let mut second = Stranger::enter(&cluster, 1, shop(), me).await;
    // 1: replaced by a newer connection.
    assert_eq!(first.closed().await, 1);
    let participant = "nobody".parse().unwrap();
    second.say_message(Message::Resolve { participant }).await;
    loop {
        match second.next().await {
            Ok(Frame::Message(Message::Resolved { branches, .. })) => {
                assert_eq!(branches, []);
                break;
            }
            Ok(Frame::Message(Message::Announce(_))) => {}
            other => panic!("expected an answer, got {other:?}"),
        }
    }
    tokio::time::timeout(Duration::from_millis(100), second.closed())
        .await
        .unwrap_err();
}
