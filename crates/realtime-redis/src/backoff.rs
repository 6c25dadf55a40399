//! [`Backoff`]: the pause before the next attempt.

use std::time::Duration;

/// Pauses that grow with every failure and differ between nodes, so that they don't all reconnect to Redis at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_millis(800);

impl Backoff {
    /// Returns a pause between half of the current step and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let step = (FIRST * 2_u32.saturating_pow(self.failures)).min(LAST);
        self.failures = (self.failures + 1).min(8);
        step.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        for _ in 0..100 {
            assert!(backoff.next() <= LAST);
        }
        assert!(backoff.next() >= LAST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
