//! The pump: moves what comes over the bus into the log, and knows whether anything comes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::{sync::watch, time::sleep};

use crate::{
    Envelope, Position, bus::BusEvent, line_limit::LineLimit, log::Entry, node::Node, registry::Registry,
    shard::Shard, streams::loader::Loader, wire::GapReason,
};

/// State of the arrival of envelopes.
#[derive(Debug)]
pub(super) struct Health {
    down: Mutex<Option<Down>>,
    /// A task without which the hub does nothing has ended.
    failed: watch::Sender<Option<String>>,
}

/// An outage of the bus.
#[derive(Debug)]
struct Down {
    problem: String,
    /// Its begin; `None` if the bus was never available.
    since: Option<Instant>,
}

impl Health {
    pub(super) fn new(problem: &str) -> Self {
        let down = Down { problem: problem.to_owned(), since: None };
        Self { down: Mutex::new(Some(down)), failed: watch::Sender::new(None) }
    }

    /// Records a problem of the bus, or that it is available.
    pub(super) fn set(&self, problem: Option<String>) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        *down = problem.map(|problem| match &*down {
            Some(known) => Down { problem, since: known.since },
            None => Down { problem, since: Some(Instant::now()) },
        });
    }

    /// The problem of the bus, and how long it has lasted if the bus was available before.
    pub(super) fn down(&self) -> Option<(String, Option<Duration>)> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.as_ref().map(|down| (down.problem.clone(), down.since.map(|since| since.elapsed())))
    }

    /// The reason for which the hub cannot work any more.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// The hub cannot work any more.
    pub(super) fn fail(&self, problem: String) {
        tracing::error!(problem, "this hub has failed");
        self.failed.send_replace(Some(problem));
    }

    /// Waits until the hub has failed; returns the reason.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        let problem = failed.wait_for(Option::is_some).await.map(|problem| problem.clone());
        problem.ok().flatten().unwrap_or_default()
    }
}

/// Moves what comes over the bus into the log and wakes the shards.
///
/// Text streams of which something may be missing are read before anything else is moved: no session begins on a node
/// that does not know them, and what the sessions lack reaches them before what follows.
pub(super) async fn pump(
    events: BoxStream<'static, BusEvent>,
    registry: Arc<Registry>,
    mut streams: Loader,
    health: Arc<Health>,
) {
    let mut events = events.ready_chunks(PUMP_EVENTS);
    while let Some(chunk) = events.next().await {
        for event in chunk {
            let is_up = matches!(event, BusEvent::Up(_));
            if let BusEvent::Down(problem) = &event {
                if health.down().is_none() {
                    tracing::warn!(%problem, "bus is down");
                } else {
                    tracing::debug!(%problem, "bus is still down");
                }
                health.set(Some(problem.clone()));
            }
            if is_up {
                load(&mut streams, &registry).await;
            }
            apply(event, &registry.node);
            if is_up {
                // Not before: a node that knows no text streams yet is not ready.
                tracing::info!("bus is up");
                health.set(None);
            }
            if streams.is_due(&registry.node) && registry.node.log.up().is_some() {
                load(&mut streams, &registry).await;
            }
        }
        // Entries before the bus is up for the first time are history, and no session is served.
        if registry.node.log.up().is_some() {
            registry.wake();
        }
    }
    registry.node.set_bus_down(true);
}

/// Reads the text streams of which this node may have missed something, and sends them to its sessions. Before the bus is
/// up for the first time no session has begun, and each gets them then.
async fn load(streams: &mut Loader, registry: &Registry) {
    let prefixes = streams.load(&registry.node).await;
    if registry.node.log.up().is_none() {
        return;
    }
    for prefix in prefixes {
        for shard in registry.shards() {
            send_local(&shard, &prefix).await;
        }
    }
}

/// Sends an entry to the sessions of a worker, as soon as its queue has room.
pub(super) async fn send_local(shard: &Shard, entry: &Arc<Entry>) {
    while shard.send_local(Arc::clone(entry)).is_err() {
        sleep(PAUSE).await;
    }
}

/// Takes an event of the bus into the log.
pub(crate) fn apply(event: BusEvent, node: &Node) {
    match event {
        BusEvent::Message { position, envelope, end } => {
            if let Some(trace) = node.traces.watch() {
                trace.received(position, &envelope);
            }
            node.metrics.received.add(1);
            // Before the log, so that a session never gets a text that is older than what it reads next.
            match node.streams.apply(&envelope) {
                Some(dropped) => node.metrics.streams_dropped.add(dropped as u64),
                None => skip_text(position, &envelope, node),
            }
            if node.log.push(position, envelope, end) {
                node.streams.doubt();
            }
        }
        BusEvent::Skip { from, through } => {
            if node.log.push_skip(from, through) {
                node.streams.doubt();
            }
        }
        BusEvent::Retained(messages) => node.log.retained().replace(messages),
        BusEvent::Up(position) => {
            node.log.begin(position);
            node.set_bus_down(false);
        }
        BusEvent::Gap => {
            node.log.push_gap(GapReason::Bus);
            node.streams.doubt();
        }
        BusEvent::CaughtUp(at) => node.log.set_caught_up(at),
        BusEvent::Down(_) => {
            node.log.set_down();
            node.set_bus_down(true);
        }
    }
}

/// Counts a message of a text stream that this version does not understand. A newer node may publish thousands a second.
fn skip_text(position: Option<Position>, envelope: &Envelope, node: &Node) {
    static LINES: LineLimit = LineLimit::per_second();
    node.metrics.unreadable.add(1);
    if let Some(unlogged) = LINES.next() {
        let topic = envelope.topics().first();
        tracing::warn!(
            ?topic,
            ?position,
            unlogged,
            "skipped a text stream's message that this version does not understand"
        );
    }
}

/// Pause while a worker's queue of local sends is full.
const PAUSE: Duration = Duration::from_millis(10);

/// Events that are taken from the bus before the shards are woken.
const PUMP_EVENTS: usize = 256;

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use futures_core::future::BoxFuture;
    use futures_util::stream;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        EventName, Hub, Message, Principal, Scope, Topic, Transport,
        bus::{Bus, BusError, Published, StreamHead, StreamStore, StreamWrite, StreamWritten},
        streams::{StreamChange, StreamEnd, StreamEntry, StreamId, StreamKey},
        testkit::{TestEvent, TestSession, ready, within},
    };

    /// A bus that says what it was given, and goes on.
    struct Script(Vec<BusEvent>);

    impl Bus for Script {
        fn publish<'a>(&'a self, _: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
            Box::pin(async { Err(BusError::Unsupported("anything".into())) })
        }

        fn subscribe(&self) -> BoxStream<'static, BusEvent> {
            stream::iter(self.0.clone()).chain(stream::pending()).boxed()
        }
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    #[tokio::test]
    async fn a_client_that_stood_in_a_skipped_range_goes_on_behind_it() {
        let message = |offset| {
            let envelope = Envelope::broadcast(Scope::Both, Message::text(format!("{offset}")));
            BusEvent::message(Some(at(offset)), Arc::new(envelope), Duration::ZERO)
        };
        let skip = |from, through| BusEvent::Skip { from: at(from), through: at(through) };
        let events = [
            skip(1, 1_000),
            message(1_001),
            skip(1_002, 1 << 40),
            message((1 << 40) + 1),
            BusEvent::Up(Some(at((1 << 40) + 1))),
        ];
        let hub = Hub::builder().bus(Script(events.into())).start().unwrap();
        ready(&hub).await;
        for (offset, follows) in [
            (0, &[1_001, (1 << 40) + 1][..]),
            (500, &[1_001, (1 << 40) + 1]),
            (1_000, &[1_001, (1 << 40) + 1]),
            (1_001, &[(1 << 40) + 1]),
            (1 << 39, &[(1 << 40) + 1]),
            (1 << 40, &[(1 << 40) + 1]),
        ] {
            let principal = Principal::new(1.into(), "a token");
            let cursor = at(offset).to_string();
            let mut session =
                TestSession::open(&hub, principal, Transport::new("sse"), Some(&cursor)).await.unwrap();
            assert_eq!(session.recovered(), Some(true), "behind {offset}");
            for follows in follows {
                let TestEvent::Message(message) = session.next().await else { panic!("behind {offset}") };
                assert_eq!(message.position, Some(at(*follows)), "behind {offset}");
            }
        }
    }

    #[tokio::test]
    async fn messages_of_text_streams_that_are_not_understood_are_counted_and_delivered() {
        let message = |offset| {
            let message = Message::new(EventName::stream(), "{}".to_owned());
            let envelope = Envelope::to_topic(Topic::user(&1.into()), Scope::Both, message);
            BusEvent::message(Some(at(offset)), Arc::new(envelope), Duration::ZERO)
        };
        let events = (1..=100).map(message).chain([BusEvent::Up(Some(at(100)))]);
        let hub = Hub::builder().bus(Script(events.collect())).start().unwrap();
        ready(&hub).await;
        assert_eq!(hub.metrics().unreadable, 100);
        let (principal, cursor) = (Principal::new(1.into(), "a token"), at(0).to_string());
        let mut session =
            TestSession::open(&hub, principal, Transport::new("sse"), Some(&cursor)).await.unwrap();
        let TestEvent::Message(first) = session.next().await else { panic!("it is a message as any other") };
        assert_eq!(first.position, Some(at(1)));
    }

    #[tokio::test]
    async fn a_text_stream_whose_messages_have_a_ttl_is_known_as_any_other() {
        let entry = |run, at, change| StreamEntry { key: key(), run, at, change };
        let entries = [
            entry(1, 0, StreamChange::Text("Hello".into())),
            entry(1, 5, StreamChange::End(StreamEnd::Done)),
        ];
        let events = (1..).zip(entries).map(|(offset, entry)| {
            let envelope = entry.envelope().with_ttl(Duration::from_secs(60));
            BusEvent::message(Some(at(offset)), Arc::new(envelope), Duration::ZERO)
        });
        let events = events.chain([BusEvent::Up(Some(at(2)))]);
        let hub = Hub::builder().bus(Script(events.collect())).start().unwrap();
        ready(&hub).await;
        let known = hub.stream_text(&key().topic, &key().id).expect("it came over the bus");
        assert_eq!((known.text.as_str(), known.end), ("Hello", Some(StreamEnd::Done)));
    }

    fn key() -> StreamKey {
        StreamKey { topic: Topic::user(&1.into()), id: StreamId::new("answer").expect("an id") }
    }

    /// A store with one stream, which it says when it may.
    #[derive(Debug)]
    struct SlowStore(Semaphore);

    impl StreamStore for SlowStore {
        fn write<'a>(&'a self, _: &'a StreamWrite<'a>) -> BoxFuture<'a, Result<StreamWritten, BusError>> {
            Box::pin(async { Ok(StreamWritten::Lost) })
        }

        fn heads(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
            Box::pin(async {
                let _permit = self.0.acquire().await;
                let end = Some(StreamEnd::Done);
                Ok(vec![StreamHead { key: key(), run: 1, writer: "w".into(), len: 5, end }])
            })
        }

        fn read<'a>(
            &'a self,
            _: &'a StreamKey,
        ) -> BoxFuture<'a, Result<Option<(StreamHead, String)>, BusError>> {
            Box::pin(async { Ok(self.heads().await?.pop().map(|head| (head, "Hello".to_owned()))) })
        }

        fn renew<'a>(&'a self, _: &'a [StreamKey]) -> BoxFuture<'a, Result<Vec<StreamKey>, BusError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    /// A bus that is up at once, with such a store.
    struct Streaming(Arc<SlowStore>);

    impl Bus for Streaming {
        fn publish<'a>(&'a self, _: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
            Box::pin(async { Err(BusError::Unsupported("a message".into())) })
        }

        fn subscribe(&self) -> BoxStream<'static, BusEvent> {
            Script(vec![BusEvent::Up(Some(at(7)))]).subscribe()
        }

        fn streams(&self) -> Option<Arc<dyn StreamStore>> {
            Some(Arc::clone(&self.0) as _)
        }
    }

    #[tokio::test]
    async fn a_node_is_ready_when_it_knows_the_text_streams_and_tells_each_once() {
        let store = Arc::new(SlowStore(Semaphore::new(0)));
        let hub = Hub::builder().bus(Streaming(Arc::clone(&store))).start().unwrap();
        let early = tokio::spawn({
            let hub = hub.clone();
            async move { TestSession::connect(&hub, 1.into()).await }
        });
        within(|| "a session to wait for its begin".into(), async {
            while hub.all_sessions().is_empty() {
                sleep(PAUSE).await;
            }
        })
        .await;
        assert_eq!(hub.not_ready()[0].name(), "bus-down", "its text streams are yet to be read");
        store.0.add_permits(1);
        ready(&hub).await;
        let known = hub.stream_text(&key().topic, &key().id).expect("a node that is ready knows it");
        assert_eq!((known.text.as_str(), known.end), ("Hello", Some(StreamEnd::Done)));
        let mut early = early.await.unwrap();
        early.handle().send_local("a mark").unwrap();
        let mut received = Vec::new();
        while received.last().is_none_or(|text: &String| text != "a mark") {
            received.push(early.text().await);
        }
        assert_eq!(received.len(), 2, "{received:?}");
    }
}
