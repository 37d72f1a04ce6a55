//! Whole clusters: for tests, demonstrations and benchmarks.

mod files;
mod local;
mod processes;
mod relay;
#[cfg(all(unix, any(feature = "postgres", feature = "mariadb")))]
pub mod servers;

use std::net::SocketAddr;

use crate::protocol::types::Address;

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
pub(crate) use files::fuzz;
pub use files::{ClusterFiles, FilesError};
pub use local::{ClusterError, LocalCluster};
pub use processes::{ChildProcess, ProcessCluster, ProcessError};
pub use relay::{Cut, Passed, Relay, Weather};

fn address(place: SocketAddr) -> Address {
    let text = place.to_string();
    text.parse().expect("a socket address is short")
}
