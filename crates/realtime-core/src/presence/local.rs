//! [`LocalPresence`]: the presence of one node.

use std::{sync::Arc, time::Duration};

use futures_core::{future::BoxFuture, stream::BoxStream};

use super::{OnlineCount, OnlineNode, OnlineSession, OnlineUser, Presence, PresenceError, PresenceEvent};
use crate::{UserId, node::Node, session::state::SessionState};

/// The presence of one node.
#[derive(Debug, Clone)]
pub struct LocalPresence {
    node: Arc<Node>,
    name: Arc<str>,
}

impl LocalPresence {
    pub(crate) fn new(node: Arc<Node>, name: Arc<str>) -> Self {
        Self { node, name }
    }

    /// Time for which a user stays online after the last session has ended.
    pub fn grace(&self) -> Duration {
        self.node.settings.presence.grace
    }

    /// The users that are online on this node, ascending.
    pub fn local_users(&self) -> Vec<UserId> {
        self.node.directory.page(0, usize::MAX).into_iter().map(|(user, _)| user).collect()
    }

    /// The sessions of a user on this node, oldest first.
    pub fn local_sessions(&self, user: &UserId) -> Vec<OnlineSession> {
        self.node.directory.of(user).iter().map(|session| self.describe(session)).collect()
    }

    /// Number of sessions of this node.
    pub fn local_count(&self) -> usize {
        self.node.directory.count().1
    }

    /// Time from now until the last of a user's clients that were disconnected by this node's drain should be back.
    ///
    /// It is the delay that the client was given and one second more, or zero if that has passed or no delay was given.
    /// The user goes offline `grace` after that time at the earliest.
    pub fn expected_within(&self, user: &UserId) -> Duration {
        self.node.directory.expected_within(user)
    }

    /// Counts content of a cluster's store that cannot be read, as `unreadable` of [`Hub::metrics`](crate::Hub::metrics).
    pub fn count_unreadable(&self) {
        self.node.metrics.unreadable.add(1);
    }

    fn describe(&self, session: &SessionState) -> OnlineSession {
        OnlineSession {
            session_id: session.id.to_string(),
            transport: session.transport().to_string(),
            client_id: session.login().client_id.as_deref().map(str::to_owned),
            node: self.name.to_string(),
            since: session.since(),
        }
    }
}

impl Presence for LocalPresence {
    fn changes(&self) -> BoxStream<'static, PresenceEvent> {
        self.node.directory.feed.subscribe()
    }

    fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
        let online = users.iter().map(|user| self.node.directory.is_online(user)).collect();
        Box::pin(async move { Ok(online) })
    }

    fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
        let (users, sessions) = self.node.directory.count();
        Box::pin(async move { Ok(OnlineCount { users, sessions }) })
    }

    fn users(&self, skip: usize, take: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
        let page = self.node.directory.page(skip, take).into_iter();
        let page = page.map(|(user_id, sessions)| OnlineUser { user_id, sessions }).collect();
        Box::pin(async move { Ok(page) })
    }

    fn sessions<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
        let sessions = self.node.directory.of(user).iter().map(|session| self.describe(session)).collect();
        Box::pin(async move { Ok(sessions) })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<OnlineNode>, PresenceError>> {
        let sessions = self.local_count();
        let own = OnlineNode { node: self.name.to_string(), sessions, silence: Duration::ZERO };
        Box::pin(async move { Ok(vec![own]) })
    }
}
