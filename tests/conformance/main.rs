//! The conformance kit, checked: a store without faults and the embedded store pass it, and each
//! planted fault is found by the rule that it breaks.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod embedded;
mod faults;
mod toy;
