//! [`SessionHandle`]: access to a live connection from other code.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::Span;

use super::{id::SessionId, state::SessionState};
use crate::{
    CloseReason, Message, Principal, Topic, Transport, UserId,
    auth::TokenHash,
    error::{NotText, SendError, TooLarge},
    outbox::TrySendError,
};

/// A handle to a live connection: its identity, and operations that may be called from any thread.
///
/// Two handles are equal if they refer to the same session.
#[derive(Clone)]
pub struct SessionHandle(pub(crate) Arc<SessionState>);

impl From<TrySendError> for SendError {
    fn from(error: TrySendError) -> Self {
        match error {
            TrySendError::Full => Self::Overloaded,
            TrySendError::Closed => Self::Closed,
        }
    }
}

impl SessionHandle {
    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// The kind of connection.
    pub fn transport(&self) -> Transport {
        self.0.transport()
    }

    /// The login that it belongs to now: the one that it was opened with, or the last one that it was renewed to
    /// ([`Hub::renew`](crate::Hub::renew)).
    pub fn principal(&self) -> Arc<Principal> {
        self.0.login()
    }

    /// Time until its login expires; `None` if it never does.
    pub fn expires_in(&self) -> Option<Duration> {
        self.0.expires_at().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// The value of a type in the login's [`Extensions`](crate::auth::Extensions).
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.login().extensions.get_shared()
    }

    /// The user.
    pub fn user(&self) -> &UserId {
        self.0.user()
    }

    /// The kind of application, if the login has one.
    pub fn client_id(&self) -> Option<Arc<str>> {
        self.0.login().client_id.clone()
    }

    /// The hash of the login's token.
    pub fn token(&self) -> TokenHash {
        self.0.token()
    }

    /// Time when it was opened.
    pub fn since(&self) -> SystemTime {
        self.0.since()
    }

    /// The span of its log: `session` with `id`, `user` and `transport`, at `debug`.
    pub fn span(&self) -> Span {
        self.0.span().cloned().unwrap_or_else(Span::none)
    }

    /// The topics that it is in, besides `all`.
    pub fn topics(&self) -> Vec<Topic> {
        self.0.topics()
    }

    /// Returns `true` if frames are written straight to its socket now, bypassing the response body.
    pub fn is_direct(&self) -> bool {
        self.0.outbox.is_direct()
    }

    /// Sends a message to this session alone: at most once, without a position, never replayed.
    ///
    /// # Errors
    /// [`SendError`] if its outbox is full, it is closing, or the message is too large, or of bytes and its transport carries
    /// texts only.
    pub fn send_local(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        let host = self.0.host().ok_or(SendError::Closed)?;
        if message.data.as_text().is_none() && self.transport().is_text_only() {
            return Err(NotText.into());
        }
        TooLarge::check(&message.data, host.max_message_bytes())?;
        self.0.outbox.offer(&self.0.wire().wire.message(&message, None, None))?;
        Ok(())
    }

    /// Subscribes the session to a named topic: it gets the messages published there from now on. A client that
    /// reconnects gets a new session, which has to be subscribed again; permanent topics belong in the login's own
    /// topics, and a client may ask for topics itself: see [`TopicPolicy`](crate::auth::TopicPolicy).
    pub fn subscribe(&self, topic: Topic) {
        if let Some(host) = self.0.host() {
            host.subscribe(&self.0, &[topic], &mut |_| None);
        }
    }

    /// Unsubscribes the session from a named topic.
    pub fn unsubscribe(&self, topic: &Topic) {
        if let Some(host) = self.0.host() {
            host.unsubscribe(&self.0, topic);
        }
    }

    /// Ends the session once it has been sent the messages that this node published before. The first reason given
    /// stays.
    ///
    /// [`CloseReason::SlowConsumer`] breaks the connection off: queued frames are discarded.
    pub fn close(&self, reason: CloseReason) {
        match reason {
            CloseReason::SlowConsumer => self.0.outbox.close(reason),
            _ => self.0.close_in_order(reason),
        }
    }

    /// Reason for the session's end, if it is ending.
    pub fn closing(&self) -> Option<CloseReason> {
        self.0.outbox.closing()
    }
}

impl PartialEq for SessionHandle {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for SessionHandle {}

impl Hash for SessionHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionHandle").field(&self.0.id).finish()
    }
}
