//! Counters and gauges: [`Hub::metrics`].

use crate::{
    Hub,
    metrics::{BusSnapshot, MetricsSnapshot, OutboxSnapshot},
    node::Node,
};

impl Hub {
    /// Counters of this node since its start, and gauges of now.
    ///
    /// It looks at each session for which something waits, a thousand at a time, so that deliveries are not held up.
    pub fn metrics(&self) -> MetricsSnapshot {
        let Node { metrics, log, directory, .. } = &*self.0.registry.node;
        let mut snapshot = MetricsSnapshot {
            retained_dropped: log.retained().dropped(),
            history: log.size(),
            users: directory.count().0 as u64,
            bus: self.bus_metrics(),
            ..metrics.snapshot()
        };
        let mut outbox = OutboxSnapshot::default();
        for shard in self.0.registry.shards() {
            let (sent, received) = shard.bytes();
            snapshot.sent_bytes += sent;
            snapshot.received_bytes += received;
            outbox.add(shard.backlog());
            let (waiting, seq) = shard.progress();
            snapshot.waiting += waiting as u64;
            // Before the bus is up there is only history, which is delivered to nobody.
            if log.up().is_some() {
                snapshot.bus.undelivered = snapshot.bus.undelivered.max(log.end().saturating_sub(seq));
            }
        }
        snapshot.outbox = outbox;
        snapshot
    }

    fn bus_metrics(&self) -> BusSnapshot {
        let node = &self.0.registry.node;
        let behind = |(own, read): (crate::Position, crate::Position)| {
            if own.epoch == read.epoch { own.offset.saturating_sub(read.offset) } else { 0 }
        };
        BusSnapshot {
            up: self.0.health.down().is_none(),
            lag_positions: node.acknowledged().zip(node.log.cursor()).map_or(0, behind),
            lag: node.log.caught_up().map(|at| at.elapsed()),
            undelivered: 0,
        }
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        BoxFuture, CloseReason, Principal, Transport,
        auth::{AuthError, Authenticator, Handshake},
        bus::BusError,
        error::ConnectError,
        metrics::{ClosesSnapshot, GapsSnapshot, RecoveriesSnapshot},
        testkit::{TestEvent, TestSession, TestWire, ready},
        wire::WireFormat,
    };

    const SSE: Transport = Transport::new("sse");

    #[tokio::test]
    async fn sessions_are_counted_by_transport_and_closes_by_reason_and_code() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        let kicked = TestSession::connect(&hub, 1.into()).await;
        let stays = TestSession::connect(&hub, 2.into()).await;
        let leaves = TestSession::open(&hub, Principal::new(3.into(), "3"), SSE, None).await.unwrap();
        assert_eq!(hub.metrics().users, 3);
        drop(leaves);
        kicked.handle().close(CloseReason::Kicked);
        drop(kicked);
        let transports = hub.metrics().transports;
        let [websocket, sse] = &transports[..] else { panic!("{transports:?}") };
        assert_eq!((websocket.opened, websocket.closed, websocket.sessions_dispatched()), (2, 1, 1));
        assert_eq!(websocket.closes, [ClosesSnapshot { reason: "kicked", code: 4409, count: 1 }]);
        assert_eq!((sse.opened, sse.sessions_dispatched(), sse.sessions_taken_over()), (1, 0, 0));
        assert_eq!(sse.closes, [ClosesSnapshot { reason: "gone", code: 1006, count: 1 }]);
        drop(stays);
    }

    #[tokio::test]
    async fn what_waits_for_sockets_is_seen_until_it_is_read() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        let mut one = TestSession::connect(&hub, 1.into()).await;
        let mut other = TestSession::connect(&hub, 2.into()).await;
        for text in ["a", "b", "c"] {
            hub.publish_to_user(1, text).await.unwrap();
        }
        hub.publish_to_user(2, "last").await.unwrap();
        assert_eq!(other.text().await, "last", "so the pass is over");
        let outbox = hub.metrics().outbox;
        assert_eq!((outbox.sessions, outbox.frames, outbox.max_frames), (1, 3, 3), "{outbox:?}");
        assert!(outbox.bytes > 3 && outbox.bytes == outbox.max_bytes, "{outbox:?}");
        let sent = hub.metrics().sent_bytes;
        for text in ["a", "b", "c"] {
            assert_eq!(one.text().await, text);
        }
        let metrics = hub.metrics();
        assert_eq!((metrics.outbox.sessions, metrics.outbox.bytes), (0, 0));
        assert_eq!(metrics.sent_bytes, sent + outbox.bytes);
        assert_eq!((metrics.bus.up, metrics.bus.undelivered, metrics.history.entries), (true, 0, 4));
    }

    #[tokio::test]
    async fn recoveries_are_counted_by_outcome_and_gaps_by_reason() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        hub.publish_all("before").await.unwrap();
        let fresh = TestSession::connect(&hub, 1.into()).await;
        let back = fresh.reconnect(&hub).await.unwrap();
        let mut lost =
            TestSession::open(&hub, Principal::new(2.into(), "2"), SSE, Some("nonsense")).await.unwrap();
        assert!(matches!(lost.next().await, TestEvent::Gap { .. }));
        let metrics = hub.metrics();
        assert_eq!(metrics.recoveries, RecoveriesSnapshot { restored: 1, gap: 1, no_cursor: 1 });
        assert_eq!(metrics.gaps_by, GapsSnapshot { cursor: 1, ..GapsSnapshot::default() });
        assert_eq!((metrics.gaps, metrics.gaps_unreported), (1, 0));
        drop(back);
    }

    struct Answer(AuthError);

    impl Authenticator for Answer {
        fn authenticate<'a>(&'a self, _: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
            Box::pin(async { Err(self.0.clone()) })
        }
    }

    #[tokio::test]
    async fn refused_logins_and_pages_are_refused_connections() {
        let hub = Hub::builder().start().unwrap();
        let handshake = Handshake::new(SSE, "", [], None);
        for error in [
            AuthError::Unauthorized("bad".into()),
            AuthError::Forbidden("not here".into()),
            AuthError::Unavailable("the database".into()),
        ] {
            assert!(hub.authenticate(&Answer(error), &handshake).await.is_err());
        }
        hub.count_foreign_page();
        let metrics = hub.metrics();
        let by = metrics.refused_by;
        assert_eq!((metrics.refused, by.login, by.login_unavailable, by.origin), (4, 2, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_does_not_begin_in_time_is_a_refused_connection() {
        // Its bus never comes up.
        let hub = Hub::builder().bus(Full).start().unwrap();
        let wire: Arc<dyn WireFormat> = Arc::new(TestWire);
        let session = hub.connect(Principal::new(1.into(), "1"), SSE, &wire, None).unwrap();
        let refused = hub.wait_until_begun(&session, Duration::from_secs(5)).await;
        assert_eq!(refused, Err(ConnectError::Behind));
        let metrics = hub.metrics();
        assert_eq!((metrics.refused, metrics.refused_by.behind), (1, 1));
    }

    /// A bus that takes nothing.
    struct Full;

    impl crate::bus::Bus for Full {
        fn publish<'a>(
            &'a self,
            _: &'a Arc<crate::Envelope>,
        ) -> BoxFuture<'a, Result<crate::bus::Published, BusError>> {
            Box::pin(async { Err(BusError::Throttled("full".into())) })
        }

        fn subscribe(&self) -> futures_core::stream::BoxStream<'static, crate::bus::BusEvent> {
            Box::pin(futures_util::stream::pending())
        }
    }

    #[tokio::test]
    async fn failed_publishes_are_counted_by_reason() {
        let hub = Hub::builder().bus(Full).start().unwrap();
        hub.publish_all("x").await.unwrap_err();
        let metrics = hub.metrics();
        assert_eq!((metrics.published, metrics.publish_failures.throttled), (0, 1));
        assert!(!metrics.bus.up && metrics.bus.lag.is_none());
    }
}
