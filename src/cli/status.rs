//! `paxos-commit status`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use paxos_commit::operator::Said;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Generations;
use paxos_commit::wire::Report;
use serde_json::{Value, json};

use super::show::print_json;
use super::{AccessArguments, Exit};

/// What each replica turned away, by kind.
type Refusals = Said<BTreeMap<String, u64>>;

/// Show how the cluster is: each replica, its generations, what is undecided.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: StatusArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let said = operator.status().await;
    let refusals = operator.refusals().await;
    let unresolved = operator.unresolved();
    let generations = operator.generations();
    if arguments.json {
        print_json(&to_json(&said, &refusals, generations, &unresolved));
    } else {
        print(&said, &refusals, generations, &unresolved);
    }
    let in_force = generations.in_force().map(|of| of.acceptors().clone());
    let up = |id| said.get(&id).is_some_and(Result::is_ok);
    let missing = in_force
        .filter(|acceptors| acceptors.iter().filter(|id| up(*id)).count() < acceptors.majority());
    let unresolved: Vec<ReplicaId> = unresolved.into_iter().filter(|id| !up(*id)).collect();
    match missing {
        Some(_) => Err(Exit {
            code: 1,
            text: too_few(&unresolved),
        }
        .into()),
        None => Ok(()),
    }
}

/// Why a majority did not answer, if these could not even be asked.
fn too_few(unresolved: &[ReplicaId]) -> String {
    if unresolved.is_empty() {
        return "fewer than a majority of the replicas are up: transactions wait".into();
    }
    let ids: Vec<String> = unresolved.iter().map(ReplicaId::to_string).collect();
    format!(
        "this machine cannot resolve the addresses that the cluster announces for replicas {}, so \
         whether they are up is not known here: add these names to the DNS or to /etc/hosts of this \
         machine, or run this command on another machine",
        ids.join(", ")
    )
}

fn print(
    said: &Said<Report>,
    refusals: &Refusals,
    generations: &Generations,
    unresolved: &BTreeSet<ReplicaId>,
) {
    say!(
        "{:>7}  {:<4} {:>10} {:>4} {:>9} {:>9} {:>9} {:>9}  oldest undecided",
        "replica",
        "is",
        "lsn",
        "gen",
        "undecided",
        "unapplied",
        "in memory",
        "disk"
    );
    for (id, said) in said {
        match said {
            Ok(report) => {
                let oldest = report.oldest.map_or("-".into(), |(id, for_ms)| {
                    format!("{id}, for {:?}", Duration::from_millis(for_ms))
                });
                let leads = if report.leader == Some(*id) { "*" } else { " " };
                say!(
                    "{:>7}  up{leads}  {:>10} {:>4} {:>9} {:>9} {:>9} {:>6} MB  {oldest}",
                    id.to_string(),
                    report.lsn,
                    report.generations.latest(),
                    report.undecided,
                    report.unapplied,
                    report.remembered,
                    report.disk_bytes / 1_000_000,
                );
            }
            // It was not asked.
            Err(problem) if unresolved.contains(id) => {
                say!("{:>7}  ?    {problem}", id.to_string())
            }
            Err(problem) => say!("{:>7}  down {problem}", id.to_string()),
        }
    }
    say!("(* leads the control log)");
    for (generation, configuration) in generations.unsettled() {
        let members = configuration.members();
        let members = members.map(|member| format!("{} at {}", member.id, member.address));
        let members: Vec<String> = members.collect();
        say!("generation {generation}: replicas {}", members.join(", "));
    }
    let participants = said.values().flatten().max_by_key(|report| report.lsn);
    if let Some(report) = participants {
        for (name, sessions) in &report.participants {
            say!("participant {name}: {sessions} session(s) connected");
        }
    }
    for (id, counts) in refusals {
        let counts = counts
            .iter()
            .flatten()
            .map(|(kind, count)| format!("{count} {kind}"));
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            say!(
                "replica {id} turned away since its start: {}",
                counts.join(", ")
            );
        }
    }
}

fn to_json(
    said: &Said<Report>,
    refusals: &Refusals,
    generations: &Generations,
    unresolved: &BTreeSet<ReplicaId>,
) -> Value {
    let replicas = said.iter().map(|(id, said)| match said {
        Ok(report) => json!({
            "id": id.0,
            "up": true,
            "version": report.program,
            "lsn": report.lsn,
            "generation": report.generations.latest(),
            "configuration": report.generations.in_force().map(|of| of.digest().to_string()),
            "control_log_slot": report.generations.slot(),
            "leader": report.leader.map(|id| id.0),
            "undecided": report.undecided,
            "oldest_undecided": report.oldest.map(|(id, _)| id.to_string()),
            "oldest_undecided_ms": report.oldest.map(|(_, ms)| ms),
            "unapplied": report.unapplied,
            "in_memory": report.remembered,
            "disk_bytes": report.disk_bytes,
            "sent_messages": report.sent.messages,
            "sent_bytes": report.sent.bytes,
            "saves": report.saves,
            "turned_away": refusals.get(id).and_then(|counts| counts.as_ref().ok()),
            "connected_replicas": report.connected.iter().map(|id| id.0).collect::<Vec<_>>(),
            "participants": report.participants.iter().map(|(name, sessions)| {
                json!({"name": name.as_str(), "sessions": sessions})
            }).collect::<Vec<_>>(),
        }),
        // Of a replica that could not be asked it is not known.
        Err(problem) => {
            let up = (!unresolved.contains(id)).then_some(false);
            json!({"id": id.0, "up": up, "problem": problem})
        }
    });
    let unsettled = generations.unsettled().map(|(generation, configuration)| {
        json!({
            "generation": generation,
            "replicas": configuration.members().map(|member| {
                json!({"id": member.id.0, "address": member.address.as_str()})
            }).collect::<Vec<_>>(),
        })
    });
    json!({
        "replicas": replicas.collect::<Vec<_>>(),
        "unsettled_generations": unsettled.collect::<Vec<_>>(),
        "settled_through": generations.horizon().map(|id| id.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_could_not_be_asked_are_not_called_down() {
        assert!(too_few(&[]).contains("fewer than a majority"));
        let text = too_few(&[2, 3].map(ReplicaId));
        assert!(text.contains("cannot resolve"), "{text}");
        assert!(text.contains("for replicas 2, 3,"), "{text}");
        assert!(!text.contains("majority"), "{text}");
    }
}
