//! The processes of one run: replicas, participants, and the initiator in this one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use paxos_commit::cluster::{ClusterFiles, ProcessCluster, Weather};
use paxos_commit::config::load_access;
use paxos_commit::initiator::Initiator;
use paxos_commit::operator::Operator;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::transport::{Access, Name, Role};
use paxos_commit::wire::Report;
use tokio::time::{Instant, sleep, timeout};

use super::plan::{Fault, Spec};
use super::regions;
use super::service::{Service, Starting};

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a commit is waited for: longer than any fault.
const DEADLINE: Duration = Duration::from_secs(600);

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// What the identities of the benchmark are called.
const NAME: &str = "bench";

/// Where the replicas are.
pub(super) enum Replicas {
    /// Processes of this one.
    Own(ProcessCluster),
    /// Somebody else's.
    Given(ClusterFiles),
}

/// Everything that runs.
pub(super) struct Scene {
    pub(super) replicas: Replicas,
    pub(super) services: Vec<Service>,
    pub(super) initiator: Initiator,
    operator: Operator,
    /// Dropped last: it holds everything that the processes write.
    _folder: tempfile::TempDir,
}

/// Where and how scenes are set.
pub(super) struct Setting {
    /// This program.
    pub(super) program: PathBuf,
    /// Below which everything is written.
    pub(super) data: PathBuf,
    /// The folder of a cluster that runs already.
    pub(super) cluster: Option<PathBuf>,
}

impl Setting {
    /// Starts everything that a run needs, and waits until all of it is connected.
    pub(super) async fn start(&self, spec: &Spec) -> anyhow::Result<Scene> {
        let folder = tempfile::tempdir_in(&self.data)
            .with_context(|| format!("cannot write below {}", self.data.display()))?;
        let replicas = self.replicas(spec, folder.path()).await?;
        let mut starting = Starting::new().await?;
        for number in 1..=spec.participants {
            let name = format!("{NAME}-{number}");
            let (access, _) = replicas.identity(Role::Participant(name.parse()?))?;
            starting.start(&self.program, name, spec.kind, &access, folder.path())?;
        }
        let services = starting.finish().await?;
        let (_, access) = replicas.identity(Role::Initiator(NAME.parse()?))?;
        let initiator = Initiator::builder(access)
            .connect_timeout(PATIENCE)
            .deadline(DEADLINE)
            .connect()
            .await?;
        let (_, access) = replicas.identity(Role::Operator(NAME.parse()?))?;
        let operator = Operator::connect(access, PATIENCE).await?;
        let mut scene = Scene {
            replicas,
            services,
            initiator,
            operator,
            _folder: folder,
        };
        let waiting = timeout(PATIENCE, scene.wait_until_all_know_each_other()).await;
        waiting.context("not everybody came to be connected to every replica")??;
        if spec.fault == Fault::Wan {
            scene.move_apart()?;
        }
        Ok(scene)
    }

    async fn replicas(&self, spec: &Spec, folder: &Path) -> anyhow::Result<Replicas> {
        if let Some(folder) = &self.cluster {
            return Ok(Replicas::Given(ClusterFiles::open(folder)?));
        }
        let (program, folder) = (self.program.clone(), folder.join("cluster"));
        let name: Name = NAME.parse()?;
        let count = spec.replicas();
        let mut cluster = match spec.relayed {
            true => ProcessCluster::create_behind_relays(program, &folder, name, count).await?,
            false => ProcessCluster::create(program, &folder, name, count)?,
        };
        cluster.start_all()?;
        Ok(Replicas::Own(cluster))
    }
}

impl Replicas {
    /// The `access.toml` of an identity, and what that holds.
    fn identity(&self, role: Role) -> anyhow::Result<(PathBuf, Access)> {
        match self {
            Replicas::Own(cluster) => Ok(cluster.issue(role)?),
            Replicas::Given(files) => {
                let path = match files.issued(&role) {
                    Some(path) => path,
                    None => files.issue(role)?,
                };
                let access = load_access(&path)?;
                Ok((path, access))
            }
        }
    }

    pub(super) fn own(&mut self) -> anyhow::Result<&mut ProcessCluster> {
        match self {
            Replicas::Own(cluster) => Ok(cluster),
            Replicas::Given(_) => bail!("nothing is done to a cluster that is somebody else's"),
        }
    }

    fn ids(&self) -> Vec<ReplicaId> {
        match self {
            Replicas::Own(cluster) => cluster.replicas(),
            Replicas::Given(files) => files.members().iter().map(|of| of.id).collect(),
        }
    }

    /// The process of a replica, if it is one of this program's.
    pub(super) fn process_id(&self, id: ReplicaId) -> Option<u32> {
        match self {
            Replicas::Own(cluster) => cluster.process_id(id),
            Replicas::Given(_) => None,
        }
    }
}

impl Scene {
    /// What each replica that answers says of itself.
    pub(super) async fn reports(&mut self) -> Vec<Report> {
        self.operator
            .status()
            .await
            .into_values()
            .flatten()
            .collect()
    }

    /// Every replica is connected to every other and knows every participant.
    async fn wait_until_all_know_each_other(&mut self) -> anyhow::Result<()> {
        let count = self.replicas.ids().len();
        loop {
            if let Replicas::Own(cluster) = &mut self.replicas
                && let Some((id, words)) = cluster.fallen().first()
            {
                bail!("replica {id} has fallen: {words}");
            }
            let reports = self.reports().await;
            let knows_all = |report: &Report| {
                let of = report.participants.iter();
                let known = of.filter(|(name, _)| name.as_str().starts_with(NAME));
                report.connected.len() + 1 == count && known.count() >= self.services.len()
            };
            if reports.len() == count && reports.iter().all(knows_all) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A replica that was started again serves, and the others are connected to it.
    pub(super) async fn wait_until_back(&mut self, id: ReplicaId) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reports = self.reports().await;
            let count = self.services.len();
            let is_back = reports
                .iter()
                .any(|report| report.replica == id && report.participants.len() >= count);
            if is_back {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("replica {id} did not come back");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing is undecided nor unapplied.
    pub(super) async fn wait_until_quiet(&mut self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        while Instant::now() < deadline {
            let reports = self.reports().await;
            let busy = reports.iter().filter(|of| of.undecided + of.unapplied > 0);
            if busy.count() == 0 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The weather before every replica.
    pub(super) fn set_weather(&mut self, weather: &Weather) -> anyhow::Result<()> {
        let cluster = self.replicas.own()?;
        for id in cluster.replicas() {
            if let Some(relay) = cluster.relay(id) {
                relay.set_weather(weather.clone());
            }
        }
        Ok(())
    }

    /// Puts every process into its region.
    fn move_apart(&mut self) -> anyhow::Result<()> {
        let Scene {
            replicas,
            services,
            initiator,
            ..
        } = self;
        let cluster = replicas.own()?;
        let ids = cluster.replicas();
        let others = ids
            .iter()
            .filter_map(|id| Some((cluster.listening(*id)?, regions::region(id.0))));
        let services = (1..).zip(services.iter());
        let services = services.map(|(number, of)| (of.address, regions::region(number)));
        let port = initiator.local_address()?.port();
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let senders = others.chain(services).chain([(own, regions::INITIATOR)]);
        let senders: Vec<(SocketAddr, usize)> = senders.collect();
        for id in &ids {
            for (sender, region) in &senders {
                let distance = regions::distance(*region, regions::region(id.0));
                if let Some(relay) = cluster.relay(*id) {
                    relay.set_distance(*sender, distance);
                }
            }
        }
        Ok(())
    }

    /// Ends everything, in order.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.initiator.shutdown(GRACE).await;
        for service in self.services {
            service.stop().await?;
        }
        if let Replicas::Own(cluster) = &mut self.replicas {
            cluster.stop().await?;
        }
        Ok(())
    }
}
