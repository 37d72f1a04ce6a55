//! The claims about single-decree Paxos.
//!
//! | module | claims of |
//! |---|---|
//! | `guides` | "Paxos By Example" and the Paxos guide |
//! | `made_simple` | Lamport, *Paxos Made Simple*, 2001: each in a short run of its own |
//! | `schedules` | its invariants P2 to P2c, in random schedules of 3 and 5 acceptors |
//! | `exhaustive` | the same, in every schedule of a small instance |
//! | `multi_paxos` | its section 3 and the guides, on a stable leader: counted in messages and round trips |
//! | `log_exhaustive` | two slots with a change of acceptors between them, in every schedule |

mod cluster;
mod exhaustive;
mod guides;
mod history;
mod log_exhaustive;
mod made_simple;
mod multi_paxos;
mod node;
mod schedules;

use std::collections::BTreeSet;

use history::Violation;
use node::Value;

const NOBODY: [u32; 0] = [];
const NOTHING: [Value; 0] = [];
const NO_VIOLATION: BTreeSet<Violation> = BTreeSet::new();
