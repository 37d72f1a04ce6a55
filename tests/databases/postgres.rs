//! PostgreSQL.

mod cluster;
mod conformance;
mod connecting;
mod crowded;
mod faults;
mod finishing;
mod metering;
mod preparing;
mod server;
mod slow;
mod support;
mod working;
