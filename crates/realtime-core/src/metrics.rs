//! [`Metrics`]: the counters of a node.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters of one node since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) published: Counter,
    pub(crate) received: Counter,
    pub(crate) delivered: Counter,
    pub(crate) replayed: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) gaps: Counter,
    pub(crate) gaps_unreported: Counter,
    pub(crate) local_dropped: Counter,
    pub(crate) expired: Counter,
    pub(crate) collapsed: Counter,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) taken_over: Counter,
    pub(crate) taken_over_ended: Counter,
    pub(crate) slow_consumers: Counter,
    pub(crate) refused: Counter,
    pub(crate) panics: Counter,
    pub(crate) streams_dropped: Counter,
}

/// Snapshot of the counters. Each counts from the node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Envelopes that this node published to the bus.
    pub published: u64,
    /// Envelopes that this node received from the bus.
    pub received: u64,
    /// Frames of the live pass, of local sends and of initial entries that entered an outbox.
    pub delivered: u64,
    /// Frames that sessions read from the log to catch up.
    pub replayed: u64,
    /// Number of times that a session fell behind the live pass.
    pub catch_ups: u64,
    /// Gaps that were announced to sessions.
    pub gaps: u64,
    /// Gaps of sessions whose wire format cannot announce them (raw WebSocket).
    pub gaps_unreported: u64,
    /// Local sends and initial entries that were dropped because an outbox was full.
    pub local_dropped: u64,
    /// Messages that were not sent to a session because their time was over, counted for each session.
    pub expired: u64,
    /// Messages that were not sent to a session because a newer one had replaced them, counted for each session.
    pub collapsed: u64,
    /// Retained messages that were dropped because of the bounds.
    pub retained_dropped: u64,
    /// Sessions that were opened.
    pub opened: u64,
    /// Sessions that ended.
    pub closed: u64,
    /// Sessions whose connection was taken over from the HTTP dispatcher.
    pub taken_over: u64,
    /// Such sessions that ended; the difference is the number that are open.
    pub taken_over_ended: u64,
    /// Sessions that ended because their socket accepted no data.
    pub slow_consumers: u64,
    /// Connections that were refused because of a limit, a kick or a drain.
    pub refused: u64,
    /// Delivery passes that panicked and were restarted.
    pub panics: u64,
    /// Text streams that had ended and were forgotten before `streams.keep`, to make room.
    pub streams_dropped: u64,
}

impl Metrics {
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot {
            published: self.published.value(),
            received: self.received.value(),
            delivered: self.delivered.value(),
            replayed: self.replayed.value(),
            catch_ups: self.catch_ups.value(),
            gaps: self.gaps.value(),
            gaps_unreported: self.gaps_unreported.value(),
            local_dropped: self.local_dropped.value(),
            expired: self.expired.value(),
            collapsed: self.collapsed.value(),
            // Counted by the table itself.
            retained_dropped: 0,
            opened: self.opened.value(),
            closed: self.closed.value(),
            taken_over: self.taken_over.value(),
            taken_over_ended: self.taken_over_ended.value(),
            slow_consumers: self.slow_consumers.value(),
            refused: self.refused.value(),
            panics: self.panics.value(),
            streams_dropped: self.streams_dropped.value(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        if amount > 0 {
            self.0.fetch_add(amount, Ordering::Relaxed);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
