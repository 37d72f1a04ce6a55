//! A whole cluster in this process: real replicas, services and an initiator over real QUIC and a
//! real disk, without relays between them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use paxos_commit::initiator::{Initiator, Outcome, Transaction};
use paxos_commit::participant::{Branch, Participant};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Configuration, Member};
use paxos_commit::replica::{Replica, init};
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::transport::{Access, Authority, Name, Resolver, Role};

/// Replicas, services, and an initiator.
pub(crate) struct Cluster {
    _replicas: Vec<Replica>,
    services: Vec<(Embedded, Participant)>,
    initiator: Initiator,
}

impl Cluster {
    /// Starts so many replicas, and so many services with embedded stores, below `folder`.
    pub(crate) async fn start(folder: &Path, replicas: u32, services: usize) -> Cluster {
        let name: Name = "bench".parse().expect("a name");
        let authority = Authority::new(name.clone()).expect("an authority");
        let sockets: Vec<UdpSocket> = (0..replicas)
            .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"))
            .collect();
        let places: Vec<SocketAddr> = sockets
            .iter()
            .map(|socket| socket.local_addr().expect("an address"))
            .collect();
        drop(sockets);
        let members = (1..).zip(&places).map(|(id, place)| Member {
            id: ReplicaId(id),
            address: place.to_string().parse().expect("an address"),
        });
        let members: Vec<Member> = members.collect();
        let access = |role| Access {
            credentials: authority.credentials(role).expect("credentials"),
            replicas: members.clone(),
            resolver: Resolver::default(),
        };
        let genesis = Configuration::new(members.iter().cloned()).expect("an odd number");
        let mut starting = Vec::new();
        for (member, place) in members.iter().zip(places) {
            let data = folder.join(format!("replica-{}", member.id));
            init(&data, &name, member.id, Some(genesis.clone())).expect("a new folder");
            let builder = Replica::builder(data, place, access(Role::Replica(member.id)));
            starting.push(tokio::spawn(builder.start()));
        }
        let mut replicas = Vec::new();
        for start in starting {
            replicas.push(start.await.expect("no panic").expect("a replica"));
        }
        let mut connected = Vec::new();
        for index in 0..services {
            let name = format!("service-{index}");
            let store = Embedded::open(folder.join(&name), Options::new()).expect("a store");
            let access = access(Role::Participant(name.parse().expect("a name")));
            let participant = Participant::builder(access).connect(store.clone());
            connected.push((store, participant.await.expect("a participant")));
        }
        let access = access(Role::Initiator("bench".parse().expect("a name")));
        let initiator = Initiator::builder(access).connect().await;
        Cluster {
            _replicas: replicas,
            services: connected,
            initiator: initiator.expect("an initiator"),
        }
    }

    /// A transaction under which every service has written a row of this number, and their branches.
    /// (Each has a row of its own: that of the one before can be read a moment before its lock goes.)
    pub(crate) async fn work(&self, number: u32) -> (Transaction, Vec<Branch>) {
        let mut txn = self.initiator.begin().await.expect("begun");
        let mut branches = Vec::new();
        for (store, participant) in &self.services {
            let branch = participant.branch(txn.id()).await.expect("a branch");
            let put = store.work(&branch).put(number.to_be_bytes(), "written");
            put.expect("nobody else writes it");
            txn.enlist(branch.ticket()).expect("enlisted");
            branches.push(branch);
        }
        (txn, branches)
    }

    /// One transaction over all services: how long from asking for commit to the outcome.
    pub(crate) async fn commit(&self, number: u32) -> Duration {
        let (txn, _branches) = self.work(number).await;
        let start = Instant::now();
        let outcome = txn.commit().await;
        let took = start.elapsed();
        assert_eq!(outcome, Ok(Outcome::Committed));
        took
    }

    /// Until every service has applied the transaction of this number: then all is quiet but for the
    /// replicas' last saves.
    pub(crate) async fn wait_until_applied(&self, number: u32) {
        for (store, _) in &self.services {
            let row = number.to_be_bytes();
            while store.read(row).expect("readable").is_none() {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
    }
}
