//! What a committer did, for metrics.

use std::time::Duration;

/// One save, as metrics see it.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// From the first write into the batch until it was durable.
    pub latency: Duration,
    /// How many jobs it served.
    pub jobs: usize,
    /// How many keys it wrote.
    pub records: usize,
    /// How many bytes these had.
    pub bytes: usize,
}

/// What a committer has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Forced writes.
    pub saves: u64,
    /// Jobs that were completed, those included that had nothing to write.
    pub jobs: u64,
    /// Keys written by saves.
    pub records: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// How long the last save took, in microseconds.
    pub last_us: u64,
    /// How long the longest save took, in microseconds.
    pub longest_us: u64,
    /// How long all saves took, in microseconds.
    pub total_us: u64,
}

/// What is told of each save.
pub type Observer = Box<dyn FnMut(Saved) + Send>;
