//! Counters, gauges and timings of a node.
//!
//! [`Hub::metrics`](crate::Hub::metrics) is a [`MetricsSnapshot`], to be put where an application wants it. With the feature
//! `metrics`, `Hub::record_metrics` gives the same to the recorder of the facade
//! [`metrics`](https://docs.rs/metrics), which has the timings as well: every exporter of that facade has all of it then.
//! What happens to single sessions is told to [`HubBuilder::on_open`](crate::HubBuilder::on_open) and
//! [`HubBuilder::on_close`](crate::HubBuilder::on_close).

mod counter;
#[cfg(feature = "metrics")]
pub(crate) mod probe;
mod snapshot;
pub(crate) mod stopwatch;
pub(crate) mod transports;

pub use self::snapshot::{
    BusSnapshot, ClosesSnapshot, EndsByLimitSnapshot, GapsSnapshot, HistorySnapshot, MetricsSnapshot,
    OutboxSnapshot, PublishFailuresSnapshot, RecoveriesSnapshot, RefusalsSnapshot, TransportSnapshot,
};
pub(crate) use self::{counter::Counter, transports::TransportCounters};

use std::sync::Arc;

use self::{
    snapshot::{Gaps, PublishFailures, Recoveries, Refusals},
    transports::Transports,
};
use crate::Transport;

/// Counters of one node since its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) published: Counter,
    pub(crate) publish_failures: PublishFailures,
    pub(crate) received: Counter,
    pub(crate) delivered: Counter,
    pub(crate) replayed: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) gaps: Gaps,
    pub(crate) gaps_unreported: Gaps,
    pub(crate) recoveries: Recoveries,
    pub(crate) local_dropped: Counter,
    pub(crate) expired: Counter,
    pub(crate) collapsed: Counter,
    pub(crate) dropped_oldest: Counter,
    pub(crate) refused: Counter,
    pub(crate) refused_by: Refusals,
    pub(crate) publishes_refused: Counter,
    pub(crate) topics_refused: Counter,
    pub(crate) cluster_unchecked: Counter,
    pub(crate) panics: Counter,
    pub(crate) streams_dropped: Counter,
    pub(crate) unreadable: Counter,
    /// Bytes that passes wrote directly, and those of the shards that have ended.
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    transports: Transports,
}

impl Metrics {
    /// The counters of a transport.
    pub(crate) fn transport(&self, transport: Transport) -> Arc<TransportCounters> {
        self.transports.of(transport)
    }

    /// The counters. What is not counted but looked up is left at 0.
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        let transports = self.transports.snapshot();
        let sum = |count: fn(&TransportSnapshot) -> u64| transports.iter().map(count).sum();
        let ended = |reason: &str| {
            let closes = transports.iter().flat_map(|transport| &transport.closes);
            closes.filter(|closes| closes.reason == reason).map(|closes| closes.count).sum()
        };
        MetricsSnapshot {
            published: self.published.value(),
            publish_failures: self.publish_failures.snapshot(),
            received: self.received.value(),
            delivered: self.delivered.value(),
            replayed: self.replayed.value(),
            catch_ups: self.catch_ups.value(),
            gaps: self.gaps.value(),
            gaps_by: self.gaps.snapshot(),
            gaps_unreported: self.gaps_unreported.value(),
            gaps_unreported_by: self.gaps_unreported.snapshot(),
            recoveries: self.recoveries.snapshot(),
            local_dropped: self.local_dropped.value(),
            expired: self.expired.value(),
            collapsed: self.collapsed.value(),
            dropped_oldest: self.dropped_oldest.value(),
            opened: sum(|transport| transport.opened),
            closed: sum(|transport| transport.closed),
            taken_over: sum(|transport| transport.taken_over),
            taken_over_ended: sum(|transport| transport.taken_over_ended),
            slow_consumers: ended("slow-consumer"),
            refused: self.refused.value(),
            refused_by: self.refused_by.snapshot(),
            ended_by_limit: EndsByLimitSnapshot {
                rate_limited: ended("rate-limited"),
                too_big: ended("too-big"),
                too_many_sessions: ended("too-many-sessions") + ended("limit-reached"),
            },
            publishes_refused: self.publishes_refused.value(),
            topics_refused: self.topics_refused.value(),
            cluster_unchecked: self.cluster_unchecked.value(),
            panics: self.panics.value(),
            streams_dropped: self.streams_dropped.value(),
            unreadable: self.unreadable.value(),
            sent_bytes: self.sent_bytes.value(),
            received_bytes: self.received_bytes.value(),
            transports,
            ..MetricsSnapshot::default()
        }
    }
}
