//! [`Throttle`]: bounds failed attempts, for each key.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

/// Limit of failed attempts, counted for each key (an address, a name). Attempts that succeed are free.
///
/// A key that has used its attempts up is blocked until one is free again, and then gets one at a time. Keys of which
/// nothing has to be known any more are forgotten.
pub(crate) struct Throttle<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock, StateInformationMiddleware>,
    /// Keys without a free attempt, and the time of their next one.
    blocked: Mutex<HashMap<K, Instant>>,
    quota: Quota,
    failures: AtomicU32,
}

/// Failures after which keys are forgotten that have all their attempts again.
const SWEEP: u32 = 256;

impl<K: Hash + Eq + Clone> Throttle<K> {
    /// A throttle that allows so many failures a minute, and at once.
    pub(crate) fn per_minute(failures: NonZeroU32) -> Self {
        let quota = Quota::per_minute(failures);
        let limiter = RateLimiter::hashmap(quota).with_middleware();
        Self { limiter, blocked: Mutex::default(), quota, failures: AtomicU32::new(0) }
    }

    /// The time until `key` may try again, if it has no attempt left.
    pub(crate) fn wait(&self, key: &K) -> Option<Duration> {
        self.blocked().get(key).and_then(|until| left(*until, Instant::now()))
    }

    /// Counts a failed attempt. Returns the time until the next one, if there was none left before.
    pub(crate) fn failed(&self, key: &K) -> Option<Duration> {
        if self.failures.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            self.sweep();
        }
        let (wait, exceeded) = match self.limiter.check_key(key) {
            Ok(state) if state.remaining_burst_capacity() > 0 => return None,
            Ok(_) => (self.quota.replenish_interval(), false),
            Err(not_until) => (not_until.wait_time_from(DefaultClock::default().now()), true),
        };
        self.blocked().insert(key.clone(), Instant::now() + wait);
        exceeded.then_some(wait)
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        let now = Instant::now();
        self.blocked().retain(|_, until| *until > now);
    }

    fn blocked(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left(until: Instant, now: Instant) -> Option<Duration> {
    until.checked_duration_since(now).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_fails_too_often_is_blocked_and_others_are_not() {
        let throttle = Throttle::per_minute(NonZeroU32::new(3).unwrap());
        for _ in 0..3 {
            assert_eq!(throttle.wait(&"a"), None);
            assert_eq!(throttle.failed(&"a"), None);
        }
        // A third of a minute for each attempt.
        let wait = throttle.wait(&"a").unwrap();
        assert!(wait > Duration::from_secs(19) && wait <= Duration::from_secs(20), "{wait:?}");
        assert!(throttle.failed(&"a").unwrap() > Duration::from_secs(19));
        assert_eq!(throttle.wait(&"b"), None);
        assert_eq!(throttle.failed(&"b"), None);
    }

    #[test]
    fn keys_are_forgotten_that_have_all_their_attempts_again() {
        // 1000 a second.
        let throttle = Throttle::per_minute(NonZeroU32::new(60_000).unwrap());
        for key in 0..10 * SWEEP {
            throttle.failed(&key);
            while throttle.limiter.len() > SWEEP as usize {
                throttle.sweep();
            }
        }
    }
}
