//! [`Refusals`]: a bound of the lines about refusals.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bound of the lines about refusals, which strangers cause: so many in each interval, and the others are counted.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Interval>);

#[derive(Default)]
struct Interval {
    begin: Option<Instant>,
    logged: u32,
    unlogged: u64,
}

const INTERVAL: Duration = Duration::from_secs(10);
const LINES: u32 = 20;

impl Refusals {
    /// `Some` if a refusal is to be logged: with the number of those before it that were not.
    pub(crate) fn next(&self, now: Instant) -> Option<u64> {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if interval.begin.is_none_or(|begin| now.saturating_duration_since(begin) >= INTERVAL) {
            (interval.begin, interval.logged) = (Some(now), 0);
        }
        if interval.logged == LINES {
            interval.unlogged += 1;
            return None;
        }
        interval.logged += 1;
        Some(std::mem::take(&mut interval.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_bound_are_counted_in_the_next_line() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(refusals.next(now), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(refusals.next(now + INTERVAL / 2), None);
        }
        assert_eq!(refusals.next(now + INTERVAL), Some(7));
        assert_eq!(refusals.next(now + INTERVAL), Some(0));
    }
}
