//! Who is let in, and who may say what.

use std::time::Duration;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::operator::Operator;
use paxos_commit::participant::Participant;
use paxos_commit::protocol::message::{BeginCommit, CastVote, Decision, Message, Question, Voter};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Outcome as Chosen, Peer, Roster, StoreId, TxnId, Vote,
};
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::transport::{
    Access, Authority, ConnectError, Credentials, Issued, Resolver, Role, draw_initiator,
    draw_session,
};
use paxos_commit::wire::{Frame, Query, Refusal};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::counters::Counters;
use crate::stranger::{FORBIDDEN, Papers, Stranger, address, hello};
use crate::support::{Service, initiator, undecided};

const SOON: Duration = Duration::from_secs(2);

fn role(text: &str) -> Role {
    let identity = format!("paxos-commit://local/{text}");
    let identity: paxos_commit::transport::Identity = identity.parse().unwrap();
    identity.role
}

fn session(name: &str) -> Branch {
    Branch {
        participant: name.parse().unwrap(),
        session: draw_session(),
        store: StoreId::from_u128(1),
    }
}

fn shop() -> InitiatorId {
    draw_initiator(&"shop".parse().unwrap())
}

fn txn(initiator: InitiatorId) -> TxnId {
    TxnId {
        generation: 1,
        initiator,
        sequence: 1,
        nonce: 9,
    }
}

/// What `papers` come to when they say hello as `peer`.
async fn refusal(cluster: &LocalCluster, papers: &Papers, peer: Peer) -> Refusal {
    let dialed = Stranger::dial(address(cluster, 1), 1, papers).await;
    let mut stranger = dialed.unwrap();
    stranger.say(&Frame::Hello(hello(peer, 1))).await;
    match stranger.next().await {
        Ok(Frame::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_no_use() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let other = Authority::new("local".parse().unwrap()).unwrap();
    let access = Access {
        credentials: other.credentials(role("initiator/shop")).unwrap(),
        replicas: cluster.members(),
        resolver: Resolver::default(),
    };
    let error = Initiator::builder(access).connect_timeout(SOON).connect();
    let error = error.await.unwrap_err();
    assert!(matches!(error, ConnectError::NobodyAnswers { .. }));
    let text = error.to_string();
    assert!(
        text.contains("replica 1") && text.contains("certificate"),
        "{text}"
    );

    // One that takes the replicas for right all the same is not let in by them.
    let mut papers = Papers::right(&cluster, role("initiator/shop"));
    papers.issued = other.issue(role("initiator/shop")).unwrap();
    let outcome = match Stranger::dial(address(&cluster, 1), 1, &papers).await {
        Ok(mut stranger) => {
            let hello = hello(Peer::Initiator(shop()), 1);
            stranger.say(&Frame::Hello(hello)).await;
            stranger.next().await
        }
        Err(error) => Err(error.to_string()),
    };
    outcome.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_for_one_part_only() {
    let cluster = LocalCluster::start(3).await.unwrap();
    // The builders see it themselves,
    let participant = cluster.participant("a").unwrap();
    let error = Initiator::builder(participant.clone()).connect().await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("an initiator") && error.contains("participant/a"),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), Options::new()).unwrap();
    let shop_access = cluster.initiator("shop").unwrap();
    let error = Participant::builder(shop_access).connect(store).await;
    assert!(matches!(error, Err(ConnectError::WrongRole { .. })));
    let error = Operator::connect(participant, SOON).await;
    assert!(matches!(error, Err(ConnectError::WrongRole { .. })));

    // and replicas do, whatever the dialer's program is.
    let before = Counters::of("paxos_commit_refusals_total", "identity");
    for (certificate, peer) in [
        ("participant/a", Peer::Initiator(shop())),
        ("participant/a", Peer::Session(session("b"))),
        ("participant/a", Peer::Replica(ReplicaId(2))),
        ("participant/a", Peer::Operator(1)),
        ("initiator/bank", Peer::Initiator(shop())),
        ("initiator/shop", Peer::Session(session("shop"))),
        ("operator/anna", Peer::Replica(ReplicaId(2))),
        ("replica/2", Peer::Replica(ReplicaId(3))),
        ("replica/2", Peer::Operator(1)),
    ] {
        let papers = Papers::right(&cluster, role(certificate));
        let claimed = peer.to_string();
        match refusal(&cluster, &papers, peer).await {
            Refusal::Identity {
                certificate: shown,
                claimed: said,
            } => {
                assert!(shown.ends_with(certificate), "{shown}");
                assert_eq!(said, claimed);
            }
            other => panic!("{certificate} as {claimed}: {other}"),
        }
    }
    assert!(Counters::of("paxos_commit_refusals_total", "identity") >= before + 9);
}

/// A certificate for another cluster's name, signed by this cluster's authority. No program of this
/// crate issues one; an authority that serves several clusters would.
fn of_another_cluster(cluster: &LocalCluster) -> Issued {
    let folder = tempfile::tempdir().unwrap();
    cluster.authority().save(folder.path()).unwrap();
    let key = std::fs::read_to_string(folder.path().join("ca.key")).unwrap();
    let named = |name: &str| {
        let mut distinguished = DistinguishedName::new();
        distinguished.push(DnType::CommonName, name);
        distinguished
    };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name = named("local");
    let issuer = Issuer::new(authority, KeyPair::from_pem(&key).unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name = named("another");
    let uri = "paxos-commit://another/initiator/shop";
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    Issued {
        certificate: params.signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_cluster_of_the_same_authority_is_refused() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let issued = of_another_cluster(&cluster);
    let authority = cluster.authority().certificate();
    // It is a right certificate as such.
    Credentials::from_pem(authority, &issued.certificate, &issued.key).unwrap();
    let mut papers = Papers::right(&cluster, role("initiator/shop"));
    papers.issued = issued;
    match refusal(&cluster, &papers, Peer::Initiator(shop())).await {
        Refusal::Identity { certificate, .. } => {
            assert_eq!(certificate, "paxos-commit://another/initiator/shop");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_at_its_own_address_only() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let mut access = cluster.initiator("shop").unwrap();
    // Two addresses are exchanged: the certificates there are of others.
    let one = access.replicas[0].address.clone();
    access.replicas[0].address = access.replicas[1].address.clone();
    access.replicas[1].address = one;
    cluster.kill(3).await;
    let error = Initiator::builder(access).connect_timeout(SOON).connect();
    let text = error.await.unwrap_err().to_string();
    assert!(text.contains("replica 1: no connection"), "{text}");
    assert!(text.contains("certificate"), "{text}");
}

/// What peers say that they may not, each to a fresh connection.
fn forbidden() -> Vec<(&'static str, Peer, Frame)> {
    let a = session("a");
    let (own, other) = (shop(), draw_initiator(&"bank".parse().unwrap()));
    // Of the same name, and yet another.
    let sibling = shop();
    let roster = |branch: &Branch| Roster::new([branch.clone()]).unwrap();
    let (of_a, of_b) = (roster(&a), roster(&session("b")));
    let of_a_sibling = roster(&session("a"));
    let id = |initiator, roster: &Roster| CommitId::new(txn(initiator), roster);
    let vote = |roster: &Roster| {
        Message::Vote(CastVote {
            id: id(own, roster),
            roster: roster.clone(),
            vote: Vote::Prepared,
            vote_timeout: SOON,
        })
    };
    let begin = |initiator| {
        Message::BeginCommit(BeginCommit {
            id: id(initiator, &of_a),
            roster: of_a.clone(),
            requests: Vec::new(),
            floor: 0,
            vote_timeout: SOON,
        })
    };
    let rollback = |initiator| Message::Rollback {
        txn: txn(initiator),
        branches: vec![a.clone()],
        floor: 0,
    };
    let ask = |initiator, branch: Option<&Branch>| {
        Message::Ask(Question {
            id: id(initiator, &of_a),
            branch: branch.cloned(),
            voter: Voter::Unknown,
            vote_timeout: SOON,
        })
    };
    let decided = Message::Decided(Decision {
        id: id(own, &of_a),
        outcome: Chosen::Commit,
        unapplied: None,
    });
    let phase_1a = Message::Phase1a {
        ballot: Ballot {
            round: 1,
            replica: ReplicaId(2),
        },
        ids: vec![id(own, &of_a)],
    };
    let applied = |branch: &Branch| Message::Applied {
        id: id(own, &of_a),
        branch: branch.clone(),
    };
    let force = Message::ForceAbort { id: id(own, &of_a) };
    let release = Message::Release { id: id(own, &of_a) };
    let a = &a;
    let messages = [
        ("participant/a", Peer::Session(a.clone()), vote(&of_b)),
        (
            "participant/a",
            Peer::Session(a.clone()),
            vote(&of_a_sibling),
        ),
        ("participant/a", Peer::Session(a.clone()), begin(own)),
        ("participant/a", Peer::Session(a.clone()), ask(own, None)),
        (
            "participant/a",
            Peer::Session(a.clone()),
            ask(own, Some(&session("b"))),
        ),
        (
            "participant/a",
            Peer::Session(a.clone()),
            applied(&session("b")),
        ),
        ("participant/a", Peer::Session(a.clone()), phase_1a.clone()),
        ("participant/a", Peer::Session(a.clone()), force),
        ("initiator/shop", Peer::Initiator(own), begin(other)),
        ("initiator/shop", Peer::Initiator(own), begin(sibling)),
        ("initiator/shop", Peer::Initiator(own), rollback(sibling)),
        ("initiator/shop", Peer::Initiator(own), ask(other, None)),
        ("initiator/shop", Peer::Initiator(own), vote(&of_a)),
        ("initiator/shop", Peer::Initiator(own), applied(a)),
        ("initiator/shop", Peer::Initiator(own), phase_1a.clone()),
        ("initiator/shop", Peer::Initiator(own), decided.clone()),
        (
            "initiator/shop",
            Peer::Initiator(own),
            Message::ForceAbort {
                id: id(other, &of_a),
            },
        ),
        ("initiator/shop", Peer::Initiator(own), release),
        ("operator/anna", Peer::Operator(1), begin(own)),
        ("operator/anna", Peer::Operator(1), vote(&of_a)),
        ("operator/anna", Peer::Operator(1), phase_1a),
        ("operator/anna", Peer::Operator(1), decided),
        ("replica/2", Peer::Replica(ReplicaId(2)), vote(&of_a)),
        ("replica/2", Peer::Replica(ReplicaId(2)), begin(own)),
    ];
    let messages = messages.into_iter();
    let mut said: Vec<_> = messages
        .map(|(papers, peer, message)| (papers, peer, Frame::Message(message)))
        .collect();
    let initiator = || ("initiator/shop", Peer::Initiator(own));
    for frame in [
        Frame::Query(Query::Status),
        Frame::Lsn(7),
        Frame::Refused(Refusal::NoHello),
        Frame::Hello(hello(Peer::Initiator(own), 1)),
    ] {
        let (papers, peer) = initiator();
        said.push((papers, peer, frame));
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_what_it_may_not_is_cut_off_and_nothing_happens() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let a = Service::start(&cluster, "a").await;
    let initiator = initiator(&cluster).await;
    for (papers, peer, frame) in forbidden() {
        let before = Counters::of("paxos_commit_refusals_total", "forbidden");
        let mut stranger = Stranger::enter(&cluster, 1, role(papers), peer).await;
        stranger.say(&frame).await;
        assert_eq!(stranger.closed().await, FORBIDDEN, "{papers}: {frame:?}");
        let after = Counters::of("paxos_commit_refusals_total", "forbidden");
        assert!(after > before, "{papers}: {frame:?} was not counted");
        assert_eq!(undecided(&cluster, 1).await, [], "{papers}: {frame:?}");
    }
    // The others go on.
    let mut txn = initiator.begin().await.unwrap();
    a.put(&mut txn, "k", "v").await;
    assert_eq!(txn.commit().await, Ok(Outcome::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_of_another_version_or_cluster_is_told_why() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let papers = Papers::right(&cluster, role("initiator/shop"));
    let right = hello(Peer::Initiator(shop()), 1);
    let mut version = right.clone();
    version.version += 1;
    let mut other = right.clone();
    other.cluster = "another".into();
    let mut to = right.clone();
    to.to = ReplicaId(2);
    let generations = initiator_generations(&cluster).await;
    let mut generation = right.clone();
    let (known, _) = generations;
    generation.generation = Some((known, other_digest()));
    for (hello, expected) in [
        (version, "speaks version 1 of the wire, the dialer 2"),
        (
            other,
            "the replica is of cluster \"local\", the dialer of \"another\"",
        ),
        (to, "replica 1 is at this address, not 2"),
        (generation, "two clusters of one name?"),
    ] {
        let dialed = Stranger::dial(address(&cluster, 1), 1, &papers).await;
        let mut stranger = dialed.unwrap();
        stranger.say(&Frame::Hello(hello)).await;
        match stranger.next().await {
            Ok(Frame::Refused(refusal)) => {
                let text = refusal.to_string();
                assert!(text.contains(expected), "{text}");
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

/// The latest generation, and the digest of its configuration.
async fn initiator_generations(
    cluster: &LocalCluster,
) -> (u32, paxos_commit::protocol::types::ConfigurationDigest) {
    let operator = cluster.operator().await.unwrap();
    let generations = operator.generations();
    let in_force = generations.in_force().unwrap();
    (generations.latest(), in_force.digest())
}

/// The digest of a configuration that is nobody's.
fn other_digest() -> paxos_commit::protocol::types::ConfigurationDigest {
    use paxos_commit::protocol::types::{Configuration, Member};
    let member = Member {
        id: ReplicaId(77),
        address: "elsewhere:1".parse().unwrap(),
    };
    Configuration::new([member]).unwrap().digest()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_not_negotiated() {
    let cluster = LocalCluster::start(3).await.unwrap();
    let mut papers = Papers::right(&cluster, role("initiator/shop"));
    papers.alpn = b"paxos-commit/2".to_vec();
    let dialed = Stranger::dial(address(&cluster, 1), 1, &papers).await;
    let text = dialed.err().expect("no common protocol").to_string();
    assert!(text.contains("protocol"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_replicas_is_let_in_before_a_replica_serves() {
    let mut cluster = LocalCluster::start(3).await.unwrap();
    let papers = Papers::right(&cluster, role("initiator/shop"));
    let address = address(&cluster, 1);
    for dies in 1..=3 {
        cluster.kill(dies).await;
    }
    let asking = async {
        // It listens as soon as it starts, and serves when another is up.
        loop {
            let Ok(mut stranger) = Stranger::dial(address, 1, &papers).await else {
                continue;
            };
            let hello = hello(Peer::Initiator(shop()), 1);
            stranger.say(&Frame::Hello(hello)).await;
            match stranger.next().await {
                Ok(Frame::Refused(Refusal::NotServing(why))) => return why,
                Ok(other) => panic!("expected a refusal, got {other:?}"),
                Err(_) => {}
            }
        }
    };
    let why = tokio::select! {
        started = cluster.restart(1) => panic!("it serves alone: {started:?}"),
        why = crate::support::within("a refusal", asking) => why,
    };
    assert_eq!(why, "it is starting");
}
