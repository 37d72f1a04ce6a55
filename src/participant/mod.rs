//! A service that takes part in transactions.

mod resource_manager;

pub use resource_manager::{BranchId, Expiry, ResourceManager};
