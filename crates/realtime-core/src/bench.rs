//! Work of the workspace's micro-benchmarks: each function prepares its data and returns the work to be timed.
//!
//! Behind the feature `bench`, and not part of the public API.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Envelope, Message, Position, Principal, Scope, Session, Settings, Topic, Transport,
    direct::WriteBuffer,
    node,
    outbox::{Outbox, OutboxGroup},
    settings::{History, OutboxLimits},
    shard::Shard,
    wire::{BusState, GapReason, Outbound, WireFormat},
};

/// A wire format that writes the text and nothing else.
struct Plain;

impl WireFormat for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn message(&self, message: &Message, _: Option<Position>) -> Bytes {
        Bytes::copy_from_slice(message.data.as_bytes())
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Duration) -> Option<Bytes> {
        Some(Bytes::from_static(b"gap"))
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::from_static(b"heartbeat")
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

/// Puts one frame into an outbox and takes it out again.
pub fn outbox() -> impl FnMut() {
    let outbox = Outbox::new(Arc::new(OutboxGroup::new(&OutboxLimits::default())));
    let frame = Bytes::from(vec![b'x'; 150]);
    move || {
        outbox.offer(&frame).expect("there is room");
        let _ = outbox.poll_pull(&mut Context::from_waker(Waker::noop()), 1024);
    }
}

/// A node with sessions of users 0, 1, 2, ... on one shard.
#[derive(Debug)]
struct Node {
    node: Arc<node::Node>,
    shard: Arc<Shard>,
    sessions: Vec<Session>,
    offset: u64,
}

impl Node {
    fn new(sessions: usize) -> Self {
        let shared = Arc::new(node::Node::new(Settings::default()));
        shared.log.begin(Some(Position { epoch: 1, offset: 0 }));
        let shard = Shard::new(Arc::clone(&shared));
        let mut node = Self { node: shared, shard, sessions: Vec::new(), offset: 0 };
        node.sessions = (0..sessions).map(|user| node.open(user, None)).collect();
        node
    }

    fn open(&self, user: usize, cursor: Option<u64>) -> Session {
        let wire: Arc<dyn WireFormat> = Arc::new(Plain);
        let wire = self.node.wire(&wire).expect("there is one wire");
        let user = i64::try_from(user).expect("there are fewer users than numbers");
        let cursor = cursor.map(|offset| Ok(Position { epoch: 1, offset }));
        let principal = Principal::new(user.into(), "token");
        let registered = self.shard.register(principal, Transport::new("bench"), wire, cursor);
        Session::new(registered.expect("nothing limits the sessions of different users"))
    }

    fn publish(&mut self, envelope: Envelope) {
        self.offset += 1;
        self.node.log.push(Some(Position { epoch: 1, offset: self.offset }), Arc::new(envelope));
    }

    fn pass(&self) {
        while self.shard.pass().more {}
    }
}

fn message() -> Message {
    Message::text("x".repeat(150))
}

/// A pass that delivers a number of broadcasts to a number of sessions, and the sessions' reads.
pub fn pass(sessions: usize, broadcasts: usize) -> impl FnMut() {
    let mut node = Node::new(sessions);
    move || {
        for _ in 0..broadcasts {
            node.publish(Envelope::broadcast(Scope::Both, message()));
        }
        node.pass();
        for session in &mut node.sessions {
            while read(session) > 0 {}
        }
    }
}

/// Messages to one of a number of users each.
#[derive(Debug)]
pub struct Unicasts {
    node: Node,
    messages: usize,
    /// The user that got the last message, and the user that has read last.
    user: usize,
    reader: usize,
}

impl Unicasts {
    /// Creates the work: `messages` messages at a time, each to one of `sessions` users. The log is full, as it is on a
    /// node that has run for a while.
    pub fn new(sessions: usize, messages: usize) -> Self {
        let mut unicasts = Self { node: Node::new(sessions), messages, user: 0, reader: 0 };
        for _ in 0..=History::default().max_messages / messages {
            unicasts.send();
            unicasts.read();
        }
        unicasts
    }

    /// Sends messages, from the envelope to the outbox.
    ///
    /// # Panics
    /// If there are more users than numbers.
    pub fn send(&mut self) {
        for _ in 0..self.messages {
            self.user = (self.user + STRIDE) % self.node.sessions.len();
            let id = i64::try_from(self.user).expect("there are fewer users than numbers");
            let envelope = Envelope::to_topics([Topic::user(&id.into())], Scope::Both, message());
            self.node.publish(envelope.expect("a list of one user is not empty"));
        }
        self.node.pass();
    }

    /// Reads the outboxes until they are empty.
    pub fn read(&mut self) {
        while self.reader != self.user {
            self.reader = (self.reader + STRIDE) % self.node.sessions.len();
            read(&mut self.node.sessions[self.reader]);
        }
    }
}

/// A prime, so that the next user is never near the last one in memory.
const STRIDE: usize = 7919;

/// A client that reconnects and is replayed a number of messages.
pub fn replay(messages: u64) -> impl FnMut() {
    let mut node = Node::new(0);
    for _ in 0..messages {
        node.publish(Envelope::broadcast(Scope::Both, message()));
    }
    node.pass();
    move || {
        let mut session = node.open(1, Some(0));
        let mut left = messages * 150;
        while left > 0 {
            left -= read(&mut session);
        }
    }
}

/// Frames joined for one write, for a number of sessions that get the same ones.
pub fn gather(sessions: usize, frames: usize) -> impl FnMut() {
    let frames: std::collections::VecDeque<_> = (0..frames).map(|_| Bytes::from(vec![b'x'; 150])).collect();
    move || {
        let mut gather = WriteBuffer::default();
        for _ in 0..sessions {
            std::hint::black_box(gather.join(&frames));
        }
    }
}

/// Pulls everything from a session. Returns the number of bytes.
fn read(session: &mut Session) -> u64 {
    match session.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Outbound::Bytes(bytes)) => bytes.len() as u64,
        Poll::Ready(Outbound::Close(_) | Outbound::Abort(_)) | Poll::Pending => 0,
    }
}
