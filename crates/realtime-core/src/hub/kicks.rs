//! Kicks and revocations, which end logins on every node.

use std::time::SystemTime;

use super::Hub;
use crate::{
    Message, Position, Principal, SessionId, UserId,
    auth::TokenHash,
    control::{Command, CommandResult, ControlError, RevokedToken},
    error::PublishError,
    revocation_list::whole_seconds,
};

/// Error of a kick with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KickError {
    /// The message was not published, and no session was kicked.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The message was published, but the kick could not be sent to every node.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl KickError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Publish(error) => error.status(),
            Self::Control(error) => error.status(),
        }
    }
}

impl Hub {
    /// Ends all sessions of a user on every node and refuses their tokens until these expire. A new login works.
    ///
    /// Messages that were published to the user before are still delivered. A failed kick may be repeated; it then also
    /// sends the revocations that the first one could not send.
    ///
    /// # Errors
    /// [`ControlError`] if the other nodes could not be reached, or may not all have carried it out.
    pub async fn kick(&self, user: &UserId) -> Result<CommandResult, ControlError> {
        let after = self.fence().await;
        self.0.control.dispatch(Command::Kick { user: user.clone(), session: None, after }).await
    }

    /// Kicks a user after a last message to the user's sessions, over all transports. Each session gets the message and
    /// is then closed.
    ///
    /// On a bus without positions a session may be closed before it gets the message.
    ///
    /// # Errors
    /// [`KickError::Publish`] if the message was not published; no session was kicked then. [`KickError::Control`] as
    /// [`Self::kick`].
    pub async fn kick_with(
        &self,
        user: &UserId,
        message: impl Into<Message>,
    ) -> Result<CommandResult, KickError> {
        let after = self.publish_to_user(user, message).await?.position;
        Ok(self.0.control.dispatch(Command::Kick { user: user.clone(), session: None, after }).await?)
    }

    /// Ends one session of a user, on any node, and all other sessions with its token. The token is refused from then
    /// on.
    ///
    /// # Errors
    /// As [`Self::kick`].
    pub async fn kick_session(
        &self,
        user: &UserId,
        session: SessionId,
    ) -> Result<CommandResult, ControlError> {
        let after = self.fence().await;
        let session = Some(session.to_string());
        self.0.control.dispatch(Command::Kick { user: user.clone(), session, after }).await
    }

    /// Refuses a token on every node, for every user, and ends its sessions. `until` is the time at which it would have
    /// expired anyway. The empty token, that of logins without one, is no token: nothing happens.
    ///
    /// # Errors
    /// As [`Self::kick`].
    pub async fn revoke_token(
        &self,
        token: TokenHash,
        until: Option<SystemTime>,
    ) -> Result<CommandResult, ControlError> {
        if token.is_of_nothing() {
            return Ok(CommandResult::default());
        }
        let after = self.fence().await;
        self.0.control.dispatch(Command::RevokeToken { token: RevokedToken { token, until }, after }).await
    }

    /// Refuses a user's tokens that were issued before a time (or have no time of issue) on every node, and ends their
    /// sessions.
    ///
    /// Tokens state their time of issue in whole seconds, so the given time counts in whole seconds: a token that was
    /// issued in the same second is not refused. The revocation is kept for a year.
    ///
    /// # Errors
    /// As [`Self::kick`].
    pub async fn revoke_user(
        &self,
        user: &UserId,
        issued_before: SystemTime,
    ) -> Result<CommandResult, ControlError> {
        let (after, issued_before) = (self.fence().await, whole_seconds(issued_before));
        self.0.control.dispatch(Command::RevokeUser { user: user.clone(), issued_before, after }).await
    }

    /// Returns `true` if the login was kicked or revoked, so that it has to be refused everywhere.
    pub fn is_refused(&self, principal: &Principal) -> bool {
        self.0.revoked.is_revoked(principal)
    }

    /// A position after everything that was acknowledged so far; `None` if the bus cannot give one. A kick neither
    /// waits for an unavailable bus nor fails because of it.
    async fn fence(&self) -> Option<Position> {
        self.0.bus.fence().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "sessions are closed without waiting for earlier messages");
            None
        })
    }
}
