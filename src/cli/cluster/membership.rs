//! Changes of who the replicas are. Each can be repeated with the same words, wherever it stopped.
//!
//! 1. The folders of new replicas are made, and noted in `cluster.toml` as joining.
//! 2. The cluster accepts the change once the new replicas run and were heard (DESIGN 2.6).
//! 3. The files name the new replicas.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use paxos_commit::cluster::ClusterFiles;
use paxos_commit::config::{HostPort, check_distinct, load_access};
use paxos_commit::operator::{Operator, OperatorError};
use paxos_commit::protocol::message::Declined;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{Configuration, Member};
use tokio::time::{Instant, sleep};

use super::{CONNECT_MAX, OPERATOR, member};

/// How often the cluster is asked whether it hears the new replicas.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The cluster's folder, and who asks.
#[derive(Debug, Args)]
pub(in crate::cli) struct Place {
    /// The cluster's folder, as `cluster new` has made it, with the authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The operator's access.toml; without it, that of the operator whom `cluster new` made.
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
}

/// How long a change waits for replicas.
#[derive(Debug, Args)]
struct Patience {
    /// Wait so many seconds until the replicas that are needed run and are heard.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait: u64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReplaceArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    patience: Patience,
    /// The replica that goes.
    old: u32,
    /// Where the new one will be, HOST:PORT.
    #[arg(value_name = "HOST:PORT")]
    address: HostPort,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AddArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    patience: Patience,
    /// Where the new ones will be, HOST:PORT.
    #[arg(required = true, value_name = "HOST:PORT")]
    address: Vec<HostPort>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    patience: Patience,
    /// The replicas that go.
    #[arg(required = true)]
    id: Vec<u32>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    patience: Patience,
    /// The replica.
    id: u32,
    /// Where it will be, HOST:PORT.
    #[arg(value_name = "HOST:PORT")]
    address: HostPort,
}

/// A change of the membership, on its way.
pub(super) struct Change {
    pub(super) files: ClusterFiles,
    pub(super) operator: Operator,
    /// The replicas when the command began.
    pub(super) members: Vec<Member>,
}

impl Place {
    /// Connects, and brings the files up to what the cluster has become since the last change.
    pub(super) async fn open(&self) -> anyhow::Result<Change> {
        let files = ClusterFiles::open(&self.dir)?;
        let usual = self.dir.join(format!("operator-{OPERATOR}/access.toml"));
        let access = load_access(self.access.as_ref().unwrap_or(&usual))?;
        let operator = Operator::connect(access, CONNECT_MAX).await?;
        let in_force = operator.generations().in_force();
        let members = in_force.map(|configuration| configuration.members().collect());
        let mut change = Change {
            files,
            operator,
            members: members.unwrap_or_default(),
        };
        change.forget_the_passed_over()?;
        if change.files.members() != change.members {
            change.write_members()?;
        }
        Ok(change)
    }
}

impl Change {
    /// What was made to join and never will must not be started by mistake: its id was used for another
    /// replica, or one above it was.
    fn forget_the_passed_over(&mut self) -> anyhow::Result<()> {
        let generations = self.operator.generations();
        let is_added = |member: &Member| {
            let mut unsettled = generations.unsettled();
            unsettled.any(|(_, of)| of.members().any(|it| it == *member))
        };
        let never = |member: &&Member| !generations.is_new(member.id) && !is_added(member);
        let joining = self.files.joining().iter();
        let never: Vec<ReplicaId> = joining.filter(never).map(|member| member.id).collect();
        for id in never {
            self.forget(id)?;
        }
        Ok(())
    }

    fn forget(&mut self, id: ReplicaId) -> anyhow::Result<()> {
        self.files.forget_joining(id)?;
        say!(
            "The replica {id} that was made here was not added, and cannot be: its folder is removed."
        );
        Ok(())
    }

    /// The replica at this address that was made to join, or the id of the next new one: above all that
    /// any generation or folder knows.
    fn joining_at(&self, address: &HostPort, above: Option<ReplicaId>) -> Member {
        let mut joining = self.files.joining().iter();
        if let Some(made) = joining.find(|member| is_at(member, address)) {
            return made.clone();
        }
        let generations = self.operator.generations();
        let files = self.files.members().iter().chain(self.files.joining());
        let known = files.map(|member| member.id).chain(generations.replicas());
        let highest = known.chain(above).max();
        let mut next = highest.map_or(1, |id| id.0 + 1);
        while self.files.replica_file(ReplicaId(next)).exists()
            || !generations.is_new(ReplicaId(next))
        {
            next += 1;
        }
        member(ReplicaId(next), address.clone())
    }

    /// Makes the folders of those that join, and says how to start them. `like` has the settings that
    /// they take over.
    fn make(&mut self, joining: &[Member], like: Option<ReplicaId>) -> anyhow::Result<()> {
        say!("Copy each folder to its machine, and start each:");
        for member in joining {
            let file = self.files.add_replica(member, like)?;
            say!("  paxos-commit replica --config {}", file.display());
        }
        Ok(())
    }

    /// Asks for the change until the cluster hears those that it takes, for so long.
    async fn commit(&mut self, next: Vec<Member>, patience: &Patience) -> anyhow::Result<()> {
        let configuration = Configuration::new(next.iter().cloned())?;
        let wanted = Some(configuration.digest());
        let in_force = |operator: &Operator| {
            let in_force = operator.generations().in_force();
            in_force.map(Configuration::digest)
        };
        let before = in_force(&self.operator);
        let deadline = Instant::now() + Duration::from_secs(patience.wait);
        let mut missing = Vec::new();
        let generation = loop {
            let now = in_force(&self.operator);
            if now != before && now == wanted {
                break self.operator.generations().latest();
            }
            if now != before {
                return self.lost("another operator has changed the replicas meanwhile".into());
            }
            let changed = self.operator.reconfigure(configuration.clone()).await;
            // What was asked for before may have come about by now.
            if changed.is_err() && in_force(&self.operator) == wanted {
                break self.operator.generations().latest();
            }
            match changed {
                Ok(generation) => break generation,
                // Its slot was decided for something else: a generation turned, or a store was entered.
                Err(OperatorError::Declined(Declined::Changed { .. }))
                    if Instant::now() < deadline => {}
                Err(OperatorError::Declined(Declined::Unheard(unheard)))
                    if Instant::now() < deadline =>
                {
                    if unheard != missing {
                        say!("Waiting for replica {} ...", listed(&unheard));
                        missing = unheard;
                    }
                    sleep(ASK_EVERY).await;
                }
                Err(OperatorError::Declined(why @ Declined::UsedId(_))) => {
                    return self.lost(why.to_string());
                }
                Err(
                    error
                    @ OperatorError::Declined(Declined::Changed { .. } | Declined::Unheard(_)),
                ) if in_force(&self.operator) == before => {
                    bail!("{error}. Nothing was changed; repeat the command to go on");
                }
                Err(OperatorError::Declined(
                    why @ (Declined::Changed { .. } | Declined::Unheard(_)),
                )) => return self.lost(why.to_string()),
                Err(error) => {
                    return Err(error).context(
                        "the change may still come about: what was made for it stays. Repeat the \
                         command to go on",
                    );
                }
            }
        };
        self.members = next;
        say!("Generation {generation} is open on the new configuration.");
        self.write_members()
    }

    /// The slot of this change was decided for something else: nothing that was made for it stays.
    fn lost(&mut self, why: String) -> anyhow::Result<()> {
        let in_force = self.operator.generations().in_force().cloned();
        // By id and address: the one who won may have drawn the same id for a replica of its own.
        let is_added = |member: &Member| {
            let mut members = in_force.iter().flat_map(Configuration::members);
            members.any(|it| it == *member)
        };
        let joining = self.files.joining().iter();
        let joining = joining.filter(|member| !is_added(member));
        for id in joining.map(|member| member.id).collect::<Vec<_>>() {
            self.forget(id)?;
        }
        bail!("{why}. Nothing was changed; look at `paxos-commit status` before you try again")
    }

    fn write_members(&mut self) -> anyhow::Result<()> {
        let rewritten = self.files.set_members(self.members.clone())?;
        if !rewritten.changed.is_empty() {
            say!("These name the new replicas now. Copy them to where they are used, in time:");
            for path in rewritten.changed {
                say!("  {}", path.display());
            }
        }
        for error in rewritten.failed {
            say!("This one could not be rewritten; change its replicas by hand: {error}");
        }
        Ok(())
    }

    fn position(&self, id: u32) -> anyhow::Result<usize> {
        let mut members = self.members.iter();
        let position = members.position(|member| member.id == ReplicaId(id));
        let ids: Vec<ReplicaId> = self.members.iter().map(|member| member.id).collect();
        position.with_context(|| format!("replica {id} is none of {}", listed(&ids)))
    }

    /// Whether this id was a replica of the cluster once, and is none any more.
    fn is_gone(&self, id: u32) -> bool {
        !self.operator.generations().is_new(ReplicaId(id)) && self.position(id).is_err()
    }

    fn member_at(&self, address: &HostPort) -> Option<&Member> {
        self.members.iter().find(|member| is_at(member, address))
    }
}

/// Whether this is the replica's address, in whichever spelling.
fn is_at(member: &Member, address: &HostPort) -> bool {
    let read = member.address.as_str().parse::<HostPort>();
    read.is_ok_and(|read| read == *address)
}

pub(super) async fn replace(arguments: ReplaceArguments) -> anyhow::Result<()> {
    let ReplaceArguments {
        place,
        patience,
        old,
        address,
    } = arguments;
    let mut change = place.open().await?;
    if let (true, Some(new)) = (change.is_gone(old), change.member_at(&address)) {
        say!("Replica {} has taken the place of replica {old}.", new.id);
        still_needed(&change.operator, &[old]);
        return Ok(());
    }
    let position = change.position(old)?;
    let joining = change.joining_at(&address, None);
    let mut next = change.members.clone();
    next[position] = joining.clone();
    // Before any file is made.
    check_distinct(&next)?;
    change.make(&[joining], Some(ReplicaId(old)))?;
    change.commit(next, &patience).await?;
    still_needed(&change.operator, &[old]);
    Ok(())
}

pub(super) async fn add(arguments: AddArguments) -> anyhow::Result<()> {
    let AddArguments {
        place,
        patience,
        address: addresses,
    } = arguments;
    let mut change = place.open().await?;
    if addresses
        .iter()
        .all(|address| change.member_at(address).is_some())
    {
        say!("They are replicas of the cluster: nothing is left to do.");
        return Ok(());
    }
    let mut next = change.members.clone();
    let mut joining: Vec<Member> = Vec::new();
    for address in &addresses {
        let above = joining.iter().map(|member| member.id).max();
        let member = change.joining_at(address, above);
        next.push(member.clone());
        joining.push(member);
    }
    // Before any file is made.
    Configuration::new(next.iter().cloned())?;
    check_distinct(&next)?;
    let like = change.members.first().map(|member| member.id);
    change.make(&joining, like)?;
    change.commit(next, &patience).await
}

pub(super) async fn remove(arguments: RemoveArguments) -> anyhow::Result<()> {
    let RemoveArguments {
        place,
        patience,
        id: ids,
    } = arguments;
    let mut change = place.open().await?;
    if ids.iter().all(|id| change.is_gone(*id)) {
        say!("They are no replicas of the cluster any more.");
        still_needed(&change.operator, &ids);
        return Ok(());
    }
    let mut next = change.members.clone();
    for id in &ids {
        change.position(*id)?;
        next.retain(|member| member.id != ReplicaId(*id));
    }
    change.commit(next, &patience).await?;
    still_needed(&change.operator, &ids);
    Ok(())
}

pub(super) async fn relocate(arguments: MoveArguments) -> anyhow::Result<()> {
    let MoveArguments {
        place,
        patience,
        id,
        address,
    } = arguments;
    let mut change = place.open().await?;
    let position = change.position(id)?;
    if !is_at(&change.members[position], &address) {
        let mut next = change.members.clone();
        next[position] = member(ReplicaId(id), address.clone());
        check_distinct(&next)?;
        change.commit(next, &patience).await?;
    }
    say!(
        "The others look for replica {id} at {address} now. Stop it, move its folder, change `listen` in \
         its replica.toml if it must, and start it there."
    );
    Ok(())
}

fn still_needed(operator: &Operator, ids: &[u32]) {
    for id in ids {
        if operator.generations().contains(ReplicaId(*id)) {
            say!(
                "Replica {id} is needed until its last generation is settled. If it is up, keep it \
                 up: it ends by itself. Ask with `paxos-commit cluster retire --dir DIR {id}`."
            );
        }
    }
}

fn listed(ids: &[ReplicaId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}
