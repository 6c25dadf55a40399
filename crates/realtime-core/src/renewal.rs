//! [`renew`]: the exchange of a live session's login.

use std::sync::{Arc, PoisonError};

use crate::{
    Principal, Topic, control::ControlError, node::Node, revocation_list::RevocationList,
    session::state::SessionState,
};

/// Error of a login that cannot replace a session's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The login is another user's.
    #[error("the token is another user's")]
    OtherUser,
    /// The login was kicked or revoked.
    #[error("the token is refused")]
    Refused,
    /// The user has no such session, or it is ending.
    #[error("the user has no such session")]
    NoSession,
    /// The session is on another node, or does not exist, and the login has a credential or extensions, which are not
    /// sent to other nodes. The client reconnects with the new token.
    #[error("the session is not on this node, and a login of this kind cannot be sent to others")]
    Elsewhere,
    /// The other nodes could not be reached, or not all have answered.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl RenewError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused => 401,
            Self::OtherUser => 403,
            Self::NoSession | Self::Elsewhere => 404,
            Self::Control(error) => error.status(),
        }
    }
}

/// Replaces a session's login by another one of the same user. The session leaves the topics of the former login that the
/// new one does not have, and enters the new ones; those that it was subscribed to otherwise stay.
pub(crate) fn renew(
    node: &Node,
    revoked: &RevocationList,
    session: &SessionState,
    principal: Principal,
) -> Result<(), RenewError> {
    if principal.user != *session.user() {
        return Err(RenewError::OtherUser);
    }
    if revoked.is_revoked(&principal) {
        return Err(RenewError::Refused);
    }
    let host = session.host().ok_or(RenewError::NoSession)?;
    let login = node.directory.share(principal);
    // One at a time, so that the topics are those of the login that stays.
    let turn = node.renewals.lock().unwrap_or_else(PoisonError::into_inner);
    let old = host.renew(session, Arc::clone(&login)).ok_or(RenewError::NoSession)?;
    let without = |topics: &[Topic], others: &[Topic]| -> Vec<Topic> {
        topics.iter().filter(|topic| !others.contains(topic)).cloned().collect()
    };
    for topic in without(&old.topics, &login.topics) {
        host.unsubscribe(session, &topic);
    }
    host.subscribe(session, &without(&login.topics, &old.topics), &mut |_| None);
    drop(turn);
    tracing::debug!(session = %session.id, user = %session.user(), "login renewed");
    if old.client_id != login.client_id {
        node.changed(session.user());
    }
    // Checked again: a kick or a revocation may not have seen the session with this login.
    match revoked.reason(&login) {
        Some(reason) => {
            session.close_in_order(reason);
            Err(RenewError::Refused)
        }
        None => Ok(()),
    }
}
