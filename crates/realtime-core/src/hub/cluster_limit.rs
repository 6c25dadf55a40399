//! [`ClusterLimit`]: the limit of a user's sessions over all nodes.
//!
//! A handshake asks presence for the user's sessions on other nodes. Presence knows a session some ten milliseconds after it
//! has begun, so handshakes of that time may not see each other on different nodes. Each node therefore counts again once
//! presence knows its new sessions, and ends those of its own that are too many: all nodes rank sessions in the same way.
//!
//! Presence lists the sessions of a dead node for some seconds. They have no rank: a node counts once it has been heard of
//! since the sessions here began, and until then the user is counted again. So nobody has to make room for the dead.
//!
//! Where the oldest sessions are to end, no handshake asks, and the nodes of the oldest sessions have no reason to count. The
//! node of the newest one sends them a command.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    CloseReason, SessionHandle, UserId,
    control::{Command, Control},
    node::Node,
    presence::{OnlineNode, OnlineSession, Presence},
    settings::OnExceeded,
    wire::random_retry,
};

/// The users whose sessions are to be counted over the cluster, since one has begun here.
#[derive(Debug, Default)]
pub(super) struct ClusterLimit {
    due: Mutex<Due>,
    wake: Notify,
    /// Presence did not answer when it was last asked.
    unavailable: AtomicBool,
}

/// The users that are to be counted, each once.
#[derive(Debug, Default)]
struct Due {
    /// By the time of the next count.
    times: BTreeSet<(Instant, UserId)>,
    /// With that time, and the number of counts that there were.
    users: HashMap<UserId, (Instant, usize)>,
}

/// Time that a handshake waits for presence.
const ASK: Duration = Duration::from_millis(500);
/// Time that a count waits for presence, and for the other nodes.
const TRY: Duration = Duration::from_secs(5);
/// Pause before a session is looked for in presence again.
const UNKNOWN: Duration = Duration::from_millis(50);
/// Pause while presence is unavailable.
const UNAVAILABLE: Duration = Duration::from_secs(1);
/// Pauses between the counts after a session is known to presence: sessions that began elsewhere at the same time are known
/// a second later, and six after Redis was unavailable.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Silence of a node that is asked for once a second while it lives: it is hardly back before its sessions are removed.
const SILENCE: Duration = Duration::from_secs(3);
/// Average time after which a client may come back that was let in by mistake.
const RETRY: Duration = Duration::from_secs(5);
/// Users that are counted at once.
const AT_ONCE: usize = 16;

impl ClusterLimit {
    /// Notes that a session of the user has begun here.
    pub(super) fn opened(&self, user: &UserId) {
        self.due().opened(user, Instant::now());
        self.wake.notify_one();
    }

    /// The number of a user's sessions on other nodes than the one of that name; `None` if it is not known.
    pub(super) async fn elsewhere(
        &self,
        presence: &dyn Presence,
        node: &str,
        user: &UserId,
    ) -> Option<usize> {
        if self.unavailable.load(Ordering::Relaxed) {
            return None;
        }
        let sessions = self.ask(presence, user, ASK).await?;
        Some(sessions.iter().filter(|session| session.node != node).count())
    }

    async fn ask(
        &self,
        presence: &dyn Presence,
        user: &UserId,
        limit: Duration,
    ) -> Option<Vec<OnlineSession>> {
        let problem = match timeout(limit, presence.sessions(user)).await {
            Ok(Ok(sessions)) => {
                if self.unavailable.swap(false, Ordering::Relaxed) {
                    tracing::info!("sessions of a user are limited over the cluster again");
                }
                return Some(sessions);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "presence does not answer".to_owned(),
        };
        if !self.unavailable.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                problem,
                "limits.maxConnectionsPerUserInCluster is not held: only the limits of each node are"
            );
        }
        None
    }

    fn take_due(&self) -> Vec<(UserId, usize)> {
        self.due().take(Instant::now())
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    /// Has a user with a new session counted soon, and not later than before.
    fn opened(&mut self, user: &UserId, now: Instant) {
        let soon = now + UNKNOWN;
        let at = self.users.get(user).map_or(soon, |(at, _)| soon.min(*at));
        self.set(user.clone(), at, 0);
    }

    /// Has a user counted again, unless a session has begun meanwhile, for which that is to happen anyway.
    fn again(&mut self, user: UserId, at: Instant, counts: usize) {
        if !self.users.contains_key(&user) {
            self.set(user, at, counts);
        }
    }

    fn set(&mut self, user: UserId, at: Instant, counts: usize) {
        if let Some((before, _)) = self.users.insert(user.clone(), (at, counts)) {
            self.times.remove(&(before, user.clone()));
        }
        self.times.insert((at, user));
    }

    /// Takes the users whose time has come, with the number of their counts.
    fn take(&mut self, now: Instant) -> Vec<(UserId, usize)> {
        let mut taken = Vec::new();
        while self.next().is_some_and(|at| at <= now)
            && let Some((_, user)) = self.times.pop_first()
        {
            let (_, counts) = self.users.remove(&user).unwrap_or((now, 0));
            taken.push((user, counts));
        }
        taken
    }

    /// The time of the next count.
    fn next(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }
}

/// Counts the sessions of users that have a new one here, and ends those that are too many. Runs until it is dropped.
pub(super) async fn watch(
    limit: Arc<ClusterLimit>,
    node: Arc<Node>,
    presence: Arc<dyn Presence>,
    control: Arc<dyn Control>,
    name: Arc<str>,
) {
    loop {
        let users = limit.take_due();
        let (limit, node, presence, control, name) = (&limit, &node, &presence, &control, &name);
        if limit.unavailable.load(Ordering::Relaxed)
            && let Some((user, _)) = users.first()
        {
            // One question is enough to find out that it is back.
            limit.ask(&**presence, user, TRY).await;
        }
        stream::iter(users)
            .for_each_concurrent(AT_ONCE, async |(user, counts)| {
                let next = count(limit, node, &**presence, &**control, name, &user).await;
                let (pause, counts) = match next {
                    Count::Done => match AGAIN.get(counts) {
                        Some(pause) => (*pause, counts + 1),
                        None => return,
                    },
                    Count::Unknown(pause) => (pause, 0),
                    Count::Left => return,
                };
                limit.due().again(user, Instant::now() + pause, counts);
            })
            .await;
        let next = limit.due().next();
        tokio::select! {
            () = limit.wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

/// Result of a count.
enum Count {
    Done,
    /// Presence does not know all sessions of this node yet, has not heard of another node since, or is unavailable: it is
    /// asked again after a pause.
    Unknown(Duration),
    /// The user has no session here any more.
    Left,
}

async fn count(
    limit: &ClusterLimit,
    node: &Node,
    presence: &dyn Presence,
    control: &dyn Control,
    name: &str,
    user: &UserId,
) -> Count {
    let (on_exceeded, allowed) = {
        let limits = node.limits.load();
        (limits.on_exceeded, limits.max_connections_per_user_in_cluster)
    };
    if allowed == 0 {
        // The limit has been lifted.
        return Count::Done;
    }
    let own = || -> Vec<SessionHandle> {
        let sessions = node.directory.of(user).into_iter().map(SessionHandle);
        sessions.filter(|session| session.closing().is_none()).collect()
    };
    if own().is_empty() {
        return Count::Left;
    }
    if limit.unavailable.load(Ordering::Relaxed) {
        return Count::Unknown(UNAVAILABLE);
    }
    let Some(known) = limit.ask(presence, user, TRY).await else {
        return Count::Unknown(UNAVAILABLE);
    };
    let own = own();
    let is_known = |session: &SessionHandle| {
        let id = session.id().to_string();
        known.iter().any(|known| known.session_id == id)
    };
    if !own.iter().all(is_known) {
        return Count::Unknown(UNKNOWN);
    }
    if own.len() + known.iter().filter(|session| session.node != name).count() <= allowed {
        return Count::Done;
    }
    let youngest = own.iter().map(SessionHandle::since).max();
    let age = youngest.and_then(|since| since.elapsed().ok()).unwrap_or_default();
    let silences = silences(presence).await;
    // Once more: a dead node may have been removed before its silence was asked for.
    let Some(known) = limit.ask(presence, user, TRY).await else {
        return Count::Unknown(UNAVAILABLE);
    };
    let mut others: Vec<_> = known.into_iter().filter(|session| session.node != name).collect();
    let silence = |session: &OnlineSession| silences.get(&session.node).copied().unwrap_or_default();
    let unheard = others.iter().map(silence).filter(|silence| *silence > age).min();
    others.retain(|session| silence(session) <= age);
    let done = match unheard {
        None => Count::Done,
        Some(silence) => Count::Unknown(AGAIN[usize::from(silence > SILENCE)]),
    };
    let mut all: Vec<(Rank, Option<SessionHandle>)> = others
        .into_iter()
        .map(|session| (Rank::new(session.since, session.session_id), None))
        .chain(
            own.into_iter()
                .map(|session| (Rank::new(session.since(), session.id().to_string()), Some(session))),
        )
        .collect();
    match on_exceeded {
        OnExceeded::Refuse => all.sort_by(|one, other| one.0.cmp(&other.0)),
        OnExceeded::EndOldest => all.sort_by_key(|(rank, _)| Reverse(rank.clone())),
    }
    let reason = match on_exceeded {
        // As the handshake that would have been refused: the other sessions may end.
        OnExceeded::Refuse => CloseReason::LimitReached { retry: random_retry(RETRY) },
        OnExceeded::EndOldest => CloseReason::TooManySessions,
    };
    let mut elsewhere = Vec::new();
    for (Rank(_, id), own) in all.into_iter().skip(allowed) {
        match own {
            Some(session) => session.close(reason),
            None => elsewhere.push(id),
        }
    }
    // The nodes of the newest sessions count themselves.
    if on_exceeded == OnExceeded::Refuse || elsewhere.is_empty() {
        return done;
    }
    let command = Command::EndSessions { user: user.clone(), sessions: elsewhere };
    match timeout(TRY, control.dispatch(command)).await {
        // What is left is found by the next count.
        Ok(Ok(_)) => done,
        Ok(Err(error)) => {
            tracing::debug!(%user, %error, "failed to end the oldest sessions on other nodes");
            Count::Unknown(UNAVAILABLE)
        }
        Err(_) => Count::Unknown(UNAVAILABLE),
    }
}

/// Asks for how long the nodes have been silent; those that are not known are missing.
async fn silences(presence: &dyn Presence) -> HashMap<String, Duration> {
    let nodes = timeout(TRY, presence.nodes()).await.ok().and_then(Result::ok).unwrap_or_default();
    let mut silences = HashMap::new();
    for OnlineNode { node, silence, .. } in nodes {
        // A node that was restarted has the name of the dead one, too.
        let longest: &mut Duration = silences.entry(node).or_default();
        *longest = silence.max(*longest);
    }
    silences
}

/// Place of a session among those of its user, the same on all nodes: by its begin, in milliseconds as presence has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u128, String);

impl Rank {
    fn new(since: SystemTime, id: String) -> Self {
        Self(since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(), id)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use futures_core::{future::BoxFuture, stream::BoxStream};
    use futures_util::future::ready;
    use tokio::time::sleep;

    use super::*;
    use crate::{
        Hub, Settings,
        control::{CommandResult, ControlError, LocalControl},
        presence::{LocalPresence, OnlineCount, OnlineUser, PresenceError, PresenceEvent},
        testkit::TestSession,
    };

    /// The nodes of one process.
    #[derive(Clone, Default)]
    struct Nodes {
        presences: Arc<Mutex<Vec<LocalPresence>>>,
        controls: Arc<Mutex<Vec<LocalControl>>>,
        /// The number of commands that fail yet.
        failures: Arc<Mutex<usize>>,
    }

    impl Nodes {
        fn start(&self, name: &str, on_exceeded: OnExceeded) -> Hub {
            let mut settings = Settings::default();
            settings.limits.max_connections_per_user_in_cluster = 1;
            settings.limits.on_exceeded = on_exceeded;
            let (presences, controls) = (self.clone(), self.clone());
            let hub = Hub::builder().node(name).settings(settings).presence(|local| {
                presences.presences.lock().expect("no test panics with it").push(local);
                presences
            });
            let hub = hub.control(|local| {
                controls.controls.lock().expect("no test panics with it").push(local);
                controls
            });
            hub.start().expect("settings that agree")
        }
    }

    impl Presence for Nodes {
        fn changes(&self) -> BoxStream<'static, PresenceEvent> {
            self.presences.lock().expect("no test panics with it")[0].changes()
        }

        fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
            Box::pin(ready(Ok(vec![true; users.len()])))
        }

        fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
            Box::pin(ready(Err(PresenceError("nobody asks".into()))))
        }

        fn users(&self, _: usize, _: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
            Box::pin(ready(Err(PresenceError("nobody asks".into()))))
        }

        fn sessions<'a>(
            &'a self,
            user: &'a UserId,
        ) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
            let presences = self.presences.lock().expect("no test panics with it");
            let sessions = presences.iter().flat_map(|local| local.local_sessions(user)).collect();
            Box::pin(ready(Ok(sessions)))
        }
    }

    impl Control for Nodes {
        fn dispatch(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ControlError>> {
            let mut failures = self.failures.lock().expect("no test panics with it");
            if *failures > 0 {
                *failures -= 1;
                return Box::pin(ready(Err(ControlError("away".into()))));
            }
            let controls = self.controls.lock().expect("no test panics with it");
            let closed = controls.iter().map(|local| local.apply(&command).closed).sum();
            Box::pin(ready(Ok(CommandResult { closed, ..CommandResult::default() })))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_session_ends_on_whatever_node_it_is() {
        for (on_exceeded, failures) in
            [(OnExceeded::EndOldest, 0), (OnExceeded::EndOldest, 3), (OnExceeded::Refuse, 0)]
        {
            let nodes = Nodes { failures: Arc::new(Mutex::new(failures)), ..Nodes::default() };
            let hubs = ["a", "b"].map(|name| nodes.start(name, on_exceeded));
            let older = TestSession::connect(&hubs[0], 7.into()).await;
            // Its node has counted, and has no reason to do so again.
            sleep(Duration::from_secs(7)).await;
            // Sessions are ranked by milliseconds of the wall clock.
            std::thread::sleep(Duration::from_millis(2));
            let newer = TestSession::connect(&hubs[1], 7.into()).await;
            let other = TestSession::connect(&hubs[0], 8.into()).await;
            sleep(Duration::from_secs(9)).await;
            let closing = [&older, &newer, &other].map(|session| {
                session.handle().closing().map(|reason| (reason.name(), reason.may_reconnect()))
            });
            // The newer one came without the question of a handshake, as in a race.
            let expected = match on_exceeded {
                OnExceeded::EndOldest => [Some(("too-many-sessions", false)), None, None],
                OnExceeded::Refuse => [None, Some(("limit-reached", true)), None],
            };
            assert_eq!(closing, expected, "{on_exceeded:?}");
        }
    }

    #[test]
    fn a_user_is_due_once_and_a_new_session_is_counted_soon() {
        let (mut due, now) = (Due::default(), Instant::now());
        let user = UserId::from(7);
        for _ in 0..1_000 {
            due.opened(&user, now);
        }
        due.opened(&user, now + UNKNOWN / 2);
        due.opened(&UserId::from(8), now + UNKNOWN / 2);
        assert_eq!((due.times.len(), due.users.len()), (2, 2));
        assert_eq!(due.take(now + UNKNOWN), [(user.clone(), 0)], "connects do not put the count off");
        // It is counted, and meanwhile a session begins.
        due.opened(&user, now + UNKNOWN);
        due.again(user.clone(), now + AGAIN[0], 1);
        assert_eq!(due.take(now + UNKNOWN * 2), [(UserId::from(8), 0), (user.clone(), 0)]);
        due.again(user.clone(), now + AGAIN[1], 2);
        due.opened(&user, now + AGAIN[0]);
        assert_eq!(due.take(now + AGAIN[0] + UNKNOWN), [(user, 0)]);
        assert_eq!((due.times.len(), due.users.len(), due.next()), (0, 0, None));
    }
}
