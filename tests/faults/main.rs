//! Faults on real processes, disks and networks: that nothing is lost, blocked, contradicted or let
//! in.
//!
//! ```text
//! cargo test --test faults                                  # what needs no root and no tools
//! cargo test --features fault-injection --test faults       # all of it; Linux, root
//! FAULT_SECONDS=600 FAULT_SEED=7 cargo test --release --test faults processes -- --nocapture
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod amnesia;
mod bank;
#[cfg(feature = "fault-injection")]
mod disks;
mod files;
mod harness;
mod hostile;
#[cfg(feature = "fault-injection")]
mod losing_fs;
mod membership;
mod network;
mod operating;
#[cfg(feature = "fault-injection")]
mod power;
mod processes;
mod rot;
mod soak;
mod stores;
#[cfg(feature = "fault-injection")]
mod syscalls;
#[cfg(feature = "fault-injection")]
mod time;
#[cfg(feature = "fault-injection")]
mod tools;
