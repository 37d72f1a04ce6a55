//! Ready resource managers: stores that take part in transactions.
//!
//! | module | feature | what |
//! |---|---|---|
//! | `embedded` | `embedded` (default) | a transactional key-value store in this process, on fjall |
//! | `postgres` | `postgres` | a PostgreSQL server |
//!
//! What each of them must do is [`ResourceManager`](crate::participant::ResourceManager).

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "postgres")]
pub mod postgres;
