//! The claims of the literature, each with the test that would fail if this crate violated it.
//!
//! One test per claim; the claim stands above its test, with its source. Where a claim says what
//! goes wrong without it, the test also runs what goes wrong.

#[path = "../invariant/facts/mod.rs"]
#[allow(dead_code, reason = "each judge asks for a part of it")]
mod invariant;
mod paxos;
mod paxos_commit;

#[path = "../../examples/paxos_by_example.rs"]
#[allow(dead_code, reason = "the example's `main` is not run here")]
mod paxos_by_example;
