//! [`Directory`]: the users of this node and their sessions, answered from any thread.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    ConnectError, Limits, PresenceChange, PresenceFeed, PresenceState, Transport, UserId,
    session::SessionState,
};

#[derive(Debug, Default)]
pub(crate) struct Directory {
    state: RwLock<State>,
    /// Says who comes and goes, in order: it is told under the lock.
    pub(crate) feed: PresenceFeed,
    /// Somebody is about to leave.
    leaving: Notify,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<UserId, Own>,
    sessions: usize,
    /// The connections of sessions that were evicted and have not ended: how many each user has.
    evicted: HashMap<UserId, usize>,
    connections: usize,
    /// The users whose last session has ended, in this order. Whoever came back meanwhile is passed over.
    leaving: VecDeque<(Instant, UserId)>,
}

/// A user. Without sessions it is about to leave.
#[derive(Debug, Default)]
struct Own {
    sessions: Vec<Arc<SessionState>>,
    left: Option<(Instant, SystemTime)>,
}

impl Directory {
    /// Enters a session unless a limit forbids it.
    pub(crate) fn insert(&self, session: &Arc<SessionState>, limits: &Limits) -> Result<(), ConnectError> {
        let mut state = self.write();
        if Limits::exceeds(state.connections + 1, limits.max_connections) {
            return Err(ConnectError::Full(limits.max_connections));
        }
        let user = &session.principal.user;
        let own = state.users.get(user).map(|own| own.sessions.len());
        let evicted = state.evicted.get(user).copied().unwrap_or(0);
        if Limits::exceeds(own.unwrap_or(0) + evicted + 1, limits.max_connections_per_user) {
            return Err(ConnectError::TooManyOfUser(user.clone(), limits.max_connections_per_user));
        }
        let entry = state.users.entry(user.clone()).or_default();
        entry.sessions.push(Arc::clone(session));
        entry.left = None;
        state.sessions += 1;
        state.connections += 1;
        if own.is_none() {
            self.tell(user, PresenceState::Online, session.since);
        }
        Ok(())
    }

    /// Removes a session whose connection has ended.
    pub(crate) fn remove(&self, session: &SessionState) {
        let mut state = self.write();
        if self.take_out(&mut state, session) {
            state.connections -= 1;
        }
    }

    /// Removes a session whose connection is still open. It goes on counting in the limits.
    pub(crate) fn evict(&self, session: &SessionState) {
        let mut state = self.write();
        if self.take_out(&mut state, session) {
            *state.evicted.entry(session.principal.user.clone()).or_default() += 1;
        }
    }

    /// The connection of an evicted session has ended.
    pub(crate) fn release(&self, session: &SessionState) {
        let mut state = self.write();
        if let Entry::Occupied(mut evicted) = state.evicted.entry(session.principal.user.clone()) {
            *evicted.get_mut() -= 1;
            if *evicted.get() == 0 {
                evicted.remove();
            }
            state.connections -= 1;
        }
    }

    fn take_out(&self, state: &mut State, session: &SessionState) -> bool {
        let user = &session.principal.user;
        let Some(own) = state.users.get_mut(user) else {
            return false;
        };
        let Some(index) = own.sessions.iter().position(|other| other.id == session.id) else {
            return false;
        };
        own.sessions.swap_remove(index);
        if own.sessions.is_empty() {
            let now = Instant::now();
            own.left = Some((now, SystemTime::now()));
            state.leaving.push_back((now, user.clone()));
            self.leaving.notify_one();
        }
        state.sessions -= 1;
        true
    }

    /// Forgets users when they have had no session for so long. Runs until it is dropped.
    pub(crate) async fn see_off(&self, grace: Duration) {
        loop {
            let next = self.read().leaving.front().map(|(left, _)| *left + grace);
            let Some(next) = next else {
                self.leaving.notified().await;
                continue;
            };
            sleep_until(next).await;
            let mut state = self.write();
            while let Some((left, user)) = state.leaving.pop_front_if(|(left, _)| *left + grace <= next) {
                let own = state.users.get(&user).and_then(|own| own.left);
                // Who came back and left once more has a later place in the line.
                if let Some((at, since)) = own
                    && at == left
                {
                    state.users.remove(&user);
                    self.tell(&user, PresenceState::Offline, since);
                }
            }
        }
    }

    fn tell(&self, user: &UserId, state: PresenceState, since: SystemTime) {
        self.feed.send(PresenceChange { user_id: user.clone(), state, since });
    }

    /// The sessions of a user, oldest first.
    pub(crate) fn of(&self, user: &UserId) -> Vec<Arc<SessionState>> {
        let mut sessions = self.read().users.get(user).map_or_else(Vec::new, |own| own.sessions.clone());
        sessions.sort_by_key(|session| session.since);
        sessions
    }

    /// Whether the user has a session that satisfies the condition.
    pub(crate) fn any(&self, user: &UserId, condition: impl FnMut(&Arc<SessionState>) -> bool) -> bool {
        self.read().users.get(user).is_some_and(|own| own.sessions.iter().any(condition))
    }

    /// Whether the user has a session, or had one a moment ago.
    pub(crate) fn is_online(&self, user: &UserId) -> bool {
        self.read().users.contains_key(user)
    }

    /// All sessions, user by user.
    pub(crate) fn all(&self) -> Vec<Arc<SessionState>> {
        self.read().users.values().flat_map(|own| &own.sessions).cloned().collect()
    }

    /// The users that have sessions of a transport, ascending.
    pub(crate) fn users_of(&self, transport: Transport) -> Vec<UserId> {
        let has = |own: &Own| own.sessions.iter().any(|session| session.transport == transport);
        self.read().users.iter().filter(|(_, own)| has(own)).map(|(user, _)| user.clone()).collect()
    }

    /// How many users that are online and sessions there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.read();
        (state.users.len(), state.sessions)
    }

    /// How many connections are open, those of evicted sessions included.
    pub(crate) fn connections(&self) -> usize {
        self.read().connections
    }

    /// Some of the users that are online in ascending order, with how many sessions each has.
    pub(crate) fn page(&self, skip: usize, take: usize) -> Vec<(UserId, usize)> {
        let state = self.read();
        let page = state.users.iter().skip(skip).take(take);
        page.map(|(user, own)| (user.clone(), own.sessions.len())).collect()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}
