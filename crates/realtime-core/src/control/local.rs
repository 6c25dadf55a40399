//! [`LocalControl`]: carries out orders on this node.

use std::{collections::HashSet, sync::Arc};

use futures_core::future::BoxFuture;

use super::{Control, ControlError, Order, Outcome, RefusedToken, Revocation};
use crate::{
    CloseReason, Position, TokenHash, UserId, node::Node, refusals::Refusals, session::state::SessionState,
};

/// Carries out orders on this node.
#[derive(Debug, Clone)]
pub struct LocalControl {
    node: Arc<Node>,
    refusals: Arc<Refusals>,
    name: Arc<str>,
}

/// What an order did on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many sessions it ended.
    pub closed: usize,
    /// The tokens of the kicked user's sessions on this node, from this kick and former ones: the other nodes have to
    /// refuse them too.
    pub refused: Vec<RefusedToken>,
}

impl LocalControl {
    pub(crate) fn new(node: Arc<Node>, refusals: Arc<Refusals>, name: Arc<str>) -> Self {
        Self { node, refusals, name }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.name
    }

    /// Carries out an order. Doing so twice does no harm.
    pub fn apply(&self, order: &Order) -> Applied {
        match order {
            Order::Kick { user, session, after } => self.kick(user, session.as_deref(), *after),
            Order::Refuse { user, tokens, after } => {
                let mut hashes = HashSet::new();
                // Where there is no token there is nothing to refuse.
                for RefusedToken { token, until } in
                    tokens.iter().filter(|token| !token.token.is_of_nothing())
                {
                    self.refusals.refuse(user.as_ref(), *token, *until);
                    hashes.insert(*token);
                }
                let mut sessions = self.sessions(user.as_ref());
                sessions.retain(|session| hashes.contains(&session.principal.token));
                Applied { closed: end(sessions, CloseReason::Kicked, *after), ..Applied::default() }
            }
            Order::RevokeToken { token: RefusedToken { token, until }, after } => {
                self.refusals.refuse(None, *token, *until);
                let sessions = self.node.directory.filter(|session| session.principal.token == *token);
                Applied { closed: end(sessions, CloseReason::Revoked, *after), ..Applied::default() }
            }
            Order::RevokeUser { user, issued_before, after } => {
                self.refusals.refuse_before(user, *issued_before);
                let mut sessions = self.sessions(Some(user));
                sessions.retain(|session| self.refusals.is_too_old(&session.principal));
                Applied { closed: end(sessions, CloseReason::Revoked, *after), ..Applied::default() }
            }
        }
    }

    /// Everything that this node refuses, to be told to others that may not know it.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.refusals.all()
    }

    /// Refuses what others refuse and ends the sessions that should not be here.
    pub fn revoke(&self, revocations: &[Revocation]) {
        let mut news = false;
        for revocation in revocations {
            news |= match revocation {
                Revocation::Token { token, .. } if token.token.is_of_nothing() => false,
                Revocation::Token { user, token: RefusedToken { token, until } } => {
                    self.refusals.refuse(user.as_ref(), *token, *until)
                }
                Revocation::IssuedBefore { user, time } => self.refusals.refuse_before(user, *time),
            };
        }
        if news {
            let refused = |session: &SessionState| self.refusals.refuses(&session.principal);
            for session in self.node.directory.filter(refused) {
                if let Some(reason) = self.refusals.reason(&session.principal) {
                    end(vec![session], reason, None);
                }
            }
        }
    }

    fn kick(&self, user: &UserId, session: Option<&str>, after: Option<Position>) -> Applied {
        let mut meant = self.sessions(Some(user));
        meant.retain(|state| session.is_none_or(|session| session == state.id.to_string()));
        // Also of those that are closing: their clients may have been told to come back.
        let tokens: HashSet<TokenHash> =
            meant.iter().map(|state| state.principal.token).filter(|token| !token.is_of_nothing()).collect();
        for state in &meant {
            if tokens.contains(&state.principal.token) {
                self.refusals.refuse_own(user, state.principal.token, state.principal.expires_at);
            }
        }
        // Looked up again: a session that came in meanwhile was not refused yet.
        let ids: HashSet<_> = meant.iter().map(|state| state.id).collect();
        let mut sessions = self.sessions(Some(user));
        sessions.retain(|state| ids.contains(&state.id) || tokens.contains(&state.principal.token));
        Applied { closed: end(sessions, CloseReason::Kicked, after), refused: self.refusals.own_of(user) }
    }

    fn sessions(&self, user: Option<&UserId>) -> Vec<Arc<SessionState>> {
        let directory = &self.node.directory;
        user.map_or_else(|| directory.all(), |user| directory.of(user))
    }
}

/// Ends sessions and returns how many of them were not ending already.
fn end(mut sessions: Vec<Arc<SessionState>>, reason: CloseReason, after: Option<Position>) -> usize {
    sessions.retain(|session| session.outbox.closing().is_none());
    for session in &sessions {
        session.close_after(reason, after);
    }
    sessions.len()
}

impl Control for LocalControl {
    fn give(&self, order: Order) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        let Applied { closed, .. } = self.apply(&order);
        Box::pin(async move { Ok(Outcome { closed, unconfirmed: Vec::new() }) })
    }
}
