//! Randomized reconnection times.

use std::time::Duration;

/// A random time between 0.5 and 1.5 times `around`, so that clients do not all reconnect at once.
pub fn random_retry(around: Duration) -> Duration {
    (around / 2).saturating_add(around.mul_f64(rand::random::<f64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_around_the_time() {
        let around = Duration::from_secs(3);
        let times: Vec<_> = (0..100).map(|_| random_retry(around)).collect();
        assert!(times.iter().all(|time| (around / 2..around * 3 / 2).contains(time)), "{times:?}");
        assert!(times.iter().max().unwrap().abs_diff(*times.iter().min().unwrap()) > around / 2);
    }
}
