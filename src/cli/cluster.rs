//! `paxos-commit cluster` and `paxos-commit certs`.

mod membership;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Subcommand};
use paxos_commit::cluster::ClusterFiles;
use paxos_commit::config::HostPort;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Member;
use paxos_commit::transport::{Name, Role};

use super::{CONNECT_MAX, Exit};

use membership::{AddArguments, Change, MoveArguments, Place, RemoveArguments, ReplaceArguments};

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
    /// Replace a replica, for example one that has lost its disk, by a new one with a new id. Makes the
    /// new one's folder, waits until it runs, and changes the cluster. To repeat the command is safe: it
    /// goes on where it was.
    Replace(ReplaceArguments),
    /// Add replicas: two at a time, since a cluster has 2F+1. Makes their folders, waits until they run,
    /// and changes the cluster. To repeat the command is safe: it goes on where it was.
    Add(AddArguments),
    /// Remove replicas: two at a time.
    Remove(RemoveArguments),
    /// A replica is at another address from now on: tell the cluster, stop it, move its folder, start
    /// it.
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
    address: Vec<HostPort>,
    /// The cluster's name; it stands in every certificate.
    #[arg(long, default_value = "paxos")]
    name: Name,
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
        say!("{}", files.issue(role)?.display());
        Ok(())
    }
}

impl ClusterCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            ClusterCommand::New(arguments) => new(arguments),
            ClusterCommand::Replace(arguments) => membership::replace(arguments).await,
            ClusterCommand::Add(arguments) => membership::add(arguments).await,
            ClusterCommand::Remove(arguments) => membership::remove(arguments).await,
            ClusterCommand::Move(arguments) => membership::relocate(arguments).await,
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
    let addresses: Vec<HostPort> = if address.is_empty() {
        let ports = (0..replicas).map(|index| u32::from(FIRST_PORT) + index);
        let addresses = ports.map(|port| format!("127.0.0.1:{port}").parse());
        addresses.collect::<Result<_, _>>()?
    } else {
        ensure!(
            address.len() == replicas as usize,
            "--replicas {replicas} needs as many --address, got {}",
            address.len()
        );
        address
    };
    let ids = (1..).map(ReplicaId);
    let members = ids.zip(addresses).map(|(id, address)| member(id, address));
    let members: Vec<Member> = members.collect();
    let files = ClusterFiles::create(&dir, name, members)?;
    let operator = files.issue(Role::Operator(OPERATOR.parse()?))?;
    say!(
        "Made a cluster of {replicas} replicas in {}.",
        dir.display()
    );
    say!("Copy each replica's folder to its machine, and start each:");
    for member in files.members() {
        let file = files.replica_file(member.id);
        say!("  paxos-commit replica --config {}", file.display());
    }
    say!("Then:");
    say!("  paxos-commit status --access {}", operator.display());
    say!(
        "  paxos-commit certs issue --dir {} participant NAME",
        dir.display()
    );
    Ok(())
}

fn member(id: ReplicaId, address: HostPort) -> Member {
    Member {
        id,
        address: address.into(),
    }
}

async fn retire(arguments: RetireArguments) -> anyhow::Result<()> {
    let RetireArguments { place, id } = arguments;
    let Change {
        operator, members, ..
    } = place.open().await?;
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
    say!("Replica {id} may go: no generation needs it. Its data directory may be deleted.");
    Ok(())
}
