//! Single-decree Paxos (Lamport, *Paxos Made Simple*, 2001), generic over the value.
//!
//! Three roles, each a plain state machine without I/O; one process may combine them in any mix:
//!
//! | role | in | out |
//! |---|---|---|
//! | [`Acceptor`] | `promise(ballot)`, `accept(ballot, value)` | what it accepted before, or a [`Nack`] that tells the higher ballot |
//! | [`Proposer`] | promises, nacks | [`Choice::Bound`] or [`Choice::Free`], once a majority has promised |
//! | [`Learner`] | reports of what was accepted | the chosen value |
//!
//! What the caller owes: an acceptor's state is durable before its answer leaves; a ballot is saved
//! before its first message leaves, and used once.
//!
//! [`log`] makes a sequence of such instances: Multi-Paxos.
//!
//! [`Ballot::ZERO`] needs no phase 1. That is what Paxos Commit builds on: there it belongs to the
//! participants' votes. `examples/paxos_by_example.rs` walks through a whole run.

mod acceptor;
mod ballot;
mod learner;
pub mod log;
mod proposer;
mod quorum;

pub use acceptor::{Acceptor, Nack, Refusal};
pub use ballot::{Ballot, ReplicaId};
pub use learner::Learner;
pub use proposer::{Choice, Proposer};
pub use quorum::{ACCEPTORS_MAX, Acceptors, AcceptorsError, Tally};
