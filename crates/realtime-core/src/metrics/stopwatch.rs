//! [`Stopwatch`]: a time that is taken for the recorder of the facade `metrics`, and costs nothing without that feature.

use std::time::Instant;

/// Time of handshakes, from the request until the session is registered.
pub(crate) const HANDSHAKE: &str = "realtime_handshake_seconds";
/// Time of publishes, until the bus has answered.
#[cfg(feature = "metrics")]
pub(crate) const PUBLISH: &str = "realtime_publish_seconds";
/// Time of passes.
pub(crate) const PASS: &str = "realtime_pass_seconds";
/// Time from the arrival of a message at this node until a pass has delivered it: of the oldest one of each pass.
pub(crate) const DELIVERY: &str = "realtime_delivery_seconds";
/// Time from a publish of this node until a pass of this node has delivered it: of one publish at a time.
#[cfg(feature = "metrics")]
pub(crate) const END_TO_END: &str = "realtime_end_to_end_seconds";

/// The time since something began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    began: Instant,
}

#[cfg(feature = "metrics")]
impl Stopwatch {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Began at this time.
    pub(crate) fn since(began: Instant) -> Self {
        Self { began }
    }

    /// Records the time until now in a histogram.
    pub(crate) fn record(self, name: &'static str) {
        ::metrics::histogram!(name).record(self.began.elapsed());
    }

    /// Records the time until now as that of a publish.
    pub(crate) fn record_publish(self, is_ok: bool) {
        // With constant labels nothing is allocated.
        let histogram = match is_ok {
            true => ::metrics::histogram!(PUBLISH, "outcome" => "ok"),
            false => ::metrics::histogram!(PUBLISH, "outcome" => "error"),
        };
        histogram.record(self.began.elapsed());
    }

    /// Records the time until now in a histogram with one label.
    pub(crate) fn record_with(self, name: &'static str, label: &'static str, value: &str) {
        ::metrics::histogram!(name, label => value.to_owned()).record(self.began.elapsed());
    }
}

#[cfg(not(feature = "metrics"))]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {}
    }

    pub(crate) fn since(_: Instant) -> Self {
        Self {}
    }

    pub(crate) fn record(self, _: &'static str) {}

    pub(crate) fn record_publish(self, _: bool) {}

    pub(crate) fn record_with(self, _: &'static str, _: &'static str, _: &str) {}
}
