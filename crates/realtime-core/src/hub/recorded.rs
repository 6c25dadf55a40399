//! [`Hub::record_metrics`]: counters and gauges for the recorder of the facade `metrics`.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use tokio::time::timeout;

use super::Hub;
use crate::{
    CloseReason,
    metrics::{
        GapsSnapshot, MetricsSnapshot,
        stopwatch::{DELIVERY, END_TO_END, HANDSHAKE, PASS, PUBLISH},
    },
};

/// Time that presence may take to answer.
const ASK: Duration = Duration::from_millis(500);

impl Hub {
    /// Gives counters and gauges to the recorder of the facade [`metrics`](https://docs.rs/metrics), with descriptions; to
    /// be called before an exporter is read. The timings are recorded as they are taken.
    ///
    /// The recorder has to be installed before the hub starts. Names begin with `realtime_` and follow Prometheus'
    /// conventions; no label names a user. Presence, which may be that of a cluster, is asked for its size and has half a
    /// second to answer: without an answer `realtime_presence_up` is 0, and its size is NaN. Where presence is off, there is
    /// nothing about it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use realtime_core::Hub;
    /// // Before: `let handle = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;`
    /// let hub = Hub::builder().start()?;
    /// // For each request of Prometheus:
    /// hub.record_metrics().await;
    /// // And `handle.render()` is the answer.
    /// # Ok(())
    /// # }
    /// ```
    pub async fn record_metrics(&self) {
        self.record_metrics_within(Duration::ZERO).await;
    }

    /// The same for an application whose readiness forgives an outage of the bus for that long, as
    /// [`NotReady::is_within`](crate::NotReady::is_within) tells it: `realtime_ready` stays 1 meanwhile.
    pub async fn record_metrics_within(&self, grace: Duration) {
        describe();
        self.record_node(grace);
        record(&self.metrics());
        if self.0.presence.is_off() {
            return;
        }
        let count = timeout(ASK, self.0.presence.count()).await.ok().and_then(Result::ok);
        gauge!("realtime_presence_up").set(flag(count.is_some()));
        let size = |number: Option<usize>| number.map_or(f64::NAN, |number| number as f64);
        gauge!("realtime_presence_users").set(size(count.map(|count| count.users)));
        gauge!("realtime_presence_sessions").set(size(count.map(|count| count.sessions)));
    }

    fn record_node(&self, grace: Duration) {
        let labels = [("node", self.0.name.to_string()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauge!("realtime_node_info", &labels).set(1);
        gauge!("realtime_ready").set(flag(self.not_ready().iter().all(|problem| problem.is_within(grace))));
    }
}

fn record(snapshot: &MetricsSnapshot) {
    let MetricsSnapshot { outbox, bus, history, .. } = snapshot;
    for transport in &snapshot.transports {
        let name = || transport.transport.as_str().to_owned();
        for (lane, sessions) in
            [("taken_over", transport.sessions_taken_over()), ("body", transport.sessions_dispatched())]
        {
            gauge!("realtime_sessions", "transport" => name(), "lane" => lane).set(sessions as f64);
        }
        counter!("realtime_sessions_opened_total", "transport" => name()).absolute(transport.opened);
        let closed = |reason: &str, code: u16| {
            let labels = [("transport", name()), ("reason", reason.to_owned()), ("code", code.to_string())];
            counter!("realtime_sessions_closed_total", &labels)
        };
        // A series that begins with the number of its first ends has no increase that Prometheus would see.
        for (reason, code) in CloseReason::OF_FRAMEWORK.iter().map(CloseReason::counted_as) {
            closed(reason, code).increment(0);
        }
        for closes in &transport.closes {
            closed(closes.reason, closes.code).absolute(closes.count);
        }
    }
    by("realtime_connections_refused_total", "reason", snapshot.refused_by.iter());
    gauge!("realtime_sessions_waiting").set(snapshot.waiting as f64);
    gauge!("realtime_sessions_behind").set(outbox.behind as f64);
    gauge!("realtime_users").set(snapshot.users as f64);
    by("realtime_recoveries_total", "outcome", snapshot.recoveries.iter());
    let gaps = |outcome: &'static str, gaps: &GapsSnapshot| {
        for (reason, count) in gaps.iter() {
            counter!("realtime_gaps_total", "reason" => reason, "outcome" => outcome).absolute(count);
        }
    };
    gaps("announced", &snapshot.gaps_by);
    gaps("unreported", &snapshot.gaps_unreported_by);

    total("realtime_messages_published_total", snapshot.published);
    total("realtime_messages_received_total", snapshot.received);
    let failures = snapshot.publish_failures.iter().chain([("limit", snapshot.publishes_refused)]);
    by("realtime_publish_errors_total", "reason", failures);
    by(
        "realtime_frames_delivered_total",
        "outcome",
        [("live", snapshot.delivered), ("replayed", snapshot.replayed)].into_iter(),
    );
    by(
        "realtime_frames_dropped_total",
        "reason",
        [
            ("expired", snapshot.expired),
            ("collapsed", snapshot.collapsed),
            ("drop_oldest", snapshot.dropped_oldest),
            ("outbox_full", snapshot.local_dropped),
        ]
        .into_iter(),
    );
    total("realtime_catch_ups_total", snapshot.catch_ups);
    total("realtime_sent_bytes_total", snapshot.sent_bytes);
    total("realtime_received_bytes_total", snapshot.received_bytes);
    total("realtime_retained_dropped_total", snapshot.retained_dropped);
    total("realtime_text_streams_dropped_total", snapshot.streams_dropped);
    total("realtime_topics_refused_total", snapshot.topics_refused);
    total("realtime_cluster_limit_unchecked_total", snapshot.cluster_unchecked);
    total("realtime_pass_panics_total", snapshot.panics);
    total("realtime_unreadable_entries_total", snapshot.unreadable);

    gauge!("realtime_outbox_sessions").set(outbox.sessions as f64);
    gauge!("realtime_outbox_frames").set(outbox.frames as f64);
    gauge!("realtime_outbox_max_frames").set(outbox.max_frames as f64);
    gauge!("realtime_outbox_bytes").set(outbox.bytes as f64);
    gauge!("realtime_outbox_max_bytes").set(outbox.max_bytes as f64);
    gauge!("realtime_outbox_age_seconds").set(outbox.age.as_secs_f64());
    gauge!("realtime_bus_up").set(flag(bus.up));
    gauge!("realtime_bus_lag_positions").set(bus.lag_positions as f64);
    gauge!("realtime_bus_lag_seconds").set(bus.lag.map_or(f64::NAN, |lag| lag.as_secs_f64()));
    gauge!("realtime_undelivered_entries").set(bus.undelivered as f64);
    gauge!("realtime_history_entries").set(history.entries as f64);
    gauge!("realtime_history_bytes").set(history.bytes as f64);
    gauge!("realtime_history_age_seconds").set(history.age.as_secs_f64());
}

fn total(name: &'static str, value: u64) {
    counter!(name).absolute(value);
}

fn by(name: &'static str, label: &'static str, values: impl Iterator<Item = (&'static str, u64)>) {
    for (reason, value) in values {
        counter!(name, label => reason).absolute(value);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Kind of a metric.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The name, kind, unit and text of each metric.
const ALL: &[(&str, Kind, Unit, &str)] = &[
    ("realtime_node_info", Kind::Gauge, Unit::Count, "The node's name and version; the value is 1."),
    (
        "realtime_ready",
        Kind::Gauge,
        Unit::Count,
        "1 if envelopes arrive at the node, or have not for so short a time that it is forgiven, and connections are accepted.",
    ),
    ("realtime_sessions", Kind::Gauge, Unit::Count, "Open sessions."),
    ("realtime_sessions_opened_total", Kind::Counter, Unit::Count, "Sessions that were opened."),
    ("realtime_sessions_closed_total", Kind::Counter, Unit::Count, "Sessions that ended."),
    (
        "realtime_sessions_waiting",
        Kind::Gauge,
        Unit::Count,
        "Sessions that have yet to begin: the bus is not up, or the node lags behind their cursors.",
    ),
    (
        "realtime_sessions_behind",
        Kind::Gauge,
        Unit::Count,
        "Sessions that fell behind the live pass and read the history.",
    ),
    ("realtime_users", Kind::Gauge, Unit::Count, "Users that are online on the node."),
    ("realtime_connections_refused_total", Kind::Counter, Unit::Count, "Connections that were refused."),
    (
        "realtime_recoveries_total",
        Kind::Counter,
        Unit::Count,
        "Begins of sessions, by what became of the client's cursor.",
    ),
    ("realtime_gaps_total", Kind::Counter, Unit::Count, "Gaps, counted for each session."),
    (
        "realtime_messages_published_total",
        Kind::Counter,
        Unit::Count,
        "Messages of the node that the bus accepted.",
    ),
    (
        "realtime_messages_received_total",
        Kind::Counter,
        Unit::Count,
        "Messages that the node received from the bus.",
    ),
    (
        "realtime_publish_errors_total",
        Kind::Counter,
        Unit::Count,
        "Messages of the node that were not published, or may not have been.",
    ),
    (
        "realtime_frames_delivered_total",
        Kind::Counter,
        Unit::Count,
        "Frames that entered the outboxes of sessions.",
    ),
    (
        "realtime_frames_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Frames that were not sent to a session that they were for.",
    ),
    (
        "realtime_catch_ups_total",
        Kind::Counter,
        Unit::Count,
        "Times that a session fell behind the live pass.",
    ),
    ("realtime_sent_bytes_total", Kind::Counter, Unit::Bytes, "Bytes of sessions that were written."),
    (
        "realtime_received_bytes_total",
        Kind::Counter,
        Unit::Bytes,
        "Bytes that clients sent in WebSocket frames.",
    ),
    (
        "realtime_retained_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Retained messages that were dropped because of retained.*.",
    ),
    (
        "realtime_text_streams_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Text streams that were forgotten before streams.keep.",
    ),
    (
        "realtime_topics_refused_total",
        Kind::Counter,
        Unit::Count,
        "Topics that clients were refused because of limits.maxTopicsPerSession.",
    ),
    (
        "realtime_cluster_limit_unchecked_total",
        Kind::Counter,
        Unit::Count,
        "Connections that were admitted without knowing the user's sessions on other nodes.",
    ),
    (
        "realtime_pass_panics_total",
        Kind::Counter,
        Unit::Count,
        "Delivery passes that panicked and were restarted.",
    ),
    (
        "realtime_unreadable_entries_total",
        Kind::Counter,
        Unit::Count,
        "Broken content of presence and control, and messages of text streams in an unknown form.",
    ),
    ("realtime_outbox_sessions", Kind::Gauge, Unit::Count, "Sessions for which frames wait."),
    ("realtime_outbox_frames", Kind::Gauge, Unit::Count, "Frames that wait for sockets."),
    (
        "realtime_outbox_max_frames",
        Kind::Gauge,
        Unit::Count,
        "Frames that wait for the session with the most.",
    ),
    ("realtime_outbox_bytes", Kind::Gauge, Unit::Bytes, "Bytes that wait for sockets."),
    ("realtime_outbox_max_bytes", Kind::Gauge, Unit::Bytes, "Bytes that wait for the session with the most."),
    (
        "realtime_outbox_age_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "The longest time for which something waits without its socket accepting anything.",
    ),
    ("realtime_bus_up", Kind::Gauge, Unit::Count, "1 if messages arrive from the bus."),
    (
        "realtime_bus_lag_positions",
        Kind::Gauge,
        Unit::Count,
        "Positions between the newest one that the bus acknowledged to the node and the newest one that it has read.",
    ),
    (
        "realtime_bus_lag_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "Everything that the bus acknowledged longer ago has arrived; NaN on a bus that does not say so.",
    ),
    (
        "realtime_undelivered_entries",
        Kind::Gauge,
        Unit::Count,
        "Entries that have arrived and wait for the worker that is furthest behind.",
    ),
    ("realtime_history_entries", Kind::Gauge, Unit::Count, "Entries in the history."),
    ("realtime_history_bytes", Kind::Gauge, Unit::Bytes, "Bytes of the history, encodings included."),
    (
        "realtime_history_age_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "Time since the oldest entry of the history arrived.",
    ),
    ("realtime_presence_up", Kind::Gauge, Unit::Count, "1 if presence answers."),
    (
        "realtime_presence_users",
        Kind::Gauge,
        Unit::Count,
        "Users that presence knows to be online, in the cluster; NaN if it does not answer.",
    ),
    (
        "realtime_presence_sessions",
        Kind::Gauge,
        Unit::Count,
        "Sessions that presence knows, in the cluster; NaN if it does not answer.",
    ),
    (
        HANDSHAKE,
        Kind::Histogram,
        Unit::Seconds,
        "Time from the request of a connection until its session is registered.",
    ),
    (PUBLISH, Kind::Histogram, Unit::Seconds, "Time until the bus has answered a publish."),
    (PASS, Kind::Histogram, Unit::Seconds, "Time of the delivery passes that had something to do."),
    (
        DELIVERY,
        Kind::Histogram,
        Unit::Seconds,
        "Time from the arrival of a message at the node until its pass has ended, of the oldest one of each pass.",
    ),
    (
        END_TO_END,
        Kind::Histogram,
        Unit::Seconds,
        "Time from a publish of the node until a pass of the node has delivered it, of one publish at a time.",
    ),
];

fn describe() {
    for (name, kind, unit, text) in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *text),
            Kind::Gauge => describe_gauge!(*name, *unit, *text),
            Kind::Histogram => describe_histogram!(*name, *unit, *text),
        }
    }
}
