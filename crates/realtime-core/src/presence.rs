//! [`Presence`]: who is online, and [`LocalPresence`], the answer of one node.

use std::{sync::Arc, time::SystemTime};

use futures_core::future::BoxFuture;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{SessionId, Transport, UserId, registry::Registry, session::SessionState};

/// Who is online in the cluster, over all transports.
pub trait Presence: Send + Sync + 'static {
    /// A session of the user was opened or ended on this node. Never blocks; called from any thread.
    fn changed(&self, user: &UserId) {
        let _ = user;
    }

    /// For each of the users, in the same order, whether it has a session.
    ///
    /// # Errors
    /// [`PresenceError`] when nobody can say now.
    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>>;

    /// How many users and sessions there are.
    ///
    /// # Errors
    /// [`PresenceError`] when nobody can say now.
    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>>;

    /// Some of the users that are online, in ascending order: `take` of them after the first `skip`.
    ///
    /// # Errors
    /// [`PresenceError`] when nobody can say now.
    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>>;

    /// The sessions of a user, oldest first.
    ///
    /// # Errors
    /// [`PresenceError`] when nobody can say now.
    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>>;
}

/// Nobody can say who is online now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("presence is unavailable: {0}")]
pub struct PresenceError(pub String);

/// How many users and sessions are online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OnlineCount {
    /// Users with at least one session.
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
    /// How many sessions it has.
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
    /// When it was opened; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339", deserialize_with = "from_rfc3339")]
    pub since: SystemTime,
}

/// The presence of one node.
#[derive(Debug, Clone)]
pub struct LocalPresence {
    registry: Arc<Registry>,
    node: Arc<str>,
}

impl LocalPresence {
    pub(crate) fn new(registry: Arc<Registry>, node: Arc<str>) -> Self {
        Self { registry, node }
    }

    /// The users that have sessions on this node, ascending.
    pub fn local_users(&self) -> Vec<UserId> {
        self.registry.directory.page(0, usize::MAX).into_iter().map(|(user, _)| user).collect()
    }

    /// The sessions of a user on this node, oldest first.
    pub fn local_sessions(&self, user: &UserId) -> Vec<OnlineSession> {
        self.registry.directory.of(user).iter().map(|session| self.describe(session)).collect()
    }

    /// How many sessions this node has.
    pub fn local_count(&self) -> usize {
        self.registry.directory.count().1
    }

    fn describe(&self, session: &SessionState) -> OnlineSession {
        let (id, transport): (SessionId, Transport) = (session.id, session.transport);
        OnlineSession {
            session_id: id.to_string(),
            transport: transport.to_string(),
            client_id: session.principal.client_id.clone(),
            node: self.node.to_string(),
            since: session.since,
        }
    }
}

impl Presence for LocalPresence {
    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        let online = users.iter().map(|user| self.registry.directory.any(user, |_| true)).collect();
        Box::pin(async move { Ok(online) })
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        let (users, sessions) = self.registry.directory.count();
        Box::pin(async move { Ok(OnlineCount { users, sessions }) })
    }

    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        let page = self.registry.directory.page(skip, take).into_iter();
        let page = page.map(|(user_id, sessions)| OnlineUser { user_id, sessions }).collect();
        Box::pin(async move { Ok(page) })
    }

    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        let sessions =
            self.registry.directory.of(user).iter().map(|session| self.describe(session)).collect();
        Box::pin(async move { Ok(sessions) })
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn from_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
