//! Tests of streams over hubs that share a bus.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use serde_json::Value;
use tokio::time::timeout;

use super::{driver::interrupt, writer_state::WriterState, *};
use crate::{
    Hub, MemoryBus, Principal, Settings, Topic, Transport,
    bus::{Bus, BusError, BusEvent, Published, StreamHead, StreamStore, StreamWrite, StreamWritten},
    node::Node,
    testkit::{TestEvent, TestSession, ready},
};

const LIMIT: Duration = Duration::from_secs(10);

async fn hub(settings: Settings) -> Hub {
    let hub = Hub::builder().settings(settings).start().unwrap();
    ready(&hub).await;
    hub
}

fn topic() -> Topic {
    Topic::user(&7.into())
}

/// A client that puts a stream together.
struct Reader {
    session: TestSession,
    run: u64,
    text: String,
    end: Option<String>,
    prefixes: usize,
}

impl Reader {
    async fn connect(hub: &Hub) -> Self {
        let session = TestSession::connect(hub, 7.into()).await;
        Self { session, run: 0, text: String::new(), end: None, prefixes: 0 }
    }

    /// Reads the next message of the stream.
    async fn read(&mut self) {
        let message = self.session.message().await;
        assert_eq!(message.event, "realtime.stream");
        let data: Value = serde_json::from_str(message.data.as_text().unwrap()).unwrap();
        let (run, at) = (data["run"].as_u64().unwrap(), data["at"].as_u64().unwrap() as usize);
        if data["prefix"] == true {
            assert_eq!(message.position, None);
            self.prefixes += 1;
        }
        if run < self.run {
            return;
        }
        if run > self.run {
            assert_eq!(at, 0);
            (self.run, self.end) = (run, None);
            self.text.clear();
        }
        assert!(
            self.end.is_none() || at < self.text.len() || data["prefix"] == true,
            "{data} behind the end"
        );
        if let Some(text) = data["text"].as_str()
            && at + text.len() > self.text.len()
        {
            let known = self.text.len() - at;
            self.text.push_str(&text[known..]);
        }
        if let Some(state) = data["state"].as_str() {
            self.end = Some(state.to_owned());
        }
    }

    async fn until_text(&mut self, text: &str) {
        while self.text != text {
            self.read().await;
        }
    }

    async fn until_end(&mut self) -> &str {
        while self.end.is_none() {
            self.read().await;
        }
        self.end.as_deref().unwrap()
    }
}

#[tokio::test]
async fn a_stream_reaches_readers_and_late_ones_get_what_there_is_and_then_the_rest() {
    let hub = hub(Settings::default()).await;
    let mut early = Reader::connect(&hub).await;
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    stream.append("Hel").await.unwrap();
    early.until_text("Hel").await;
    let mut late = Reader::connect(&hub).await;
    stream.append("lo 😀").await.unwrap();
    stream.finish(Outcome::Done).await.unwrap();
    for (reader, prefixes) in [(&mut early, 0), (&mut late, 1)] {
        assert_eq!(reader.until_end().await, "done");
        assert_eq!((reader.text.as_str(), reader.prefixes), ("Hello 😀", prefixes));
    }
    let mut latest = Reader::connect(&hub).await;
    assert_eq!(latest.until_end().await, "done");
    assert_eq!(latest.text, "Hello 😀");
    let known = hub.stream_text(&topic(), &StreamId::new("answer").unwrap()).unwrap();
    assert_eq!((known.text.as_str(), known.end), ("Hello 😀", Some(StreamEnd::Done)));
}

#[tokio::test]
async fn a_session_that_enters_the_topic_gets_the_text_and_one_with_its_cursor_only_the_rest() {
    let hub = hub(Settings::default()).await;
    let room = Topic::new("room:1").unwrap();
    let mut session = TestSession::connect(&hub, 8.into()).await;
    let stream = hub.stream(&room, "answer").await.unwrap();
    stream.append("Hello").await.unwrap();
    stream.flush().await.unwrap();
    session.handle().subscribe(room.clone());
    let prefix = session.text().await;
    let run = stream.run();
    assert_eq!(prefix, format!(r#"{{"stream":"answer","run":{run},"at":0,"text":"Hello","prefix":true}}"#));
    stream.append("!").await.unwrap();
    let part = |at, text| format!(r#"{{"stream":"answer","run":{run},"at":{at},"text":"{text}"}}"#);
    assert_eq!(session.text().await, part(5, "!"));
    let cursor = session.cursor().unwrap().to_string();
    stream.append("?").await.unwrap();
    stream.flush().await.unwrap();
    let mut principal = Principal::new(8.into(), "t");
    principal.topics = vec![room];
    let mut back = TestSession::open(&hub, principal, Transport::new("sse"), Some(&cursor)).await.unwrap();
    assert_eq!(back.recovered(), Some(true));
    assert_eq!(back.text().await, part(6, "?"));
}

#[tokio::test]
async fn a_session_that_falls_out_of_the_window_gets_the_text_and_then_the_rest() {
    let mut settings = Settings::default();
    settings.history.max_messages = 4;
    settings.outbox.max_messages = 2;
    settings.streams.max_delay = Duration::ZERO;
    let hub = hub(settings).await;
    let mut slow = TestSession::connect(&hub, 7.into()).await;
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    let pieces = (0..50).map(|n| format!("{n} ")).collect::<Vec<_>>();
    for piece in &pieces {
        stream.append(piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.finish(Outcome::Done).await.unwrap();
    let (mut gaps, mut text, mut ended) = (0, String::new(), false);
    while !ended {
        let message = match slow.next().await {
            TestEvent::Message(message) => message,
            TestEvent::Gap { .. } => {
                gaps += 1;
                continue;
            }
            TestEvent::Heartbeat { .. } => continue,
            end @ TestEvent::Closed(_) => panic!("{end:?}"),
        };
        let data: Value = serde_json::from_str(message.data.as_text().unwrap()).unwrap();
        let at = data["at"].as_u64().unwrap() as usize;
        assert!(at <= text.len(), "the prefix comes first: {data}");
        let known = text.len() - at;
        text += data["text"].as_str().and_then(|text| text.get(known..)).unwrap_or_default();
        ended = data["state"] == "done" && at + data["text"].as_str().map_or(0, str::len) == text.len();
    }
    assert_eq!((gaps, text), (1, pieces.concat()));
}

#[tokio::test]
async fn a_stream_that_was_forgotten_begins_anew_above_its_last_run() {
    let mut settings = Settings::default();
    settings.streams.keep = Duration::from_millis(1);
    let hub = hub(settings).await;
    let first = hub.stream(&topic(), "answer").await.unwrap();
    let run = first.run();
    first.finish(Outcome::Done).await.unwrap();
    let forgotten = async {
        while hub.stream_text(&topic(), &StreamId::new("answer").unwrap()).is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, forgotten).await.unwrap();
    assert!(hub.stream(&topic(), "answer").await.unwrap().run() > run);
}

#[tokio::test]
async fn of_two_writers_that_begin_at_once_the_one_with_the_higher_run_stays() {
    let key = StreamKey { topic: topic(), id: StreamId::new("answer").unwrap() };
    for order in [[1, 2], [2, 1]] {
        let node = local::NodeStreams::new(crate::settings::Streams::default());
        let writers = order.map(|run| Arc::new(WriterState::new(key.clone(), run.to_string(), run)));
        writers.iter().for_each(|writer| node.add(writer));
        let over = |run| writers.iter().find(|writer| writer.lock().run == run).unwrap().lock().over.clone();
        assert_eq!((over(1), over(2)), (Some(Err(StreamError::Fenced(key.clone()))), None));
        assert_eq!(node.all_writers()[0].lock().run, 2);
    }
}

#[tokio::test]
async fn what_is_appended_meanwhile_is_published_together_and_long_texts_in_pieces() {
    let mut settings = Settings::default();
    settings.streams.max_delay = Duration::from_millis(200);
    let hub = hub(settings).await;
    let mut session = TestSession::connect(&hub, 7.into()).await;
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    let long = "ä".repeat(6000);
    stream.append(&long).await.unwrap();
    stream.append("").await.unwrap();
    stream.flush().await.unwrap();
    for token in ["a", "b", "c"] {
        stream.append(token).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut texts = Vec::new();
    for _ in 0..4 {
        let data: Value = serde_json::from_str(&session.text().await).unwrap();
        texts.push(data["text"].as_str().unwrap().to_owned());
    }
    assert_eq!([texts[1].len(), texts[2].len()], [8192, 12_000 - 8192]);
    assert_eq!((texts[0].as_str(), texts[3].as_str()), ("", "abc"));
}

#[tokio::test]
async fn a_second_writer_fences_the_first_also_on_another_node() {
    let bus = MemoryBus::new();
    let hubs = [(); 2].map(|()| Hub::builder().bus(bus.clone()).start().unwrap());
    for hub in &hubs {
        ready(hub).await;
    }
    for second in &hubs {
        let mut reader = Reader::connect(&hubs[0]).await;
        let first = hubs[0].stream(&topic(), "answer").await.unwrap();
        first.append("of the first").await.unwrap();
        first.flush().await.unwrap();
        let second = second.stream(&topic(), "answer").await.unwrap();
        assert!(second.run() > first.run());
        timeout(LIMIT, first.stopped()).await.unwrap();
        assert_eq!(first.append("more").await, Err(StreamError::Fenced(first.key().clone())));
        assert_eq!(first.finish(Outcome::Done).await, Err(StreamError::Fenced(second.key().clone())));
        second.append("of the second").await.unwrap();
        second.finish(Outcome::Done).await.unwrap();
        while reader.text != "of the second" || reader.end.is_none() {
            reader.read().await;
        }
    }
}

#[tokio::test]
async fn a_writer_that_is_dropped_has_failed_behind_its_text() {
    let hub = hub(Settings::default()).await;
    let mut reader = Reader::connect(&hub).await;
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    stream.append("Hello").await.unwrap();
    drop(stream);
    assert_eq!(reader.until_end().await, "failed");
    assert_eq!(reader.text, "Hello");
}

#[tokio::test]
async fn a_stop_reaches_the_writer_once_and_is_counted() {
    let hub = hub(Settings::default()).await;
    let id = StreamId::new("answer").unwrap();
    assert_eq!(hub.stop_stream(&topic(), &id).await.unwrap().changed, 0);
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    assert!(timeout(Duration::from_millis(50), stream.stopped()).await.is_err());
    assert_eq!(hub.stop_stream(&topic(), &id).await.unwrap().changed, 1);
    timeout(LIMIT, stream.stopped()).await.unwrap();
    assert_eq!(hub.stop_stream(&topic(), &id).await.unwrap().changed, 0, "it was asked already");
    stream.append("to the").await.unwrap();
    stream.append(" end").await.unwrap();
    stream.finish(Outcome::Stopped).await.unwrap();
    let mut reader = Reader::connect(&hub).await;
    assert_eq!(reader.until_end().await, "stopped");
    assert_eq!(reader.text, "to the end");
}

#[tokio::test]
async fn a_text_above_its_bound_fails_its_stream() {
    let mut settings = Settings::default();
    settings.streams.max_bytes = 10;
    settings.streams.max_node_bytes = 10;
    let hub = hub(settings).await;
    let mut reader = Reader::connect(&hub).await;
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    stream.append("1234567890").await.unwrap();
    let error = stream.append("1").await.unwrap_err();
    assert_eq!(error.to_string(), "the stream `answer` of `user:7` is above 10 bytes (streams.maxBytes)");
    assert_eq!(reader.until_end().await, "failed");
    assert_eq!(reader.text, "1234567890");
    assert!(matches!(stream.append("1").await, Err(StreamError::Ended(_))));
}

#[tokio::test]
async fn texts_above_the_nodes_bound_fail_the_stream_that_does_not_fit_and_ended_ones_give_way() {
    let mut settings = Settings::default();
    settings.streams.max_bytes = 10;
    settings.streams.max_node_bytes = 15;
    let hub = hub(settings).await;
    let ended = hub.stream(&topic(), "ended").await.unwrap();
    ended.append("1234567890").await.unwrap();
    ended.finish(Outcome::Done).await.unwrap();
    let first = hub.stream(&topic(), "first").await.unwrap();
    first.append("1234567890").await.unwrap();
    first.flush().await.unwrap();
    let mut reader = Reader::connect(&hub).await;
    reader.until_text("1234567890").await;
    assert!(hub.stream_text(&topic(), &StreamId::new("ended").unwrap()).is_none());
    assert_eq!(hub.metrics().streams_dropped, 1);
    let second = hub.stream(&topic(), "second").await.unwrap();
    assert_eq!(second.append("123456").await, Err(StreamError::NoRoom { limit: 15 }));
    first.finish(Outcome::Done).await.unwrap();
}

#[tokio::test]
async fn a_bus_without_positions_refuses_streams() {
    struct Plain;
    impl Bus for Plain {
        fn publish<'a>(&'a self, _: &'a Arc<crate::Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
            Box::pin(async { Ok(Published { position: None }) })
        }

        fn subscribe(&self) -> futures_core::stream::BoxStream<'static, BusEvent> {
            Box::pin(futures_util::stream::pending())
        }
    }
    let hub = Hub::builder().bus(Plain).start().unwrap();
    let error = hub.stream(&topic(), "answer").await.unwrap_err();
    assert_eq!((error.clone(), error.status()), (StreamError::Unsupported, 422));
    assert!(matches!(hub.stream(&topic(), "no id").await, Err(StreamError::Id(_))));
}

/// A store that cannot be reached for some writes.
#[derive(Debug)]
struct Broken {
    store: Arc<dyn StreamStore>,
    failures: AtomicU32,
}

impl StreamStore for Broken {
    fn write<'a>(&'a self, write: &'a StreamWrite<'a>) -> BoxFuture<'a, Result<StreamWritten, BusError>> {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return self.store.write(write);
        }
        self.failures.fetch_sub(1, Ordering::Relaxed);
        Box::pin(async { Err(BusError::Unavailable("broken".into())) })
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        self.store.heads()
    }

    fn read<'a>(
        &'a self,
        key: &'a StreamKey,
    ) -> BoxFuture<'a, Result<Option<(StreamHead, String)>, BusError>> {
        self.store.read(key)
    }

    fn renew<'a>(&'a self, keys: &'a [StreamKey]) -> BoxFuture<'a, Result<Vec<StreamKey>, BusError>> {
        self.store.renew(keys)
    }

    fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
        self.store.abandoned()
    }
}

#[tokio::test]
async fn writes_of_text_streams_that_fail_are_counted_as_publishes_that_fail() {
    struct BrokenBus(MemoryBus, Arc<Broken>);
    impl Bus for BrokenBus {
        fn publish<'a>(
            &'a self,
            envelope: &'a Arc<crate::Envelope>,
        ) -> BoxFuture<'a, Result<Published, BusError>> {
            self.0.publish(envelope)
        }

        fn subscribe(&self) -> futures_core::stream::BoxStream<'static, BusEvent> {
            self.0.subscribe()
        }

        fn streams(&self) -> Option<Arc<dyn StreamStore>> {
            Some(Arc::clone(&self.1) as _)
        }
    }
    let bus = MemoryBus::new();
    let broken = Arc::new(Broken { store: bus.streams().unwrap(), failures: 1.into() });
    let hub = Hub::builder().bus(BrokenBus(bus, Arc::clone(&broken))).start().unwrap();
    ready(&hub).await;
    let counts = |hub: &Hub| (hub.metrics().publish_failures.unavailable, hub.metrics().published);
    assert!(matches!(hub.stream(&topic(), "answer").await, Err(StreamError::Bus { .. })));
    assert_eq!(counts(&hub), (1, 0));
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    assert_eq!(counts(&hub), (1, 1));
    broken.failures.store(2, Ordering::Relaxed);
    stream.append("Hello").await.unwrap();
    timeout(LIMIT, stream.flush()).await.unwrap().unwrap();
    assert_eq!(counts(&hub), (3, 2));
    // The end of an abandoned one.
    broken.failures.store(1, Ordering::Relaxed);
    let node = Node::new(Settings::default());
    interrupt(&node, &*broken, "w", (stream.key().clone(), stream.run(), 5)).await.unwrap_err();
    assert_eq!(node.metrics.snapshot().publish_failures.unavailable, 1);
}

#[tokio::test]
async fn a_node_that_stops_interrupts_its_streams() {
    let bus = MemoryBus::new();
    let hubs = [(); 2].map(|()| Hub::builder().bus(bus.clone()).start().unwrap());
    for hub in &hubs {
        ready(hub).await;
    }
    let mut reader = Reader::connect(&hubs[1]).await;
    let stream = hubs[0].stream(&topic(), "answer").await.unwrap();
    stream.append("Hello").await.unwrap();
    hubs[0].drain().await;
    assert_eq!(reader.until_end().await, "interrupted");
    assert_eq!(reader.text, "Hello");
    assert!(matches!(stream.append("!").await, Err(StreamError::Ended(_))));
    assert!(matches!(stream.finish(Outcome::Done).await, Err(StreamError::Ended(_))), "it ended otherwise");
}

#[tokio::test]
async fn the_writer_of_a_hub_that_is_gone_has_ended() {
    let hub = hub(Settings::default()).await;
    let stream = hub.stream(&topic(), "answer").await.unwrap();
    drop(hub);
    timeout(LIMIT, stream.stopped()).await.unwrap();
    assert!(matches!(stream.append("!").await, Err(StreamError::Ended(_))));
}
