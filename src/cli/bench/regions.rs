//! Three regions of the world, and how far apart they are.

use std::time::Duration;

/// One-way delays in microseconds between regions, as between data centres on the east coast of
/// North America, on its west coast and in Western Europe; on the diagonal, between zones of one.
const ONE_WAY_US: [[u64; 3]; 3] = [
    [250, 31_000, 38_000],
    [31_000, 250, 65_000],
    [38_000, 65_000, 250],
];

/// The region of the initiator, which is this process.
pub(super) const INITIATOR: usize = 0;

/// The region of the replica or participant with this number, from 1: one region after the other.
pub(super) fn region(number: u32) -> usize {
    (number as usize + ONE_WAY_US.len() - 1) % ONE_WAY_US.len()
}

/// How long a datagram is on its way.
pub(super) fn distance(from: usize, to: usize) -> Duration {
    Duration::from_micros(ONE_WAY_US[from][to])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_far_there_as_back() {
        for from in 0..3 {
            for to in 0..3 {
                assert_eq!(distance(from, to), distance(to, from));
            }
        }
        assert_eq!([1, 2, 3, 4].map(region), [0, 1, 2, 0]);
    }
}
