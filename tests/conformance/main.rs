//! The conformance kit, checked: a store without faults passes it, and each planted fault is found by
//! the rule that it breaks. (The embedded store is checked inside the library.)

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod faults;
mod toy;
