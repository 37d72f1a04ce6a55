//! The claims of Gray & Lamport, *Consensus on Transaction Commit*, 2006, about this crate's hosts.
//!
//! Sections are those of the paper; "appendix" is its TLA+ module PaxosCommit. What the paper
//! leaves to an implementation stands under the section of the crate's design.
//!
//! | module | claims about |
//! |---|---|
//! | `ballot_zero` | ballot 0 belongs to the RMs; one message stands for all their votes |
//! | `choice` | what a leader may propose |
//! | `atomic` | commit iff all are prepared; stability; consistency |
//! | `learning` | when an outcome is final |
//! | `non_blocking` | any F of 2F+1 replicas may die |
//! | `two_phase` | F = 0 is two-phase commit |
//! | `delays` | message delays, forced writes, messages |
//! | `recovery` | leaders that crash, leaders that compete, RMs that never vote |
//! | `durable` | saved before sent, in order |
//! | `read_only` | branches that changed nothing |

mod atomic;
mod ballot_zero;
mod choice;
mod cluster;
mod delays;
mod durable;
mod learning;
mod node;
mod non_blocking;
mod read_only;
mod recovery;
mod two_phase;
mod wire;

use paxos_commit::protocol::types::{Outcome, Vote};

use node::Will;

const COMMIT: Option<Outcome> = Some(Outcome::Commit);
const ABORT: Option<Outcome> = Some(Outcome::Abort);

const PREPARED: Will = Will::Say(Vote::Prepared);
const READ_ONLY: Will = Will::Say(Vote::ReadOnly);
const ABORTED: Will = Will::Say(Vote::Aborted);
