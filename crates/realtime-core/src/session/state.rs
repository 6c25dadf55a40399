//! [`SessionState`]: the state of a session that the shard, the directory and the connection share.
//!
//! A node has one per connection, and most connections are idle. State that sessions have in common is therefore
//! shared, and state that few of them have is boxed.

use std::{
    fmt,
    hint::black_box,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use once_cell::race::OnceBox;
use tracing::Span;

use super::id::SessionId;
use crate::{
    CloseReason, Position, Principal, Topic, Transport, UserId,
    auth::{TokenHash, TopicDecision},
    log::{OwnTopics, tally::Recipient},
    metrics::TransportCounters,
    outbox::{Outbox, OutboxGroup},
    sync::{Mutex, MutexGuard, lock},
    user::UserRef,
    wire::{BusState, GapReason, WireFormatId},
};

/// State of a session that the shard, the directory and the connection share.
#[repr(C)]
pub(crate) struct SessionState {
    // The fields that a delivery needs are adjacent, since fetching them is half of the cost of a delivery.
    pub(crate) kind: Arc<SessionKind>,
    pub(crate) outbox: Outbox,
    /// The user's number, so that a message finds its sessions without reading their principals; [`NO_NUMBER`] if the
    /// user has none.
    number: i64,
    /// The login that it was opened with. Its user stays; the rest may have been renewed since: see [`Self::login`].
    first: Arc<Principal>,
    pub(crate) id: SessionId,
    pub(crate) opened: Opened,
    /// Time when it was opened, in nanoseconds since 1970.
    since: u64,
    /// State that few sessions have.
    extra: OnceBox<Extra>,
    /// The cursor of its [`Begin`], if `begin_flags` has one.
    begin_epoch: AtomicU64,
    begin_offset: AtomicU64,
    begin_flags: AtomicU8,
    /// The client sent something since it was last asked for an answer, or since the last tick that checked it.
    pub(crate) active: AtomicBool,
    /// The client is not read from at the moment, so its silence does not count.
    pub(crate) unread: AtomicBool,
    /// Its last heartbeat reported an outage of the bus.
    pub(crate) told_down: AtomicBool,
    /// Its client was told that its login ends soon.
    pub(crate) told_expiring: AtomicBool,
    /// It is in its user's topic; changed only under the shard's lock.
    pub(crate) in_own_topic: AtomicBool,
    /// A [`Stage`].
    stage: AtomicU8,
}

// Flags in `begin_flags`: a session that has not begun has none of them.
const BEGUN: u8 = 1;
const WITH_CURSOR: u8 = 2;
const RETURNED: u8 = 4;
const RECOVERED: u8 = 8;

/// Represents an id that is not a number, and this number itself.
const NO_NUMBER: i64 = i64::MIN;

/// Properties that the sessions of one shard, transport and wire format have in common.
#[derive(Debug)]
pub(crate) struct SessionKind {
    pub(crate) transport: Transport,
    pub(crate) wire: WireFormatId,
    pub(crate) outboxes: Arc<OutboxGroup>,
    /// The counters of the transport.
    pub(crate) counters: Arc<TransportCounters>,
    /// The shard that serves them.
    pub(crate) host: Weak<dyn SessionHost>,
}

/// Host of sessions: keeps them in its index and writes published messages to them.
pub(crate) trait SessionHost: fmt::Debug + Send + Sync {
    /// Removes a session whose socket accepts nothing any more. Its connection counts towards the limits until it has
    /// ended.
    fn evict(&self, session: &Arc<SessionState>);

    /// Adds a session to topics, unless it is in them already, and sends it their initial entries. `answer` gets the
    /// position from which on the session gets everything in these topics, if it is known; what it returns is sent
    /// before the initial entries and before every message of the topics that the session was added to.
    fn subscribe(
        &self,
        session: &SessionState,
        topics: &[Topic],
        answer: &mut dyn FnMut(Option<Position>) -> Option<Bytes>,
    );

    /// Removes a session from a topic.
    fn unsubscribe(&self, session: &SessionState, topic: &Topic);

    /// Ends a session once it has been served everything that the bus had acknowledged up to `after`, or, without a
    /// position, until now. The session reads the log itself until then.
    fn close_after(&self, session: &SessionState, reason: CloseReason, after: Option<Position>);

    /// The sequence number of the first entry of the log that a session has yet to be served; `None` if it has ended.
    fn next_of(&self, session: &SessionState) -> Option<u64>;

    /// Replaces a session's login by another one of the same user. Returns the former one; `None` if the session is
    /// ending.
    fn renew(&self, session: &SessionState, login: Arc<Principal>) -> Option<Arc<Principal>>;

    /// The newest position that the bus has acknowledged to this node.
    fn acknowledged(&self) -> Option<Position>;

    /// Maximum size of a message, `limits.maxMessageBytes`.
    fn max_message_bytes(&self) -> usize;
}

/// The beginning of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Position up to which the client has everything, or is about to be sent a gap. It is never ahead of a gap that
    /// has yet to be sent.
    pub cursor: Option<Position>,
    /// `true` if everything since the client's cursor follows; `None` if the client sent no cursor.
    pub recovered: Option<bool>,
}

/// Topics that a session is in from its begin, besides those of its login.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ConnectTopics<'a> {
    /// The topics, which the client may be in: see [`Hub::decide_topics`](crate::Hub::decide_topics).
    pub topics: &'a [Topic],
    /// Those of them of which the client has had nothing yet. If it is replayed everything since its cursor, it gets what
    /// is kept for newcomers of these topics; else it gets that of all of its topics.
    pub fresh: &'a [Topic],
    /// Those of them whose history begins behind a position: see [`TopicGrant::after`](crate::auth::TopicGrant::after).
    pub after: &'a [(Topic, Position)],
}

impl<'a> ConnectTopics<'a> {
    /// Topics of which `fresh` are new to the client.
    pub fn new(topics: &'a [Topic], fresh: &'a [Topic]) -> Self {
        Self { topics, fresh, after: &[] }
    }

    /// The topics that were decided about; of those in `fresh` the client has had nothing yet.
    pub fn decided(decision: &'a TopicDecision, fresh: &'a [Topic]) -> Self {
        Self { topics: &decision.granted, fresh, after: &decision.after }
    }
}

/// A topic that a session is in, and its index among the topic's sessions.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) topic: Topic,
    pub(crate) index: u32,
    /// It was subscribed to the topic before it began: what is kept for newcomers of the topic is new to its client.
    pub(crate) early: bool,
}

/// State that few sessions have.
#[derive(Debug, Default)]
struct Extra {
    /// The topics besides `all` and the user's own.
    named: Mutex<Vec<Named>>,
    /// Topics whose history begins behind a position.
    after: Mutex<Vec<(Topic, Position)>>,
    /// The login that has replaced the first one.
    renewed: Mutex<Option<Arc<Principal>>>,
    /// The span of what the log says of the connection, while somebody asks for it.
    span: OnceBox<Span>,
    /// The last gap that was announced to it alone.
    gap: Mutex<Option<(SystemTime, GapReason)>>,
    /// Number of messages that were left out, since they were over or replaced before they could be sent.
    left_out: AtomicU32,
}

/// Registration of a session in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Known to the directory, without a slot in its shard yet.
    New,
    /// In its shard, under its slot.
    Registered,
    /// Removed from its shard; its slot may be another session's.
    Removed,
}

impl SessionState {
    /// Creates a session that is not in its shard yet.
    pub(crate) fn new(principal: Arc<Principal>, kind: Arc<SessionKind>, topics: &[Topic]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut topics: Vec<_> =
            principal.topics.iter().chain(topics).filter(|topic| !topic.is_all()).collect();
        topics.retain(|topic| topic.as_user() != Some((&principal.user).into()));
        topics.sort();
        topics.dedup();
        let extra = OnceBox::new();
        if !topics.is_empty() {
            let topics =
                topics.into_iter().map(|topic| Named { topic: topic.clone(), index: 0, early: false });
            extra.set(Box::new(Extra { named: Mutex::new(topics.collect()), ..Extra::default() })).ok();
        }
        Self {
            outbox: Outbox::new(Arc::clone(&kind.outboxes)),
            kind,
            number: principal.user.as_number().unwrap_or(NO_NUMBER),
            first: principal,
            id: SessionId::random(),
            opened: Opened::default(),
            since: u64::try_from(since).unwrap_or(u64::MAX),
            extra,
            begin_epoch: AtomicU64::default(),
            begin_offset: AtomicU64::default(),
            begin_flags: AtomicU8::default(),
            active: AtomicBool::new(true),
            unread: AtomicBool::default(),
            told_down: AtomicBool::default(),
            told_expiring: AtomicBool::default(),
            in_own_topic: AtomicBool::new(true),
            stage: AtomicU8::new(Stage::New as u8),
        }
        .in_span()
    }

    /// Begins its span.
    fn in_span(self) -> Self {
        // A root: it outlives the request, whose span it would keep open.
        let span = tracing::debug_span!(
            parent: None,
            "session",
            id = %self.id,
            user = %self.user(),
            transport = %self.transport()
        );
        if !span.is_disabled() {
            span.follows_from(Span::current());
            self.extra.get_or_init(Box::default).span.set(Box::new(span)).ok();
        }
        self
    }

    /// Its span.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.extra.get()?.span.get()
    }

    /// Counts messages that were left out.
    pub(crate) fn count_left_out(&self, messages: usize) {
        let extra = self.extra.get_or_init(Box::default);
        extra.left_out.fetch_add(u32::try_from(messages).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Number of messages that were left out.
    pub(crate) fn left_out(&self) -> u32 {
        self.extra.get().map_or(0, |extra| extra.left_out.load(Ordering::Relaxed))
    }

    /// Records a gap that is announced to it alone.
    pub(crate) fn record_gap(&self, reason: GapReason) {
        *lock(&self.extra.get_or_init(Box::default).gap) = Some((SystemTime::now(), reason));
    }

    /// The last gap that was announced to it alone.
    pub(crate) fn last_gap(&self) -> Option<(SystemTime, GapReason)> {
        self.extra.get().and_then(|extra| *lock(&extra.gap))
    }

    /// The user.
    pub(crate) fn user(&self) -> &UserId {
        &self.first.user
    }

    /// The login that it belongs to now.
    pub(crate) fn login(&self) -> Arc<Principal> {
        let renewed = self.extra.get().and_then(|extra| lock(&extra.renewed).clone());
        renewed.unwrap_or_else(|| Arc::clone(&self.first))
    }

    /// The hash of its login's token.
    pub(crate) fn token(&self) -> TokenHash {
        self.with_login(|login| login.token)
    }

    /// Time when its login expires.
    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        self.with_login(|login| login.expires_at)
    }

    /// Runs a function on its login, which locks nothing.
    fn with_login<T>(&self, read: impl FnOnce(&Principal) -> T) -> T {
        match self.extra.get().map(|extra| lock(&extra.renewed)) {
            Some(renewed) => read(renewed.as_ref().unwrap_or(&self.first)),
            None => read(&self.first),
        }
    }

    /// Replaces its login by another one of the same user; only under the shard's lock. Returns the former one.
    pub(crate) fn set_login(&self, login: Arc<Principal>) -> Arc<Principal> {
        let renewed = lock(&self.extra.get_or_init(Box::default).renewed).replace(login);
        renewed.unwrap_or_else(|| Arc::clone(&self.first))
    }

    /// Returns `true` for a session of the user.
    pub(crate) fn is_of(&self, user: UserRef<'_>) -> bool {
        match user {
            UserRef::Number(number) if number != NO_NUMBER => number == self.number,
            user => user == self.user().into(),
        }
    }

    /// Returns `true` for the topic of its user.
    pub(crate) fn is_of_topic(&self, topic: &Topic) -> bool {
        topic.as_user().is_some_and(|user| self.is_of(user))
    }

    /// Fetches what a delivery reads from memory. A pass does it for several sessions at once: fetched one after the
    /// other, they take longer.
    pub(crate) fn prefetch(&self) {
        black_box(&raw const *self.kind);
        self.outbox.prefetch();
    }

    pub(crate) fn transport(&self) -> Transport {
        self.kind.transport
    }

    pub(crate) fn wire(&self) -> &WireFormatId {
        &self.kind.wire
    }

    /// Its slot in its shard, once it has one.
    pub(crate) fn slot(&self) -> u32 {
        self.outbox.slot()
    }

    /// Its host, unless that has ended.
    pub(crate) fn host(&self) -> Option<Arc<dyn SessionHost>> {
        self.kind.host.upgrade()
    }

    /// Time when it was opened.
    pub(crate) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.since)
    }

    /// Its beginning; `None` while it is not known.
    pub(crate) fn begin(&self) -> Option<Begin> {
        let flags = self.begin_flags.load(Ordering::Acquire);
        let has = |flag| flags & flag != 0;
        has(BEGUN).then(|| Begin {
            cursor: has(WITH_CURSOR).then(|| Position {
                epoch: self.begin_epoch.load(Ordering::Relaxed),
                offset: self.begin_offset.load(Ordering::Relaxed),
            }),
            recovered: has(RETURNED).then(|| has(RECOVERED)),
        })
    }

    /// Sets its beginning, once; only under the shard's lock.
    pub(crate) fn set_begin(&self, begin: Begin) {
        let mut flags = BEGUN;
        if let Some(Position { epoch, offset }) = begin.cursor {
            self.begin_epoch.store(epoch, Ordering::Relaxed);
            self.begin_offset.store(offset, Ordering::Relaxed);
            flags |= WITH_CURSOR;
        }
        if let Some(recovered) = begin.recovered {
            flags |= RETURNED | if recovered { RECOVERED } else { 0 };
        }
        self.begin_flags.store(flags, Ordering::Release);
    }

    /// Its topics besides `all` and its user's own, if it has had any.
    pub(crate) fn named(&self) -> Option<MutexGuard<'_, Vec<Named>>> {
        self.extra.get().map(|extra| lock(&extra.named))
    }

    /// Like [`Self::named`], but creates the list if there is none.
    pub(crate) fn named_mut(&self) -> MutexGuard<'_, Vec<Named>> {
        lock(&self.extra.get_or_init(Box::default).named)
    }

    /// Sets the positions behind which the histories of topics begin. A topic that it is in already keeps its own, since it
    /// has been granted before.
    pub(crate) fn begin_after(&self, topics: &[(Topic, Position)]) {
        if topics.is_empty() {
            return;
        }
        let mut after = lock(&self.extra.get_or_init(Box::default).after);
        for (topic, position) in topics {
            after.retain(|(known, _)| known != topic);
            after.push((topic.clone(), *position));
        }
    }

    /// Forgets the position behind which the history of a topic begins, since the session leaves it.
    pub(crate) fn forget_after(&self, topic: &Topic) {
        if let Some(extra) = self.extra.get() {
            lock(&extra.after).retain(|(known, _)| known != topic);
        }
    }

    /// Returns `true` if its history begins behind a position in some topic.
    pub(crate) fn is_bounded(&self) -> bool {
        let has_topic = || self.extra.get().is_some_and(|extra| !lock(&extra.after).is_empty());
        self.with_login(|login| login.history_after.is_some()) || has_topic()
    }

    /// What it reads of the log.
    pub(crate) fn reads(&self) -> OwnTopics {
        let after = self.extra.get().map_or_else(Vec::new, |extra| lock(&extra.after).clone());
        OwnTopics::new(self.topics()).after(self.with_login(|login| login.history_after), &after)
    }

    /// All of its topics besides `all`, its user's first.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        let own = self.in_own_topic.load(Ordering::Relaxed).then(|| Topic::user(self.user()));
        let named = self.named();
        let named = named.iter().flat_map(|named| named.iter()).map(|named| named.topic.clone());
        own.into_iter().chain(named).collect()
    }

    /// The topics that it was subscribed to before it began.
    pub(crate) fn early_topics(&self) -> Vec<Topic> {
        let named = self.named();
        let early = named.iter().flat_map(|named| named.iter()).filter(|named| named.early);
        early.map(|named| named.topic.clone()).collect()
    }

    /// What a heartbeat is to tell it of the bus, which is unavailable since `down`.
    pub(crate) fn bus_state(&self, down: Option<SystemTime>) -> BusState {
        match (down, self.told_down.load(Ordering::Relaxed)) {
            (Some(since), _) => BusState::Down(since),
            (None, true) => BusState::Restored,
            (None, false) => BusState::Up,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::New,
            1 => Stage::Registered,
            _ => Stage::Removed,
        }
    }

    /// Changes the stage; only under the shard's lock.
    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Ends the session once it has been served everything that the bus had acknowledged up to `after`, or, without a
    /// position, until now. The first reason stays.
    pub(crate) fn close_after(&self, reason: CloseReason, after: Option<Position>) {
        match self.host() {
            Some(host) => host.close_after(self, reason, after),
            None => self.outbox.close(reason),
        }
    }

    /// Ends the session once it has been served the messages that this node published before. The first reason stays.
    pub(crate) fn close_in_order(&self, reason: CloseReason) {
        match self.host().and_then(|host| host.acknowledged()) {
            Some(after) => self.close_after(reason, Some(after)),
            None => self.outbox.close(reason),
        }
    }

    /// Returns `true` if the client was active since the last call, or is not read from.
    pub(crate) fn take_activity(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed) | self.unread.load(Ordering::Relaxed)
    }
}

impl Recipient for SessionState {
    fn written(&self) -> u64 {
        self.outbox.taken()
    }

    fn has_ended(&self) -> bool {
        self.stage() == Stage::Removed
    }
}

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionState")
            .field("id", &self.id)
            .field("transport", &self.transport())
            .field("user", self.user())
            .finish_non_exhaustive()
    }
}

/// Time when a session was opened, on a monotonic clock. The values are unique, so that they order the sessions.
#[derive(Debug, Default)]
pub(crate) struct Opened(AtomicU64);

/// Origin of [`Opened`].
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Opened {
    /// Sets it to now, or right after `last` if that is later.
    pub(crate) fn set_after(&self, last: u64) -> u64 {
        let now = u64::try_from(STARTED.elapsed().as_nanos()).unwrap_or(u64::MAX).max(last + 1);
        self.0.store(now, Ordering::Relaxed);
        now
    }

    /// A number that is greater for every session that was opened later.
    pub(crate) fn order(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        STARTED.elapsed().saturating_sub(Duration::from_nanos(self.order()))
    }
}
