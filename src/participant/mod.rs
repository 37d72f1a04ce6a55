//! A service that takes part in transactions.
//!
//! ```no_run
//! # #[cfg(feature = "embedded")]
//! # async fn example(
//! #     access: paxos_commit::transport::Access,
//! #     store: paxos_commit::resource::embedded::Embedded,
//! #     txn: paxos_commit::protocol::types::TxnId,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use paxos_commit::participant::Participant;
//!
//! let participant = Participant::builder(access).connect(store.clone()).await?;
//! // A request came in, with the id of a transaction:
//! let branch = participant.branch(txn).await?;
//! store.work(&branch).put("stock/7", "41")?;
//! // ... and goes back to the caller with the answer:
//! let ticket = branch.ticket().to_string();
//! # Ok(())
//! # }
//! ```
//!
//! The service works under its [`Branch`] and hands a [`Ticket`] back; the initiator enlists
//! it; when commit is asked for, the participant has the [`ResourceManager`] prepare, votes, and
//! later commits or rolls back what was chosen. After a crash it asks what became of the branches
//! that stand prepared.
//!
//! Several processes may serve one participant's name, each a session, **if they share one store**:
//! what a process that crashed had prepared is committed or rolled back by any other of its name.
//! Processes that have stores of their own are participants with names of their own: of two stores
//! under one name only the first one takes part.

mod branch;
mod builder;
mod resource_manager;
mod shell;
mod ticket;
mod working;

pub use branch::{Branch, BranchError};
pub use builder::{Participant, ParticipantBuilder};
pub use resource_manager::{BranchId, Expiry, Proof, ResourceManager};
pub use ticket::{Plan, Ticket, TicketError};
