//! The protocol.
pub mod paxos;
