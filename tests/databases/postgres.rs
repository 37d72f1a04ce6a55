//! PostgreSQL.

mod cluster;
mod conformance;
mod connecting;
mod crowded;
mod faults;
mod finishing;
mod identity;
mod metering;
mod preparing;
mod proof;
mod server;
mod settings;
mod slow;
mod standby;
mod support;
mod working;
