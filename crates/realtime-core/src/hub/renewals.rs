//! Renewal of logins: a session goes on with another token of its user.

use super::Hub;
use crate::{
    Principal, SessionHandle, SessionId,
    control::{Command, CommandResult, ControlError},
    renewal::{RenewError, renew},
    revocation_list::whole_seconds,
};

impl Hub {
    /// Replaces the login of a session of this node by another one of the same user: token, expiry, client id, topics and
    /// extensions. The connection stays open, and its messages go on.
    ///
    /// From then on a kick or a revocation of the new token ends the session, and one of the former token does not. The
    /// session leaves the topics of the former login that the new one does not have, and enters the new ones, of which it
    /// gets what is published from then on. Topics that it was subscribed to otherwise stay.
    ///
    /// The transports call it for a client's refresh, once their authenticator has accepted the new token. Call it for
    /// logins of an application's own.
    ///
    /// # Errors
    /// [`RenewError`] if the login is another user's or refused, or if the session is ending. It goes on with its login
    /// then.
    pub fn renew(&self, session: &SessionHandle, principal: Principal) -> Result<(), RenewError> {
        renew(&self.0.registry.node, &self.0.revoked, &session.0, principal)
    }

    /// Replaces the login of the user's session with that id, on any node: see [`Self::renew`].
    ///
    /// A login with a [credential](Principal::credential), with [extensions](Principal::extensions) or with a bound of its
    /// [history](Principal::history_after) cannot be sent to another node.
    ///
    /// # Errors
    /// As [`Self::renew`], [`RenewError::Elsewhere`], and [`RenewError::Control`] if the other nodes could not be reached, or
    /// if some have not answered in time and no other has the session: then it may have the new login, and the call may be
    /// repeated. The session of another user counts as one that does not exist.
    pub async fn renew_session(&self, id: SessionId, principal: Principal) -> Result<(), RenewError> {
        let own = self.0.registry.node.directory.of(&principal.user);
        if let Some(session) = own.iter().find(|session| session.id == id) {
            return renew(&self.0.registry.node, &self.0.revoked, session, principal);
        }
        if self.is_refused(&principal) {
            return Err(RenewError::Refused);
        }
        let stays_here = principal.credential.is_some() || principal.history_after.is_some();
        if stays_here || !principal.extensions.is_empty() {
            return Err(RenewError::Elsewhere);
        }
        let Principal { user, client_id, token, issued_at, expires_at, topics, grants, .. } = principal;
        let renew = Command::Renew {
            user,
            session: id.to_string(),
            token,
            // Rounded down, so that no revocation by time of issue misses it.
            issued_at: issued_at.map(whole_seconds),
            expires_at,
            client_id: client_id.as_deref().map(str::to_owned),
            topics,
            grants,
        };
        let CommandResult { changed, unconfirmed, .. } = self.0.control.dispatch(renew).await?;
        if changed > 0 {
            Ok(())
        } else if unconfirmed.is_empty() {
            Err(RenewError::NoSession)
        } else {
            Err(ControlError(format!("no answer from {}", unconfirmed.join(", "))).into())
        }
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use futures_util::future::ready;

    use super::*;
    use crate::{BoxFuture, Hub, control::Control};

    /// A control with nodes that have not confirmed a command.
    struct Silent(Vec<String>);

    impl Control for Silent {
        fn dispatch(&self, _: Command) -> BoxFuture<'_, Result<CommandResult, ControlError>> {
            let unconfirmed = self.0.clone();
            Box::pin(ready(Ok(CommandResult { unconfirmed, ..CommandResult::default() })))
        }
    }

    #[tokio::test]
    async fn a_session_may_be_on_a_node_that_has_not_answered() {
        let renewed = async |nodes: &[&str]| {
            let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
            let hub = Hub::builder().control(|_| Silent(nodes)).start().unwrap();
            let error =
                hub.renew_session(SessionId::random(), Principal::new(7.into(), "t")).await.unwrap_err();
            (error.status(), error.to_string())
        };
        let (status, text) = renewed(&["b", "c"]).await;
        assert_eq!((status, text.as_str()), (503, "the command has failed: no answer from b, c"));
        assert_eq!(renewed(&[]).await.0, 404);
    }
}
