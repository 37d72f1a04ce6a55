//! Atomic commit across services that does not block when a coordinator crashes.
//!
//! Services that each own durable state take part in one transaction: all commit, or none does.
//! This crate implements *Paxos Commit* (Gray & Lamport, "Consensus on Transaction Commit", ACM
//! TODS 31, 2006) in its faster variant: participants send their votes straight to 2F+1 coordinator
//! replicas, which are Paxos acceptors. A crash of any F replicas, at any instant, neither blocks
//! nor contradicts an outcome; and since no leader takes part in the normal case, there is none to
//! elect. With F = 0 the same code is two-phase commit.
//!
//! A service takes part, and an application commits:
//!
//! ```no_run
//! # #[cfg(feature = "embedded")]
//! # async fn example(access: paxos_commit::Access) -> Result<(), Box<dyn std::error::Error>> {
//! # use paxos_commit::resource::embedded::{Embedded, Options};
//! use paxos_commit::{Initiator, Outcome, Participant};
//!
//! // In a service: a store that can prepare, and a session that votes for it.
//! let store = Embedded::open("data", Options::new())?;
//! let participant = Participant::builder(access.clone()).connect(store.clone()).await?;
//!
//! // In an application: begin; have services work under the id; commit.
//! let initiator = Initiator::builder(access).connect().await?;
//! let mut txn = initiator.begin().await?;
//! let branch = participant.branch(txn.id()).await?;
//! store.work(&branch).put("stock/7", "41")?;
//! txn.enlist(branch.ticket())?;
//! assert_eq!(txn.commit().await?, Outcome::Committed);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`participant`] | link a service: [`Participant`], [`ResourceManager`](participant::ResourceManager), tickets |
//! | [`initiator`] | begin and commit: [`Initiator`], [`Transaction`] |
//! | [`replica`] | run a coordinator replica: [`Replica`] |
//! | [`operator`] | look at everything, end what hangs, change the membership |
//! | [`resource`] | ready resource managers |
//! | [`transport`], [`config`] | identities, certificates, how to reach a cluster; settings in files |
//! | `cluster` | whole clusters for tests and demonstrations (feature `cluster`) |
//! | [`protocol`] | the protocol, pure: start reading here |
//! | [`wire`], [`store`] | what stands on the wire and on disk |
//!
//! Features: `embedded` (the embedded store), `cluster` (clusters in tests, a certificate authority)
//! and `cli` (the binary) are on by default. `postgres` and `mariadb` are the adapters of those
//! databases, `conformance` (in `cluster`) checks a resource manager of your own, and `http` adds
//! `/metrics`, `/livez` and `/readyz` to the binary.

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod config;
mod driver;
#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod initiator;
pub mod operator;
pub mod participant;
pub mod protocol;
mod random;
pub mod replica;
pub mod resource;
pub mod store;
pub mod transport;
pub mod wire;

pub use initiator::{Initiator, Outcome, Transaction};
pub use participant::{Participant, Ticket};
pub use replica::Replica;
pub use transport::Access;
