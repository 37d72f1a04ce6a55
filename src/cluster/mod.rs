//! Whole clusters: for tests, demonstrations and benchmarks.

mod files;
mod local;
mod processes;
mod relay;

pub use files::{ClusterFiles, FilesError};
pub use local::{ClusterError, LocalCluster};
pub use processes::{ChildProcess, ProcessCluster, ProcessError};
pub use relay::{Cut, Passed, Relay, Weather};
