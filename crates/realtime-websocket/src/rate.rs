//! [`Rate`]: how many messages a client may send.

use std::time::Instant;

/// A token bucket that holds ten seconds' worth.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

/// A client that was silent may send this many seconds' worth at once.
const BURST: f64 = 10.0;

impl Rate {
    /// A rate in messages a second; 0 means no limit.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = if per_second == 0 { f64::INFINITY } else { per_second.into() };
        Self { per_second, tokens: per_second * BURST, filled: now }
    }

    /// Takes one message from the bucket if there is one.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        if self.per_second.is_infinite() {
            return true;
        }
        let refill = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + refill).min(self.per_second * BURST);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ten_seconds_worth_may_come_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(5, start);
        assert_eq!((0..100).filter(|_| rate.allows(start)).count(), 50);
        let later = start + Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| rate.allows(later)).count(), 10);
        let mut unlimited = Rate::new(0, start);
        assert!((0..100_000).all(|_| unlimited.allows(start)));
    }
}
