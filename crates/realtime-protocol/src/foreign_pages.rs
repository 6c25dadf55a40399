//! [`ForeignPages`]: the log of pages of other origins that were refused.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::text::beginning;

/// Bound of the lines about refused pages, of which anybody can make any number: one a second, and the others are counted.
pub(crate) struct ForeignPages {
    /// The second from which on a line may be logged.
    next: AtomicU64,
    unlogged: AtomicU64,
}

/// Bytes of an origin that are logged at most. The longest name of a host has 253.
const MAX_ORIGIN: usize = 300;

impl ForeignPages {
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0), unlogged: AtomicU64::new(0) }
    }

    /// `Some` if a refusal is to be logged: with the number of those before it that were not.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    fn next_at(&self, now: u64) -> Option<u64> {
        if self.next.swap(now + 1, Ordering::Relaxed) <= now {
            return Some(self.unlogged.swap(0, Ordering::Relaxed));
        }
        self.unlogged.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The part of an origin that is logged.
pub(crate) fn shown(origin: &str) -> &str {
    beginning(origin, MAX_ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_between_two_lines_are_counted() {
        let pages = ForeignPages::new();
        let logged = [7, 7, 7, 8, 8, 20].map(|now| pages.next_at(now));
        assert_eq!(logged, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
