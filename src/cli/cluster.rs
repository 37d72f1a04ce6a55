//! `paxos-commit cluster` and `paxos-commit certs`.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use paxos_commit::cluster::ClusterFiles;
use paxos_commit::config::load_access;
use paxos_commit::operator::Operator;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Address, Configuration, Member};
use paxos_commit::transport::{Name, Role};

use super::{CONNECT_MAX, Exit};

/// The port of the first replica on this machine, when no addresses are given.
const FIRST_PORT: u16 = 7_401;

/// The name of the first operator.
const OPERATOR: &str = "admin";

/// Make a cluster, and change who its replicas are, online.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make a new cluster: authority, identities, one settings file and one data directory for each
    /// replica.
    New(NewArguments),
    /// Replace a replica, for example one that has lost its disk, by a new one with a new id.
    Replace(ReplaceArguments),
    /// Add replicas: two at a time, since a cluster has 2F+1.
    Add(AddArguments),
    /// Remove replicas: two at a time.
    Remove(RemoveArguments),
    /// A replica is at another address from now on: stop it, move it, tell the cluster, start it.
    Move(MoveArguments),
    /// May a removed replica go? It is needed until the last generation that it decides is settled.
    Retire(RetireArguments),
}

#[derive(Debug, Args)]
pub(super) struct NewArguments {
    /// A new or empty folder.
    dir: PathBuf,
    /// How many replicas: 2F+1, of which any F may be down.
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// The replicas' addresses, HOST:PORT, once for each. Without any, all are on this machine, from
    /// port 7401 on.
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<String>,
    /// The cluster's name; it stands in every certificate.
    #[arg(long, default_value = "paxos")]
    name: Name,
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The cluster's folder, as `cluster new` has made it, with the authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The operator's access.toml; without it, that of the operator whom `cluster new` made.
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReplaceArguments {
    #[command(flatten)]
    place: Place,
    /// The replica that goes.
    old: u32,
    /// Where the new one will be, HOST:PORT.
    address: String,
}

#[derive(Debug, Args)]
pub(super) struct AddArguments {
    #[command(flatten)]
    place: Place,
    /// Where the new ones will be, HOST:PORT.
    #[arg(required = true)]
    address: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    #[command(flatten)]
    place: Place,
    /// The replicas that go.
    #[arg(required = true)]
    id: Vec<u32>,
}

#[derive(Debug, Args)]
pub(super) struct MoveArguments {
    #[command(flatten)]
    place: Place,
    /// The replica.
    id: u32,
    /// Where it will be, HOST:PORT.
    address: String,
}

#[derive(Debug, Args)]
pub(super) struct RetireArguments {
    #[command(flatten)]
    place: Place,
    /// The replica.
    id: u32,
}

/// Issue identities.
#[derive(Debug, Subcommand)]
pub(super) enum CertsCommand {
    /// Issue one more identity: a folder with certificate, key and access.toml.
    Issue(IssueArguments),
}

#[derive(Debug, Args)]
pub(super) struct IssueArguments {
    /// The cluster's folder, with the authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// For what: a participant votes for its branches, an initiator begins and commits, an operator
    /// looks, forces aborts and changes the membership.
    #[arg(value_parser = ["participant", "initiator", "operator"])]
    role: String,
    /// Its name.
    name: Name,
}

impl CertsCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let CertsCommand::Issue(IssueArguments { dir, role, name }) = self;
        let files = ClusterFiles::open(&dir)?;
        let role = match role.as_str() {
            "participant" => Role::Participant(name),
            "initiator" => Role::Initiator(name),
            _ => Role::Operator(name),
        };
        println!("{}", files.issue(role)?.display());
        Ok(())
    }
}

impl ClusterCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            ClusterCommand::New(arguments) => new(arguments),
            ClusterCommand::Replace(arguments) => replace(arguments).await,
            ClusterCommand::Add(arguments) => add(arguments).await,
            ClusterCommand::Remove(arguments) => remove(arguments).await,
            ClusterCommand::Move(arguments) => relocate(arguments).await,
            ClusterCommand::Retire(arguments) => retire(arguments).await,
        }
    }
}

fn new(arguments: NewArguments) -> anyhow::Result<()> {
    let NewArguments {
        dir,
        replicas,
        address,
        name,
    } = arguments;
    let addresses: Vec<String> = if address.is_empty() {
        let ports = (0..replicas).map(|index| u32::from(FIRST_PORT) + index);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    } else {
        ensure!(
            address.len() == replicas as usize,
            "--replicas {replicas} needs as many --address, got {}",
            address.len()
        );
        address
    };
    let ids = (1..).map(ReplicaId);
    let members = ids.zip(addresses).map(|(id, address)| member(id, &address));
    let members: Vec<Member> = members.collect::<anyhow::Result<_>>()?;
    let files = ClusterFiles::create(&dir, name, members)?;
    let operator = files.issue(Role::Operator(OPERATOR.parse()?))?;
    println!(
        "Made a cluster of {replicas} replicas in {}.",
        dir.display()
    );
    println!("Copy each replica's folder to its machine, and start each:");
    for member in files.members() {
        let file = files.replica_file(member.id);
        println!("  paxos-commit replica --config {}", file.display());
    }
    println!("Then:");
    println!("  paxos-commit status --access {}", operator.display());
    println!(
        "  paxos-commit certs issue --dir {} participant NAME",
        dir.display()
    );
    Ok(())
}

fn member(id: ReplicaId, address: &str) -> anyhow::Result<Member> {
    let port = address
        .rsplit_once(':')
        .map(|(_, port)| port.parse::<u16>());
    ensure!(
        matches!(port, Some(Ok(_))),
        "expected HOST:PORT, got {address:?}"
    );
    Ok(Member {
        id,
        address: address.parse::<Address>()?,
    })
}

impl Place {
    async fn open(&self) -> anyhow::Result<(ClusterFiles, Operator, Vec<Member>)> {
        let files = ClusterFiles::open(&self.dir)?;
        let usual = self.dir.join(format!("operator-{OPERATOR}/access.toml"));
        let access = load_access(self.access.as_ref().unwrap_or(&usual))?;
        let operator = Operator::connect(access, CONNECT_MAX).await?;
        let in_force = operator.generations().in_force();
        let members = in_force.map(|configuration| configuration.members().collect());
        Ok((files, operator, members.unwrap_or_default()))
    }
}

/// The id of the next new replica: above all that any generation or folder knows.
fn next_id(files: &ClusterFiles, operator: &Operator) -> ReplicaId {
    let known = files.members().iter().map(|member| member.id);
    let highest = known.chain(operator.generations().replicas()).max();
    let mut next = highest.map_or(1, |id| id.0 + 1);
    while files.replica_file(ReplicaId(next)).exists()
        || !operator.generations().is_new(ReplicaId(next))
    {
        next += 1;
    }
    ReplicaId(next)
}

async fn change(
    files: &mut ClusterFiles,
    operator: &mut Operator,
    members: Vec<Member>,
) -> anyhow::Result<()> {
    let configuration = Configuration::new(members.iter().cloned())?;
    let generation = operator.reconfigure(configuration).await?;
    let changed = files.set_members(members)?;
    println!("Generation {generation} is open on the new configuration.");
    if !changed.is_empty() {
        println!("These name the new replicas now. Copy them to where they are used, in time:");
        for path in changed {
            println!("  {}", path.display());
        }
    }
    Ok(())
}

async fn replace(arguments: ReplaceArguments) -> anyhow::Result<()> {
    let ReplaceArguments {
        place,
        old,
        address,
    } = arguments;
    let (mut files, mut operator, mut members) = place.open().await?;
    let position = members
        .iter()
        .position(|member| member.id == ReplicaId(old));
    let position =
        position.with_context(|| format!("replica {old} is none of {}", ids(&members)))?;
    let joining = member(next_id(&files, &operator), &address)?;
    members[position] = joining.clone();
    let file = files.add_replica(&joining)?;
    change(&mut files, &mut operator, members).await?;
    println!("Copy its folder to its machine, and start it now:");
    println!("  paxos-commit replica --config {}", file.display());
    still_needed(&[old]);
    Ok(())
}

async fn add(arguments: AddArguments) -> anyhow::Result<()> {
    let (mut files, mut operator, mut members) = arguments.place.open().await?;
    let first = next_id(&files, &operator).0;
    let joining = (first..).zip(&arguments.address);
    let joining = joining.map(|(id, address)| member(ReplicaId(id), address));
    let joining: Vec<Member> = joining.collect::<anyhow::Result<_>>()?;
    members.extend(joining.iter().cloned());
    // Before any file is made.
    Configuration::new(members.iter().cloned())?;
    let made = joining.iter().map(|member| files.add_replica(member));
    let made: Vec<PathBuf> = made.collect::<Result<_, _>>()?;
    change(&mut files, &mut operator, members).await?;
    println!("Copy each folder to its machine, and start each now:");
    for file in made {
        println!("  paxos-commit replica --config {}", file.display());
    }
    Ok(())
}

async fn remove(arguments: RemoveArguments) -> anyhow::Result<()> {
    let (mut files, mut operator, mut members) = arguments.place.open().await?;
    for id in &arguments.id {
        let position = members
            .iter()
            .position(|member| member.id == ReplicaId(*id));
        let Some(position) = position else {
            bail!("replica {id} is none of {}", ids(&members));
        };
        members.remove(position);
    }
    change(&mut files, &mut operator, members).await?;
    still_needed(&arguments.id);
    Ok(())
}

async fn relocate(arguments: MoveArguments) -> anyhow::Result<()> {
    let MoveArguments { place, id, address } = arguments;
    let (mut files, mut operator, mut members) = place.open().await?;
    let found = members.iter_mut().find(|member| member.id == ReplicaId(id));
    let Some(found) = found else {
        bail!("replica {id} is none of {}", ids(&members));
    };
    *found = member(ReplicaId(id), &address)?;
    change(&mut files, &mut operator, members).await?;
    println!(
        "Now move its folder, change `listen` in its replica.toml if it must, and start it at \
         {address}."
    );
    Ok(())
}

async fn retire(arguments: RetireArguments) -> anyhow::Result<()> {
    let RetireArguments { place, id } = arguments;
    let (_, operator, members) = place.open().await?;
    let id = ReplicaId(id);
    let refuse = |text: String| Err(Exit { code: 1, text }.into());
    if members.iter().any(|member| member.id == id) {
        return refuse(format!(
            "replica {id} is a replica of the cluster: replace or remove it first"
        ));
    }
    let generations = operator.generations();
    let needed = generations.unsettled();
    let needed = needed.filter(|(_, configuration)| configuration.acceptors().contains(id));
    if let Some((last, _)) = needed.last() {
        return refuse(format!(
            "replica {id} is still needed: it decides generation {last}, which is not settled. \
             Keep it up; it ends by itself when it may go. (The oldest generation that is not \
             settled is {}.)",
            generations.oldest()
        ));
    }
    println!("Replica {id} may go: no generation needs it. Its data directory may be deleted.");
    Ok(())
}

fn still_needed(ids: &[u32]) {
    for id in ids {
        println!(
            "Replica {id} is needed until its last generation is settled. If it is up, keep it \
             up: it ends by itself. Ask with `paxos-commit cluster retire --dir DIR {id}`."
        );
    }
}

fn ids(members: &[Member]) -> String {
    let ids: Vec<String> = members.iter().map(|member| member.id.to_string()).collect();
    ids.join(", ")
}
