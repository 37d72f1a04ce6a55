//! A whole cluster in this process: real QUIC, real stores, temporary.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::operator::{Operator, OperatorError};
use crate::protocol::paxos::{AcceptorsError, ReplicaId};
use crate::protocol::types::{Configuration, Member};
use crate::replica::{Replica, ReplicaError, Tuning, init};
use crate::store::InitError;
use crate::transport::{Access, Authority, AuthorityError, ConnectError, Resolver, Role};

use super::address;
use super::relay::{Relay, Weather, isolate};

/// How long to wait for the first replica.
const CONNECT_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// A cluster in this process, for tests of services.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use paxos_commit::cluster::LocalCluster;
/// use paxos_commit::initiator::Initiator;
///
/// let mut cluster = LocalCluster::start(3).await?;
/// let initiator = Initiator::builder(cluster.initiator("shop")?).connect().await?;
/// let txn = initiator.begin().await?;
/// cluster.kill(1).await;          // without warning
/// cluster.restart(1).await?;
/// cluster.partition(2);           // it hears nobody and nobody hears it
/// cluster.heal(2);
/// # drop(txn);
/// # Ok(())
/// # }
/// ```
///
/// Every datagram goes through a [`Relay`], so that the network can be made bad.
///
/// What this does not test: a replica that is stopped here was in the middle of nothing that the
/// operating system does. What it had written is on disk, whether it was forced there or not; its
/// memory is freed in order; its saves under way are finished. A process that is killed, and a
/// machine that loses its power, are more than that.
pub struct LocalCluster {
    folder: tempfile::TempDir,
    authority: Authority,
    tuning: Tuning,
    nodes: BTreeMap<ReplicaId, Node>,
    partitioned: BTreeSet<ReplicaId>,
}

struct Node {
    data: PathBuf,
    relay: Relay,
    /// Where it listens, while it runs.
    listening: Option<SocketAddr>,
    replica: Option<Replica>,
}

/// What can go wrong with a cluster in this process.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file or a socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// So many replicas make no cluster.
    #[error(transparent)]
    Members(#[from] AcceptorsError),
    /// A data directory.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A replica.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The operator's connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A change of the membership.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// A name that is none.
    #[error("{0}")]
    Name(String),
    /// There is no such replica, or it runs already.
    #[error("replica {0} is not there, or runs already")]
    NoSuchReplica(ReplicaId),
}

impl LocalCluster {
    /// Starts a cluster of so many replicas, with ids from 1.
    ///
    /// # Errors
    /// When the number is not 2F+1, or something of this machine fails.
    pub async fn start(replicas: u32) -> Result<Self, ClusterError> {
        Self::start_with(replicas, Tuning::default()).await
    }

    /// Starts a cluster whose replicas are tuned.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(replicas: u32, tuning: Tuning) -> Result<Self, ClusterError> {
        let cluster = "local".parse().expect("a name");
        let mut local = LocalCluster {
            folder: tempfile::tempdir()?,
            authority: Authority::new(cluster)?,
            tuning,
            nodes: BTreeMap::new(),
            partitioned: BTreeSet::new(),
        };
        let ids: Vec<ReplicaId> = (1..=replicas).map(ReplicaId).collect();
        for id in &ids {
            local.make_node(*id).await?;
        }
        let genesis = Configuration::new(local.members())?;
        for id in &ids {
            let node = &local.nodes[id];
            init(
                &node.data,
                local.authority.cluster(),
                *id,
                Some(genesis.clone()),
            )?;
        }
        // None serves before it has heard of others: all at once.
        local.start_all().await?;
        Ok(local)
    }

    /// What a participant of this name needs to connect.
    ///
    /// # Errors
    /// When it is no name.
    pub fn participant(&self, name: &str) -> Result<Access, ClusterError> {
        self.access(Role::Participant(self.name(name)?))
    }

    /// What an initiator of this name needs to connect.
    ///
    /// # Errors
    /// When it is no name.
    pub fn initiator(&self, name: &str) -> Result<Access, ClusterError> {
        self.access(Role::Initiator(self.name(name)?))
    }

    /// A connected operator.
    ///
    /// # Errors
    /// When no replica answers.
    pub async fn operator(&self) -> Result<Operator, ClusterError> {
        let access = self.access(Role::Operator(self.name("operator")?))?;
        Ok(Operator::connect(access, CONNECT_MAX).await?)
    }

    /// The authority of this cluster.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Credentials for any part, with all replicas that run or could.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn access(&self, role: Role) -> Result<Access, ClusterError> {
        Ok(Access {
            credentials: self.authority.credentials(role)?,
            replicas: self.members(),
            resolver: Resolver::default(),
        })
    }

    /// The replicas that were made, each with the address at which it can be reached.
    pub fn members(&self) -> Vec<Member> {
        let members = self.nodes.iter().map(|(id, node)| Member {
            id: *id,
            address: address(node.relay.address()),
        });
        members.collect()
    }

    /// The data directory of a replica.
    pub fn data(&self, id: u32) -> Option<&Path> {
        Some(&self.nodes.get(&ReplicaId(id))?.data)
    }

    /// A replica that runs.
    pub fn replica(&self, id: u32) -> Option<&Replica> {
        self.nodes.get(&ReplicaId(id))?.replica.as_ref()
    }

    /// Stops a replica without warning.
    pub async fn kill(&mut self, id: u32) {
        let node = self.nodes.get_mut(&ReplicaId(id));
        if let Some(replica) = node.and_then(|node| node.replica.take()) {
            replica.kill().await;
        }
    }

    /// Stops a replica in order.
    pub async fn stop(&mut self, id: u32) {
        let node = self.nodes.get_mut(&ReplicaId(id));
        if let Some(replica) = node.and_then(|node| node.replica.take()) {
            replica.shutdown().await;
        }
    }

    /// Starts a replica that was stopped, with what it has saved.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart(&mut self, id: u32) -> Result<(), ClusterError> {
        let id = ReplicaId(id);
        let stopped = self
            .nodes
            .get(&id)
            .is_some_and(|node| node.replica.is_none());
        if !stopped {
            return Err(ClusterError::NoSuchReplica(id));
        }
        let replica = self.run(id).await?;
        self.started(replica);
        Ok(())
    }

    /// Starts every replica that does not run.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start_all(&mut self) -> Result<(), ClusterError> {
        let stopped = self.nodes.iter().filter(|(_, node)| node.replica.is_none());
        let stopped: Vec<ReplicaId> = stopped.map(|(id, _)| *id).collect();
        let starting: Vec<_> = stopped.into_iter().map(|id| self.run(id)).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for start in starting {
            tasks.spawn(start);
        }
        while let Some(started) = tasks.join_next().await {
            let replica = started.expect("a start does not panic")?;
            self.started(replica);
        }
        Ok(())
    }

    /// The replica hears nobody, and nobody hears it.
    pub fn partition(&mut self, id: u32) {
        self.partitioned.insert(ReplicaId(id));
        self.cut();
    }

    /// The replica hears and is heard again.
    pub fn heal(&mut self, id: u32) {
        self.partitioned.remove(&ReplicaId(id));
        self.cut();
    }

    /// The weather between everyone and this replica, from now on.
    pub fn weather(&self, id: u32, weather: Weather) {
        if let Some(node) = self.nodes.get(&ReplicaId(id)) {
            node.relay.set_weather(weather);
        }
    }

    /// Makes and starts a replica that is none of the cluster's yet: name it in a
    /// [reconfiguration](Operator::reconfigure). Returns it as a member.
    ///
    /// # Errors
    /// When its id was used, or it does not start.
    pub async fn join(&mut self, id: u32) -> Result<Member, ClusterError> {
        let id = ReplicaId(id);
        if self.nodes.contains_key(&id) {
            return Err(ClusterError::NoSuchReplica(id));
        }
        self.make_node(id).await?;
        let node = &self.nodes[&id];
        init(&node.data, self.authority.cluster(), id, None)?;
        let member = Member {
            id,
            address: address(node.relay.address()),
        };
        let replica = self.run(id).await?;
        self.started(replica);
        Ok(member)
    }

    async fn make_node(&mut self, id: ReplicaId) -> Result<(), ClusterError> {
        // Nobody is there yet.
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let node = Node {
            data: self.folder.path().join(format!("replica-{id}")),
            relay: Relay::start(nowhere).await?,
            listening: None,
            replica: None,
        };
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Starts one; it serves when enough others do.
    fn run(
        &self,
        id: ReplicaId,
    ) -> impl Future<Output = Result<Replica, ClusterError>> + Send + 'static {
        let node = &self.nodes[&id];
        let access = self.access(Role::Replica(id));
        let (data, tuning, relay) = (node.data.clone(), self.tuning.clone(), node.relay.remote());
        async move {
            let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let builder = Replica::builder(data, anywhere, access?).tuning(tuning);
            let listening = move |address| relay.set_target(address);
            Ok(builder.start_listening(listening).await?)
        }
    }

    fn started(&mut self, replica: Replica) {
        if let Some(node) = self.nodes.get_mut(&replica.id()) {
            node.listening = Some(replica.address());
            node.replica = Some(replica);
        }
        self.cut();
    }

    /// Cuts whoever is partitioned off: at its own relay, and at the others' what comes from it.
    fn cut(&self) {
        let cut = self.partitioned.iter();
        let cut = cut.filter_map(|id| self.nodes.get(id)?.listening);
        let senders = cut.collect();
        let relays = self.nodes.iter().map(|(id, node)| (id, &node.relay));
        isolate(relays, &self.partitioned, &senders);
    }

    fn name(&self, name: &str) -> Result<crate::transport::Name, ClusterError> {
        name.parse()
            .map_err(|error| ClusterError::Name(format!("{error}")))
    }
}
