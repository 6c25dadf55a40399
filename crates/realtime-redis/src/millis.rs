//! [`millis`]: times as Redis takes them.

use std::time::Duration;

/// A time in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
