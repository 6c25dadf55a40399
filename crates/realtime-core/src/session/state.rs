//! [`SessionState`]: what the shard, the directory and the connection share about a session.
//!
//! A node has as many as it has connections, most of them idle. So what sessions have in common is shared, and what few
//! of them have stands in a box.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use once_cell::race::OnceBox;

use super::id::SessionId;
use crate::{
    CloseReason, Position, Principal, Topic, Transport,
    outbox::{Outbox, OutboxGroup},
    settings::Limits,
    sync::{Mutex, MutexGuard, lock},
    user::UserRef,
    wire::WireFormatId,
};

/// What the shard, the directory and the connection share about a session.
#[repr(C)]
pub(crate) struct SessionState {
    // What a delivery needs stands together: to fetch it is half of what a delivery costs.
    pub(crate) kind: Arc<SessionKind>,
    /// The user's number, so that a message finds its sessions without a look at their principals; [`NO_NUMBER`] where
    /// it has none.
    number: i64,
    pub(crate) outbox: Outbox,
    pub(crate) principal: Arc<Principal>,
    pub(crate) id: SessionId,
    pub(crate) opened: Opened,
    /// Nanoseconds since 1970.
    since: u64,
    /// The topics beside `all` and the user's own; few sessions have any.
    named: OnceBox<Mutex<Vec<Named>>>,
    /// The cursor of its [`Begin`], as far as `begin_flags` says that there is one.
    begin_epoch: AtomicU64,
    begin_offset: AtomicU64,
    begin_flags: AtomicU8,
    /// The client sent something since it was last asked for an answer, or since the last tick that looked.
    pub(crate) active: AtomicBool,
    /// Nothing of the client is read for now, so it cannot be blamed for its silence.
    pub(crate) unread: AtomicBool,
    /// Its last heartbeat said that the bus is away.
    pub(crate) told_down: AtomicBool,
    /// It is in its user's topic; changed only under the shard's lock.
    pub(crate) in_own_topic: AtomicBool,
    /// A [`Stage`].
    stage: AtomicU8,
}

// What `begin_flags` says: a session that has not begun has none of these.
const BEGUN: u8 = 1;
const WITH_CURSOR: u8 = 2;
const RETURNED: u8 = 4;
const RECOVERED: u8 = 8;

/// Stands for an id that is no number, and for this number itself.
const NO_NUMBER: i64 = i64::MIN;

/// What the sessions of one shard, transport and wire form have in common.
#[derive(Debug)]
pub(crate) struct SessionKind {
    pub(crate) transport: Transport,
    pub(crate) wire: WireFormatId,
    pub(crate) outboxes: Arc<OutboxGroup>,
    /// Where they are served.
    pub(crate) host: Weak<dyn SessionHost>,
}

/// What serves sessions: it has them in its index, and writes to them what is published.
pub(crate) trait SessionHost: fmt::Debug + Send + Sync {
    /// Puts a session into a topic, unless it is in it already.
    fn subscribe(&self, session: &SessionState, topic: Topic);

    /// Takes a session out of a topic.
    fn unsubscribe(&self, session: &SessionState, topic: &Topic);

    /// Ends a session once it has been served what the bus had acknowledged up to `after`, or, without a position,
    /// until now. It reads the log by itself until then.
    fn close_after(&self, session: &SessionState, reason: CloseReason, after: Option<Position>);

    /// The newest position that the bus has acknowledged to this node.
    fn acknowledged(&self) -> Option<Position>;

    /// What its sessions may do.
    fn limits(&self) -> &Limits;
}

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The client has everything up to here, or is about to be told of a gap. It is never ahead of a gap that has yet
    /// to be sent.
    pub cursor: Option<Position>,
    /// Whether everything since the client's cursor follows; `None` when it brought none.
    pub recovered: Option<bool>,
}

/// A topic that a session is in, and where it stands among the topic's sessions.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) topic: Topic,
    pub(crate) index: u32,
}

/// Whether a session is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Known to the directory, with no slot in its shard yet.
    New,
    /// In its shard, under its slot.
    Registered,
    /// Taken out of its shard; its slot may be another session's.
    Removed,
}

impl SessionState {
    /// A session that is not in its shard yet.
    pub(crate) fn new(principal: Arc<Principal>, kind: Arc<SessionKind>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut topics: Vec<_> = principal.topics.iter().filter(|topic| !topic.is_all()).collect();
        topics.retain(|topic| topic.as_user() != Some((&principal.user).into()));
        topics.sort();
        topics.dedup();
        let named = OnceBox::new();
        if !topics.is_empty() {
            let topics = topics.into_iter().map(|topic| Named { topic: topic.clone(), index: 0 });
            named.set(Box::new(Mutex::new(topics.collect()))).ok();
        }
        Self {
            outbox: Outbox::new(Arc::clone(&kind.outboxes)),
            kind,
            number: principal.user.as_number().unwrap_or(NO_NUMBER),
            principal,
            id: SessionId::random(),
            opened: Opened::default(),
            since: u64::try_from(since).unwrap_or(u64::MAX),
            named,
            begin_epoch: AtomicU64::default(),
            begin_offset: AtomicU64::default(),
            begin_flags: AtomicU8::default(),
            active: AtomicBool::new(true),
            unread: AtomicBool::default(),
            told_down: AtomicBool::default(),
            in_own_topic: AtomicBool::new(true),
            stage: AtomicU8::new(Stage::New as u8),
        }
    }

    /// Whether it is one of the user's.
    pub(crate) fn is_of(&self, user: UserRef<'_>) -> bool {
        match user {
            UserRef::Number(number) if number != NO_NUMBER => number == self.number,
            user => user == (&self.principal.user).into(),
        }
    }

    /// Whether the topic is its user's own.
    pub(crate) fn is_of_topic(&self, topic: &Topic) -> bool {
        topic.as_user().is_some_and(|user| self.is_of(user))
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

    /// What serves it, unless that has ended.
    pub(crate) fn host(&self) -> Option<Arc<dyn SessionHost>> {
        self.kind.host.upgrade()
    }

    /// When it was opened.
    pub(crate) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.since)
    }

    /// Where it begins; `None` for as long as that cannot be told.
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

    /// Tells where it begins, once; only under the shard's lock.
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

    /// Its topics beside `all` and its user's own, if it has had any.
    pub(crate) fn named(&self) -> Option<MutexGuard<'_, Vec<Named>>> {
        self.named.get().map(lock)
    }

    /// The same, to put one in.
    pub(crate) fn named_mut(&self) -> MutexGuard<'_, Vec<Named>> {
        lock(self.named.get_or_init(Box::default))
    }

    /// All of its topics beside `all`, its user's first.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        let own = self.in_own_topic.load(Ordering::Relaxed).then(|| Topic::user(&self.principal.user));
        let named = self.named();
        let named = named.iter().flat_map(|named| named.iter()).map(|named| named.topic.clone());
        own.into_iter().chain(named).collect()
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

    /// Ends the session once it has been served what the bus had acknowledged up to `after`; without a position, what
    /// it had acknowledged until now. The first reason stays.
    pub(crate) fn close_after(&self, reason: CloseReason, after: Option<Position>) {
        match self.host() {
            Some(host) => host.close_after(self, reason, after),
            None => self.outbox.close(reason),
        }
    }

    /// Ends the session once it has been served what this node had published before. The first reason stays.
    pub(crate) fn close_in_order(&self, reason: CloseReason) {
        match self.host().and_then(|host| host.acknowledged()) {
            Some(after) => self.close_after(reason, Some(after)),
            None => self.outbox.close(reason),
        }
    }

    /// Whether the client was active since this was last asked, or could not be.
    pub(crate) fn take_activity(&self) -> bool {
        self.active.swap(false, Ordering::Relaxed) | self.unread.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionState")
            .field("id", &self.id)
            .field("transport", &self.transport())
            .field("user", &self.principal.user)
            .finish_non_exhaustive()
    }
}

/// When a session was opened, on a clock that is never set; no two are the same, so that it gives sessions an order.
#[derive(Debug, Default)]
pub(crate) struct Opened(AtomicU64);

/// What [`Opened`] counts from.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Opened {
    /// Sets it to now, or right behind `last` if that is later.
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
