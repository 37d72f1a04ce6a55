//! `paxos-commit replica`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use paxos_commit::config::ReplicaSettings;
use paxos_commit::replica::{End, Replica, ReplicaBuilder, ReplicaError};
use tokio::sync::watch;

#[cfg(feature = "http")]
use super::http::start as listen;
use super::signals::shutdown;

/// How often the replica is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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

/// Why the replica is of no use now, if it is of none.
pub(super) type Health = watch::Receiver<Result<(), String>>;

pub(super) async fn run(arguments: ReplicaArguments) -> anyhow::Result<()> {
    let settings = ReplicaSettings::load(&arguments.config)?;
    let stop = shutdown(arguments.with_parent)?;
    let starting = "it is starting, and may have to wait for other replicas";
    let health = watch::Sender::new(Err(starting.to_owned()));
    if let Some(address) = settings.http {
        // First, so that nothing is counted before there is somebody who counts.
        listen(address, health.subscribe()).await?;
    }
    let builder = Replica::builder(settings.data, settings.listen, settings.access);
    match serve(builder.tuning(settings.tuning), stop, &health).await? {
        End::Shutdown => {}
        End::Removed => say!(
            "This replica was removed from the cluster, and the last generation that it decided \
             is settled. Nobody needs it any more; its data directory may be deleted."
        ),
    }
    Ok(())
}

/// As `ReplicaBuilder::run_until`, and tells how it is all the time.
async fn serve(
    builder: ReplicaBuilder,
    stop: impl Future<Output = ()>,
    health: &watch::Sender<Result<(), String>>,
) -> Result<End, ReplicaError> {
    let mut stop = std::pin::pin!(stop);
    let replica = tokio::select! {
        started = builder.start() => started?,
        () = &mut stop => return Ok(End::Shutdown),
    };
    tracing::info!(replica = %replica.id(), address = %replica.address(), "serving");
    let looking = async {
        loop {
            health.send_modify(|now| *now = replica.is_ready());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let end = tokio::select! {
        end = replica.ended() => end,
        () = stop => Ok(End::Shutdown),
        never = looking => never,
    };
    health.send_modify(|now| *now = Err("it is shutting down".into()));
    tracing::info!("shutting down");
    replica.shutdown().await;
    tracing::info!("stopped");
    end
}

#[cfg(not(feature = "http"))]
async fn listen(address: std::net::SocketAddr, _: Health) -> anyhow::Result<()> {
    anyhow::bail!(
        "replica.toml has `http = \"{address}\"`, but this program was built without it: build it \
         with `--features http`, or remove the line"
    )
}
