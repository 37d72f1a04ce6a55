//! PostgreSQL.

mod server;
