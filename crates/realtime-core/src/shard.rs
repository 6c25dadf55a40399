//! [`Shard`]: the sessions and topics of one worker, and the pass that fans the log out to them.
//!
//! Invariant: a session is *live* and served by the pass from its shard's sequence number on, or it is *catching up*
//! and reads the log itself. It changes between the two only under the shard's lock and only at the shard's sequence
//! number, so nothing is lost or duplicated in between.
//!
//! Lock order: shard, then a session's topics, then its outbox or the node's interest. The directory's lock is never held with
//! another, except that of a session's login, under which nothing is locked.

mod encoded_run;
pub(crate) mod initial;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod members;
pub(crate) mod pass_stats;
#[cfg(test)]
mod tests;

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::{
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::Span;

use crate::{
    CloseReason, Position, Principal, Topic, Transport,
    direct::WriteBuffer,
    error::{ConnectError, CursorError, SendError},
    initial::StartPoint,
    log::Entry,
    metrics::{
        OutboxSnapshot,
        stopwatch::{self, Stopwatch},
    },
    node::Node,
    outbox::{Backlog, OutboxGroup, Ticked},
    recent::End,
    session::{
        handle::SessionHandle,
        state::{ConnectTopics, Named, SessionHost, SessionKind, SessionState, Stage},
    },
    shard::{
        initial::{announce_lost, initial_entries, send_initial},
        members::{Held, Member, Members, Parked},
        pass_stats::PassStats,
    },
    sync::{Mutex, MutexGuard, lock},
    ticks::Ticks,
    trace::TraceKind,
    wire::{BusState, WireFormatId},
};

/// The sessions of one worker thread. One task on that worker's runtime delivers to them.
///
/// It exists while a transport's routes or one of its sessions hold it. The last drop ends its task.
#[derive(Debug)]
pub struct Shard {
    pub(crate) node: Arc<Node>,
    members: Mutex<Members>,
    outboxes: Arc<OutboxGroup>,
    /// Local sends that wait for the next pass.
    local: Mutex<Vec<Arc<Entry>>>,
    wake: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A registered session. Dropping it removes the session from its shard.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) state: Arc<SessionState>,
    pub(crate) shard: Arc<Shard>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.state.outbox.close(CloseReason::Gone);
        self.state.outbox.detach();
        self.shard.remove(&self.state);
    }
}

/// Shorter pauses are skipped, since timers have a resolution of a millisecond.
const SHORTEST_PAUSE: Duration = Duration::from_micros(500);

/// Maximum number of queued local sends.
const LOCAL_QUEUE: usize = 1024;

/// Ticks after which a closing session is removed even if its closing frames could not be written.
const CLOSE_TIMEOUT_TICKS: u32 = 3;

/// Maximum delay of a session's turn in the ticks.
const TURN_SLACK: Duration = Duration::from_secs(2);

/// Outboxes that are looked at before a pass may have the lock.
const BACKLOG_SLOTS: usize = 1024;

/// A position that no bus assigns.
const NEVER: Position = Position { epoch: u64::MAX, offset: u64::MAX };

/// Progress of a session that reads the log itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// It is live, or has everything that it was to be sent before its end.
    Done,
    /// The log has `entries` entries after its sequence number. It gets none of those after `until`.
    Behind { entries: u64, until: Option<Position> },
    /// It has everything in the log, and its end waits for more.
    Waiting,
}

impl Shard {
    /// Creates a shard whose passes the caller runs.
    pub(crate) fn new(node: Arc<Node>) -> Arc<Self> {
        let (seq, up) = (node.log.end(), node.log.up().is_some());
        let members = Members { seq, up, ..Members::default() };
        let outboxes = Arc::new(OutboxGroup::new(&node.settings.outbox));
        Arc::new(Self {
            node,
            members: Mutex::new(members),
            outboxes,
            local: Mutex::default(),
            wake: Arc::default(),
            task: Mutex::default(),
        })
    }

    /// Creates a shard with its delivery task on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn spawn(node: Arc<Node>) -> Arc<Self> {
        let ticks = Ticks::new(&node.settings);
        let max_delay = node.settings.fanout.max_delay;
        let shard = Self::new(node);
        let (wake, outboxes) = (Arc::clone(&shard.wake), Arc::clone(&shard.outboxes));
        let task = tokio::spawn(run(Arc::downgrade(&shard), wake, outboxes, ticks, max_delay));
        *lock(&shard.task) = Some(task);
        shard
    }

    /// Wakes the delivery task, since the log has new entries.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Registers a connection. With a cursor it resumes there.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn register(
        self: &Arc<Self>,
        principal: Principal,
        transport: Transport,
        wire: WireFormatId,
        cursor: Option<Result<Position, CursorError>>,
    ) -> Result<Registration, ConnectError> {
        self.register_in(principal, transport, wire, cursor, &ConnectTopics::default(), 0)
    }

    /// Registers a connection that is in some topics besides its login's. With a cursor it resumes there. `elsewhere` is
    /// the number of its user's sessions on other nodes.
    pub(crate) fn register_in(
        self: &Arc<Self>,
        principal: Principal,
        transport: Transport,
        wire: WireFormatId,
        cursor: Option<Result<Position, CursorError>>,
        topics: &ConnectTopics<'_>,
        elsewhere: usize,
    ) -> Result<Registration, ConnectError> {
        let Node { log, directory, metrics, .. } = &*self.node;
        let limits = self.node.limits.load();
        let (since, came) = (Instant::now(), log.end());
        let kind = self.kind(transport, wire);
        let state = Arc::new(SessionState::new(directory.share(principal), kind, topics.topics));
        state.begin_after(topics.after);
        let is_crowded = directory.insert(&state, elsewhere, &limits)?;
        let _span = state.span().map(Span::enter);
        let mut stats = PassStats::of(&self.node);
        if let Some(trace) = &stats.trace {
            trace.connected(&state);
        }
        // From here on, dropping it removes the session.
        let registration = Registration { state: Arc::clone(&state), shard: Arc::clone(self) };
        let slot = {
            let mut members = self.lock();
            let mut member = Member::new(Arc::clone(&state), members.seq);
            if state.is_bounded() {
                member.bound();
            }
            let slot = members.sessions.insert(member);
            let slot = u32::try_from(slot).expect("a worker has fewer than 2^32 sessions");
            state.outbox.set_slot(slot);
            state.set_stage(Stage::Registered);
            // Topics that it was subscribed to since it is in the directory are among these.
            if state.in_own_topic.load(Ordering::Relaxed) && members.link(slot) {
                self.begin_interest(|| Topic::user(state.user()));
            }
            if let Some(mut named) = state.named() {
                for Named { topic, index, .. } in named.iter_mut() {
                    *index = members.index(topic.clone(), slot);
                    if *index == 0 {
                        self.begin_interest(|| topic.clone());
                    }
                }
            }
            if let Some(end) = self.soon(&state, SystemTime::now()) {
                members.expiring.insert((end, slot));
            }
            slot
        };
        state.kind.counters.opened.add(1);
        self.node.changed(state.user());
        tracing::debug!(session = %state.id, user = %state.user(), %transport, "session opened");
        let mut fresh: Box<[Topic]> = topics.fresh.into();
        fresh.sort_unstable();
        // Before it begins: what the function sends precedes all that the session is sent.
        self.node.hooks.opened(|| SessionHandle(Arc::clone(&state)));
        let mut members = self.lock();
        if state.stage() == Stage::Registered {
            let parked = Parked { slot, cursor, since, came, ticks: 0, fresh };
            if !(members.up && members.try_begin(&parked, &self.node, &mut stats)) {
                members.parked.push(parked);
                // The bus may have come up in between.
                self.wake();
            }
        }
        drop(members);
        stats.record(metrics);
        self.node.entered(state.login().topics.iter().chain(topics.topics));
        if is_crowded {
            for other in directory.outnumbered(&state, &limits) {
                other.close_in_order(CloseReason::TooManySessions);
            }
        }
        Ok(registration)
    }

    /// The properties that this shard's sessions of a transport and wire format have in common.
    fn kind(self: &Arc<Self>, transport: Transport, wire: WireFormatId) -> Arc<SessionKind> {
        let kinds = &mut self.lock().kinds;
        let known = kinds.iter().find(|kind| kind.transport == transport && kind.wire.index == wire.index);
        known.map(Arc::clone).unwrap_or_else(|| {
            let (outboxes, shard) = (Arc::clone(&self.outboxes), Arc::downgrade(self));
            let counters = self.node.metrics.transport(transport);
            let kind = Arc::new(SessionKind { transport, wire, outboxes, counters, host: shard });
            kinds.push(Arc::clone(&kind));
            kind
        })
    }

    /// Removes a session whose connection has ended.
    fn remove(&self, session: &Arc<SessionState>) {
        session.outbox.end_body();
        if self.unregister(session) {
            self.node.directory.remove(session);
            self.report_end(session);
        } else {
            self.node.directory.release(session);
        }
    }

    /// Removes a session from its shard. Returns `true` if this call did it.
    fn unregister(&self, session: &SessionState) -> bool {
        let mut members = self.lock();
        let stage = session.stage();
        session.set_stage(Stage::Removed);
        if stage == Stage::Registered {
            let slot = session.slot();
            if session.in_own_topic.load(Ordering::Relaxed) && members.unlink(slot) {
                self.end_interest(|| Topic::user(session.user()));
            }
            let named = session.named().map(|mut named| mem::take(&mut *named));
            if let Some(trace) = self.node.traces.watch() {
                let topics = named.iter().flatten().map(|named| named.topic.clone());
                let reason = session.outbox.closing().unwrap_or(CloseReason::Gone);
                trace.closed(session, &topics.collect::<Vec<_>>(), reason);
            }
            for named in named.into_iter().flatten() {
                if members.unindex(&named) {
                    self.end_interest(|| named.topic);
                }
            }
            members.forget(slot);
            self.forget_expiry(&mut members, session);
            members.sessions.remove(slot as usize);
        }
        stage != Stage::Removed
    }

    fn report_end(&self, session: &Arc<SessionState>) {
        self.node.changed(session.user());
        let reason = session.outbox.closing().unwrap_or(CloseReason::Gone);
        self.node.recent.ended(End {
            at: SystemTime::now(),
            user: session.user().clone(),
            session: session.id,
            transport: session.transport(),
            reason,
            code: session.wire().wire.close_code(reason),
            open: session.opened.elapsed(),
        });
        let _span = session.span().map(Span::enter);
        session.kind.counters.closed(reason);
        tracing::debug!(session = %session.id, reason = reason.name(), "session ended");
        self.node.hooks.closed(|| SessionHandle(Arc::clone(session)), reason);
    }

    /// Returns `true` if any of its sessions is in the topic.
    pub(crate) fn has_subscribers(&self, topic: &Topic) -> bool {
        let members = self.lock();
        members.topics.contains_key(topic) || topic.as_user().is_some_and(|user| members.has_user(user))
    }

    /// Returns `true` if its sessions have been served the log's entry at a sequence number, except for those that read
    /// the log themselves.
    pub(crate) fn has_passed(&self, seq: u64) -> bool {
        self.lock().seq > seq
    }

    /// Number of its sessions that are in the topic.
    pub(crate) fn subscribers(&self, topic: &Topic) -> usize {
        let members = self.lock();
        if topic.is_all() {
            return members.sessions.len();
        }
        // A user's own topic is not in the index, unless a session of another user was added to it.
        let named = members.topics.get(topic).map_or(0, Vec::len);
        named + topic.as_user().map_or(0, |user| members.count_user(user))
    }

    /// Queues a local send for the next pass.
    ///
    /// # Errors
    /// [`SendError::Overloaded`] if too many are queued already.
    pub(crate) fn send_local(&self, entry: Arc<Entry>) -> Result<(), SendError> {
        {
            let mut local = lock(&self.local);
            if local.len() >= LOCAL_QUEUE {
                return Err(SendError::Overloaded);
            }
            local.push(entry);
        }
        self.wake();
        Ok(())
    }

    /// Fans out local sends and new entries of the log. Never waits.
    pub(crate) fn pass(&self) -> Pass {
        let mut stats = PassStats::of(&self.node);
        let watch = Stopwatch::start();
        let (more, seq) = {
            let mut members = self.lock();
            (members.pass(&self.node, &self.local, &mut stats), members.seq)
        };
        if stats.visits > 0 || stats.writes > 0 {
            watch.record(stopwatch::PASS);
        }
        if let Some(arrived) = stats.arrived.filter(|_| stats.visits > 0) {
            Stopwatch::since(arrived).record(stopwatch::DELIVERY);
        }
        #[cfg(feature = "opentelemetry")]
        self.node.write_spans.follow(mem::take(&mut stats.write_spans));
        self.node.passed(seq);
        stats.record(&self.node.metrics);
        Pass { more }
    }

    /// What waits for the sockets of its sessions.
    pub(crate) fn backlog(&self) -> OutboxSnapshot {
        let period = Ticks::new(&self.node.settings).period;
        let mut sum = OutboxSnapshot::default();
        // Under the lock: a tick takes all of them, and puts back those that it leaves.
        let mut slots = {
            let _members = self.lock();
            self.outboxes.watched()
        };
        slots.sort_unstable();
        slots.dedup();
        for slots in slots.chunks(BACKLOG_SLOTS) {
            let members = self.lock();
            for slot in slots {
                let Some(member) = members.sessions.get(*slot as usize) else { continue };
                let Backlog { frames, bytes, stalled_ticks, catching_up, .. } =
                    member.session.outbox.backlog();
                sum.add(OutboxSnapshot {
                    sessions: u64::from(frames > 0),
                    behind: u64::from(catching_up.is_some()),
                    frames: frames as u64,
                    max_frames: frames as u64,
                    bytes: bytes as u64,
                    max_bytes: bytes as u64,
                    age: period * stalled_ticks,
                });
            }
        }
        sum
    }

    /// Bytes that its sessions have sent and received.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.outboxes.bytes()
    }

    /// Number of its sessions that have yet to begin, and the sequence number up to which live sessions have been served.
    pub(crate) fn progress(&self) -> (usize, u64) {
        let members = self.lock();
        (members.parked.len(), members.seq)
    }

    /// Recovers from a pass that panicked: every live session reads the log itself, from after the frames that it was
    /// sent. A session whose frame cannot be encoded then ends alone.
    fn recover(&self) {
        let mut members = self.lock();
        let (seq, mut gather) = (members.seq, WriteBuffer::default());
        for (_, member) in &mut members.sessions {
            if member.take_off() {
                member.session.outbox.catch_up_from(member.next().max(seq));
            }
            member.session.outbox.flush(&mut gather);
        }
        members.seq = self.node.log.end();
        members.unflushed.clear();
        self.node.metrics.sent_bytes.add(gather.sent);
        lock(&self.local).clear();
    }

    /// Makes a session that reads the log live if it has reached the shard's sequence number, and ends it if it has
    /// reached the position at which it was to end.
    pub(crate) fn try_join(&self, session: &SessionState, seq: u64) -> Join {
        let log = &self.node.log;
        let mut members = self.lock();
        match session.outbox.hold() {
            Some(after) if log.cursor_at(seq) >= Some(after) => {
                session.outbox.release();
                Join::Done
            }
            Some(_) if log.end() <= seq => Join::Waiting,
            Some(after) => Join::Behind { entries: log.end() - seq, until: Some(after) },
            None if members.seq <= seq => {
                members.join(session, seq);
                drop(members);
                if let Some(trace) = self.node.traces.watch() {
                    trace.live(session);
                }
                Join::Done
            }
            None => Join::Behind { entries: members.seq - seq, until: None },
        }
    }

    /// Has a session that reads the log go on at `first`, since the entries before have left the window, and tells it. It enters
    /// no topic meanwhile: it gets what is kept of one for newcomers either with the others here, or as of `first` then.
    pub(crate) fn skip_lost(&self, session: &SessionState, seq: u64, first: u64, stats: &mut PassStats) {
        let members = self.lock();
        announce_lost(&self.node, session, seq, first, stats);
        session.outbox.skip_to(first);
        drop(members);
    }

    /// Drops some of the log's expired entries. Returns `true` if there are more.
    fn trim(&self) -> bool {
        self.node.log.trim()
    }

    /// Does the work that depends on time: heartbeats, expired tokens, stalled sockets, silent clients. Checks the
    /// sessions whose heartbeat is due, and of the others those with queued frames or unfinished work.
    pub(crate) fn tick(&self, tick: u64, ticks: Ticks) {
        let log = &self.node.log;
        let now = SystemTime::now();
        let down = self.node.bus_down();
        let mut evicted = Vec::new();
        let mut guard = self.lock();
        let members = &mut *guard;
        for parked in &mut members.parked {
            // While the bus is unavailable, waiting does not count.
            parked.ticks += u32::from(down.is_none());
        }
        members.held.retain_mut(|held| {
            held.ticks += 1;
            let outbox = &members.sessions[held.slot as usize].session.outbox;
            if held.ticks > ticks.max_hold {
                outbox.release();
            }
            outbox.hold().is_some()
        });
        // Sessions with queued frames or unfinished work; an idle session is not among them.
        for slot in self.outboxes.take_watched() {
            let Some(Member { session, .. }) = members.sessions.get(slot as usize) else { continue };
            let Ticked { stalled, closing, unanswered } = session.outbox.tick(session.take_activity());
            if let Some(closing) = closing {
                if stalled >= CLOSE_TIMEOUT_TICKS || closing > ticks.max_closing {
                    session.outbox.abort(CloseReason::SlowConsumer);
                    evicted.push(Arc::clone(session));
                }
            } else if stalled > ticks.max_stall && session.begin().is_some() {
                session.outbox.close(CloseReason::SlowConsumer);
                evicted.push(Arc::clone(session));
            } else if session.wire().wire.answers_heartbeat() && unanswered > ticks.timeout {
                session.outbox.close(CloseReason::NoPong);
            }
        }
        self.expire(members, now);
        let cursor = log.cursor_at(members.seq);
        let mut heartbeats = Heartbeats::default();
        let buckets = usize::try_from(ticks.per_heartbeat).unwrap_or(usize::MAX);
        let bucket = usize::try_from(tick % ticks.per_heartbeat).unwrap_or_default();
        for slot in (bucket..members.sessions.capacity()).step_by(buckets) {
            let Some(member) = members.sessions.get(slot) else { continue };
            let session = &member.session;
            if let Some(end) = self.soon(session, now) {
                members.expiring.insert((end, session.slot()));
            }
            // A session that has yet to begin has not answered its request yet. One that reads the log gets enough
            // frames to keep its connection alive. One that is ahead of the shard would be sent a cursor from before
            // its own.
            if !member.is_live() || member.next() > members.seq {
                continue;
            }
            let heartbeat = heartbeats.get(session.wire(), cursor, session.bus_state(down));
            let is_queued = if session.wire().wire.answers_heartbeat() {
                session.outbox.ask(heartbeat, &session.active)
            } else {
                session.outbox.offer(heartbeat).is_ok()
            };
            if is_queued {
                session.told_down.store(down.is_some(), Ordering::Relaxed);
            }
        }
        drop(guard);
        for session in evicted {
            self.evict(&session);
        }
    }

    /// Time at which a session's login is looked at: that of its notice, or its end. `None` unless it may come before
    /// the session's next turn.
    fn soon(&self, session: &SessionState, now: SystemTime) -> Option<SystemTime> {
        let turn = self.node.settings.heartbeat.interval.saturating_mul(2).saturating_add(TURN_SLACK);
        let end = session.expires_at()?;
        let at = if session.told_expiring.load(Ordering::Relaxed) { end } else { self.notice_of(end) };
        Some(at).filter(|at| at.duration_since(now).map_or(true, |left| left <= turn))
    }

    /// Time at which a client is told that its login ends at `end`.
    fn notice_of(&self, end: SystemTime) -> SystemTime {
        end.checked_sub(self.node.settings.auth.expiring_notice).unwrap_or(UNIX_EPOCH)
    }

    /// Tells sessions that their logins end soon, and ends those whose logins have ended.
    fn expire(&self, members: &mut Members, now: SystemTime) {
        // Each slot is looked at once in a tick: one that cannot be told yet is kept for the next.
        let mut later = Vec::new();
        while let Some(&(at, slot)) = members.expiring.first()
            && at <= now
        {
            members.expiring.pop_first();
            let session = &members.sessions[slot as usize].session;
            let Some(end) = session.expires_at() else { continue };
            let left = end.duration_since(now).unwrap_or_default();
            if left.is_zero() {
                session.outbox.close(CloseReason::TokenExpired);
                continue;
            }
            // A session that has yet to begin has not answered its request yet.
            if session.begin().is_none() {
                later.push((at, slot));
                continue;
            }
            if !session.told_expiring.swap(true, Ordering::Relaxed)
                && let Some(notice) = session.wire().wire.expiring(left)
            {
                session.outbox.force(&notice);
            }
            later.push((end, slot));
        }
        members.expiring.extend(later);
    }

    /// Removes what is kept of the times of a session's login.
    fn forget_expiry(&self, members: &mut Members, session: &SessionState) {
        if let Some(end) = session.expires_at() {
            for at in [end, self.notice_of(end)] {
                members.expiring.remove(&(at, session.slot()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    /// Adds a session to a topic. Returns `true` if it was not in it.
    fn enter(&self, members: &mut Members, session: &SessionState, stage: Stage, topic: &Topic) -> bool {
        let (slot, is_registered) = (session.slot(), stage == Stage::Registered);
        if topic.is_all() {
            return false;
        }
        if session.is_of_topic(topic) {
            let new = !session.in_own_topic.swap(true, Ordering::Relaxed);
            if new && is_registered && members.link(slot) {
                self.begin_interest(|| topic.clone());
            }
            return new;
        }
        let mut named = session.named_mut();
        if named.iter().any(|named| named.topic == *topic) {
            return false;
        }
        let index = if is_registered { members.index(topic.clone(), slot) } else { 0 };
        named.push(Named { topic: topic.clone(), index, early: session.begin().is_none() });
        if is_registered && index == 0 {
            self.begin_interest(|| topic.clone());
        }
        true
    }

    /// The first session of this worker is in a topic. Under the lock, as is the end.
    fn begin_interest(&self, topic: impl FnOnce() -> Topic) {
        if let Some(interest) = self.node.interest.get() {
            interest.begin(topic());
        }
    }

    /// The last session of this worker in a topic has left it.
    fn end_interest(&self, topic: impl FnOnce() -> Topic) {
        if let Some(interest) = self.node.interest.get() {
            interest.end(topic());
        }
    }
}

impl SessionHost for Shard {
    fn evict(&self, session: &Arc<SessionState>) {
        if self.unregister(session) {
            self.node.directory.evict(session);
            self.report_end(session);
        }
    }

    fn subscribe(
        &self,
        session: &SessionState,
        topics: &[Topic],
        answer: &mut dyn FnMut(Option<Position>) -> Option<Bytes>,
    ) {
        let mut stats = PassStats::of(&self.node);
        let mut members = self.lock();
        // Checked under the lock, so that a slot that now belongs to another session is never touched.
        let stage = session.stage();
        if stage == Stage::Removed {
            return;
        }
        if stage == Stage::Registered && session.is_bounded() {
            members.sessions[session.slot() as usize].bound();
        }
        let new = topics.iter().filter(|topic| self.enter(&mut members, session, stage, topic));
        let new: SmallVec<[&Topic; 1]> = new.collect();
        if !new.is_empty() {
            session.outbox.read_again();
            if let Some(trace) = &stats.trace {
                let topics: Vec<_> = new.iter().map(|topic| (*topic).clone()).collect();
                trace.moved(session, TraceKind::Grants, &topics);
            }
        }
        // One that has yet to begin gets the initial entries then.
        let start = (stage == Stage::Registered && session.begin().is_some()).then(|| {
            let seq = members.next_of(session);
            StartPoint { seq, position: self.node.log.cursor_at(seq) }
        });
        if let Some(frame) = answer(start.and_then(|start| start.position)) {
            session.outbox.force(&frame);
        }
        if let Some(start) = start
            && self.node.has_initial()
        {
            let entries = initial_entries(&self.node, session, new.iter().copied(), start);
            send_initial(session, &entries, &mut stats);
        }
        drop(members);
        stats.record(&self.node.metrics);
        self.node.entered(topics);
    }

    fn unsubscribe(&self, session: &SessionState, topic: &Topic) {
        let mut members = self.lock();
        let stage = session.stage();
        if stage == Stage::Removed {
            return;
        }
        session.forget_after(topic);
        if let Some(trace) = self.node.traces.watch() {
            trace.moved(session, TraceKind::Leaves, slice::from_ref(topic));
        }
        if session.is_of_topic(topic) {
            if session.in_own_topic.swap(false, Ordering::Relaxed)
                && stage == Stage::Registered
                && members.unlink(session.slot())
            {
                self.end_interest(|| topic.clone());
            }
            return;
        }
        let found = session.named().and_then(|mut named| {
            let index = named.iter().position(|named| named.topic == *topic)?;
            Some(named.swap_remove(index))
        });
        if let Some(named) = found.filter(|_| stage == Stage::Registered)
            && members.unindex(&named)
        {
            self.end_interest(|| named.topic);
        }
    }

    fn next_of(&self, session: &SessionState) -> Option<u64> {
        let members = self.lock();
        (session.stage() == Stage::Registered).then(|| members.next_of(session))
    }

    fn renew(&self, session: &SessionState, login: Arc<Principal>) -> Option<Arc<Principal>> {
        let mut members = self.lock();
        if session.stage() == Stage::Removed || session.outbox.closing().is_some() {
            return None;
        }
        self.forget_expiry(&mut members, session);
        let old = session.set_login(login);
        session.told_expiring.store(false, Ordering::Relaxed);
        if session.stage() == Stage::Registered && session.is_bounded() {
            members.sessions[session.slot() as usize].bound();
        }
        if session.stage() == Stage::Registered
            && let Some(at) = self.soon(session, SystemTime::now())
        {
            members.expiring.insert((at, session.slot()));
        }
        Some(old)
    }

    fn close_after(&self, session: &SessionState, reason: CloseReason, after: Option<Position>) {
        let mut members = self.lock();
        let slot = session.slot();
        let seq = members.seq;
        let log = &self.node.log;
        let begun = session.begin().is_some();
        if !begun || session.stage() != Stage::Registered {
            session.outbox.close(reason);
            return;
        }
        let member = &mut members.sessions[slot as usize];
        let has_all = match after {
            Some(after) => member.is_live() && log.cursor_at(seq) >= Some(after),
            // On a bus without positions the end is not ordered relative to messages.
            None => log.cursor_at(log.end()).is_none(),
        };
        let since = after.is_none().then(Instant::now);
        if has_all {
            session.outbox.close(reason);
        } else if session.outbox.close_after(reason, after.unwrap_or(NEVER)) {
            if member.take_off() {
                session.outbox.catch_up_from(member.next().max(seq));
            }
            members.held.push(Held { slot, since, ticks: 0 });
        }
    }

    fn acknowledged(&self) -> Option<Position> {
        self.node.acknowledged()
    }

    fn max_message_bytes(&self) -> usize {
        self.node.limits.load().max_message_bytes
    }
}

/// The heartbeats of one tick. Each is encoded once for all sessions that get the same.
#[derive(Default)]
struct Heartbeats(SmallVec<[(HeartbeatKind, Bytes); 4]>);

/// Parameters of a heartbeat: the index of its wire format, its cursor, and the state of the bus.
type HeartbeatKind = (usize, Option<Position>, BusState);

impl Heartbeats {
    fn get(&mut self, wire: &WireFormatId, cursor: Option<Position>, bus: BusState) -> &Bytes {
        let kind = (wire.index, cursor, bus);
        let found = self.0.iter().position(|(made, _)| *made == kind).unwrap_or_else(|| {
            self.0.push((kind, wire.wire.heartbeat(cursor, bus)));
            self.0.len() - 1
        });
        &self.0[found].1
    }
}

/// Remaining work of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    /// There is more in the log.
    pub(crate) more: bool,
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        let (sent, received) = self.outboxes.bytes();
        self.node.metrics.sent_bytes.add(sent);
        self.node.metrics.received_bytes.add(received);
    }
}

/// The delivery task of a shard, which ends with it.
///
/// After a pass it waits until the bodies that were woken have written, and then pauses for about as long as the pass
/// and the wait took. The wait and the pause take `max_delay` at most each. A burst therefore costs each connection one
/// write for all messages published in that time, even if a publisher waits for each answer. A single message never
/// waits.
async fn run(
    shard: Weak<Shard>,
    wake: Arc<Notify>,
    outboxes: Arc<OutboxGroup>,
    ticks: Ticks,
    max_delay: Duration,
) {
    let mut timer = interval(ticks.period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = 0_u64;
    let mut trimming = false;
    // Bodies that were woken and do not pull: their sockets accept nothing, so they are not waited for again.
    let mut stuck = 0;
    let mut began = None;
    loop {
        let ticked = tokio::select! {
            () = wake.notified() => false,
            _ = timer.tick() => true,
        };
        let Some(shard) = shard.upgrade() else { return };
        let since = *began.get_or_insert_with(tokio::time::Instant::now);
        stuck = outboxes.woken().min(stuck);
        let work = AssertUnwindSafe(|| {
            let mut pass = shard.pass();
            if ticked {
                tick += 1;
                shard.tick(tick, ticks);
            }
            if ticked || trimming {
                trimming = shard.trim();
                pass.more |= trimming;
            }
            pass
        });
        // The locks guard plain maps and survive a panic; the end of a delivery task would go unnoticed.
        let pass = catch_unwind(work).unwrap_or_else(|_| {
            tracing::error!("a delivery pass panicked; its sessions continue from the log");
            shard.node.metrics.panics.add(1);
            shard.recover();
            Pass { more: true }
        });
        drop(shard);
        if pass.more {
            wake.notify_one();
            // The sockets get a turn before the next pass.
            yield_now().await;
            continue;
        }
        began = None;
        if max_delay.is_zero() {
            continue;
        }
        if outboxes.woken() > stuck && timeout(max_delay, outboxes.asked(stuck)).await.is_err() {
            stuck = outboxes.woken();
        }
        let pause = since.elapsed().min(max_delay);
        if pause >= SHORTEST_PAUSE {
            sleep(pause).await;
        }
    }
}
