//! [`Rate`]: limits on the messages, frames and bytes of a client.

use std::time::{Duration, Instant};

/// Token buckets with ten seconds' worth each, stored as the time after which they are full again.
#[derive(Debug)]
pub(crate) struct Rate {
    at: Instant,
    /// What was taken and has not been refilled by then, in units of [`UNIT`].
    taken: [u32; 3],
}

/// Kind of what is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// Complete messages, control frames among them.
    Messages,
    /// Frames: fragments, whole messages and control frames.
    Frames,
    /// Bytes, headers of frames among them.
    Bytes,
}

/// A tenth of a microsecond: the time of a byte at 10 MB/s.
const UNIT: Duration = Duration::from_nanos(100);

/// Units in a second.
const SECOND: u64 = 10_000_000;

/// Units whose worth an idle client may send at once.
const BURST: u64 = 10 * SECOND;

impl Rate {
    /// Full buckets.
    pub(crate) fn new(now: Instant) -> Self {
        Self { at: now, taken: [0; 3] }
    }

    /// Takes an amount of `per_second` from its bucket if there is that much; 0 means no limit.
    pub(crate) fn allows(&mut self, now: Instant, kind: Amount, amount: usize, per_second: u32) -> bool {
        if per_second == 0 || amount == 0 {
            return true;
        }
        self.refill(now);
        let taken = &mut self.taken[kind as usize];
        let cost = (amount as u64).saturating_mul(SECOND).div_ceil(per_second.into());
        let after = u64::from(*taken).saturating_add(cost);
        let allowed = after <= BURST;
        if allowed {
            *taken = after as u32;
        }
        allowed
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos() / UNIT.as_nanos();
        // What is less than a unit counts the next time.
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed == u32::MAX {
            (self.at, self.taken) = (now, [0; 3]);
        } else if passed > 0 {
            self.at += UNIT * passed;
            self.taken = self.taken.map(|taken| taken.saturating_sub(passed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_may_come_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut allowed = |now, count, per_second| {
            (0..count).filter(|_| rate.allows(now, Amount::Messages, 1, per_second)).count()
        };
        assert_eq!(allowed(start, 100, 5), 50);
        let later = start + Duration::from_secs(2);
        assert_eq!(allowed(later, 100, 5), 10);
        assert_eq!(allowed(later, 100_000, 0), 100_000);
        assert_eq!(allowed(later + Duration::from_secs(1_000_000), 100, 5), 50);
    }

    #[test]
    fn each_kind_has_a_bucket_of_its_own() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert!(!rate.allows(start, Amount::Bytes, 1001, 100));
        assert!(rate.allows(start, Amount::Bytes, 1000, 100));
        assert!(!rate.allows(start, Amount::Bytes, 1, 100));
        assert!(rate.allows(start, Amount::Frames, 10, 1));
        assert!(!rate.allows(start, Amount::Frames, 1, 1));
        assert!(rate.allows(start, Amount::Messages, 1, 1));
    }

    #[test]
    fn time_is_neither_lost_nor_won_in_small_steps() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert!(rate.allows(start, Amount::Frames, 100, 10));
        let steps = 10_000_000_u32;
        let step = Duration::from_nanos(150);
        let sent = (1..=steps / 100).filter(|at| {
            let now = start + step * (100 * at);
            rate.allows(now, Amount::Frames, 1, 10)
        });
        // 1.5 s.
        assert_eq!(sent.count(), 15);
    }
}
