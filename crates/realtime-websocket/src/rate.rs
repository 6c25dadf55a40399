//! [`Rate`]: a limit on the messages of a client.

use std::time::{Duration, Instant};

/// Token bucket with ten seconds' worth of messages, stored as the time at which it is full again.
#[derive(Debug)]
pub(crate) struct Rate {
    full_at: Instant,
}

/// Time whose worth of messages an idle client may send at once.
const BURST: Duration = Duration::from_secs(10);

impl Rate {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one message of `per_second` from the bucket if there is one; 0 means no limit.
    pub(crate) fn allows(&mut self, now: Instant, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let full_at = self.full_at.max(now) + Duration::from_secs(1) / per_second;
        let allowed = full_at.duration_since(now) <= BURST;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_may_come_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert_eq!((0..100).filter(|_| rate.allows(start, 5)).count(), 50);
        let later = start + Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| rate.allows(later, 5)).count(), 10);
        assert!((0..100_000).all(|_| rate.allows(start, 0)));
    }
}
