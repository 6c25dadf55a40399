//! [`Metrics`]: the counters of a node.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::{CloseReason, error::ConnectError};

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
    pub(crate) dropped_oldest: Counter,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) taken_over: Counter,
    pub(crate) taken_over_ended: Counter,
    pub(crate) slow_consumers: Counter,
    pub(crate) refused: Counter,
    pub(crate) refused_by: Refusals,
    pub(crate) ended_by_limit: EndsByLimit,
    pub(crate) publishes_refused: Counter,
    pub(crate) topics_refused: Counter,
    pub(crate) cluster_unchecked: Counter,
    pub(crate) panics: Counter,
    pub(crate) streams_dropped: Counter,
    pub(crate) unreadable: Counter,
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
    /// Messages that were not sent to a session because enough newer ones of their class were there
    /// ([`SlowPolicy::DropOldest`](crate::SlowPolicy::DropOldest)), counted for each session.
    pub dropped_oldest: u64,
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
    /// The same by reason.
    pub refused_by: RefusalsSnapshot,
    /// Sessions that a limit ended, by limit; `slow_consumers` has a counter of its own.
    pub ended_by_limit: EndsByLimitSnapshot,
    /// Messages that were not published or sent because they were too large, or had too many targets.
    pub publishes_refused: u64,
    /// Topics that clients were refused because their sessions were in as many as they may be.
    pub topics_refused: u64,
    /// Connections that were admitted without knowing the user's sessions on other nodes, since presence was unavailable.
    pub cluster_unchecked: u64,
    /// Delivery passes that panicked and were restarted.
    pub panics: u64,
    /// Text streams that had ended and were forgotten before `streams.keep`, to make room.
    pub streams_dropped: u64,
    /// Broken content in the store of a cluster's presence and control: entries that were skipped each time they were read,
    /// and keys that were begun anew.
    pub unreadable: u64,
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
            dropped_oldest: self.dropped_oldest.value(),
            // Counted by the table itself.
            retained_dropped: 0,
            opened: self.opened.value(),
            closed: self.closed.value(),
            taken_over: self.taken_over.value(),
            taken_over_ended: self.taken_over_ended.value(),
            slow_consumers: self.slow_consumers.value(),
            refused: self.refused.value(),
            refused_by: self.refused_by.snapshot(),
            ended_by_limit: self.ended_by_limit.snapshot(),
            publishes_refused: self.publishes_refused.value(),
            topics_refused: self.topics_refused.value(),
            cluster_unchecked: self.cluster_unchecked.value(),
            panics: self.panics.value(),
            streams_dropped: self.streams_dropped.value(),
            unreadable: self.unreadable.value(),
        }
    }
}

/// A counter for each of some reasons, with its snapshot.
macro_rules! counters {
    ($(#[$doc:meta])* $counters:ident => $snapshot:ident { $($(#[$field_doc:meta])* $name:ident,)+ }) => {
        #[derive(Debug, Default)]
        pub(crate) struct $counters { $($name: Counter,)+ }

        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $snapshot { $($(#[$field_doc])* pub $name: u64,)+ }

        impl $counters {
            fn snapshot(&self) -> $snapshot {
                $snapshot { $($name: self.$name.value(),)+ }
            }
        }
    };
}

counters! {
    /// Refused connections, by reason.
    Refusals => RefusalsSnapshot {
        /// The node starts and does not know the refused logins yet.
        starting,
        /// The node shuts down, or is cut off from the bus with `bus.onDown: drain`.
        draining,
        /// The login was kicked or revoked.
        kicked,
        /// `limits.maxConnections`.
        node,
        /// `limits.maxConnectionsPerUser`.
        user,
        /// `limits.maxConnectionsPerUserInCluster`.
        cluster,
        /// `limits.maxConnectionsPerToken`.
        token,
        /// `limits.maxConnectionsPerAddress`.
        address,
        /// `limits.maxHandshakeRate`.
        node_rate,
        /// `limits.maxHandshakeRatePerAddress`.
        address_rate,
    }
}

counters! {
    /// Sessions that a limit ended.
    EndsByLimit => EndsByLimitSnapshot {
        /// `limits.maxInboundRate`.
        rate_limited,
        /// `limits.maxInboundBytes`.
        too_big,
        /// `limits.maxConnectionsPer*`, with `limits.onExceeded: endOldest` or over the cluster.
        too_many_sessions,
    }
}

impl Refusals {
    pub(crate) fn count(&self, error: &ConnectError) {
        let counter = match error {
            ConnectError::Starting => &self.starting,
            ConnectError::Draining | ConnectError::BusDown => &self.draining,
            ConnectError::Kicked => &self.kicked,
            ConnectError::Full(_) => &self.node,
            ConnectError::TooManyOfUser(..) => &self.user,
            ConnectError::TooManyInCluster(..) => &self.cluster,
            ConnectError::TooManyOfToken(_) => &self.token,
            ConnectError::TooManyOfAddress(_) => &self.address,
            ConnectError::TooFast { .. } => &self.node_rate,
            ConnectError::TooFastOfAddress { .. } => &self.address_rate,
            // Of a transport that waits, and a fault of the application.
            ConnectError::Behind | ConnectError::TooManyWires(_) => return,
        };
        counter.add(1);
    }
}

impl EndsByLimit {
    pub(crate) fn count(&self, reason: CloseReason) {
        let counter = match reason {
            CloseReason::RateLimited => &self.rate_limited,
            CloseReason::TooBig => &self.too_big,
            CloseReason::TooManySessions => &self.too_many_sessions,
            _ => return,
        };
        counter.add(1);
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
