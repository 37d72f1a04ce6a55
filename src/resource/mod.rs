//! Ready resource managers: stores that take part in transactions.
//!
//! | module | feature | what |
//! |---|---|---|
//! | `embedded` | `embedded` (default) | a transactional key-value store in this process, on fjall |
//! | `mariadb` | `mariadb` | a MariaDB server, by XA |
//! | `postgres` | `postgres` | a PostgreSQL server |
//!
//! What each of them must do is [`ResourceManager`](crate::participant::ResourceManager); the
//! checklist, and a kit that checks it for a resource manager of your own, is in `conformance`
//! (feature `conformance`).

#[cfg(feature = "postgres")]
pub(crate) mod base32;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(any(feature = "mariadb", feature = "postgres"))]
pub(crate) mod identity;
#[cfg(feature = "mariadb")]
pub mod mariadb;
#[cfg(any(feature = "mariadb", feature = "postgres"))]
pub(crate) mod masking;
#[cfg(feature = "postgres")]
pub mod postgres;
