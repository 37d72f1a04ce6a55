//! Whole clusters in this process: real QUIC, real stores.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod counter_examples;
mod counters;
mod load;
mod logs;
mod stranger;
mod support;

mod amnesia;
mod failures;
mod generations;
mod guard;
mod identities;
mod limits;
mod membership;
mod networks;
mod operating;
mod outcomes;
mod plans;
mod restarts;
mod stores;
mod unasked;
