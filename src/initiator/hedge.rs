//! How long to wait for a relay before the next one is asked too.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(2);
/// Busy replicas are not asked more because they are busy. But a dead one costs this much, once: then
/// it is passed over until it is heard of.
const DELAY_MAX: Duration = Duration::from_millis(250);

/// Follows how long commits take, as TCP follows round trips (RFC 6298): the mean and the mean
/// deviation, smoothed. A commit that takes the mean and four deviations is late; then its relay
/// may be dead, and another is asked as well, which is harmless if it is not.
#[derive(Debug, Default)]
pub(super) struct Hedge {
    /// Seconds; none before the first commit.
    mean: Option<f64>,
    deviation: f64,
    /// The delay that was told last.
    told: Option<Duration>,
}

impl Hedge {
    /// A commit took so long. The new delay, if it has grown, or fallen by a fifth.
    pub(super) fn took(&mut self, time: Duration) -> Option<Duration> {
        // One that took longer was asked of two replicas: it may have waited for a dead one most of
        // the time, and must not make the next ones wait longer for that. (As TCP does not measure
        // what it has sent twice.) When all get slower, the delay follows in some steps.
        let most = self.told.map_or(time, |told| told * 2);
        let time = time.min(most).as_secs_f64();
        match self.mean {
            None => {
                self.mean = Some(time);
                self.deviation = time / 2.0;
            }
            Some(mean) => {
                self.deviation += ((time - mean).abs() - self.deviation) / 4.0;
                self.mean = Some(mean + (time - mean) / 8.0);
            }
        }
        let delay = self.mean.unwrap_or(time) + 4.0 * self.deviation;
        let delay = Duration::from_secs_f64(delay).clamp(DELAY_MIN, DELAY_MAX);
        let told = self.told.unwrap_or_default();
        // What has grown is told at once: else every commit might take a little longer than that.
        if delay <= told && told - delay <= told / 5 {
            return None;
        }
        self.told = Some(delay);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_commits_take_within_bounds() {
        let mut hedge = Hedge::default();
        assert_eq!(
            hedge.took(Duration::from_millis(4)),
            Some(Duration::from_millis(12))
        );
        for _ in 0..100 {
            hedge.took(Duration::from_millis(4));
        }
        assert!(hedge.told < Some(Duration::from_millis(6)));
        assert_eq!(hedge.took(Duration::from_millis(4)), None);
        let before = hedge.told.unwrap();
        let after = hedge.took(Duration::from_secs(5)).unwrap();
        assert!(
            after < before * 4,
            "one that was hedged: {before:?}, {after:?}"
        );
        for _ in 0..20 {
            hedge.took(Duration::from_secs(5));
        }
        assert_eq!(hedge.told, Some(DELAY_MAX));
        for _ in 0..200 {
            hedge.took(Duration::from_micros(10));
        }
        // Not below the least, nor told again for less than a fifth.
        assert!((DELAY_MIN..DELAY_MIN * 5 / 4).contains(&hedge.told.unwrap()));
    }
}
