//! [`Facade`]: the methods that both transports share.

use bytestring::ByteString;

use crate::{
    Envelope, Hub, Message, Scope, SessionHandle, Topic, Transport, UserId,
    bus::Published,
    error::{EmptyTargets, PublishError, SendError},
};

/// Methods of RuoYi's static utilities and session holder, for one transport.
///
/// A facade without a hub represents a module that is disabled by configuration: its methods return
/// [`FacadeError::Disabled`] or report no sessions.
#[derive(Debug, Clone)]
pub struct Facade {
    hub: Option<Hub>,
    transport: Transport,
}

/// Error of a [`Facade`]'s methods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FacadeError {
    /// The module is disabled.
    #[error("{0} is disabled")]
    Disabled(Transport),
    /// The list of users is empty.
    #[error(transparent)]
    EmptyTargets(#[from] EmptyTargets),
    /// The message is too large, or the bus did not accept it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// This node did not accept the message.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl FacadeError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Disabled(_) => 409,
            Self::EmptyTargets(_) => 400,
            Self::Publish(error) => error.status(),
            Self::Send(error) => error.status(),
        }
    }
}

impl Facade {
    /// Creates the facade of a transport; `hub` is `None` for a disabled module.
    pub fn new(hub: Option<Hub>, transport: Transport) -> Self {
        Self { hub, transport }
    }

    /// Returns `true` if the module is enabled.
    pub fn is_enabled(&self) -> bool {
        self.hub.is_some()
    }

    /// The transport of this facade.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The hub of this facade.
    ///
    /// # Errors
    /// [`FacadeError::Disabled`] if the module is disabled.
    pub fn hub(&self) -> Result<&Hub, FacadeError> {
        self.hub.as_ref().ok_or(FacadeError::Disabled(self.transport))
    }

    /// Sends a text to a user's sessions on this node only: at most once, never replayed.
    ///
    /// # Errors
    /// [`FacadeError`] if the module is disabled, the text too large or a worker's queue full.
    pub fn send_message(
        &self,
        user: impl Into<UserId>,
        text: impl Into<ByteString>,
    ) -> Result<(), FacadeError> {
        let envelope = Envelope::to_topic(Topic::user(&user.into()), self.scope(), Message::text(text));
        Ok(self.hub()?.send_local(envelope)?)
    }

    /// Sends a text to all sessions on this node only: at most once, never replayed.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn send_message_all(&self, text: impl Into<ByteString>) -> Result<(), FacadeError> {
        Ok(self.hub()?.send_local(Envelope::broadcast(self.scope(), Message::text(text)))?)
    }

    /// Publishes a text to some users on every node.
    ///
    /// # Errors
    /// [`FacadeError`] if the module is disabled, the list empty, the text too large or the bus unavailable.
    pub async fn publish_to(
        &self,
        users: impl IntoIterator<Item = impl Into<UserId>>,
        text: impl Into<ByteString>,
    ) -> Result<Published, FacadeError> {
        let hub = self.hub()?;
        Ok(hub.publish(Envelope::to_users(users, self.scope(), Message::text(text))?).await?)
    }

    /// Publishes a text to all sessions on every node.
    ///
    /// # Errors
    /// [`FacadeError`] if the module is disabled, the text too large or the bus unavailable.
    pub async fn publish_all(&self, text: impl Into<ByteString>) -> Result<Published, FacadeError> {
        Ok(self.hub()?.publish(Envelope::broadcast(self.scope(), Message::text(text))).await?)
    }

    /// Returns `true` if the user has a session of this transport on this node.
    pub fn exist_session(&self, user: impl Into<UserId>) -> bool {
        self.hub.as_ref().is_some_and(|hub| hub.has_session(&user.into(), self.transport))
    }

    /// The users that have a session of this transport on this node, ascending.
    pub fn sessions_all(&self) -> Vec<UserId> {
        self.hub.as_ref().map(|hub| hub.users(self.transport)).unwrap_or_default()
    }

    /// A user's sessions of this transport on this node, oldest first.
    pub fn sessions(&self, user: impl Into<UserId>) -> Vec<SessionHandle> {
        let mut sessions = self.hub.as_ref().map(|hub| hub.sessions(&user.into())).unwrap_or_default();
        sessions.retain(|session| session.transport() == self.transport);
        sessions
    }

    fn scope(&self) -> Scope {
        Scope::Only(self.transport)
    }
}
