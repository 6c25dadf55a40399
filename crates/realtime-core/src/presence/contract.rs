//! [`Presence`]: the users that are online.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::future::ready;
use serde::{Deserialize, Serialize};

use crate::UserId;

/// Online users of the cluster, over all transports.
///
/// A user comes online with its first session on any node. It goes offline `presence.grace` after its last session has
/// ended, so that a page reload causes no change. If a draining node has asked its client to reconnect later, the grace
/// period begins a second after that time.
pub trait Presence: Send + Sync + 'static {
    /// Notifies presence that a session of the user was opened or ended on this node. Never blocks; called from any
    /// thread.
    fn changed(&self, user: &UserId) {
        let _ = user;
    }

    /// Announces that this node stops and has no sessions left, so that other nodes need not wait for it.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// Returns `true` if presence is switched off: every query is an error then, and none is asked for metrics.
    fn is_off(&self) -> bool {
        false
    }

    /// The users that come online or go offline from now on, in order and each once. In a cluster, changes of the last
    /// second that this node had not received before may be included.
    ///
    /// Causes load only while the stream exists.
    fn changes(&self) -> BoxStream<'static, PresenceEvent>;

    /// Returns for each of the users, in the same order, `true` if it is online.
    ///
    /// # Errors
    /// [`PresenceError`] if it is unavailable.
    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>>;

    /// Number of online users and sessions.
    ///
    /// # Errors
    /// [`PresenceError`] if it is unavailable.
    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>>;

    /// A page of the online users in ascending order: `take` users after the first `skip`.
    ///
    /// # Errors
    /// [`PresenceError`] if it is unavailable.
    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>>;

    /// The sessions of a user, oldest first.
    ///
    /// # Errors
    /// [`PresenceError`] if it is unavailable.
    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>>;

    /// The live nodes, by name. One that was killed is listed until its sessions are removed.
    ///
    /// # Errors
    /// [`PresenceError`] if presence is unavailable, or does not know the nodes.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<OnlineNode>, PresenceError>> {
        Box::pin(ready(Err(PresenceError("it does not list the nodes".into()))))
    }
}

/// A presence that is chosen at run time: `Arc<dyn Presence>`.
impl<P: Presence + ?Sized> Presence for Arc<P> {
    fn changed(&self, user: &UserId) {
        (**self).changed(user);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        (**self).leave()
    }

    fn is_off(&self) -> bool {
        (**self).is_off()
    }

    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        (**self).changes()
    }

    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        (**self).is_online(users)
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        (**self).count()
    }

    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        (**self).users(skip, take)
    }

    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        (**self).sessions(user)
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<OnlineNode>, PresenceError>> {
        (**self).nodes()
    }
}

/// Event of presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceEvent {
    /// A user came online or went offline.
    Changed(PresenceChange),
    /// Changes are missing here. A consumer that keeps a list has to query it again.
    Gap,
}

/// A user came online or went offline.
///
/// If a fault makes a cluster repeat the change, `since` is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceChange {
    /// The user.
    pub user_id: UserId,
    /// The user's state.
    pub state: PresenceState,
    /// Start of its first session, or end of its last one; RFC 3339 in JSON.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub since: SystemTime,
}

/// Online state of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// The user has a session, or had one within the grace period.
    Online,
    /// The user has no session.
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

/// A node whose sessions are online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineNode {
    /// The node's name.
    pub node: String,
    /// Number of its sessions.
    pub sessions: usize,
    /// Time since it was last heard of. A live node is heard of every few seconds.
    pub silence: Duration,
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
    /// The transport, as a string for the same reason.
    pub transport: String,
    /// The kind of application.
    pub client_id: Option<String>,
    /// The node that serves it.
    pub node: String,
    /// Time when it was opened; RFC 3339 in JSON.
    #[serde(with = "crate::rfc3339")]
    pub since: SystemTime,
}
