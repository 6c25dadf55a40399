//! [`PassStats`]: what one pass over a shard's sessions did.

use std::time::Duration;

use crate::{GapReason, Position, metrics::Metrics, session::state::SessionState};

/// Counters of one pass, added to the node's metrics at its end.
#[derive(Debug, Default)]
pub(crate) struct PassStats {
    pub(crate) delivered: u64,
    pub(crate) catch_ups: u64,
    pub(crate) gaps: u64,
    pub(crate) untold_gaps: u64,
    pub(crate) local_lost: u64,
    /// Sessions that were met, for whichever of the entries.
    pub(super) visits: usize,
    /// Sockets that were written to.
    pub(super) writes: usize,
    /// The time over which clients that are told of a gap should load their state afresh.
    spread: Duration,
}

impl PassStats {
    /// Nothing yet; clients that are told of a gap load their state afresh within `spread`.
    pub(crate) fn new(spread: Duration) -> Self {
        Self { spread, ..Self::default() }
    }

    /// One client's part of the spread.
    pub(crate) fn delay(&self) -> Duration {
        self.spread.mul_f64(rand::random::<f64>())
    }

    /// Tells a session that something is missing, or counts that it can't be told.
    pub(crate) fn announce(&mut self, session: &SessionState, reason: GapReason, cursor: Option<Position>) {
        match session.wire().wire.gap(reason, cursor, self.delay()) {
            Some(frame) => {
                session.outbox.force(&frame);
                self.gaps += 1;
            }
            None => self.untold_gaps += 1,
        }
    }

    /// Adds everything to the metrics.
    pub(crate) fn record(self, metrics: &Metrics) {
        metrics.delivered.add(self.delivered);
        metrics.catch_ups.add(self.catch_ups);
        metrics.gaps.add(self.gaps);
        metrics.untold_gaps.add(self.untold_gaps);
        metrics.local_lost.add(self.local_lost);
    }
}
