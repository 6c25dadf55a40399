//! [`Presence`]: who is online.

use std::time::SystemTime;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::future::ready;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::UserId;

/// Online users of the cluster, over all transports.
///
/// A user comes online with its first session on any node, and goes offline `presence.grace` after its last one has
/// ended, so that a reload makes no flicker. Where a node that drained has told its client to come back later, the
/// grace begins a second after that time.
pub trait Presence: Send + Sync + 'static {
    /// A session of the user was opened or ended on this node. Never blocks; called from any thread.
    fn changed(&self, user: &UserId) {
        let _ = user;
    }

    /// This node stops and has no sessions any more: the others need not wait for it.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// The users that come online or go offline from now on, in order and each once. In a cluster, changes of the last
    /// second that this node had no word of before may be among them.
    ///
    /// It costs something only while the stream is kept.
    fn changes(&self) -> BoxStream<'static, PresenceEvent>;

    /// For each of the users, in the same order, whether it is online.
    ///
    /// # Errors
    /// [`PresenceError`] when it is unavailable.
    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>>;

    /// Number of online users and sessions.
    ///
    /// # Errors
    /// [`PresenceError`] when it is unavailable.
    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>>;

    /// Some of the users that are online, in ascending order: `take` of them after the first `skip`.
    ///
    /// # Errors
    /// [`PresenceError`] when it is unavailable.
    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>>;

    /// The sessions of a user, oldest first.
    ///
    /// # Errors
    /// [`PresenceError`] when it is unavailable.
    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>>;
}

/// Event of presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceEvent {
    /// A user came online or went offline.
    Changed(PresenceChange),
    /// Changes are missing here: whoever keeps a list has to ask for it again.
    Gap,
}

/// A user came online or went offline.
///
/// Where a fault makes a cluster say it again, `since` is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceChange {
    /// The user.
    pub user_id: UserId,
    /// The user's state.
    pub state: PresenceState,
    /// Beginning of its first session, or end of its last one; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub since: SystemTime,
}

/// Whether a user is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// It has a session, or had one a moment ago.
    Online,
    /// It has none.
    Offline,
}

/// Error of an unavailable presence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("presence is unavailable: {0}")]
pub struct PresenceError(pub String);

impl PresenceError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        503
    }
}

/// Number of online users and sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OnlineCount {
    /// Users that are online.
    pub users: usize,
    /// Sessions.
    pub sessions: usize,
}

/// A user that is online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OnlineUser {
    /// The user.
    pub user_id: UserId,
    /// Number of its sessions; 0 for a user who is about to go offline.
    pub sessions: usize,
}

/// A session that is online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnlineSession {
    /// The session's id, as a string: it may come from another node.
    pub session_id: String,
    /// The kind of connection, as a string for the same reason.
    pub transport: String,
    /// The kind of application.
    pub client_id: Option<String>,
    /// The node that serves it.
    pub node: String,
    /// Time of opening; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339", deserialize_with = "from_rfc3339")]
    pub since: SystemTime,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn from_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
