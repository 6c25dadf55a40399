//! [`TestSession`]: a session that a test reads.

use std::{fmt, future::poll_fn, sync::Arc, time::SystemTime};

use super::{
    wire::{TestWire, decode},
    within,
};
use crate::{
    CloseReason, Envelope, Hub, Message, Payload, Position, Principal, Scope, Session, SessionHandle, Topic,
    Transport, UserId,
    error::ConnectError,
    session::Outbound,
    wire::{GapReason, WireFormat},
};

/// A connected client without a socket, which a test reads.
///
/// Its drop ends the session, as a client that goes away does.
pub struct TestSession {
    hub: Hub,
    /// Until it has ended.
    session: Option<Session>,
    handle: SessionHandle,
    /// Bytes of frames that are not whole, or have not been read.
    buffer: Vec<u8>,
    cursor: Option<Position>,
    recovered: Option<bool>,
    ended: Option<CloseReason>,
}

/// Event of a session, as its client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TestEvent {
    /// A message.
    Message(TestMessage),
    /// Messages may be missing before the next one.
    Gap {
        /// The reason.
        reason: GapReason,
        /// The position up to which nothing else is missing.
        cursor: Option<Position>,
        /// Time since when messages may be missing, if it is known.
        since: Option<SystemTime>,
    },
    /// A heartbeat.
    Heartbeat {
        /// The position up to which the client has everything.
        cursor: Option<Position>,
        /// `true` if the bus is available.
        bus_up: bool,
    },
    /// The session has ended; nothing else comes.
    Closed(CloseReason),
}

/// A message as a client receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestMessage {
    /// The name of its event.
    pub event: String,
    /// The topic that it was published to, if that is a single named one.
    pub topic: Option<Topic>,
    /// Its text or bytes.
    pub data: Payload,
    /// Its position; `None` for local sends and on a bus without positions.
    pub position: Option<Position>,
}

impl TestSession {
    /// Connects a user over WebSocket, with a token of its own, and waits until the session has begun.
    ///
    /// # Panics
    /// When the hub refuses it, or the session does not begin within 10 s.
    pub async fn connect(hub: &Hub, user: UserId) -> Self {
        let token = format!("{:032x}", rand::random::<u128>());
        let connected =
            Self::open(hub, Principal::new(user, &token), Transport::new("websocket"), None).await;
        connected.unwrap_or_else(|error| panic!("the connection was refused: {error}"))
    }

    /// Connects a principal over a transport, where its client stood at `cursor`, and waits until the session has begun.
    ///
    /// # Errors
    /// [`ConnectError`] when the hub refuses it.
    ///
    /// # Panics
    /// When the session does not begin within 10 s, or ends before.
    pub async fn open(
        hub: &Hub,
        principal: Principal,
        transport: Transport,
        cursor: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let wire: Arc<dyn WireFormat> = Arc::new(TestWire);
        let session = hub.connect(principal, transport, &wire, cursor)?;
        let begin = within(|| "the session's begin".into(), session.begun()).await;
        let Some(begin) = begin else {
            panic!("the session ended before it began: {:?}", session.closing());
        };
        let (hub, handle, recovered) = (hub.clone(), session.handle(), begin.recovered);
        let session = Some(session);
        Ok(Self { hub, session, handle, buffer: Vec::new(), cursor: begin.cursor, recovered, ended: None })
    }

    /// Comes back as a client does whose connection has broken: with its cursor, to the same hub or another node.
    ///
    /// # Errors
    /// As [`Self::open`].
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn reconnect(self, hub: &Hub) -> Result<Self, ConnectError> {
        let (principal, transport) = ((*self.handle.principal()).clone(), self.handle.transport());
        let cursor = self.cursor.map(|cursor| cursor.to_string());
        drop(self);
        Self::open(hub, principal, transport, cursor.as_deref()).await
    }

    /// The handle of the session, as an application's handlers get it.
    pub fn handle(&self) -> &SessionHandle {
        &self.handle
    }

    /// The position up to which it has everything that it has read.
    pub fn cursor(&self) -> Option<Position> {
        self.cursor
    }

    /// `Some(true)` if everything since the cursor follows; `None` without a cursor.
    pub fn recovered(&self) -> Option<bool> {
        self.recovered
    }

    /// The next event. After the end it is [`TestEvent::Closed`] again.
    ///
    /// # Panics
    /// When no event arrives within 10 s.
    pub async fn next(&mut self) -> TestEvent {
        within(|| "something for the session".into(), self.read()).await
    }

    /// The next message. Heartbeats are ignored.
    ///
    /// # Panics
    /// When a gap or the end arrives instead, or no event within 10 s.
    pub async fn message(&mut self) -> TestMessage {
        loop {
            match self.next().await {
                TestEvent::Message(message) => return message,
                TestEvent::Heartbeat { .. } => {}
                other => panic!("no message came but {other:?}"),
            }
        }
    }

    /// The text of the next message: see [`Self::message`].
    ///
    /// # Panics
    /// As [`Self::message`].
    pub async fn text(&mut self) -> String {
        self.message().await.data.to_string()
    }

    /// The reason for the end. Events before it are ignored.
    ///
    /// # Panics
    /// When it does not end within 10 s of what came last.
    pub async fn closed(&mut self) -> CloseReason {
        loop {
            if let TestEvent::Closed(reason) = self.next().await {
                return reason;
            }
        }
    }

    /// Everything that it is sent of what was published until now, in order; heartbeats are left out.
    ///
    /// It publishes a message to the session alone and reads up to there. So nothing waits, and an empty list means that
    /// there was nothing. Local sends have no order with what is published.
    ///
    /// # Panics
    /// When the message cannot be published, or does not come within 10 s.
    pub async fn received(&mut self) -> Vec<TestEvent> {
        let topic = Topic::new(&format!("testkit:{}", self.handle.id())).expect("it is a topic");
        self.handle.subscribe(topic.clone());
        let mark =
            Envelope::to_topics([topic.clone()], Scope::Both, Message::text(topic.as_str().to_owned()));
        // A session that has ended has its end to read.
        let published = self.hub.publish(mark.expect("one topic is not none")).await;
        published.unwrap_or_else(|error| panic!("the end of what was published cannot be marked: {error}"));
        let mut received = Vec::new();
        loop {
            match self.next().await {
                TestEvent::Message(message) if message.data == *topic.as_str() => break,
                TestEvent::Heartbeat { .. } => {}
                end @ TestEvent::Closed(_) => {
                    received.push(end);
                    break;
                }
                other => received.push(other),
            }
        }
        self.handle.unsubscribe(&topic);
        received
    }

    async fn read(&mut self) -> TestEvent {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event = decode(&line[..end]);
                match &event {
                    TestEvent::Message(TestMessage { position: cursor, .. })
                    | TestEvent::Gap { cursor, .. }
                    | TestEvent::Heartbeat { cursor, .. } => self.cursor = (*cursor).or(self.cursor),
                    TestEvent::Closed(_) => {}
                }
                return event;
            }
            if let Some(reason) = self.ended {
                return TestEvent::Closed(reason);
            }
            let session = self.session.as_mut().expect("it has not ended");
            match poll_fn(|cx| session.poll_next(cx)).await {
                Outbound::Bytes(bytes) => self.buffer.extend_from_slice(&bytes),
                Outbound::Close(reason) | Outbound::Abort(reason) => {
                    self.ended = Some(reason);
                    // As a transport does: the connection is gone.
                    self.session = None;
                }
            }
        }
    }
}

impl fmt::Debug for TestSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSession")
            .field("user", &self.handle.user())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
