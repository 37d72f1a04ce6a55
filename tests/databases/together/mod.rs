//! Both databases in one transaction, and everything that can be gone.

mod names;
mod outages;
mod scene;
mod steps;
pub(crate) mod tap;
