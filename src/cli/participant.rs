//! `paxos-commit participant`.

use clap::{Args, Subcommand};
use paxos_commit::protocol::types::{ParticipantName, StoreId};
use serde_json::json;

use super::AccessArguments;
use super::show::print_json;

/// Look at participants and their stores, and say what became of a store.
#[derive(Debug, Subcommand)]
pub(super) enum ParticipantCommand {
    /// List the participants that have ever connected, and the store that works under each name.
    List(ListArguments),
    /// Give up a store that is lost for good: the next store that starts under the name takes its
    /// place. Commits that the lost store has not applied stay listed until each is released with
    /// `txn release`.
    Gone(StoreArguments),
    /// Say that a participant's store was restored from a copy, so that the copy may work. What was
    /// committed after the copy was made is lost: you answer for it.
    Restored(StoreArguments),
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
pub(super) struct StoreArguments {
    #[command(flatten)]
    access: AccessArguments,
    /// The participant's name.
    participant: ParticipantName,
    /// Its store, as `participant list` shows it.
    store: StoreId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ParticipantCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            ParticipantCommand::List(arguments) => list(arguments).await,
            ParticipantCommand::Gone(arguments) => gone(arguments).await,
            ParticipantCommand::Restored(arguments) => restored(arguments).await,
        }
    }
}

async fn list(arguments: ListArguments) -> anyhow::Result<()> {
    let mut operator = arguments.access.connect().await?;
    let stores = operator.participants().await?;
    let waiting = operator.waiting().await?;
    let listed = |name: &ParticipantName| {
        let of_name = |of: &&_| {
            let of: &paxos_commit::protocol::types::Listed = of;
            let mut branches = of.unapplied.roster.iter();
            branches.any(|branch| branch.participant == *name)
        };
        waiting.iter().filter(of_name).count()
    };
    if arguments.json {
        let stores = stores.after(None).map(|(name, entered)| {
            json!({
                "participant": name.as_str(),
                "store": entered.store.to_string(),
                "opening": entered.opening.map(|opening| opening.number),
                "listed_commits": listed(name),
            })
        });
        print_json(&json!(stores.collect::<Vec<_>>()));
        return Ok(());
    }
    if stores.after(None).next().is_none() {
        say!("no participant has connected so far");
    }
    for (name, entered) in stores.after(None) {
        let store = entered.store;
        let mut notes = Vec::new();
        if let Some(opening) = entered.opening {
            notes.push(format!("opening {}", opening.number));
        }
        match listed(name) {
            0 => {}
            commits => notes.push(format!(
                "{commits} settled commits wait for its transactions"
            )),
        }
        let notes = notes.join("; ");
        let notes = if notes.is_empty() {
            notes
        } else {
            format!("  ({notes})")
        };
        say!("{name}  store {store}{notes}");
    }
    Ok(())
}

async fn gone(of: StoreArguments) -> anyhow::Result<()> {
    let mut operator = of.access.connect().await?;
    operator.gone(of.participant.clone(), of.store).await?;
    of.print("gone", "is given up; the next store that starts is entered");
    Ok(())
}

async fn restored(of: StoreArguments) -> anyhow::Result<()> {
    let mut operator = of.access.connect().await?;
    operator.restored(of.participant.clone(), of.store).await?;
    of.print(
        "restored",
        "is let in when it starts next, whichever copy it is",
    );
    Ok(())
}

impl StoreArguments {
    /// Says what was done with the store.
    fn print(&self, done: &str, text: &str) {
        let StoreArguments {
            participant, store, ..
        } = self;
        if self.json {
            print_json(&json!({"participant": participant.as_str(), done: store.to_string()}));
        } else {
            say!("{participant}: store {store} {text}");
        }
    }
}
