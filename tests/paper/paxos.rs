//! The claims about single-decree Paxos.
//!
//! | module | claims of |
//! |---|---|
//! | `guides` | "Paxos By Example" and the Paxos guide |
//! | `made_simple` | Lamport, *Paxos Made Simple*, 2001: each in a short run of its own |
//! | `schedules` | its invariants P2 to P2c, in random schedules of 3 and 5 acceptors |
//! | `exhaustive` | the same, in every schedule of a small instance |

mod cluster;
mod exhaustive;
mod guides;
mod history;
mod made_simple;
mod node;
mod schedules;

use std::collections::BTreeSet;

use history::Violation;
use node::Value;

const NOBODY: [u32; 0] = [];
const NOTHING: [Value; 0] = [];
const NO_VIOLATION: BTreeSet<Violation> = BTreeSet::new();
