//! Hostile peers: refused or contained, counted, logged without flooding, at the cost of bounded
//! memory; and honest traffic goes on.
//!
//! Every attack is one on replica 1 of an [`Arena`](crate::harness::Arena) under load, from this
//! process, and is judged by [`Siege::withstand`](siege::Siege::withstand). Which refusals there are
//! for which offence is told by `tests/cluster/identities.rs`; here it is told what ten thousand of
//! them do.

mod attacker;
mod insiders;
mod liars;
mod siege;
mod strangers;

use std::time::Duration;

use crate::harness::Knobs;

/// The usual length of an attack: with more seconds there are more offences.
const USUAL: Duration = Duration::from_secs(6);

/// So many, or in a longer run proportionally more.
fn scaled(knobs: &Knobs, usual: usize) -> usize {
    let times = knobs.duration.as_secs_f64() / USUAL.as_secs_f64();
    (usual as f64 * times.max(0.1)).ceil() as usize
}
