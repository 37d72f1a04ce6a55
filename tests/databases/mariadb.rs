//! MariaDB.

mod cluster;
mod conformance;
mod connections;
mod crashes;
mod facts;
mod identity;
mod locks;
mod names;
mod opening;
mod proof;
mod server;
mod settings;
mod support;
mod working;
