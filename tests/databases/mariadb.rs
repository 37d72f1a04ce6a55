//! MariaDB.

mod cluster;
mod conformance;
mod connections;
mod crashes;
mod facts;
mod locks;
mod names;
mod opening;
mod server;
mod support;
mod working;
