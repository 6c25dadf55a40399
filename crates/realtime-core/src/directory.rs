//! [`Directory`]: the users of this node and their sessions, answered from any thread.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    ptr, slice,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    CloseReason, Principal, Topic, Transport, UserId,
    error::ConnectError,
    presence::{PresenceChange, PresenceFeed, PresenceState},
    session::state::SessionState,
    settings::{Limits, OnExceeded},
};

#[derive(Debug, Default)]
pub(crate) struct Directory {
    state: RwLock<State>,
    /// Receives every change in order, since changes are sent under the lock.
    pub(crate) feed: PresenceFeed,
    /// Notified when a user starts to leave, perhaps before all others.
    leaving: Notify,
    client_ids: RwLock<Vec<Arc<str>>>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<UserId, UserEntry>,
    sessions: usize,
    /// Number of each user's connections whose sessions were evicted and that have not ended.
    evicted: HashMap<UserId, usize>,
    connections: usize,
    /// The newest session's [`Opened`](crate::session::state::Opened). Sessions are ordered by it, independently of the
    /// wall clock.
    last: u64,
    /// Users without sessions, by the time from which `grace` counts.
    leaving: BTreeSet<(Instant, UserId)>,
}

/// A user.
#[derive(Debug)]
enum UserEntry {
    /// Most users have one session and nothing else.
    One(Arc<SessionState>),
    More(Box<More>),
}

/// A user with any number of sessions. A user without sessions goes offline after `grace`.
#[derive(Debug, Default)]
struct More {
    /// In any order. Each session knows its index.
    sessions: Vec<Arc<SessionState>>,
    /// Latest time at which a client that this node has drained is expected back.
    expected: Option<Instant>,
    /// Time from which `grace` counts, and time when the last session ended.
    left: Option<(Instant, SystemTime)>,
}

impl UserEntry {
    fn sessions(&self) -> &[Arc<SessionState>] {
        match self {
            Self::One(session) => slice::from_ref(session),
            Self::More(more) => &more.sessions,
        }
    }

    fn more(&mut self) -> &mut More {
        if let Self::One(session) = self {
            let sessions = vec![Arc::clone(session)];
            *self = Self::More(Box::new(More { sessions, ..More::default() }));
        }
        match self {
            Self::More(more) => more,
            Self::One(_) => unreachable!("it has just become one of many"),
        }
    }

    /// Frees the state that a user with one session does not need.
    fn shrink(&mut self) {
        if let Self::More(more) = self
            && let [session] = more.sessions.as_slice()
            && more.expected.is_none()
        {
            *self = Self::One(Arc::clone(session));
        }
    }

    fn expected(&self) -> Option<Instant> {
        match self {
            Self::One(_) => None,
            Self::More(more) => more.expected,
        }
    }
}

/// Room for one more session under a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// There is room once another one has ended.
    AfterAnother,
    None,
}

impl Room {
    /// Room for a session that would be the `count`th.
    fn of(count: usize, limit: usize, limits: &Limits) -> Self {
        if !Limits::exceeds(count, limit) {
            Self::Free
        } else if limits.on_exceeded == OnExceeded::EndOldest && count <= limit.saturating_mul(2) {
            // Those that are ending have connections yet, and may take their time.
            Self::AfterAnother
        } else {
            Self::None
        }
    }
}

/// Time for a client to reconnect, in addition to its delay.
const RECONNECT: Duration = Duration::from_secs(1);
/// Number of a user's newest sessions that are checked for the same login.
const SHARED_AMONG: usize = 4;
/// Maximum number of shared client ids.
const CLIENT_IDS: usize = 64;
/// Longest time for which a client is expected back, even if its delay is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Directory {
    /// Adds a session unless a limit forbids it. Returns `true` if its user or its token may have more sessions then than
    /// the limits allow, so that [`outnumbered`](Self::outnumbered) has to be ended.
    ///
    /// `elsewhere` is the number of the user's sessions on other nodes.
    pub(crate) fn insert(
        &self,
        session: &Arc<SessionState>,
        elsewhere: usize,
        limits: &Limits,
    ) -> Result<bool, ConnectError> {
        let mut state = self.write();
        if Limits::exceeds(state.connections + 1, limits.max_connections) {
            return Err(ConnectError::Full(limits.max_connections));
        }
        let user = session.user();
        let own = state.users.get(user).map(|own| own.sessions().len());
        let evicted = state.evicted.get(user).copied().unwrap_or(0);
        let of_user = Room::of(own.unwrap_or(0) + evicted + 1, limits.max_connections_per_user, limits);
        if of_user == Room::None {
            return Err(ConnectError::TooManyOfUser(user.clone(), limits.max_connections_per_user));
        }
        let in_cluster = limits.max_connections_per_user_in_cluster;
        // With `endOldest`, the oldest one ends soon, on whatever node it is.
        if limits.on_exceeded == OnExceeded::Refuse
            && Limits::exceeds(elsewhere + own.unwrap_or(0) + evicted + 1, in_cluster)
        {
            return Err(ConnectError::TooManyInCluster(user.clone(), in_cluster));
        }
        let mut of_token = Room::Free;
        let token = session.token();
        if limits.max_connections_per_token > 0 && !token.is_of_nothing() {
            let sessions = state.users.get(user).map_or(&[][..], UserEntry::sessions);
            let same = sessions.iter().filter(|other| other.token() == token).count();
            of_token = Room::of(same + 1, limits.max_connections_per_token, limits);
        }
        if of_token == Room::None {
            return Err(ConnectError::TooManyOfToken(limits.max_connections_per_token));
        }
        state.last = session.opened.set_after(state.last);
        state.sessions += 1;
        state.connections += 1;
        let index = u32::try_from(own.unwrap_or(0)).expect("a user has fewer than 2^32 sessions");
        session.outbox.index.store(index, Ordering::Relaxed);
        let State { users, leaving, .. } = &mut *state;
        let Some(own) = users.get_mut(user) else {
            users.insert(user.clone(), UserEntry::One(Arc::clone(session)));
            self.notify(user, PresenceState::Online, session.since());
            return Ok(false);
        };
        let more = own.more();
        more.sessions.push(Arc::clone(session));
        if let Some((at, _)) = more.left.take() {
            more.expected = None;
            leaving.remove(&(at, user.clone()));
            own.shrink();
        }
        Ok(of_user == Room::AfterAnother || of_token == Room::AfterAnother)
    }

    /// The sessions to end of a session's user: those beyond the newest that the limits of the user and of the session's
    /// token allow. Sessions that are ending already are not among them and do not count.
    pub(crate) fn outnumbered(&self, session: &SessionState, limits: &Limits) -> Vec<Arc<SessionState>> {
        let mut open = self.of(session.user());
        open.retain(|session| session.outbox.closing().is_none());
        let token = session.token();
        let (mut of_user, mut of_token) = (0, 0);
        let mut outnumbered = Vec::new();
        for other in open.into_iter().rev() {
            let is_same = other.token() == token && !token.is_of_nothing();
            let over_user = Limits::exceeds(of_user + 1, limits.max_connections_per_user);
            let over_token = is_same && Limits::exceeds(of_token + 1, limits.max_connections_per_token);
            if over_user || over_token {
                outnumbered.push(other);
            } else {
                of_user += 1;
                of_token += usize::from(is_same);
            }
        }
        outnumbered
    }

    /// The principal of a login, shared with its other sessions. Its topics are named ones: another user's is not the
    /// login's to give.
    pub(crate) fn share(&self, mut principal: Principal) -> Arc<Principal> {
        principal.topics.retain(Topic::is_named);
        let state = self.read();
        let sessions = state.users.get(&principal.user).map_or(&[][..], UserEntry::sessions);
        let mut known = sessions.iter().rev().take(SHARED_AMONG).map(|session| session.login());
        if let Some(known) = known.find(|login| **login == principal) {
            return known;
        }
        drop(state);
        if let Some(client_id) = &mut principal.client_id {
            self.share_client_id(client_id);
        }
        Arc::new(principal)
    }

    /// A client id denotes a kind of application, so there are few, and all logins of a kind share one string.
    fn share_client_id(&self, client_id: &mut Arc<str>) {
        let find = |known: &Vec<Arc<str>>| known.iter().find(|known| **known == *client_id).cloned();
        let known = find(&self.client_ids.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(known) = known {
            *client_id = known;
        } else {
            let mut known = self.client_ids.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() < CLIENT_IDS {
                known.push(Arc::clone(client_id));
            }
        }
    }

    /// Removes a session whose connection has ended.
    pub(crate) fn remove(&self, session: &SessionState) {
        let retry = retry_of(session);
        let mut state = self.write();
        if self.take_out(&mut state, session, retry) {
            state.connections -= 1;
        }
    }

    /// Removes a session whose connection is still open. The connection still counts towards the limits.
    pub(crate) fn evict(&self, session: &SessionState) {
        let retry = retry_of(session);
        let mut state = self.write();
        if self.take_out(&mut state, session, retry) {
            *state.evicted.entry(session.user().clone()).or_default() += 1;
        }
    }

    /// Releases the connection of an evicted session.
    pub(crate) fn release(&self, session: &SessionState) {
        let retry = retry_of(session);
        let mut state = self.write();
        // The connection may end before its eviction is recorded, which then finds nothing.
        if self.take_out(&mut state, session, retry) {
            state.connections -= 1;
        } else if let Entry::Occupied(mut evicted) = state.evicted.entry(session.user().clone()) {
            *evicted.get_mut() -= 1;
            if *evicted.get() == 0 {
                evicted.remove();
            }
            state.connections -= 1;
        }
    }

    fn take_out(&self, state: &mut State, session: &SessionState, retry: Option<Duration>) -> bool {
        let State { users, leaving, sessions, .. } = state;
        let user = session.user();
        let Some(own) = users.get_mut(user) else {
            return false;
        };
        let index = session.outbox.index.load(Ordering::Relaxed) as usize;
        if own.sessions().get(index).is_none_or(|other| !ptr::eq(Arc::as_ptr(other), session)) {
            return false;
        }
        let more = own.more();
        more.sessions.swap_remove(index);
        if let Some(moved) = more.sessions.get(index) {
            moved.outbox.index.store(session.outbox.index.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        *sessions -= 1;
        let now = Instant::now();
        if let Some(retry) = retry {
            more.expected = more.expected.max(Some(now + retry.min(LONGEST_WAIT) + RECONNECT));
        }
        if more.sessions.is_empty() {
            let at = more.expected.map_or(now, |expected| expected.max(now));
            more.left = Some((at, SystemTime::now()));
            leaving.insert((at, user.clone()));
            self.leaving.notify_one();
        } else {
            own.shrink();
        }
        true
    }

    /// Notes that a client of a user who is online here is on its way to another node, for a time. Returns `true` if the
    /// user is online here.
    pub(crate) fn expect_back(&self, user: &UserId, within: Duration) -> bool {
        let mut state = self.write();
        let State { users, leaving, .. } = &mut *state;
        let Some(own) = users.get_mut(user) else { return false };
        let more = own.more();
        let expected = Instant::now() + within.min(LONGEST_WAIT) + RECONNECT;
        more.expected = more.expected.max(Some(expected));
        if let Some((at, _)) = &mut more.left
            && *at < expected
        {
            leaving.remove(&(*at, user.clone()));
            *at = expected;
            leaving.insert((expected, user.clone()));
        }
        true
    }

    /// Time from now until the last of a user's clients that this node has drained should be back, by the delay it was
    /// given.
    pub(crate) fn expected_within(&self, user: &UserId) -> Duration {
        let expected = self.read().users.get(user).and_then(UserEntry::expected);
        expected.map_or(Duration::ZERO, |expected| expected.saturating_duration_since(Instant::now()))
    }

    /// Removes users that have had no session for `grace`. Runs until it is dropped.
    pub(crate) async fn expire_offline(&self, grace: Duration) {
        loop {
            let next = self.read().leaving.first().and_then(|(at, _)| at.checked_add(grace));
            tokio::select! {
                () = self.leaving.notified() => continue,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            let now = Instant::now();
            let is_over = |at: &Instant| at.checked_add(grace).is_some_and(|end| end <= now);
            let mut state = self.write();
            while state.leaving.first().is_some_and(|(at, _)| is_over(at)) {
                let gone = state.leaving.pop_first();
                let Some((_, user)) = gone else { break };
                if let Some(UserEntry::More(own)) = state.users.remove(&user)
                    && let Some((_, since)) = own.left
                {
                    self.notify(&user, PresenceState::Offline, since);
                }
            }
        }
    }

    fn notify(&self, user: &UserId, state: PresenceState, since: SystemTime) {
        self.feed.send(PresenceChange { user_id: user.clone(), state, since });
    }

    /// The sessions of a user, oldest first.
    pub(crate) fn of(&self, user: &UserId) -> Vec<Arc<SessionState>> {
        let mut sessions = self.read().users.get(user).map_or_else(Vec::new, |own| own.sessions().to_vec());
        sessions.sort_unstable_by_key(|session| session.opened.order());
        sessions
    }

    /// Returns `true` if the user has a session that satisfies the condition.
    pub(crate) fn any(&self, user: &UserId, mut condition: impl FnMut(&Arc<SessionState>) -> bool) -> bool {
        let state = self.read();
        state.users.get(user).is_some_and(|own| own.sessions().iter().any(&mut condition))
    }

    /// Returns `true` if the user has a session, or had one within the grace period.
    pub(crate) fn is_online(&self, user: &UserId) -> bool {
        self.read().users.contains_key(user)
    }

    /// All sessions, grouped by user.
    pub(crate) fn all(&self) -> Vec<Arc<SessionState>> {
        self.read().users.values().flat_map(UserEntry::sessions).map(Arc::clone).collect()
    }

    /// The sessions of all users that satisfy the condition.
    pub(crate) fn filter(&self, condition: impl Fn(&SessionState) -> bool) -> Vec<Arc<SessionState>> {
        let state = self.read();
        let sessions = state.users.values().flat_map(UserEntry::sessions);
        sessions.filter(|session| condition(session)).map(Arc::clone).collect()
    }

    /// The users that have sessions of a transport, ascending.
    pub(crate) fn users_of(&self, transport: Transport) -> Vec<UserId> {
        let has = |own: &UserEntry| own.sessions().iter().any(|session| session.transport() == transport);
        self.read().users.iter().filter(|(_, own)| has(own)).map(|(user, _)| user.clone()).collect()
    }

    /// Number of online users and sessions.
    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.read();
        (state.users.len(), state.sessions)
    }

    /// Number of open connections, those of evicted sessions included.
    pub(crate) fn connections(&self) -> usize {
        self.read().connections
    }

    /// A page of the online users in ascending order, with the number of sessions of each.
    pub(crate) fn page(&self, skip: usize, take: usize) -> Vec<(UserId, usize)> {
        let state = self.read();
        let page = state.users.iter().skip(skip).take(take);
        page.map(|(user, own)| (user.clone(), own.sessions().len())).collect()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time after which the client of a drained session reconnects.
fn retry_of(session: &SessionState) -> Option<Duration> {
    match session.outbox.closing() {
        Some(CloseReason::Drain { retry }) => Some(retry),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::task::yield_now;

    use super::*;
    use crate::{
        Hub, Message, Position, Principal, Session, Settings,
        wire::{GapReason, WireFormat},
    };

    const TRANSPORT: Transport = Transport::new("test");

    /// A wire format whose frames are empty.
    #[derive(Debug)]
    struct NoWire;

    impl WireFormat for NoWire {
        fn name(&self) -> &'static str {
            "none"
        }

        fn message(&self, _: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
            Bytes::new()
        }

        fn gap(
            &self,
            _: GapReason,
            _: Option<Position>,
            _: Option<SystemTime>,
            _: Duration,
        ) -> Option<Bytes> {
            None
        }

        fn heartbeat(&self, _: Option<Position>, _: crate::wire::BusState) -> Bytes {
            Bytes::new()
        }

        fn answers_heartbeat(&self) -> bool {
            false
        }
    }

    fn connect(hub: &Hub, user: i64) -> Session {
        let wire: Arc<dyn WireFormat> = Arc::new(NoWire);
        hub.connect(Principal::new(user.into(), "a token"), TRANSPORT, &wire, None).unwrap()
    }

    #[tokio::test]
    async fn sessions_are_oldest_first_whichever_of_them_end() {
        let hub = Hub::builder().start().unwrap();
        let mut sessions: Vec<Session> = (0..20).map(|_| connect(&hub, 1)).collect();
        let mut ids: Vec<_> = sessions.iter().map(|session| session.handle().id()).collect();
        for step in [0, 18, 7, 7, 3, 0, 13, 1] {
            drop(sessions.remove(step));
            ids.remove(step);
            let known: Vec<_> = hub.sessions(&1.into()).iter().map(|session| session.id()).collect();
            assert_eq!(known, ids);
        }
        sessions.push(connect(&hub, 1));
        ids.push(sessions.last().unwrap().handle().id());
        drop(sessions.remove(0));
        let known: Vec<_> = hub.sessions(&1.into()).iter().map(|session| session.id()).collect();
        assert_eq!(known, ids[1..]);
        drop(sessions);
        assert!(hub.sessions(&1.into()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_a_draining_node_refuses_is_expected_elsewhere() {
        let hub = Hub::builder().start().unwrap();
        drop(connect(&hub, 1));
        assert_eq!(hub.drain().await, 0);
        let online = async |user: i64| hub.presence().is_online(&[user.into()]).await.unwrap()[0];
        for user in [1, 2] {
            let wire: Arc<dyn WireFormat> = Arc::new(NoWire);
            hub.connect(Principal::new(user.into(), "a token"), TRANSPORT, &wire, None).unwrap_err();
        }
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(
            online(1).await,
            "it was told to come back within 5 s, and has a second and the grace beyond that"
        );
        assert!(!online(2).await, "it was not here");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!online(1).await);
    }

    #[tokio::test]
    async fn a_grace_beyond_all_clocks_does_not_end_the_waiting() {
        let node = Arc::new(crate::node::Node::new(Settings::default()));
        let waiting = Arc::clone(&node);
        let waiting = tokio::spawn(async move { waiting.directory.expire_offline(Duration::MAX).await });
        let wire: Arc<dyn WireFormat> = Arc::new(NoWire);
        let wire = node.wire(&wire).unwrap();
        let shard = crate::shard::Shard::new(Arc::clone(&node));
        let principal = Principal::new(1.into(), "a token");
        drop(shard.register(principal, TRANSPORT, wire, None).unwrap());
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!waiting.is_finished(), "it has ended: {:?}", waiting.await);
        assert!(node.directory.is_online(&1.into()));
    }
}
