//! Those who are not let in, and those who come in crowds.

use std::net::UdpSocket;
use std::sync::Arc;

use paxos_commit::protocol::types::{Branch, Peer, StoreId};
use paxos_commit::transport::{Authority, Issued, draw_initiator, draw_session};
use paxos_commit::wire::{FRAME_BYTES_MAX, Frame, Refusal};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::harness::Knobs;

use super::attacker::{Attacker, Entered, identity};
use super::siege::{Siege, WINDOW};
use super::{USUAL, scaled};

/// How many dial at a time.
const AT_A_TIME: usize = 64;

/// Makes the bytes of one offence.
type Make = fn(&mut fastrand::Rng) -> Vec<u8>;

fn shop() -> Peer {
    Peer::Initiator(draw_initiator(&"shop".parse().unwrap()))
}

/// Signed by the arena's authority, though no program of this crate would: for this identity, and
/// valid until that year.
fn signed(siege: &Siege, uri: &str, until: i32) -> Issued {
    let named = |name: &str| {
        let mut distinguished = DistinguishedName::new();
        distinguished.push(DnType::CommonName, name);
        distinguished
    };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name = named("arena");
    let key = KeyPair::from_pem(&siege.authority_key()).unwrap();
    let issuer = Issuer::new(authority, key);
    let mut params = CertificateParams::default();
    params.distinguished_name = named("shop");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    Issued {
        certificate: params.signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// So many say hello as `peer` says; how many were let in.
async fn greet(attacker: &Attacker, count: usize, peer: fn() -> Peer) -> Vec<Entered> {
    let mut entered = Vec::new();
    let attacker = Arc::new(attacker.clone());
    for first in (0..count).step_by(AT_A_TIME) {
        let numbers = first..count.min(first + AT_A_TIME);
        let greetings = numbers.map(|number| {
            let attacker = attacker.clone();
            tokio::spawn(async move { attacker.greet(number, &peer()).await })
        });
        let greetings: Vec<_> = greetings.collect();
        for greeting in greetings {
            if let Ok((Frame::Welcome(_), one)) = greeting.await.unwrap() {
                entered.push(one);
            }
        }
    }
    entered
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_right_certificate_stays_outside() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "").await;
    let count = scaled(&knobs, 100);
    let other = Authority::new("arena".parse().unwrap()).unwrap();
    let uri = "paxos-commit://arena/initiator/shop";
    let expired = signed(&siege, uri, 2021);
    let elsewhere = signed(&siege, "paxos-commit://elsewhere/initiator/shop", 2100);
    let papers = [
        ("no certificate", None, "handshake"),
        (
            "a certificate of another authority",
            Some(other.issue(identity("initiator/shop").role).unwrap()),
            "handshake",
        ),
        ("an expired certificate", Some(expired), "handshake"),
        (
            "a certificate of another cluster",
            Some(elsewhere),
            "identity",
        ),
        (
            "a certificate for another part",
            Some(siege.issue("participant/shop")),
            "identity",
        ),
        (
            "a certificate of another name",
            Some(siege.issue("initiator/bank")),
            "identity",
        ),
    ];
    for (what, shown, kind) in papers {
        let cost = siege.withstand(what, async |siege| {
            let attacker = siege.attacker_with(shown.as_ref(), WINDOW);
            let entered = greet(&attacker, count, shop).await;
            assert_eq!(entered.len(), 0, "{what}: somebody was let in");
            count
        });
        // What is lost of a handshake may never be heard of.
        cost.await
            .counted(&[kind, "silent", "crowded"], count as u64 / 2);
    }
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_of_one_name_take_its_own_seats() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "").await;
    // With FAULT_SECONDS=60 ten thousand.
    let count = scaled(&knobs, 1_000).max(600);
    let cost = siege.withstand("thousands of connections", async |siege| {
        let attacker = siege.attacker("initiator/shop");
        let mut entered = greet(&attacker, count, shop).await;
        assert!(entered.len() <= 512, "{} were let in", entered.len());
        println!("{} of {count} were let in", entered.len());
        // They stay, and another name is let in all the same.
        let other = siege.attacker("participant/shop");
        let session = Peer::Session(Branch {
            participant: "shop".parse().unwrap(),
            session: draw_session(),
            store: StoreId::from_u128(1),
        });
        other.enter(0, &session).await;
        let again = attacker.greet(0, &shop()).await;
        if entered.len() == 512 {
            let (answer, _) = again.unwrap();
            assert_eq!(answer, Frame::Refused(Refusal::TooManyOfAName { max: 512 }));
        }
        // Each begins a frame of the greatest length, and does not end it.
        for one in &mut entered {
            let length = (FRAME_BYTES_MAX as u32).to_le_bytes();
            let begun = [&length[..], &[0; 60 * 1024]].concat();
            one.say_bytes(&begun).await;
        }
        siege.arena.wait_for_commits(100).await;
        count
    });
    let cost = cost.await;
    // What is lost of a handshake may never be heard of.
    let outside = (count - 512) as u64;
    cost.counted(&["too_many_of_a_name", "crowded"], outside * 9 / 10);
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_ends_its_own_connection() {
    let knobs = Knobs::new(USUAL);
    let mut rng = knobs.rng();
    let mut siege = Siege::start(&knobs, "").await;
    let count = scaled(&knobs, 100);
    let kinds: [(&str, Make); 3] = [
        ("frames that are too long", |rng| {
            let length = rng.u32(FRAME_BYTES_MAX as u32 + 1..);
            length.to_le_bytes().to_vec()
        }),
        ("frames of random bytes", |rng| {
            let length = rng.u32(1..2_000);
            let mut bytes = length.to_le_bytes().to_vec();
            // No variant has so high a number.
            bytes.push(rng.u8(8..));
            bytes.extend((1..length).map(|_| rng.u8(..)));
            bytes
        }),
        ("frames that end too early", |rng| {
            // A vote, as the number says, of which most is missing.
            let length = rng.u32(2..40);
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend([3, 8]);
            bytes.resize(4 + length as usize, 0xff);
            bytes
        }),
    ];
    for (what, make) in kinds {
        let cost = siege.withstand(what, async |siege| {
            let attacker = siege.attacker("initiator/shop");
            for number in 0..count {
                let mut entered = attacker.enter(number, &shop()).await;
                entered.say_bytes(&make(&mut rng)).await;
                entered.closed().await;
            }
            count
        });
        cost.await.counted(&["forbidden"], count as u64);
    }
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_datagrams_are_dropped() {
    let knobs = Knobs::new(USUAL);
    let mut rng = knobs.rng();
    let mut siege = Siege::start(&knobs, "").await;
    let count = scaled(&knobs, 50_000);
    let cost = siege.withstand("random datagrams", async |siege| {
        let (_, target) = siege.target(paxos_commit::protocol::paxos::ReplicaId(1));
        let sockets = [0; 4].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut bytes = [0; 1_400];
        for number in 0..count {
            rng.fill(&mut bytes);
            let length = rng.usize(..bytes.len());
            if number % 2 == 0 {
                // The head of an Initial packet of QUIC's version 1: decrypted, and then dropped.
                bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            }
            let _ = sockets[number % 4].send_to(&bytes[..length], target);
            if number % 256 == 0 {
                tokio::task::yield_now().await;
            }
        }
        count
    });
    cost.await;
    siege.finish().await;
}
