//! [`Ticks`]: the hub's intervals and limits, counted in ticks of one timer per worker.

use std::time::Duration;

use crate::Settings;

/// Length of a tick, and the limits in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) period: Duration,
    /// Ticks between two heartbeats of a session. The sessions are spread over these ticks.
    pub(crate) per_heartbeat: u64,
    pub(crate) max_stall: u32,
    /// Ticks for which a heartbeat may stay unanswered.
    pub(crate) timeout: u32,
    /// Ticks that a closing session has to write its queued frames.
    pub(crate) max_closing: u32,
    /// Ticks for which the end of a session waits for the log.
    pub(crate) max_hold: u32,
}

/// The longest time for which the end of a session waits for earlier messages.
const HOLD: Duration = Duration::from_secs(3);

impl Ticks {
    pub(crate) fn new(settings: &Settings) -> Self {
        let heartbeat = &settings.heartbeat;
        let shortest = heartbeat.interval.min(heartbeat.timeout).min(settings.outbox.max_stall);
        let period = (shortest / 4).clamp(Duration::from_millis(25), Duration::from_secs(1));
        let count = |duration: Duration| -> u64 {
            u64::try_from(duration.as_nanos().div_ceil(period.as_nanos())).unwrap_or(u64::MAX).max(1)
        };
        let limit = |duration| u32::try_from(count(duration)).unwrap_or(u32::MAX);
        Self {
            period,
            per_heartbeat: count(heartbeat.interval),
            max_stall: limit(settings.outbox.max_stall),
            timeout: limit(heartbeat.timeout),
            max_closing: limit(settings.outbox.max_stall),
            max_hold: limit(HOLD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_tick_every_second() {
        let ticks = Ticks::new(&Settings::default());
        assert_eq!(ticks.period, Duration::from_secs(1));
        assert_eq!((ticks.per_heartbeat, ticks.max_stall, ticks.timeout), (20, 8, 10));
    }
}
