//! Kicks and revocations: logins that end on every node.

use std::time::SystemTime;

use super::Hub;
use crate::{
    Message, Position, Principal, UserId,
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
    /// The message was published, but the kick could not be given to every node.
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
    /// What was published to the user before is still delivered. A kick that failed may be repeated: it then also
    /// tells the others what the first one could not.
    ///
    /// # Errors
    /// [`ControlError`] when the other nodes could not be reached.
    pub async fn kick(&self, user: &UserId) -> Result<CommandResult, ControlError> {
        let after = self.fence().await;
        self.0.control.dispatch(Command::Kick { user: user.clone(), session: None, after }).await
    }

    /// The same, with a last message to the user's sessions, over all transports: each gets it, and then its end.
    ///
    /// On a bus without positions the end may overtake the message.
    ///
    /// # Errors
    /// [`KickError::Publish`] when the message was not published; nobody was kicked then. [`KickError::Control`] as
    /// [`Self::kick`].
    pub async fn kick_with(
        &self,
        user: &UserId,
        message: impl Into<Message>,
    ) -> Result<CommandResult, KickError> {
        let after = self.publish_to_user(user, message).await?.position;
        Ok(self.0.control.dispatch(Command::Kick { user: user.clone(), session: None, after }).await?)
    }

    /// Ends one session of a user, wherever it is, and every other session of its token, which is refused from then on.
    ///
    /// # Errors
    /// As [`Self::kick`].
    pub async fn kick_session(&self, user: &UserId, session: &str) -> Result<CommandResult, ControlError> {
        let after = self.fence().await;
        let session = Some(session.to_owned());
        self.0.control.dispatch(Command::Kick { user: user.clone(), session, after }).await
    }

    /// Refuses a token on every node, whoever shows it, and ends its sessions. `until` is when it would have ended
    /// anyway.
    ///
    /// # Errors
    /// As [`Self::kick`].
    pub async fn revoke_token(
        &self,
        token: TokenHash,
        until: Option<SystemTime>,
    ) -> Result<CommandResult, ControlError> {
        let after = self.fence().await;
        self.0.control.dispatch(Command::RevokeToken { token: RevokedToken { token, until }, after }).await
    }

    /// Refuses a user's tokens that were issued before a time (or do not say when) on every node, and ends their
    /// sessions.
    ///
    /// Tokens say in whole seconds when they were issued, so the time counts in whole seconds: one that was issued in
    /// the same second is not refused. It holds for a year.
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

    /// Whether a login was kicked or revoked: it is to be refused wherever it is shown.
    pub fn is_refused(&self, principal: &Principal) -> bool {
        self.0.revoked.is_revoked(principal)
    }

    /// A position behind all that was acknowledged so far. A kick does not wait for a bus that is away, nor fail with
    /// it.
    async fn fence(&self) -> Option<Position> {
        self.0.bus.fence().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "sessions end without waiting for what was published before");
            None
        })
    }
}
