//! `paxos-commit txn`.

use clap::{Args, Subcommand};
use paxos_commit::operator::Ended;
use paxos_commit::protocol::message::State;
use paxos_commit::protocol::types::{CommitId, TxnId};
use serde_json::json;

use super::show::{names, print_json, state_json, state_text};
use super::{AccessArguments, Exit};

/// Look at transactions, and end what hangs.
#[derive(Debug, Subcommand)]
pub(super) enum TxnCommand {
    /// List what is undecided, or decided and not yet applied by every branch, and why.
    List(ListArguments),
    /// Show what each replica knows of one transaction.
    Show(ShowArguments),
    /// End an undecided transaction now. If commit was chosen already, it stays, and you are told.
    Abort(EndArguments),
    /// Let a settled commit go whose participant will never come back. You answer for "never": a
    /// branch that comes back after all rolls back what the others have committed.
    Release(EndArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// The transaction, like 00000001-00c0ffee00c0ffee-0000002a.
    txn: TxnId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EndArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// The commit id, as `txn list` shows it: the transaction, - and 32 hexadecimal digits.
    id: CommitId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl TxnCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            TxnCommand::List(arguments) => list(arguments).await,
            TxnCommand::Show(arguments) => show(arguments).await,
            TxnCommand::Abort(arguments) => abort(arguments).await,
            TxnCommand::Release(arguments) => release(arguments).await,
        }
    }
}

async fn list(arguments: ListArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let found = operator.list().await?;
    let status = operator.status().await;
    let connected = |name: &str| {
        let mut reports = status.values().flatten();
        reports.any(|report| {
            report
                .participants
                .iter()
                .any(|(of, _)| of.as_str() == name)
        })
    };
    if arguments.json {
        let found = found.iter().map(|(id, states)| {
            let states = states.iter().map(|(replica, state)| {
                let mut value = state_json(state);
                value["replica"] = json!(replica.0);
                value
            });
            json!({"id": id.to_string(), "replicas": states.collect::<Vec<_>>()})
        });
        print_json(&json!(found.collect::<Vec<_>>()));
        return Ok(());
    }
    if found.is_empty() {
        println!("nothing is undecided, and everything that is decided is applied");
    }
    for (id, states) in found {
        println!("{id}");
        for (replica, state) in states {
            println!("  replica {replica}: {}", state_text(&state));
            for name in away(&state).iter().filter(|name| !connected(name)) {
                println!("    participant {name} is away: no session of it is connected");
            }
        }
    }
    Ok(())
}

/// The participants that a transaction waits for.
fn away(state: &State) -> Vec<String> {
    let branches = match state {
        State::Undecided { missing, .. } => missing,
        State::Decided { unapplied, .. } => unapplied,
    };
    let mut names: Vec<String> = branches
        .iter()
        .map(|branch| branch.participant.to_string())
        .collect();
    names.dedup();
    names
}

async fn show(arguments: ShowArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let said = operator.show(arguments.txn).await;
    if arguments.json {
        let said = said.iter().map(|(replica, said)| match said {
            Ok(instances) => json!({
                "replica": replica.0,
                "instances": instances.iter().map(|(id, state)| {
                    let mut value = state_json(state);
                    value["id"] = json!(id.to_string());
                    value
                }).collect::<Vec<_>>(),
            }),
            Err(problem) => json!({"replica": replica.0, "problem": problem}),
        });
        print_json(&json!(said.collect::<Vec<_>>()));
        return Ok(());
    }
    for (replica, said) in said {
        match said {
            Ok(instances) if instances.is_empty() => {
                println!("replica {replica}: unknown, or forgotten");
            }
            Ok(instances) => {
                for (id, state) in instances {
                    println!("replica {replica}: {id}: {}", state_text(&state));
                }
            }
            Err(problem) => println!("replica {replica}: {problem}"),
        }
    }
    Ok(())
}

async fn abort(arguments: EndArguments) -> anyhow::Result<()> {
    let id = arguments.id;
    let mut operator = arguments.access.connect().await?;
    let (state, text) = match operator.force_abort(id).await? {
        Ended::Chosen(outcome) => (
            outcome.to_string(),
            format!("{id}: {outcome} was chosen; it is final"),
        ),
        Ended::Forgotten => (
            "forgotten".into(),
            format!("{id}: ended long ago; what it came to is forgotten"),
        ),
    };
    if arguments.json {
        print_json(&json!({"id": id.to_string(), "chosen": state}));
    } else {
        println!("{text}");
    }
    if state == "commit" {
        return Err(Exit {
            code: 1,
            text: "it was not aborted: commit had been chosen".into(),
        }
        .into());
    }
    Ok(())
}

async fn release(arguments: EndArguments) -> anyhow::Result<()> {
    let id = arguments.id;
    let mut operator = arguments.access.connect().await?;
    let waiting = operator.waiting().await?;
    let waits_for = waiting.iter().find(|listed| listed.id == id);
    let roster = waits_for.map(|listed| {
        let branches: Vec<_> = listed.unapplied.roster.iter().cloned().collect();
        names(&branches)
    });
    operator.release(id).await?;
    if arguments.json {
        print_json(&json!({"id": id.to_string(), "released": true, "roster": roster}));
    } else {
        println!("{id}: released; nobody waits for it any more");
    }
    Ok(())
}
