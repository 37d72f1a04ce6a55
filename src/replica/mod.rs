//! A coordinator replica, run.
//!
//! ```no_run
//! # async fn example(
//! #     access: paxos_commit::transport::Access,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use paxos_commit::replica::Replica;
//!
//! let builder = Replica::builder("/var/lib/paxos-commit".into(), "[::]:7400".parse()?, access);
//! builder.run_until(async { tokio::signal::ctrl_c().await.expect("a signal handler") }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A data directory is made once, by [`init`], and belongs to one replica id for ever. A replica
//! that has lost its disk never comes back under its id: it is replaced by a new one.
//!
//! Before it serves, a replica hears from F of the others how far they remember its store to be: one
//! that has lost what it promised must not vote.

mod builder;
mod metering;
mod saying;
mod shell;
mod starting;

pub use builder::{End, Replica, ReplicaBuilder, ReplicaError, Tuning};
pub use metering::describe_metrics;
pub use starting::init;
