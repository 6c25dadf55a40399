//! [`RedisClock`]: Redis' clock, read on this node; and [`AgeFilter`], which entries a node that starts leaves out.
//!
//! The clocks of nodes and publishers decide nothing: one that is ten minutes behind would make what it publishes look
//! old to every node that starts.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Redis' clock as of its last answer to `TIME`, carried on by this node's monotonic clock.
#[derive(Debug)]
pub(super) struct RedisClock {
    created: Instant,
    /// Redis' time at `created`, in milliseconds since 1970.
    at_creation: AtomicU64,
}

/// Redis' answer to `TIME`, in milliseconds since 1970, and when it was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RedisTime {
    pub(crate) millis: u64,
    pub(crate) asked: Instant,
}

impl RedisTime {
    /// The answer to `TIME`: seconds and microseconds.
    pub(super) fn new((seconds, micros): (u64, u64), asked: Instant) -> Self {
        Self { millis: seconds.saturating_mul(1000).saturating_add(micros / 1000), asked }
    }
}

impl RedisClock {
    pub(super) fn new(time: RedisTime) -> Self {
        Self { created: time.asked, at_creation: AtomicU64::new(time.millis) }
    }

    /// Milliseconds since 1970. It may be ahead by as long as the answer was under way: an entry looks younger then.
    pub(super) fn now(&self) -> u64 {
        self.at_creation.load(Ordering::Relaxed).saturating_add(millis(self.created.elapsed()))
    }

    /// Goes by a newer answer from now on.
    pub(super) fn set(&self, time: RedisTime) {
        let since = millis(time.asked.saturating_duration_since(self.created));
        self.at_creation.store(time.millis.saturating_sub(since), Ordering::Relaxed);
    }
}

/// Leaves out the entries at the begin of the stream that are older than the window, until one is young enough.
///
/// Entries are in the order of time, so each is at least as new as everything before it, whatever its own clock says.
#[derive(Debug)]
pub(super) struct AgeFilter {
    /// The newest time so far.
    newest: u64,
    /// What is older is left out.
    limit: u64,
}

impl AgeFilter {
    pub(super) fn new(now: RedisTime, max_age: Duration) -> Self {
        Self { newest: 0, limit: now.millis.saturating_sub(millis(max_age)) }
    }

    /// Goes by a newer time from now on.
    pub(super) fn set(&mut self, now: RedisTime, max_age: Duration) {
        self.limit = Self::new(now, max_age).limit;
    }

    /// Whether the entry that comes next is too old. An epoch's number is the time at which it began, or later.
    pub(super) fn is_too_old(&mut self, epoch: u64, at: Option<u64>) -> bool {
        self.newest = self.newest.max(epoch).max(at.unwrap_or(0));
        self.newest < self.limit
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
    fn the_clock_goes_on_by_itself_and_follows_redis() {
        let asked = Instant::now();
        let clock = RedisClock::new(RedisTime::new((5, 999_999), asked));
        assert!((5_999..65_999).contains(&clock.now()));
        clock.set(RedisTime { millis: 1_000_000, asked });
        assert!((1_000_000..1_060_000).contains(&clock.now()));
    }
}
