//! Mutually authenticated QUIC between replicas and everyone else.

mod authority;
mod credentials;
mod identity;

pub use authority::{AUTHORITY_FILE, Authority, AuthorityError, Issued};
pub use credentials::{Credentials, CredentialsError, server_name};
pub use identity::{
    Identity, IdentityError, Name, Role, draw_initiator, draw_into, draw_session, is_bound,
};
