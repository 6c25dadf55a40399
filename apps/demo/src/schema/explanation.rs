//! Schemas of the answers to questions about one user: explanations and traces.

use serde::Serialize;
use utoipa::ToSchema;

use super::user_id::UserId;

/// What a cluster knows of a user, and of the last messages that were for this user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    user_id: UserId,
    /// Time of the answer.
    #[schema(format = DateTime)]
    at: String,
    /// `null`: presence is unavailable.
    #[schema(required = true)]
    online: Option<bool>,
    /// What could not be asked, and why. With none, the answer is complete.
    problems: Vec<String>,
    nodes: Vec<ExplainedNode>,
    sessions: Vec<ExplainedSession>,
    /// The user's sessions that have ended, newest first.
    closes: Vec<EndedSession>,
    /// Connections of the user that were refused, newest first.
    refusals: Vec<RefusedConnection>,
    /// Connections of unknown users that were refused, newest first: a login that is none names nobody.
    unknown_refusals: Vec<RefusedConnection>,
    /// The last messages in the history of the asked node that were for the user, newest first.
    messages: Vec<ExplainedMessage>,
}

/// A node that was asked. Without an answer only the first two are there.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainedNode {
    node: String,
    /// `false` if it has not answered in time, or is of a version that cannot.
    answered: bool,
    /// The position up to which it has read the bus.
    position: Option<String>,
    /// Start of an outage of its bus.
    #[schema(format = DateTime)]
    bus_down_since: Option<String>,
    /// Number of the user's sessions on it.
    #[schema(value_type = usize, required = false)]
    sessions: Option<usize>,
    /// Time since when its `closes` are complete.
    #[schema(value_type = String, format = DateTime, required = false)]
    closes_since: Option<String>,
    /// Time since when its `refusals` are complete.
    #[schema(value_type = String, format = DateTime, required = false)]
    refusals_since: Option<String>,
}

/// A session of the user. Of one that only presence knows, `mode` and what follows are `null` or empty.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainedSession {
    node: String,
    session_id: String,
    transport: String,
    #[schema(required = true)]
    client_id: Option<String>,
    #[schema(format = DateTime)]
    since: String,
    /// `waiting`, `live`, `catchingUp` or `closing`.
    #[schema(required = true)]
    mode: Option<String>,
    /// `takenOver` or `body`: the lane on which its connection runs.
    #[schema(required = true)]
    lane: Option<String>,
    /// Its topics besides `all`.
    topics: Vec<String>,
    /// Time when its login ends.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// Position behind which it began.
    #[schema(required = true)]
    from: Option<String>,
    /// Whether it was replayed everything since its client's cursor; `null` without a cursor.
    #[schema(required = true)]
    recovered: Option<bool>,
    /// Position up to which it has been served.
    #[schema(required = true)]
    served_up_to: Option<String>,
    /// Number of entries of the history between that and the node's own position.
    #[schema(required = true)]
    behind: Option<u64>,
    #[schema(required = true)]
    outbox: Option<ExplainedOutbox>,
    /// Number of messages that were left out because they were over or replaced before it could be sent them.
    left_out: u32,
    #[schema(required = true)]
    gap: Option<ExplainedGap>,
    /// Reason of its end, if it is ending.
    #[schema(required = true)]
    closing: Option<String>,
}

/// What waits for a socket.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainedOutbox {
    frames: usize,
    bytes: usize,
    /// Bytes that the socket has accepted since the session began.
    written: u64,
}

/// A gap that was announced to a session.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExplainedGap {
    #[schema(format = DateTime)]
    at: String,
    reason: String,
}

/// A session that has ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndedSession {
    node: String,
    #[schema(format = DateTime)]
    at: String,
    session_id: String,
    transport: String,
    reason: String,
    /// The code that its client was given.
    #[schema(required = true)]
    code: Option<u16>,
    /// Milliseconds for which it was open.
    open_ms: u64,
}

/// A connection that was refused.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RefusedConnection {
    node: String,
    #[schema(format = DateTime)]
    at: String,
    #[schema(required = true)]
    transport: Option<String>,
    /// The client's address.
    #[schema(required = true)]
    address: Option<String>,
    reason: String,
    /// The HTTP status of the reason. The response had another one where `auth.errorStatus` says so, and for an event stream
    /// that is to come back later (200), or never (204).
    status: u16,
    /// The reason as a text.
    error: String,
}

/// A message that was for the user, or a gap of the bus.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainedMessage {
    #[schema(required = true)]
    position: Option<String>,
    /// Milliseconds since this node received it.
    age_ms: u64,
    /// Reason of a gap of the bus: what was published here is missing, and the rest of this record is empty.
    #[schema(value_type = String, required = false)]
    gap: Option<String>,
    /// The publisher's id.
    #[schema(value_type = String, required = false)]
    id: Option<String>,
    /// The topic by which it was for the user.
    #[schema(value_type = String, required = false)]
    topic: Option<String>,
    /// Number of its topics.
    topics: usize,
    /// The only transport that it is for.
    #[schema(value_type = String, required = false)]
    transport: Option<String>,
    #[schema(value_type = String, required = false)]
    event: Option<String>,
    /// Length of its text.
    bytes: usize,
    /// `current`, `expired`, `collapsed` or `droppedOldest`.
    #[schema(value_type = String, required = false)]
    state: Option<String>,
    /// How far it has got, for each session.
    sessions: Vec<Reached>,
}

/// How far a message has got in one session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reached {
    session_id: String,
    /// `written`, `queued`, `servedOrLeftOut`, `waiting`, `before`, `excluded`, `otherTransport`, `otherTopics` or
    /// `unknown`.
    state: String,
}

/// Something that happened to a user or topic. Fields that do not apply are absent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TraceEvent {
    #[schema(format = DateTime)]
    at: String,
    /// The node on which it happened.
    node: String,
    /// `nodes`, `connect`, `refused`, `begin`, `grants`, `leaves`, `received`, `queued`, `written`, `initial`, `dropped`,
    /// `behind`, `live`, `gap`, `close`, `fanout`, `lost` or `end`.
    kind: String,
    /// The user of the session.
    #[schema(value_type = UserId, required = false)]
    user_id: Option<UserId>,
    #[schema(value_type = String, required = false)]
    session_id: Option<String>,
    #[schema(value_type = String, required = false)]
    transport: Option<String>,
    /// The position of the message, or that at which the session begins.
    #[schema(value_type = String, required = false)]
    position: Option<String>,
    /// The publisher's id of the message.
    #[schema(value_type = String, required = false)]
    id: Option<String>,
    /// The event's name of the message.
    #[schema(value_type = String, required = false)]
    event: Option<String>,
    /// Topics of the message, or of the session.
    #[schema(required = false)]
    topics: Vec<String>,
    /// Length of the message's text.
    #[schema(value_type = usize, required = false)]
    bytes: Option<usize>,
    /// Bytes that wait for the socket, this message included.
    #[schema(value_type = u64, required = false)]
    waiting: Option<u64>,
    /// The message was read from the history.
    #[schema(required = false)]
    replayed: bool,
    /// The message has no position.
    #[schema(required = false)]
    local: bool,
    #[schema(value_type = String, required = false)]
    reason: Option<String>,
    /// The code that the client was given with the end.
    #[schema(value_type = u16, required = false)]
    code: Option<u16>,
    #[schema(value_type = String, required = false)]
    detail: Option<String>,
    #[schema(value_type = u64, required = false)]
    count: Option<u64>,
    #[schema(value_type = u64, required = false)]
    sessions: Option<u64>,
    #[schema(value_type = u64, required = false)]
    behind: Option<u64>,
    /// Nodes that trace.
    #[schema(required = false)]
    answered: Vec<String>,
    /// Nodes that do not.
    #[schema(required = false)]
    missing: Vec<String>,
}
