//! Costs of single steps in the delivery of a message, over the public interface: `cargo bench -p realtime-bench`.

use std::{
    cell::RefCell,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use actix_web::body::MessageBody;
use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use futures_util::stream::{self, BoxStream, StreamExt};
use realtime_core::{
    BoxFuture, ByteString, Envelope, Hub, Message, Position, Principal, Scope, Session, Settings, Topic,
    Transport,
    bus::{Bus, BusError, BusEvent, Published},
    wire::{BusState, GapReason, Outbound, WireFormat},
};
use realtime_sse::SseEmitters;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::yield_now,
};

fn main() {
    divan::main();
}

/// A wire format with the text and nothing else.
struct Plain;

impl WireFormat for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        Bytes::copy_from_slice(message.data.as_bytes())
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        Some(Bytes::from_static(b"gap"))
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::from_static(b"heartbeat")
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

/// A bus whose events the benchmark emits.
struct Feed(Mutex<Option<UnboundedReceiver<BusEvent>>>);

impl Bus for Feed {
    fn publish<'a>(&'a self, _: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async { Err(BusError::Unsupported("an envelope, only events of the benchmark".into())) })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let receiver = receiver.expect("a hub subscribes once");
        stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))).boxed()
    }
}

/// A message of 150 bytes.
fn message() -> Message {
    Message::text(text())
}

fn text() -> ByteString {
    "x".repeat(150).into()
}

/// A node on the benchmark's thread, with sessions of users 0, 1, 2, ...
struct Node {
    runtime: Runtime,
    hub: Hub,
    events: UnboundedSender<BusEvent>,
    sessions: Vec<Session>,
    offset: u64,
    delivered: u64,
}

impl Node {
    fn new(sessions: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let (events, receiver) = mpsc::unbounded_channel();
        let mut settings = Settings::default();
        // Passes follow each other without a pause.
        settings.fanout.max_delay = Duration::ZERO;
        settings.limits.max_connections = 0;
        let feed = Feed(Mutex::new(Some(receiver)));
        let guard = runtime.enter();
        let hub = Hub::builder().settings(settings).bus(feed).start().expect("the settings agree");
        drop(guard);
        let mut node = Self { runtime, hub, events, sessions: Vec::new(), offset: 0, delivered: 0 };
        node.emit(BusEvent::Up(Some(Position { epoch: 1, offset: 0 })));
        node.sessions = (0..sessions).map(|user| node.connect(user, None)).collect();
        node
    }

    /// Connects a user and waits until the session has begun.
    fn connect(&self, user: usize, cursor: Option<&str>) -> Session {
        let wire: Arc<dyn WireFormat> = Arc::new(Plain);
        let user = i64::try_from(user).expect("there are fewer users than numbers");
        let principal = Principal::new(user.into(), "token");
        let _guard = self.runtime.enter();
        let session = self.hub.connect(principal, Transport::new("bench"), &wire, cursor);
        let session = session.expect("nothing limits the sessions of different users");
        self.runtime.block_on(session.begun()).expect("the session begins");
        session
    }

    fn emit(&self, event: BusEvent) {
        self.events.send(event).expect("the hub reads on");
    }

    /// Emits a message that so many sessions are to get.
    fn publish(&mut self, envelope: Envelope, receivers: usize) {
        self.offset += 1;
        self.delivered += receivers as u64;
        self.emit(BusEvent::message(
            Some(Position { epoch: 1, offset: self.offset }),
            Arc::new(envelope),
            Duration::ZERO,
        ));
    }

    /// Runs the hub until everything is in the log and in the outboxes.
    fn settle(&self) {
        let end = Some(Position { epoch: 1, offset: self.offset });
        self.runtime.block_on(async {
            while self.hub.cursor() != end {
                yield_now().await;
            }
            // The pass, which the log has woken.
            yield_now().await;
        });
    }
}

impl Drop for Node {
    /// Fails if anything was not delivered. Not in [`Self::settle`], since the hub looks at all sessions for its metrics.
    fn drop(&mut self) {
        let metrics = self.hub.metrics();
        assert_eq!((metrics.received, metrics.delivered), (self.offset, self.delivered));
    }
}

/// Number of bytes that a session had for its body.
fn read(session: &mut Session) -> u64 {
    match session.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Outbound::Bytes(bytes)) => bytes.len() as u64,
        Poll::Ready(Outbound::Close(_) | Outbound::Abort(_)) | Poll::Pending => 0,
    }
}

/// A message into one session's outbox and out of it again.
#[divan::bench]
fn local_send(bencher: Bencher) {
    let mut node = Node::new(1);
    let handle = node.sessions[0].handle();
    let text = text();
    bencher.bench_local(move || {
        handle.send_local(text.clone()).expect("there is room");
        read(&mut node.sessions[0])
    });
}

/// The same of an event stream, encoded for it.
#[divan::bench]
fn local_send_to_an_event_stream(bencher: Bencher) {
    let node = Node::new(0);
    let guard = node.runtime.enter();
    let stream = SseEmitters::new(node.hub.clone()).connect(1, "token").expect("nothing limits the sessions");
    drop(guard);
    node.runtime.block_on(stream.begun());
    let (handle, text) = (stream.handle(), text());
    let mut stream = Box::pin(stream);
    let mut read = move || {
        let _guard = node.runtime.enter();
        stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    while read() {}
    bencher.bench_local(move || {
        handle.send_local(text.clone()).expect("there is room");
        read()
    });
}

/// Broadcasts from the bus through a pass to 1,000 sessions, and read from there; items are deliveries.
#[divan::bench(args = [1, 20])]
fn broadcast_to_1000_sessions(bencher: Bencher, broadcasts: usize) {
    let mut node = Node::new(1000);
    bencher.counter(ItemsCount::new(1000 * broadcasts)).bench_local(move || {
        for _ in 0..broadcasts {
            node.publish(Envelope::broadcast(Scope::Both, message()), 1000);
        }
        node.settle();
        for session in &mut node.sessions {
            while read(session) > 0 {}
        }
    });
}

/// Messages to one of a number of users each.
struct Unicasts {
    node: Node,
    /// The users of the last message that was sent, and of the last one that was read.
    sent: usize,
    read: usize,
    /// Number of messages in between.
    unread: usize,
}

/// A prime: the next user is never near the previous one in memory.
const STRIDE: usize = 7919;

/// Messages that are sent at a time.
const UNICASTS: usize = 64;

impl Unicasts {
    /// Fills the log, as on a node that has run for a while.
    fn new(sessions: usize) -> Self {
        let mut unicasts = Self { node: Node::new(sessions), sent: 0, read: 0, unread: 0 };
        for _ in 0..=Settings::default().history.max_messages / UNICASTS {
            unicasts.send();
            unicasts.read();
        }
        unicasts
    }

    /// From the envelope to the outbox.
    fn send(&mut self) {
        for _ in 0..UNICASTS {
            self.sent = (self.sent + STRIDE) % self.node.sessions.len();
            let user = i64::try_from(self.sent).expect("there are fewer users than numbers");
            let envelope = Envelope::to_topic(Topic::user(&user.into()), Scope::Both, message());
            self.node.publish(envelope, 1);
        }
        self.unread += UNICASTS;
        self.node.settle();
    }

    /// Out of the outboxes, to the end.
    fn read(&mut self) {
        for _ in 0..mem::take(&mut self.unread) {
            self.read = (self.read + STRIDE) % self.node.sessions.len();
            read(&mut self.node.sessions[self.read]);
        }
    }
}

/// 64 messages, each to one of a number of sessions: envelope, bus, log, pass, outbox; items are messages.
#[divan::bench(args = [1000, 10_000], sample_size = 16)]
fn unicast(bencher: Bencher, sessions: usize) {
    let unicasts = RefCell::new(Unicasts::new(sessions));
    bencher
        .counter(ItemsCount::new(UNICASTS))
        .with_inputs(|| unicasts.borrow_mut().read())
        .bench_local_values(|()| unicasts.borrow_mut().send());
}

/// The same, and out of the outboxes.
#[divan::bench(args = [1000, 10_000], sample_size = 16)]
fn unicast_and_read(bencher: Bencher, sessions: usize) {
    let mut unicasts = Unicasts::new(sessions);
    bencher.counter(ItemsCount::new(UNICASTS)).bench_local(move || {
        unicasts.send();
        unicasts.read();
    });
}

/// The replay of messages to a client that reconnects; items are messages.
#[divan::bench(args = [1000, 50_000])]
fn replay(bencher: Bencher, messages: u64) {
    let mut node = Node::new(0);
    for _ in 0..messages {
        node.publish(Envelope::broadcast(Scope::Both, message()), 0);
    }
    node.settle();
    bencher.counter(ItemsCount::new(messages)).bench_local(move || {
        let mut session = node.connect(1, Some("1.0"));
        let mut left = messages * 150;
        while left > 0 {
            left -= read(&mut session);
        }
    });
}

#[divan::bench]
fn cursor_write(bencher: Bencher) {
    let position = Position { epoch: 1_795_492_719_616, offset: 123_456 };
    bencher.bench(|| black_box(position).to_string());
}

#[divan::bench]
fn cursor_read(bencher: Bencher) {
    bencher.bench(|| black_box("1795492719616.123456").parse::<Position>());
}
