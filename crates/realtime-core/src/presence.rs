//! [`Presence`]: who is online, and [`LocalPresence`], the answer of one node.

mod feed;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{
    future::ready,
    stream::{StreamExt, pending},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub use feed::PresenceFeed;
pub(crate) use watch::PresenceWatch;

use crate::{SessionId, Transport, UserId, registry::Registry, session::SessionState};

/// Who is online in the cluster, over all transports.
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
    /// [`PresenceError`] when nobody can say now.
    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>>;

    /// How many users are online and how many sessions there are.
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

/// What a listener of presence is told.
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
    /// What it is now.
    pub state: PresenceState,
    /// When its first session began, or its last one ended; RFC 3339 in JSON.
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

/// Nobody can say who is online now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("presence is unavailable: {0}")]
pub struct PresenceError(pub String);

/// How many users and sessions are online.
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
    /// How many sessions it has; none for one that is about to go offline.
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

    /// How long a user stays online after its last session has ended.
    pub fn grace(&self) -> Duration {
        self.registry.settings.presence.grace
    }

    /// The users that are online on this node, ascending.
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

    /// Time from now until the last of a user's clients that a drain of this node sent away should be back.
    ///
    /// It is what they were told and a second more; zero when it has passed, or nobody was told anything. The user
    /// is not offline before `grace` has passed beyond that.
    pub fn expected_within(&self, user: &UserId) -> Duration {
        self.registry.directory.expected_within(user)
    }

    fn describe(&self, session: &SessionState) -> OnlineSession {
        let (id, transport): (SessionId, Transport) = (session.id, session.transport());
        OnlineSession {
            session_id: id.to_string(),
            transport: transport.to_string(),
            client_id: session.principal.client_id.as_deref().map(str::to_owned),
            node: self.node.to_string(),
            since: session.since(),
        }
    }
}

impl Presence for LocalPresence {
    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        self.registry.directory.feed.subscribe()
    }

    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        let online = users.iter().map(|user| self.registry.directory.is_online(user)).collect();
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

/// Nobody is asked who is online: every question is an error that says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPresence;

impl NoPresence {
    fn refuse<T: Send + 'static>() -> BoxFuture<'static, Result<T, PresenceError>> {
        Box::pin(ready(Err(PresenceError("it is switched off".into()))))
    }
}

impl Presence for NoPresence {
    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        pending().boxed()
    }

    fn is_online<'a>(&'a self, _: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        Self::refuse()
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        Self::refuse()
    }

    fn users(&self, _: usize, _: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        Self::refuse()
    }

    fn sessions<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        Self::refuse()
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn from_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
