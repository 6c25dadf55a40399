//! [`OncePerSecond`]: the bound of lines in the log that anybody may cause.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Limit of one line a second.
#[derive(Debug, Default)]
pub(crate) struct OncePerSecond {
    /// The second from which on the next line may be logged.
    next: AtomicU64,
}

impl OncePerSecond {
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0) }
    }

    /// Returns `true` if a line may be logged now.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    fn is_due_at(&self, now: u64) -> bool {
        self.next.swap(now + 1, Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_second() {
        let lines = OncePerSecond::new();
        assert_eq!(
            [7, 7, 7, 8, 8, 20].map(|now| lines.is_due_at(now)),
            [true, false, false, true, false, true]
        );
    }
}
