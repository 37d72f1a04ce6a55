//! Whole clusters in this process: real QUIC, real stores.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod counter_examples;
mod counters;
mod load;
mod stranger;
mod support;

mod amnesia;
mod failures;
mod generations;
mod identities;
mod limits;
mod membership;
mod operating;
mod outcomes;
mod restarts;
