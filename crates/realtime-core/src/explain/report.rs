//! [`Explanation`] and its parts.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{
    UserId,
    recent::{EndedSession, RefusedConnection},
};

/// What a cluster knows of a user, and of the last messages that were for this user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Explanation {
    /// The user.
    pub user_id: UserId,
    /// Time of the answer.
    #[serde(with = "crate::rfc3339")]
    pub at: SystemTime,
    /// `true` if presence knows the user as online; `None` if presence is unavailable.
    pub online: Option<bool>,
    /// What could not be asked, and why. With none, the answer is complete.
    pub problems: Vec<String>,
    /// The nodes of the cluster, those that have not answered included.
    pub nodes: Vec<ExplainedNode>,
    /// The user's sessions. Of a node that has not answered they are what presence knows of them.
    pub sessions: Vec<ExplainedSession>,
    /// The user's sessions that have ended, newest first.
    pub closes: Vec<EndedSession>,
    /// Connections of the user that were refused, newest first.
    pub refusals: Vec<RefusedConnection>,
    /// Connections of unknown users that were refused, newest first: a login that is none names nobody.
    pub unknown_refusals: Vec<RefusedConnection>,
    /// The last messages in the history of the asked node that were for the user, newest first. Their texts are not part
    /// of it.
    pub messages: Vec<ExplainedMessage>,
}

/// A node that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExplainedNode {
    /// The node's name.
    pub node: String,
    /// `false` if it has not answered in time, or is of a version that cannot.
    pub answered: bool,
    /// Its state, if it has answered.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub report: Option<NodeReport>,
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeReport {
    /// The position up to which it has read the bus.
    #[serde(default)]
    pub position: Option<String>,
    /// Start of an outage of its bus.
    #[serde(default, with = "crate::rfc3339::optional")]
    pub bus_down_since: Option<SystemTime>,
    /// Number of the user's sessions on it.
    pub sessions: usize,
    /// Time since when its `closes` are complete.
    #[serde(with = "crate::rfc3339")]
    pub closes_since: SystemTime,
    /// Time since when its `refusals` are complete.
    #[serde(with = "crate::rfc3339")]
    pub refusals_since: SystemTime,
}

/// What one node knows of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeExplanation {
    /// Its state.
    pub report: NodeReport,
    /// The user's sessions on it, the newest 100.
    pub sessions: Vec<ExplainedSession>,
    /// The user's last sessions there that have ended, up to 20, newest first.
    pub closes: Vec<EndedSession>,
    /// The user's last connections that it has refused, up to 20, newest first.
    pub refusals: Vec<RefusedConnection>,
    /// The last connections of unknown users that it has refused, up to 20, newest first.
    pub unknown_refusals: Vec<RefusedConnection>,
}

/// A session of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExplainedSession {
    /// The node that serves it.
    pub node: String,
    /// The session's id.
    pub session_id: String,
    /// The transport.
    pub transport: String,
    /// The kind of application.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Time when it was opened.
    #[serde(with = "crate::rfc3339")]
    pub since: SystemTime,
    /// Its state; `None` if only presence knows it.
    #[serde(default)]
    pub mode: Option<SessionMode>,
    /// `takenOver` or `body`: the lane on which its connection runs.
    #[serde(default)]
    pub lane: Option<String>,
    /// Its topics besides `all`.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Time when its login ends.
    #[serde(default, with = "crate::rfc3339::optional")]
    pub expires_at: Option<SystemTime>,
    /// Position behind which it began.
    #[serde(default)]
    pub from: Option<String>,
    /// `true` if it was replayed everything since its client's cursor; `None` if the client sent no cursor.
    #[serde(default)]
    pub recovered: Option<bool>,
    /// Position up to which it has been served: its outbox has what is for it.
    #[serde(default)]
    pub served_up_to: Option<String>,
    /// Number of entries of the history between that and the node's own position.
    #[serde(default)]
    pub behind: Option<u64>,
    /// What waits for its socket.
    #[serde(default)]
    pub outbox: Option<ExplainedOutbox>,
    /// Number of messages that were left out because they were over or replaced before it could be sent them.
    #[serde(default)]
    pub left_out: u32,
    /// The last gap that was announced to it alone.
    #[serde(default)]
    pub gap: Option<ExplainedGap>,
    /// Reason of its end, if it is ending.
    #[serde(default)]
    pub closing: Option<String>,
}

/// State of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SessionMode {
    /// It has yet to begin: its node has not heard from the bus, or lags behind the client's cursor.
    Waiting,
    /// It is sent what is published.
    Live,
    /// It reads the history: after a reconnect, or since its client reads too slowly.
    CatchingUp,
    /// It is ending.
    Closing,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What waits for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExplainedOutbox {
    /// Frames that wait.
    pub frames: usize,
    /// Bytes that wait.
    pub bytes: usize,
    /// Bytes that the socket has accepted since the session began.
    pub written: u64,
}

/// A gap that was announced to a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExplainedGap {
    /// Time when it was announced.
    #[serde(with = "crate::rfc3339")]
    pub at: SystemTime,
    /// The [reason's name](crate::wire::GapReason::name).
    pub reason: String,
}

/// A message that was for the user, or a gap of the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExplainedMessage {
    /// The message's position.
    pub position: Option<String>,
    /// Milliseconds since this node received it.
    pub age_ms: u64,
    /// Reason of a gap of the bus: what was published here is missing, and the rest of this record is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
    /// The publisher's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The topic by which it was for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Number of its topics.
    pub topics: usize,
    /// The only transport that it is for; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// The name of its event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Length of its text in bytes.
    pub bytes: usize,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<MessageState>,
    /// How far it has got, for each session. Empty on a bus without positions.
    pub sessions: Vec<Reached>,
}

/// State of a message of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum MessageState {
    /// It is sent to whoever has yet to get it.
    Current,
    /// Its time is over: whoever has not got it will not.
    Expired,
    /// A newer one has replaced it: whoever has not got it will not.
    Collapsed,
    /// Enough newer ones of its class are there: whoever has not got it will not.
    DroppedOldest,
}

/// How far a message has got in one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Reached {
    /// The session's id.
    pub session_id: String,
    /// `written`: the socket has accepted it. `queued`: it is among what waits for the socket. `servedOrLeftOut`: one of the
    /// two, or it was among those that were left out; only of a message that is no more `current`, or where the asked node has
    /// read less of the bus than the session's. `waiting`: the session has not read that far. `before`: the session
    /// began behind it. `excluded`: it is for all sessions but this one. `otherTransport`, `otherTopics`: it is not for this
    /// session. `unknown`: the session's node has not answered.
    pub state: &'static str,
}
