//! Paxos Commit.
pub mod protocol;
