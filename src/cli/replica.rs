//! `paxos-commit replica`.

use std::path::PathBuf;

use clap::Args;
use paxos_commit::config::ReplicaSettings;
use paxos_commit::replica::{End, Replica};

use super::signals::shutdown;

/// Run one coordinator replica until SIGTERM or Ctrl-C.
#[derive(Debug, Args)]
pub(super) struct ReplicaArguments {
    /// Its replica.toml, as `cluster new` makes it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop when standard input ends, as it does when the parent process dies.
    #[arg(long, hide = true)]
    with_parent: bool,
}

pub(super) async fn run(arguments: ReplicaArguments) -> anyhow::Result<()> {
    let settings = ReplicaSettings::load(&arguments.config)?;
    let stop = shutdown(arguments.with_parent)?;
    let builder = Replica::builder(settings.data, settings.listen, settings.access);
    match builder.tuning(settings.tuning).run_until(stop).await? {
        End::Shutdown => {}
        End::Removed => println!(
            "This replica was removed from the cluster, and the last generation that it decided \
             is settled. Nobody needs it any more; its data directory may be deleted."
        ),
    }
    Ok(())
}
