//! [`RedisClock`]: Redis' clock, read on this node; and [`AgeFilter`], by which a starting node skips old entries.
//!
//! The clocks of nodes and publishers decide nothing: a clock that is ten minutes behind would make a publisher's entries
//! look old to every starting node.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::millis::millis;

/// Time between two heartbeats of a node.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Redis' clock as of its last answer to `TIME`, advanced by this node's monotonic clock.
#[derive(Debug)]
pub(super) struct RedisClock {
    created: Instant,
    /// Redis' time at `created`, in milliseconds since 1970.
    at_creation: AtomicU64,
}

/// Redis' answer to `TIME`, in milliseconds since 1970, and the time at which it was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RedisTime {
    pub(crate) millis: u64,
    pub(crate) asked: Instant,
}

impl RedisTime {
    /// Converts an answer to `TIME`: seconds and microseconds.
    pub(super) fn new((seconds, micros): (u64, u64), asked: Instant) -> Self {
        Self { millis: seconds.saturating_mul(1000).saturating_add(micros / 1000), asked }
    }

    /// The age of an entry at an instant on this node's clock.
    pub(super) fn age(self, at: u64, now: Instant) -> Duration {
        let passed = millis(now.saturating_duration_since(self.asked));
        Duration::from_millis(self.millis.saturating_add(passed).saturating_sub(at))
    }
}

impl RedisClock {
    pub(super) fn new(time: RedisTime) -> Self {
        Self { created: time.asked, at_creation: AtomicU64::new(time.millis) }
    }

    /// Returns milliseconds since 1970. The result may be ahead by the latency of the answer, which makes an entry look
    /// younger.
    pub(super) fn now(&self) -> u64 {
        self.at_creation.load(Ordering::Relaxed).saturating_add(millis(self.created.elapsed()))
    }

    /// Adjusts the clock to a newer answer.
    pub(super) fn set(&self, time: RedisTime) {
        let since = millis(time.asked.saturating_duration_since(self.created));
        self.at_creation.store(time.millis.saturating_sub(since), Ordering::Relaxed);
    }

    /// Returns the time until the next full second of Redis' clock. All nodes write their heartbeats then: every tail is
    /// woken by all of them, and gets those of one moment in few reads.
    pub(super) fn until_next_heartbeat(&self) -> Duration {
        let interval = millis(HEARTBEAT_INTERVAL);
        let left = interval - self.now() % interval;
        // If the clock was set back a little, there must not be a second heartbeat.
        Duration::from_millis(if left < interval / 10 { left + interval } else { left })
    }
}

/// Skips the entries at the beginning of the stream that are older than the window, up to the first that is not.
///
/// Entries are ordered by time, so each is at least as new as everything before it, regardless of its publisher's clock.
#[derive(Debug)]
pub(super) struct AgeFilter {
    /// The newest time so far.
    newest: u64,
    /// Older entries are skipped.
    limit: u64,
}

impl AgeFilter {
    pub(super) fn new(now: RedisTime, max_age: Duration) -> Self {
        Self { newest: 0, limit: now.millis.saturating_sub(millis(max_age)) }
    }

    /// Adjusts the limit to a newer time.
    pub(super) fn set(&mut self, now: RedisTime, max_age: Duration) {
        self.limit = Self::new(now, max_age).limit;
    }

    /// Returns whether the next entry is too old. The number of an epoch is the time at which it began, or later.
    pub(super) fn is_too_old(&mut self, epoch: u64, at: Option<u64>) -> bool {
        self.newest = self.newest.max(epoch).max(at.unwrap_or(0));
        self.newest < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_new_as_the_newest_before_it() {
        let now = RedisTime { millis: 10_000, asked: Instant::now() };
        let mut filter = AgeFilter::new(now, Duration::from_secs(5));
        assert!(filter.is_too_old(100, None), "an entry without a time in an old epoch");
        assert!(filter.is_too_old(100, Some(4_999)));
        assert!(filter.is_too_old(100, None));
        assert!(!filter.is_too_old(100, Some(5_000)));
        assert!(!filter.is_too_old(100, Some(7)), "a publisher whose clock is behind");
        assert!(!filter.is_too_old(100, None));
        let mut filter = AgeFilter::new(now, Duration::from_secs(5));
        assert!(!filter.is_too_old(6_000, Some(7)), "a new epoch is a time, too");
    }

    #[test]
    fn the_clock_advances_and_follows_redis() {
        let asked = Instant::now();
        let clock = RedisClock::new(RedisTime::new((5, 999_999), asked));
        assert!((5_999..65_999).contains(&clock.now()));
        clock.set(RedisTime { millis: 1_000_000, asked });
        assert!((1_000_000..1_060_000).contains(&clock.now()));
    }
}
