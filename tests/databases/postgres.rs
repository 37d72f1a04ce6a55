//! PostgreSQL.

mod cluster;
mod connecting;
mod faults;
mod finishing;
mod preparing;
mod server;
mod slow;
mod support;
mod working;
