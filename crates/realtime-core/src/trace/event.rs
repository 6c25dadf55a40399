//! [`TraceEvent`]: something that happened to a user or topic.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{CloseReason, Envelope, Position, Scope, Topic, UserId, session::state::SessionState};

/// Subject of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum TraceTarget {
    /// The sessions of a user, and the messages for this user.
    User(UserId),
    /// The sessions that enter or leave a topic, and its messages. Deliveries are summed up for each message and worker.
    Topic(Topic),
}

/// Kind of a [`TraceEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum TraceKind {
    /// The nodes that trace: `answered`, and those that do not, `missing`. It comes first, and when they change.
    Nodes,
    /// A session was opened, in `topics`.
    Connect,
    /// A connection was refused: `reason`, `detail`.
    Refused,
    /// A session begins at `position`. `reason` is the gap with which it begins; `count` entries of the history are read
    /// first.
    Begin,
    /// A session was added to `topics`.
    Grants,
    /// A session was removed from `topics`.
    Leaves,
    /// A node received a message from the bus.
    Received,
    /// A message waits for the socket of a session, behind `waiting` bytes.
    Queued,
    /// The socket of a session has accepted a message to its last byte.
    Written,
    /// A session was sent `count` messages that are kept for newcomers of its topics; `behind` did not fit.
    Initial,
    /// A message was not sent to a session: `reason` is `expired`, `collapsed`, `droppedOldest`, `excluded` or `overflow`.
    Dropped,
    /// A session has no room for a message: it reads the history from there on when its socket accepts something.
    Behind,
    /// A session that was behind has caught up.
    Live,
    /// A gap was announced to a session, or could not be since its format has none: `reason`.
    Gap,
    /// A session has ended: `reason`, `code`.
    Close,
    /// A worker has handed `count` messages of a topic, the last at `position`, to its sessions: `sessions` frames were
    /// queued or written, `behind` sessions had no room.
    Fanout,
    /// `count` events were lost, since there were too many.
    Lost,
    /// The trace ends: `reason`.
    End,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Something that happened to a user or topic. Fields that do not apply are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TraceEvent {
    /// Time when it happened. A write that was not at once is noticed up to 20 ms later.
    #[serde(with = "crate::rfc3339")]
    pub at: SystemTime,
    /// The node on which it happened.
    pub node: String,
    /// What happened.
    pub kind: TraceKind,
    /// The user of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The transport of the session, or the only one that a message is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// The position of the message, or that at which the session begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The publisher's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The event's name of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Topics of the message, up to 10 of them, or topics that the session is in, enters or leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// Length of the message's text, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// Bytes that wait for the socket, this message included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// The message was read from the history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// The message has no position: it was sent on this node only, or the bus has none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// The reason's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The code that the client was given with the end, for a transport with codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The reason as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// See [`TraceKind`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// See [`TraceKind::Fanout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    /// See [`TraceKind`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// See [`TraceKind::Nodes`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answered: Vec<String>,
    /// See [`TraceKind::Nodes`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The events of one node since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeTrace {
    /// The events, in order.
    pub events: Vec<TraceEvent>,
    /// Number of the event from which on the next question asks.
    pub next: u64,
    /// Events that were lost since the trace began on the node.
    pub lost: u64,
}

/// Number of a message's topics in an event.
const TOPICS: usize = 10;

impl TraceEvent {
    /// An event of now, on a node that is named later.
    pub(crate) fn new(kind: TraceKind) -> Self {
        Self {
            at: SystemTime::now(),
            node: String::new(),
            kind,
            user_id: None,
            session_id: None,
            transport: None,
            position: None,
            id: None,
            event: None,
            topics: Vec::new(),
            bytes: None,
            waiting: None,
            replayed: false,
            local: false,
            reason: None,
            code: None,
            detail: None,
            count: None,
            sessions: None,
            behind: None,
            answered: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub(super) fn of(kind: TraceKind, session: &SessionState) -> Self {
        Self {
            user_id: Some(session.user().clone()),
            session_id: Some(session.id.to_string()),
            transport: Some(session.transport().to_string()),
            ..Self::new(kind)
        }
    }

    pub(super) fn message(self, position: Option<Position>, envelope: &Envelope) -> Self {
        let only = match envelope.scope() {
            Scope::Both => None,
            Scope::Only(transport) => Some(transport.to_string()),
        };
        Self {
            position: position.map(|position| position.to_string()),
            id: envelope.id().map(|id| id.as_str().to_owned()),
            event: Some(envelope.message().event.as_str().to_owned()),
            topics: envelope.topics().iter().take(TOPICS).cloned().collect(),
            bytes: Some(envelope.message().data.as_bytes().len()),
            transport: self.transport.or(only),
            ..self
        }
    }

    pub(crate) fn because(self, reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..self }
    }

    pub(super) fn ended(session: &SessionState, reason: CloseReason) -> Self {
        let code = session.wire().wire.close_code(reason);
        Self { code, ..Self::of(TraceKind::Close, session).because(reason.name()) }
    }
}
