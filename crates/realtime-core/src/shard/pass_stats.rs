//! [`PassStats`]: counters of one pass over a shard's sessions.

use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "opentelemetry")]
use crate::write_spans::Write;
use crate::{
    Position,
    log::LeftOut,
    metrics::{GapsSnapshot, Metrics, RecoveriesSnapshot},
    node::Node,
    session::state::SessionState,
    trace::Watch,
    wire::GapReason,
};

/// Counters of one pass, added to the node's metrics at its end.
#[derive(Debug, Default)]
pub(crate) struct PassStats {
    pub(crate) delivered: u64,
    pub(crate) catch_ups: u64,
    pub(crate) gaps: GapsSnapshot,
    pub(crate) gaps_unreported: GapsSnapshot,
    pub(crate) recoveries: RecoveriesSnapshot,
    pub(crate) local_dropped: u64,
    pub(crate) expired: u64,
    pub(crate) collapsed: u64,
    pub(crate) dropped_oldest: u64,
    /// Bytes that were written directly.
    pub(super) sent_bytes: u64,
    /// Visited sessions, counted for each entry.
    pub(super) visits: usize,
    /// Sockets that were written to.
    pub(super) writes: usize,
    /// The arrival of the oldest message of the pass.
    pub(super) arrived: Option<Instant>,
    /// Time over which clients reload their state after a gap.
    spread: Duration,
    /// Writes of messages whose trace is recorded.
    #[cfg(feature = "opentelemetry")]
    pub(crate) write_spans: Vec<Write>,
    /// The traces that are on.
    pub(crate) trace: Option<Watch>,
}

impl PassStats {
    /// Counters of 0, for work on a node.
    pub(crate) fn of(node: &Node) -> Self {
        Self { spread: node.settings.drain.window, trace: node.traces.watch(), ..Self::default() }
    }

    /// Random delay of one client within the spread.
    pub(crate) fn delay(&self) -> Duration {
        self.spread.mul_f64(rand::random::<f64>())
    }

    /// Announces a gap to a session, or counts it if the wire format has no gaps.
    pub(crate) fn announce(
        &mut self,
        session: &SessionState,
        reason: GapReason,
        cursor: Option<Position>,
        since: Option<Instant>,
    ) {
        let frame = session.wire().wire.gap(reason, cursor, since.and_then(wall_time), self.delay());
        session.record_gap(reason);
        if let Some(trace) = &self.trace {
            trace.gap(session, reason, frame.is_some());
        }
        match frame {
            Some(frame) => {
                session.outbox.force(&frame);
                self.gaps.count(reason);
            }
            None => self.gaps_unreported.count(reason),
        }
    }

    /// Counts a message that was not sent to some sessions.
    pub(crate) fn leave_out(&mut self, reason: LeftOut, sessions: u64) {
        match reason {
            LeftOut::Expired => self.expired += sessions,
            LeftOut::Collapsed(_) => self.collapsed += sessions,
            LeftOut::Dropped(_) => self.dropped_oldest += sessions,
        }
    }

    /// Adds everything to the metrics.
    pub(crate) fn record(self, metrics: &Metrics) {
        metrics.delivered.add(self.delivered);
        metrics.catch_ups.add(self.catch_ups);
        metrics.gaps.add(&self.gaps);
        metrics.gaps_unreported.add(&self.gaps_unreported);
        metrics.recoveries.add(&self.recoveries);
        metrics.sent_bytes.add(self.sent_bytes);
        metrics.local_dropped.add(self.local_dropped);
        metrics.expired.add(self.expired);
        metrics.collapsed.add(self.collapsed);
        metrics.dropped_oldest.add(self.dropped_oldest);
    }
}

/// The time of day at an instant.
pub(crate) fn wall_time(at: Instant) -> Option<SystemTime> {
    SystemTime::now().checked_sub(at.elapsed())
}
