//! [`Directory`]: the users of this node and their sessions, answered from any thread.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use crate::{ConnectError, Limits, Transport, UserId, session::SessionState};

#[derive(Debug, Default)]
pub(crate) struct Directory {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<UserId, Vec<Arc<SessionState>>>,
    sessions: usize,
}

impl Directory {
    /// Enters a session unless a limit forbids it.
    pub(crate) fn insert(&self, session: &Arc<SessionState>, limits: &Limits) -> Result<(), ConnectError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if Limits::exceeds(state.sessions + 1, limits.max_connections) {
            return Err(ConnectError::Full(limits.max_connections));
        }
        let user = &session.principal.user;
        let own = state.users.get(user).map_or(0, Vec::len);
        if Limits::exceeds(own + 1, limits.max_connections_per_user) {
            return Err(ConnectError::TooManyOfUser(user.clone(), limits.max_connections_per_user));
        }
        state.users.entry(user.clone()).or_default().push(Arc::clone(session));
        state.sessions += 1;
        Ok(())
    }

    pub(crate) fn remove(&self, session: &SessionState) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = state.users.get_mut(&session.principal.user) else {
            return;
        };
        let Some(index) = own.iter().position(|other| other.id == session.id) else {
            return;
        };
        own.swap_remove(index);
        if own.is_empty() {
            state.users.remove(&session.principal.user);
        }
        state.sessions -= 1;
    }

    /// The sessions of a user, oldest first.
    pub(crate) fn of(&self, user: &UserId) -> Vec<Arc<SessionState>> {
        let mut sessions = self.read().users.get(user).cloned().unwrap_or_default();
        sessions.sort_by_key(|session| session.since);
        sessions
    }

    /// Whether the user has a session that satisfies the condition.
    pub(crate) fn any(&self, user: &UserId, condition: impl FnMut(&Arc<SessionState>) -> bool) -> bool {
        self.read().users.get(user).is_some_and(|own| own.iter().any(condition))
    }

    /// All sessions, user by user.
    pub(crate) fn all(&self) -> Vec<Arc<SessionState>> {
        self.read().users.values().flatten().cloned().collect()
    }

    /// The users that have sessions of a transport, ascending.
    pub(crate) fn users_of(&self, transport: Transport) -> Vec<UserId> {
        let has = |own: &[Arc<SessionState>]| own.iter().any(|session| session.transport == transport);
        self.read().users.iter().filter(|(_, own)| has(own)).map(|(user, _)| user.clone()).collect()
    }

    /// How many users and sessions there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.read();
        (state.users.len(), state.sessions)
    }

    /// Some of the users in ascending order, with how many sessions each has.
    pub(crate) fn page(&self, skip: usize, take: usize) -> Vec<(UserId, usize)> {
        self.read().users.iter().skip(skip).take(take).map(|(user, own)| (user.clone(), own.len())).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}
