//! Whole clusters in this process: real QUIC, real stores.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

mod failures;
mod outcomes;
mod restarts;
