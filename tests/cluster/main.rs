//! Whole clusters in this process: real QUIC, real stores.

mod support;

mod outcomes;
