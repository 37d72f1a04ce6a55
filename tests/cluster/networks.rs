//! Clusters on IPv4, on IPv6 and on both; names with several addresses; names that are unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::operator::Operator;
use paxos_commit::participant::Participant;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Configuration, Member};
use paxos_commit::replica::{Replica, init};
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::transport::{Access, Authority, ConnectError, Resolver, Role};
use tempfile::TempDir;

use crate::support::{PATIENCE, eventually, within};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// What a resolver knows. A name without any address is one whose lookup does not end.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>);

impl Names {
    fn set(&self, name: &str, addresses: &[SocketAddr]) {
        let mut names = self.0.lock().unwrap();
        names.insert(name.to_owned(), addresses.to_vec());
    }

    fn resolver(&self) -> Resolver {
        let names = self.clone();
        Resolver::new(move |name: String| {
            let found = names.0.lock().unwrap().get(&name).cloned();
            async move {
                match found {
                    Some(none) if none.is_empty() => std::future::pending().await,
                    Some(found) => Ok(found),
                    None => Err(io::Error::other("unknown name")),
                }
            }
        })
    }
}

/// A cluster of three, made by hand.
struct Net {
    authority: Authority,
    /// As the cluster announces them.
    members: Vec<Member>,
    /// Where each listens.
    places: Vec<SocketAddr>,
    replicas: Vec<Replica>,
    folder: TempDir,
}

/// Ports that were free a moment ago.
fn places(ips: [IpAddr; 3]) -> Vec<SocketAddr> {
    let sockets = ips.map(|ip| UdpSocket::bind((ip, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap()).to_vec()
}

impl Net {
    /// Starts replicas at these places, announced by these addresses.
    async fn start(places: Vec<SocketAddr>, addresses: [&str; 3], names: &Names) -> Net {
        let authority = Authority::new("net".parse().unwrap()).unwrap();
        let members = (1..).zip(addresses).map(|(id, address)| Member {
            id: ReplicaId(id),
            address: address.parse().unwrap(),
        });
        let mut net = Net {
            authority,
            members: members.collect(),
            places,
            replicas: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        let genesis = Configuration::new(net.members.iter().cloned()).unwrap();
        let mut starting = Vec::new();
        for (member, place) in net.members.iter().zip(&net.places) {
            let data = net.folder.path().join(format!("replica-{}", member.id));
            let cluster = net.authority.cluster();
            init(&data, cluster, member.id, Some(genesis.clone())).unwrap();
            let access = net.access(Role::Replica(member.id), names.resolver());
            let replica = Replica::builder(data, *place, access);
            starting.push(tokio::spawn(replica.start()));
        }
        for start in starting {
            let started = within("a replica starts", start).await;
            net.replicas.push(started.unwrap().unwrap());
        }
        net
    }

    /// Starts replicas that are announced by where they are.
    async fn on(ips: [IpAddr; 3]) -> Net {
        let places = places(ips);
        let texts: Vec<String> = places.iter().map(SocketAddr::to_string).collect();
        let addresses = [0, 1, 2].map(|index| texts[index].as_str());
        Net::start(places, addresses, &Names::default()).await
    }

    fn access(&self, role: Role, resolver: Resolver) -> Access {
        Access {
            credentials: self.authority.credentials(role).unwrap(),
            replicas: self.members.clone(),
            resolver,
        }
    }

    fn ledger(&self, resolver: Resolver) -> Access {
        self.access(Role::Participant("ledger".parse().unwrap()), resolver)
    }

    /// Access for a client that was told where the first replica is, and knows no names.
    fn outside(&self, role: Role) -> Access {
        let first = Member {
            id: ReplicaId(1),
            address: self.places[0].to_string().parse().unwrap(),
        };
        Access {
            replicas: vec![first],
            ..self.access(role, Names::default().resolver())
        }
    }

    async fn operator(&self, resolver: Resolver) -> Operator {
        let access = self.access(Role::Operator("anna".parse().unwrap()), resolver);
        Operator::connect(access, PATIENCE).await.unwrap()
    }

    /// A transaction is committed by clients with this resolver.
    async fn commits(&self, resolver: Resolver) {
        let store = Embedded::open(self.folder.path().join("ledger"), Options::new()).unwrap();
        let ledger = Participant::builder(self.ledger(resolver.clone()));
        let ledger = ledger.connect_timeout(PATIENCE).connect(store.clone());
        let ledger = within("the ledger connects", ledger).await.unwrap();
        let access = self.access(Role::Initiator("shop".parse().unwrap()), resolver);
        let shop = Initiator::builder(access).connect_timeout(PATIENCE);
        let shop = within("the shop connects", shop.connect()).await.unwrap();
        let mut txn = shop.begin().await.unwrap();
        txn.vote_timeout(PATIENCE);
        let branch = ledger.branch(txn.id()).await.unwrap();
        store.work(&branch).put("k", "v").unwrap();
        txn.enlist(branch.ticket()).unwrap();
        let outcome = within("the outcome", txn.commit()).await;
        assert_eq!(outcome, Ok(Outcome::Committed));
    }

    /// Waits until each replica is connected to both others.
    async fn is_whole(&self, resolver: Resolver) {
        let mut operator = self.operator(resolver).await;
        eventually("each replica is connected to both others", async || {
            let status = operator.status().await;
            let connected = |id: &u32| match status.get(&ReplicaId(*id)) {
                Some(Ok(report)) => report.connected.len() == 2,
                Some(Err(_)) | None => false,
            };
            [1, 2, 3].iter().all(connected)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_one_family_and_of_both_commit() {
    for ips in [[V4; 3], [V6; 3], [V4, V6, V6], [V6, V4, V4]] {
        let net = Net::on(ips).await;
        net.is_whole(Resolver::default()).await;
        net.commits(Resolver::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_listen_on_all_addresses_are_reached_over_both_families() {
    let all = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let places = places([all; 3]);
    let names = Names::default();
    for (index, place) in places.iter().enumerate() {
        let ip = if index == 1 { V6 } else { V4 };
        let name = format!("{index}.test:7401");
        names.set(&name, &[SocketAddr::new(ip, place.port())]);
    }
    let addresses = ["0.test:7401", "1.test:7401", "2.test:7401"];
    let net = Net::start(places, addresses, &names).await;
    net.is_whole(names.resolver()).await;
    net.commits(names.resolver()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_name_is_tried() {
    let places = places([V4, V6, V4]);
    // Nothing ever comes back from there.
    let dead = [V4, V6].map(|ip| UdpSocket::bind((ip, 0)).unwrap());
    let dead = dead.each_ref().map(|socket| socket.local_addr().unwrap());
    let names = Names::default();
    names.set("one.test:7401", &[dead[0], dead[1], places[0]]);
    names.set("two.test:7401", &[dead[0], places[1]]);
    // Another replica answers first: its certificate tells.
    names.set("three.test:7401", &[places[0], places[2]]);
    let addresses = ["one.test:7401", "two.test:7401", "three.test:7401"];
    let net = Net::start(places, addresses, &names).await;
    net.is_whole(names.resolver()).await;
    net.commits(names.resolver()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_again_and_a_lookup_that_does_not_end_holds_up_nothing_else() {
    let places = places([V4; 3]);
    let replicas = Names::default();
    let addresses = ["one.test:7401", "two.test:7401", "three.test:7401"];
    for (name, place) in addresses.iter().zip(&places) {
        replicas.set(name, &[*place]);
    }
    let net = Net::start(places.clone(), addresses, &replicas).await;
    let ours = Names::default();
    ours.set(addresses[0], &[places[0]]);
    ours.set(addresses[1], &[places[1]]);
    ours.set(addresses[2], &[]);
    net.commits(ours.resolver()).await;

    // Known later.
    let ours = Names::default();
    ours.set(addresses[0], &[places[0]]);
    let mut operator = net.operator(ours.resolver()).await;
    for (name, place) in addresses.iter().zip(&places) {
        ours.set(name, &[*place]);
    }
    eventually("the operator reaches every replica", async || {
        operator.status().await.values().all(Result::is_ok)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_known_by_its_certificate_and_not_by_the_spelling_of_its_address() {
    let net = Net::on([V4; 3]).await;
    let names = Names::default();
    let spelled = |index: usize| format!("replica-{index}.test:7401");
    for (index, place) in net.places.iter().enumerate() {
        names.set(&spelled(index), &[*place]);
    }
    for round in 0..20 {
        let mut access = net.access(Role::Operator("anna".parse().unwrap()), names.resolver());
        for (index, member) in access.replicas.iter_mut().enumerate() {
            member.address = spelled(index).parse().unwrap();
        }
        let mut operator = Operator::connect(access, PATIENCE).await.unwrap();
        for (id, said) in operator.status().await {
            assert!(said.is_ok(), "round {round}: replica {id}: {said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_resolve_announced_addresses_says_so() {
    let places = places([V4; 3]);
    let names = Names::default();
    let addresses = ["one.test:7401", "two.test:7401", "three.test:7401"];
    for (name, place) in addresses.iter().zip(&places) {
        names.set(name, &[*place]);
    }
    let mut net = Net::start(places, addresses, &names).await;
    let anna = net.outside(Role::Operator("anna".parse().unwrap()));
    let mut operator = Operator::connect(anna, PATIENCE).await.unwrap();
    let status = operator.status().await;
    let unknown = BTreeSet::from([2, 3].map(ReplicaId));
    assert_eq!(operator.unresolved(), unknown);
    for (id, said) in status {
        match said {
            Ok(_) => assert_eq!(id, ReplicaId(1)),
            Err(problem) => assert!(problem.contains("cannot resolve"), "{id}: {problem}"),
        }
    }
    // Without them it is not entered; and it cannot even ask whether they are there.
    for replica in net.replicas.drain(1..) {
        replica.kill().await;
    }
    let ledger = Participant::builder(net.outside(Role::Participant("ledger".parse().unwrap())));
    let store = Embedded::open(net.folder.path().join("ledger"), Options::new()).unwrap();
    let ledger = ledger
        .connect_timeout(Duration::from_secs(10))
        .connect(store);
    let error = within("it gives up", ledger).await.err().unwrap();
    assert!(
        matches!(error, ConnectError::TooFewReached { .. }),
        "{error}"
    );
    let text = error.to_string();
    let says = "replica 2: cannot resolve \"two.test:7401\"";
    assert!(text.contains(says), "{text}");
}
