//! [`Part`]: a part of a node that uses Redis, as it is named in metrics.

#[cfg(feature = "metrics")]
use std::time::Instant;

/// A part of a node that uses Redis.
///
/// What it does is counted and timed for the recorder of the facade `metrics`, with that feature; without it nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Bus,
    Presence,
    Control,
    Tickets,
    #[cfg(feature = "sa-token")]
    Logins,
}

/// A request that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    #[cfg(feature = "metrics")]
    part: Part,
    #[cfg(feature = "metrics")]
    began: Instant,
}

#[cfg(feature = "metrics")]
impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::Presence => "presence",
            Self::Control => "control",
            Self::Tickets => "tickets",
            #[cfg(feature = "sa-token")]
            Self::Logins => "logins",
        }
    }

    /// Begins a request.
    pub(crate) fn request(self) -> Request {
        Request { part: self, began: Instant::now() }
    }

    /// Records an attempt to connect.
    pub(crate) fn connects(self) {
        metrics::counter!(CONNECTIONS, "part" => self.name()).increment(1);
    }

    /// Records content that could not be read.
    pub(crate) fn skips(self) {
        metrics::counter!(UNDECODABLE, "part" => self.name()).increment(1);
    }

    /// Describes what is recorded. The counters of the part begin at 0.
    pub(crate) fn describe(self) {
        use metrics::{Unit, counter, describe_counter, describe_histogram};
        describe_histogram!(
            COMMAND,
            Unit::Seconds,
            "Time of requests to Redis, retries and waiting for a connection included."
        );
        describe_counter!(CONNECTIONS, Unit::Count, "Attempts to connect to Redis.");
        describe_counter!(UNDECODABLE, Unit::Count, "Content of Redis that could not be read.");
        counter!(CONNECTIONS, "part" => self.name()).increment(0);
        counter!(UNDECODABLE, "part" => self.name()).increment(0);
    }
}

#[cfg(feature = "metrics")]
impl Request {
    /// Records the end of the request.
    pub(crate) fn end(self, is_ok: bool) {
        let outcome = if is_ok { "ok" } else { "error" };
        let histogram = metrics::histogram!(COMMAND, "part" => self.part.name(), "outcome" => outcome);
        histogram.record(self.began.elapsed());
    }
}

#[cfg(feature = "metrics")]
const COMMAND: &str = "realtime_redis_command_seconds";
#[cfg(feature = "metrics")]
const CONNECTIONS: &str = "realtime_redis_connections_total";
#[cfg(feature = "metrics")]
const UNDECODABLE: &str = "realtime_redis_undecodable_total";

#[cfg(not(feature = "metrics"))]
impl Part {
    pub(crate) fn request(self) -> Request {
        Request {}
    }

    pub(crate) fn connects(self) {}

    pub(crate) fn skips(self) {}

    pub(crate) fn describe(self) {}
}

#[cfg(not(feature = "metrics"))]
impl Request {
    pub(crate) fn end(self, _: bool) {}
}
