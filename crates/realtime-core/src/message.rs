//! [`Message`], [`Payload`], [`Envelope`] and [`Scope`].

use std::{
    fmt,
    hash::BuildHasher,
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize};
use smallvec::{SmallVec, smallvec};

use crate::{CollapseKey, EnvelopeId, SessionId, SlowPolicy, Topic, TraceContext, Transport, UserId};

/// Message to clients: text or bytes, with the name of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The event's name: SSE's `event:`, `event` in `realtime.v1`; raw WebSocket frames omit it.
    pub event: EventName,
    /// The text, by convention JSON, or the bytes.
    pub data: Payload,
}

/// Content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A text.
    Text(ByteString),
    /// Bytes. The [`Scope`] has to be a transport that carries bytes; event streams do not.
    Binary(Bytes),
}

impl Payload {
    /// The text; `None` for bytes.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The bytes, or the UTF-8 bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl Message {
    /// Creates a message of the default event, `message`.
    pub fn text(data: impl Into<ByteString>) -> Self {
        Self { event: EventName::default(), data: Payload::Text(data.into()) }
    }

    /// Creates a message of a named event.
    pub fn new(event: EventName, data: impl Into<ByteString>) -> Self {
        Self { event, data: Payload::Text(data.into()) }
    }

    /// Creates a message of bytes with the default event. Raw WebSocket clients get a binary frame, `realtime.v1`
    /// clients get base64.
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Self { event: EventName::default(), data: Payload::Binary(data.into()) }
    }

    /// Creates a message with a value serialized as JSON.
    ///
    /// ```
    /// use realtime_core::{EventName, Message};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Order { id: u64, status: &'static str }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let message = Message::json(EventName::new("order")?, &Order { id: 7, status: "paid" })?;
    /// assert_eq!(message.data.as_text(), Some(r#"{"id":7,"status":"paid"}"#));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the value cannot be serialized: see [`serde_json::to_string`].
    pub fn json(event: EventName, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::new(event, serde_json::to_string(value)?))
    }
}

/// Equality with a text. Bytes equal no text.
impl PartialEq<str> for Payload {
    fn eq(&self, text: &str) -> bool {
        self.as_text() == Some(text)
    }
}

/// Prints the text, or the number of bytes.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Binary(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl<T: Into<ByteString>> From<T> for Message {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}

/// The name of an event: 1 to 64 printable characters without white space.
///
/// Such a name cannot break out of its line in an event stream. `gap` and all that begin with `realtime.`, such as
/// `realtime.stream` (which carries [text streams](crate::streams)), are the framework's and reserved. `open` and `error`
/// are reserved too, since every `EventSource` fires them itself.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub struct EventName(ByteString);

/// Error of a text that is not an [`EventName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventNameError {
    /// The text is empty or longer than 64 bytes.
    #[error("an event name has 1 to 64 bytes, this one has {0}")]
    Length(usize),
    /// The text contains white space or a control character.
    #[error("event name {0:?} holds white space or a control character")]
    BadCharacter(String),
    /// The name is one of the framework's own.
    #[error("event name {0:?} is reserved")]
    Reserved(String),
}

impl EventName {
    /// The event that announces a gap to SSE clients.
    pub const GAP: &'static str = "gap";
    /// Event for SSE clients: the bus is unavailable, or available again.
    pub const BUS: &'static str = "realtime.bus";
    /// Event for SSE clients that ask for it: the begin of the session.
    pub const HELLO: &'static str = "realtime.hello";
    /// Event for SSE clients: topics that they asked for and may not be in.
    pub const REFUSED: &'static str = "realtime.refused";
    /// Event for SSE clients: the session's login ends soon.
    pub const EXPIRING: &'static str = "realtime.expiring";
    /// Event of the messages of [text streams](crate::streams).
    pub const STREAM: &'static str = "realtime.stream";

    /// Parses an event's name.
    ///
    /// # Errors
    /// If the text is empty, longer than 64 bytes, reserved, or contains white space or a control character.
    pub fn new(text: &str) -> Result<Self, EventNameError> {
        if text.is_empty() || text.len() > 64 {
            return Err(EventNameError::Length(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(EventNameError::BadCharacter(text.to_owned()));
        }
        if text.starts_with("realtime.") || [Self::GAP, "open", "error"].contains(&text) {
            return Err(EventNameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Parses the name of a message that a bus carries: also [`Self::STREAM`], which only the hub publishes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_bus(text: &str) -> Result<Self, EventNameError> {
        if text == Self::STREAM { Ok(Self::stream()) } else { Self::new(text) }
    }

    /// The name of the messages of text streams.
    pub(crate) fn stream() -> Self {
        Self(ByteString::from_static(Self::STREAM))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EventName {
    fn default() -> Self {
        Self(ByteString::from_static("message"))
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventName({})", self.0)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Transports that a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The sessions of every transport.
    Both,
    /// The sessions of one transport.
    Only(Transport),
}

impl Scope {
    /// Returns `true` if the scope includes this transport.
    pub fn covers(self, transport: Transport) -> bool {
        match self {
            Self::Both => true,
            Self::Only(only) => only == transport,
        }
    }
}

/// A message with its topics and scope: the unit that the bus carries.
///
/// It has at least one topic by construction; a broadcast is always requested explicitly. A session that is in several
/// of the topics gets the message once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Most envelopes have one topic.
    topics: SmallVec<[Topic; 1]>,
    scope: Scope,
    message: Message,
    excluded: Option<SessionId>,
    id: Option<EnvelopeId>,
    confirm: bool,
    options: Option<Box<Options>>,
}

/// Options that few envelopes have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    ttl: Option<Duration>,
    slow: SlowPolicy,
    retain: bool,
    trace: Option<Box<TraceContext>>,
}

/// Error of an empty list of targets. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list of targets is empty; a broadcast must be requested explicitly")]
pub struct EmptyTargets;

impl Envelope {
    /// Creates an envelope to all users.
    pub fn broadcast(scope: Scope, message: Message) -> Self {
        Self::to_topic(Topic::all(), scope, message)
    }

    /// Creates an envelope to one topic.
    pub fn to_topic(topic: Topic, scope: Scope, message: Message) -> Self {
        Self {
            topics: smallvec![topic],
            scope,
            message,
            excluded: None,
            id: None,
            confirm: false,
            options: None,
        }
    }

    /// Creates an envelope to all sessions of some users.
    ///
    /// # Errors
    /// [`EmptyTargets`] if there is no user.
    pub fn to_users(
        users: impl IntoIterator<Item = impl Into<UserId>>,
        scope: Scope,
        message: Message,
    ) -> Result<Self, EmptyTargets> {
        Self::to_topics(users.into_iter().map(|user| Topic::user(&user.into())), scope, message)
    }

    /// Creates an envelope to some topics.
    ///
    /// # Errors
    /// [`EmptyTargets`] if there is no topic.
    pub fn to_topics(
        topics: impl IntoIterator<Item = Topic>,
        scope: Scope,
        message: Message,
    ) -> Result<Self, EmptyTargets> {
        let topics: SmallVec<_> = topics.into_iter().collect();
        if topics.is_empty() {
            Err(EmptyTargets)
        } else {
            Ok(Self { topics, scope, message, excluded: None, id: None, confirm: false, options: None })
        }
    }

    /// Excludes one session, on any node: usually the one that the message came from. A client that reconnects gets a
    /// new session, which may be replayed the message.
    #[must_use]
    pub fn except(mut self, session: SessionId) -> Self {
        self.excluded = Some(session);
        self
    }

    /// The excluded session.
    pub fn excluded(&self) -> Option<SessionId> {
        self.excluded
    }

    /// Sets an id, by which a bus may recognize a retry: see [`EnvelopeId`].
    #[must_use]
    pub fn with_id(mut self, id: EnvelopeId) -> Self {
        self.id = Some(id);
        self
    }

    /// The id, if the publisher set one.
    pub fn id(&self) -> Option<&EnvelopeId> {
        self.id.as_ref()
    }

    /// Sets the time after which the message is worthless, counted from when the bus accepts it. No session is sent it
    /// later: neither live, nor from the log, nor by a replay. What a session's outbox has taken counts as sent: up to
    /// `outbox.maxMessages` that a client has not read may still reach it.
    ///
    /// Buses carry whole milliseconds and round up. On a bus of several nodes its own clock decides.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.options_mut().ttl = Some(ttl);
        self
    }

    /// The time after which the message is worthless, if it has one.
    pub fn ttl(&self) -> Option<Duration> {
        self.options.as_ref()?.ttl
    }

    /// The end of its time, for an envelope that the bus accepted `age` ago. An end beyond all times is none.
    pub(crate) fn end(&self, age: Duration) -> Option<Instant> {
        Instant::now().checked_add(self.ttl()?.saturating_sub(age))
    }

    /// Has this message replace an older one with the same key, topics (in the same order), scope and excluded session,
    /// for sessions that have not been sent that one yet. A client that reads slowly, or that reconnects, receives the
    /// newest alone; one that keeps up receives most of them.
    #[must_use]
    pub fn collapse(self, key: CollapseKey) -> Self {
        self.when_slow(SlowPolicy::Collapse(key))
    }

    /// The key of what this message replaces, if it has one.
    pub fn collapse_key(&self) -> Option<&CollapseKey> {
        match self.slow_policy() {
            SlowPolicy::Collapse(key) => Some(key),
            _ => None,
        }
    }

    /// Sets what a session gets of this message and others of its class if it could not be sent them in time.
    #[must_use]
    pub fn when_slow(mut self, policy: SlowPolicy) -> Self {
        self.options_mut().slow = policy;
        self
    }

    /// What a session gets of this message and others of its class if it could not be sent them in time.
    pub fn slow_policy(&self) -> &SlowPolicy {
        self.options.as_ref().map_or(&SlowPolicy::Disconnect, |options| &options.slow)
    }

    /// Number of the newest messages of its class that a session gets; `None` for a message without a class.
    pub(crate) fn kept_of_class(&self) -> Option<u16> {
        self.slow_policy().class().map(|(_, keep)| keep)
    }

    /// Keeps the message for sessions that enter its topic later: they are sent the last one of each
    /// [collapse key](Self::collapse) at once, unless its [time](Self::with_ttl) is over. An empty message clears what was
    /// kept under its key.
    ///
    /// It needs exactly one topic, and a named one: neither a user's nor `all`. See
    /// [`Settings::retained`](crate::Settings::retained) for the bounds.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.options_mut().retain = true;
        self
    }

    /// Returns `true` if the message is kept for sessions that enter its topic later.
    pub fn is_retained(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.retain)
    }

    /// Sets the context of the trace in which it is published. A bus that cannot carry it leaves it out: it says nothing
    /// about the delivery.
    #[must_use]
    pub fn with_trace_context(mut self, context: TraceContext) -> Self {
        self.options_mut().trace = Some(Box::new(context));
        self
    }

    /// The context of the trace in which it was published, if that is known.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.options.as_ref()?.trace.as_deref()
    }

    fn options_mut(&mut self) -> &mut Options {
        self.options.get_or_insert_default()
    }

    /// Returns `true` if a message is of the class of an older one: both have the same key, targets and excluded session.
    pub(crate) fn shares_class(&self, older: &Self) -> bool {
        self.slow_policy().shares_class(older.slow_policy())
            && self.topics == older.topics
            && self.scope == older.scope
            && self.excluded == older.excluded
    }

    /// Hash of what [`Self::shares_class`] compares; `None` for a message without a class.
    pub(crate) fn class_hash(&self, hasher: &impl BuildHasher) -> Option<u64> {
        let (key, _) = self.slow_policy().class()?;
        Some(hasher.hash_one((key, &self.topics, self.scope, self.excluded)))
    }

    /// Returns `true` if it has options: a ttl or a class, a trace context, or is to be retained.
    pub(crate) fn has_options(&self) -> bool {
        self.options.is_some()
    }

    /// Has each node count the sessions that it is for: see
    /// [`Hub::publish_and_confirm`](crate::Hub::publish_and_confirm), which sets this.
    #[must_use]
    pub fn with_confirmation(mut self) -> Self {
        self.confirm = true;
        self
    }

    /// Returns `true` if each node counts the sessions that it is for.
    pub fn wants_confirmation(&self) -> bool {
        self.confirm
    }

    /// Targets of the message; never empty.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The topic, if it is a single [named](Topic::is_named) one: clients are told it with the message.
    pub fn named_topic(&self) -> Option<&Topic> {
        match &self.topics[..] {
            [topic] if topic.is_named() => Some(topic),
            _ => None,
        }
    }

    /// Transports that it is for.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Approximate memory use of the envelope in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.as_str().len() + 32).sum();
        let id = self.id.as_ref().map_or(0, |id| id.as_str().len());
        let options = self.options.as_ref().map_or(0, |options| {
            let class = options.slow.class().map_or(0, |(key, _)| key.as_str().len());
            let trace = options.trace.as_ref().map_or(0, |trace| trace.footprint());
            size_of::<Options>() + class + trace
        });
        let data = self.message.data.as_bytes().len();
        options + data + self.message.event.as_str().len() + topics + id + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_never_becomes_a_broadcast() {
        assert_eq!(Envelope::to_users([0_i64; 0], Scope::Both, Message::text("x")), Err(EmptyTargets));
        assert_eq!(Envelope::to_topics([], Scope::Both, Message::text("x")), Err(EmptyTargets));
    }

    #[test]
    fn only_a_newer_message_with_the_same_key_and_recipients_replaces_one() {
        let price = |topic: &str, key: &str| {
            let envelope = Envelope::to_topic(Topic::new(topic).unwrap(), Scope::Both, Message::text("1"));
            envelope.collapse(CollapseKey::new(key).unwrap())
        };
        let plain = Envelope::to_topic(Topic::new("a").unwrap(), Scope::Both, Message::text("1"));
        assert!(price("a", "x").shares_class(&price("a", "x").with_ttl(Duration::from_secs(1))));
        assert!(
            !price("a", "x").shares_class(&price("a", "y"))
                && !price("a", "x").shares_class(&price("b", "x"))
        );
        assert!(!price("a", "x").shares_class(&plain) && !plain.shares_class(&plain));
        assert!(!price("a", "x").shares_class(&price("a", "x").except(SessionId::random())));
    }

    #[test]
    fn a_named_topic_is_one_and_neither_a_users_nor_all() {
        let to =
            |topics: &[Topic]| Envelope::to_topics(topics.to_vec(), Scope::Both, Message::text("x")).unwrap();
        let (named, user) = (Topic::new("order:7").unwrap(), Topic::user(&7.into()));
        assert_eq!(to(std::slice::from_ref(&named)).named_topic(), Some(&named));
        for topics in [&[user][..], &[Topic::all()], &[named.clone(), Topic::new("x").unwrap()]] {
            assert_eq!(to(topics).named_topic(), None, "{topics:?}");
        }
    }

    #[test]
    fn an_event_name_cannot_leave_its_line() {
        for bad in ["", "a b", "a\nb", "a\rb", "a\0b", "gap", "open", "error", "realtime.stream"] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(EventName::of_bus(EventName::STREAM), Ok(EventName::stream()));
        assert!(EventName::of_bus("gap").is_err());
        assert_eq!(EventName::new("order").unwrap().as_str(), "order");
        assert_eq!(EventName::default().as_str(), "message");
    }

    #[test]
    fn a_scope_covers_its_own_transport() {
        let (websocket, sse) = (Transport::new("websocket"), Transport::new("sse"));
        assert!(Scope::Both.covers(websocket) && Scope::Only(sse).covers(sse));
        assert!(!Scope::Only(sse).covers(websocket));
    }
}
