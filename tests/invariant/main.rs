//! The omniscient observer of the judges sees each violation, and nothing else.

#![allow(clippy::unwrap_used, reason = "what cannot be set up is a failure")]

#[allow(dead_code, reason = "the judges ask for more")]
mod facts;
mod log;
mod transactions;
