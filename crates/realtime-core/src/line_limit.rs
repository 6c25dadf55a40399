//! [`LineLimit`]: the bound of lines in the program's log that anybody may cause.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Limit of lines in the program's log that clients or faults cause: so many in an interval, and the others are counted.
///
/// ```
/// # use std::time::Duration;
/// use realtime_core::wire::LineLimit;
///
/// static LINES: LineLimit = LineLimit::new(1, Duration::from_secs(1));
/// assert_eq!(LINES.next(), Some(0));
/// assert_eq!(LINES.next(), None);
/// ```
#[derive(Debug)]
pub struct LineLimit {
    lines: u32,
    interval: Duration,
    current: Mutex<Interval>,
}

#[derive(Debug)]
struct Interval {
    begin: Option<Instant>,
    logged: u32,
    unlogged: u64,
}

impl LineLimit {
    /// A limit of `lines` in each `interval`, which begins with its first line.
    pub const fn new(lines: u32, interval: Duration) -> Self {
        let current = Mutex::new(Interval { begin: None, logged: 0, unlogged: 0 });
        Self { lines, interval, current }
    }

    /// A limit of one line a second.
    pub const fn per_second() -> Self {
        Self::new(1, Duration::from_secs(1))
    }

    /// `Some` if a line may be logged now: with the number of those since the last one that were not.
    pub fn next(&self) -> Option<u64> {
        self.next_at(Instant::now())
    }

    fn next_at(&self, now: Instant) -> Option<u64> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.begin.is_none_or(|begin| now.saturating_duration_since(begin) >= self.interval) {
            (current.begin, current.logged) = (Some(now), 0);
        }
        if current.logged == self.lines {
            current.unlogged += 1;
            return None;
        }
        current.logged += 1;
        Some(mem::take(&mut current.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_counted_in_the_next_one() {
        let (limit, begin) = (LineLimit::new(2, Duration::from_secs(10)), Instant::now());
        let logged = [0, 1, 2, 9, 10, 11, 12, 30].map(|s| limit.next_at(begin + Duration::from_secs(s)));
        assert_eq!(logged, [Some(0), Some(0), None, None, Some(2), Some(0), None, Some(1)]);
    }
}
