//! Atomic commit across services that does not block when a coordinator crashes.
//!
//! Services that each own durable state take part in one transaction: all commit, or none does.
//! This crate implements *Paxos Commit* (Gray & Lamport, "Consensus on Transaction Commit", ACM
//! TODS 31, 2006) in its faster variant: participants send their votes straight to 2F+1 coordinator
//! replicas, which are Paxos acceptors. A crash of any F replicas, at any instant, neither blocks
//! nor contradicts an outcome; and since no leader takes part in the normal case, there is none to
//! elect. With F = 0 the same code is two-phase commit.
//!
//! At this stage the crate holds the protocol itself, as pure state machines:
//!
//! ```
//! use paxos_commit::protocol::initiator::{InitiatorCommand, InitiatorConfig, InitiatorNotice};
//! use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};
//! use paxos_commit::protocol::types::InitiatorId;
//! use paxos_commit::protocol::{Effects, Host, Initiator, Input};
//!
//! let replicas = Acceptors::new([1, 2, 3].map(ReplicaId)).expect("an odd number of replicas");
//! let config = InitiatorConfig::new(InitiatorId(7), replicas);
//! let mut effects = Effects::default();
//! let mut initiator = Initiator::recover(config, [], &mut effects);
//! initiator.step(Input::Command(InitiatorCommand::Begin), &mut effects);
//! assert!(matches!(effects.notify[..], [InitiatorNotice::Begun(_)]));
//! ```
//!
//! Start reading in [`protocol`].

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod config;
mod driver;
pub mod initiator;
pub mod operator;
pub mod participant;
pub mod protocol;
pub mod replica;
pub mod resource;
pub mod store;
pub mod transport;
pub mod wire;
