//! What all faults share.

pub(crate) mod knobs;

pub(crate) use knobs::Knobs;
