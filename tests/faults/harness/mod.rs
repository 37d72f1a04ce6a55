//! What all faults share: the arena, in which everything happens; who does the harm; the auditor.

pub(crate) mod adversary;
pub(crate) mod arena;
pub(crate) mod audit;
pub(crate) mod console;
pub(crate) mod evidence;
pub(crate) mod gauges;
pub(crate) mod knobs;
pub(crate) mod network;
pub(crate) mod process;

pub(crate) use adversary::{Adversary, Harm};
pub(crate) use arena::{Arena, Options};
pub(crate) use knobs::Knobs;
