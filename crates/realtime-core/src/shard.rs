//! [`Shard`]: the sessions and topics of one worker, and the pass that fans the log out to them.
//!
//! Invariant: a session is *live* and served by the pass from its shard's place on, or it is *catching up* and
//! reads the log by itself. It changes sides only under the shard's lock and only at the shard's place, so nothing
//! is lost or doubled between the two.
//!
//! Lock order: shard, then a session's topics, then its outbox. The directory's lock is never held with another.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use slab::Slab;
use tokio::{
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::{MissedTickBehavior, interval},
};

use crate::{
    CloseReason, ConnectError, CursorError, Envelope, GapReason, Position, Principal, SendError, Session,
    SessionId, Topic, Transport,
    log::{Content, Entry, Resume},
    outbox::{Offer, Outbox},
    registry::Registry,
    session::SessionState,
    ticks::Ticks,
    wire::{MAX_WIRES, WireSlot},
};

/// The sessions of one worker thread. One task on that worker's runtime delivers to them.
///
/// It lives as long as something holds it: a transport's routes, or one of its sessions. The last drop ends its
/// task.
#[derive(Debug)]
pub struct Shard {
    registry: Arc<Registry>,
    state: Mutex<State>,
    /// Local sends that wait for the next pass.
    local: Mutex<Vec<Arc<Entry>>>,
    wake: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    /// The place in the log up to which live sessions have been served.
    place: u64,
    members: Slab<Member>,
    /// The slots of the sessions in each topic but `all`, ascending.
    topics: HashMap<Topic, Vec<u32>>,
}

#[derive(Debug)]
struct Member {
    session: Arc<SessionState>,
    /// Served by the pass; otherwise it reads the log by itself.
    live: bool,
    /// The first place that it still has to get.
    next: u64,
}

/// What one pass did, added to the metrics at its end.
#[derive(Debug, Default)]
struct Tally {
    delivered: u64,
    catch_ups: u64,
    gaps: u64,
    untold_gaps: u64,
    local_lost: u64,
}

/// How many entries one pass takes before the sockets get their turn.
const PASS_ENTRIES: usize = 64;

/// How many entries a catching-up session looks at before others get their turn.
const CATCH_UP_ENTRIES: usize = 1024;

/// How many local sends wait for a pass.
const LOCAL_QUEUE: usize = 1024;

/// A closed session whose socket does not even take the farewell leaves the books after this many ticks.
const FAREWELL_TICKS: u32 = 3;

impl Shard {
    /// A shard whose passes somebody else runs.
    pub(crate) fn new(registry: Arc<Registry>) -> Arc<Self> {
        let state = State { place: registry.log.end(), ..State::default() };
        Arc::new(Self {
            registry,
            state: Mutex::new(state),
            local: Mutex::default(),
            wake: Arc::default(),
            task: Mutex::default(),
        })
    }

    /// A shard with its delivery task on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn spawn(registry: Arc<Registry>) -> Arc<Self> {
        let ticks = Ticks::new(&registry.settings);
        let shard = Self::new(registry);
        let task = tokio::spawn(run(Arc::downgrade(&shard), Arc::clone(&shard.wake), ticks));
        *shard.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        shard
    }

    /// There is something new in the log.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes a connection in. With a cursor it goes on where the client stood.
    pub(crate) fn register(
        self: &Arc<Self>,
        principal: Principal,
        transport: Transport,
        wire: WireSlot,
        cursor: Option<Result<Position, CursorError>>,
    ) -> Result<Session, ConnectError> {
        let Registry { log, settings, directory, metrics, .. } = &*self.registry;
        let mut topics = vec![Topic::user(&principal.user)];
        topics.extend(principal.topics.iter().filter(|topic| !topic.is_all()).cloned());
        topics.sort();
        topics.dedup();
        let session = Arc::new(SessionState {
            id: SessionId::random(),
            transport,
            principal,
            since: SystemTime::now(),
            wire,
            outbox: Outbox::new(&settings.outbox),
            topics: Mutex::new(topics.clone()),
            shard: Arc::downgrade(self),
            slot: AtomicU32::default(),
            heard: AtomicBool::new(true),
            silent_ticks: AtomicU32::default(),
            registered: AtomicBool::new(true),
        });
        directory.insert(&session, &settings.limits)?;

        let mut state = self.lock();
        let resume = cursor.map(|cursor| match cursor {
            Ok(cursor) => log.resume(cursor),
            Err(CursorError) => Resume { place: state.place, gap: Some(GapReason::Cursor), recovered: false },
        });
        let start = resume.map_or(state.place, |resume| resume.place);
        let live = start >= state.place;
        if !live {
            session.outbox.catch_up_from(start);
        }
        let slot = state.members.insert(Member { session: Arc::clone(&session), live, next: start });
        let slot = u32::try_from(slot).expect("a worker has fewer than 2^32 sessions");
        session.slot.store(slot, Ordering::Relaxed);
        for topic in topics {
            state.index(topic, slot);
        }
        let cursor = log.cursor_at(start);
        if let Some(reason) = resume.and_then(|resume| resume.gap) {
            let mut tally = Tally::default();
            tally.announce(&session, reason, cursor);
            tally.record(&self.registry);
        }
        drop(state);
        metrics.opened.add(1);
        tracing::debug!(session = %session.id, user = %session.principal.user, %transport, "session opened");
        Ok(Session::new(session, Arc::clone(self), cursor, resume.map(|resume| resume.recovered)))
    }

    /// Takes a session out. Only the first call does something.
    pub(crate) fn unregister(&self, session: &SessionState) {
        {
            let mut state = self.lock();
            if !session.registered.swap(false, Ordering::AcqRel) {
                return;
            }
            let slot = session.slot.load(Ordering::Relaxed);
            for topic in session.topics().iter() {
                state.unindex(topic, slot);
            }
            state.members.remove(slot as usize);
        }
        let Registry { directory, metrics, .. } = &*self.registry;
        directory.remove(session);
        let reason = session.outbox.closing().unwrap_or(CloseReason::Gone);
        metrics.closed.add(1);
        metrics.slow_consumers.add(u64::from(reason == CloseReason::SlowConsumer));
        tracing::debug!(session = %session.id, reason = reason.name(), "session ended");
    }

    pub(crate) fn subscribe(&self, session: &SessionState, topic: Topic) {
        let mut state = self.lock();
        // Checked under the lock, so that a slot that went to another session is never touched.
        if !topic.is_all() && session.registered.load(Ordering::Acquire) {
            let mut topics = session.topics();
            if !topics.contains(&topic) {
                topics.push(topic.clone());
                state.index(topic, session.slot.load(Ordering::Relaxed));
            }
        }
    }

    pub(crate) fn unsubscribe(&self, session: &SessionState, topic: &Topic) {
        let mut state = self.lock();
        if session.registered.load(Ordering::Acquire) {
            session.topics().retain(|other| other != topic);
            state.unindex(topic, session.slot.load(Ordering::Relaxed));
        }
    }

    /// Queues a local send for the next pass.
    ///
    /// # Errors
    /// [`SendError::Overloaded`] when too many wait already.
    pub(crate) fn send_local(&self, entry: Arc<Entry>) -> Result<(), SendError> {
        {
            let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            if local.len() >= LOCAL_QUEUE {
                return Err(SendError::Overloaded);
            }
            local.push(entry);
        }
        self.wake();
        Ok(())
    }

    /// Fans out local sends and what is new in the log. Never waits. Returns whether there is more.
    pub(crate) fn pass(&self) -> bool {
        let log = &self.registry.log;
        let mut tally = Tally::default();
        let local = mem::take(&mut *self.local.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.lock();
        for entry in &local {
            state.deliver_local(entry, &mut tally);
        }
        let read = log.read(state.place, PASS_ENTRIES);
        if read.first > state.place {
            // This worker was so late that the window moved past it.
            let cursor = log.cursor_at(read.first);
            let missed = |member: &Member| member.live && member.next < read.first;
            for (_, member) in state.members.iter().filter(|(_, member)| missed(member)) {
                tally.announce(&member.session, GapReason::History, cursor);
            }
        }
        for (place, entry) in (read.first..).zip(&read.entries) {
            state.deliver(place, entry, &mut tally);
        }
        state.place = read.first + read.entries.len() as u64;
        let more = state.place < log.end();
        drop(state);
        tally.record(&self.registry);
        more
    }

    /// Moves a catching-up session on from `place`. Returns false when it looked at much and found nothing.
    pub(crate) fn catch_up(&self, session: &SessionState, place: u64) -> bool {
        let Registry { log, metrics, .. } = &*self.registry;
        let behind = {
            let mut state = self.lock();
            if place >= state.place {
                state.join(session, place);
                return true;
            }
            usize::try_from(state.place - place).unwrap_or(usize::MAX)
        };
        let read = log.read(place, CATCH_UP_ENTRIES.min(behind));
        let mut tally = Tally::default();
        if read.first > place {
            tally.announce(session, GapReason::History, log.cursor_at(read.first));
        }
        let (mut next, mut replayed) = (read.first, 0);
        let topics = session.topics();
        let mut refill = session.outbox.refill();
        for entry in &read.entries {
            let gap = match &entry.content {
                Content::Envelope(envelope) if !wants(envelope, session.transport, &topics) => {
                    next += 1;
                    continue;
                }
                Content::Envelope(_) => 0,
                Content::Gap(_) => 1,
            };
            match entry.encode(&session.wire) {
                Some(frame) if !refill.put(frame) => break,
                Some(_) => {
                    tally.gaps += gap;
                    replayed += 1 - gap;
                }
                None => tally.untold_gaps += gap,
            }
            next += 1;
        }
        refill.resume_at(next);
        drop(topics);
        let found = replayed + tally.gaps > 0 || read.entries.len() < CATCH_UP_ENTRIES;
        metrics.replayed.add(replayed);
        tally.record(&self.registry);
        found
    }

    /// What time brings: heartbeats, ends of tokens, stalled sockets, silent clients.
    fn tick(&self, tick: u64, ticks: Ticks) {
        let log = &self.registry.log;
        log.trim();
        let now = SystemTime::now();
        let mut evicted = Vec::new();
        let mut state = self.lock();
        let cursor = log.cursor_at(state.place);
        let mut heartbeats: [Option<Bytes>; MAX_WIRES] = Default::default();
        for (slot, member) in &mut state.members {
            let session = &member.session;
            let stalled = session.outbox.stalled_ticks();
            if session.outbox.closing().is_some() {
                if stalled >= FAREWELL_TICKS {
                    evicted.push(Arc::clone(session));
                }
                continue;
            }
            let silent = session.silent_ticks();
            let wire = &session.wire.wire;
            if session.principal.expires_at.is_some_and(|end| end <= now) {
                session.outbox.close(CloseReason::TokenExpired);
            } else if stalled > ticks.max_stall {
                session.outbox.close(CloseReason::SlowConsumer);
                evicted.push(Arc::clone(session));
            } else if wire.answers_heartbeat() && silent > ticks.max_silence {
                session.outbox.close(CloseReason::NoPong);
            } else if member.live && slot as u64 % ticks.per_heartbeat == tick % ticks.per_heartbeat {
                let heartbeat = heartbeats[session.wire.index].get_or_insert_with(|| wire.heartbeat(cursor));
                // A full outbox has frames enough to keep the connection alive.
                session.outbox.offer(heartbeat);
            }
        }
        drop(state);
        for session in evicted {
            self.unregister(&session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl State {
    fn index(&mut self, topic: Topic, slot: u32) {
        let slots = self.topics.entry(topic).or_default();
        if let Err(index) = slots.binary_search(&slot) {
            slots.insert(index, slot);
        }
    }

    fn unindex(&mut self, topic: &Topic, slot: u32) {
        if let Some(slots) = self.topics.get_mut(topic) {
            if let Ok(index) = slots.binary_search(&slot) {
                slots.remove(index);
            }
            if slots.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// A catching-up session has reached the shard's place: the pass serves it from here.
    fn join(&mut self, session: &SessionState, place: u64) {
        if session.registered.load(Ordering::Acquire) {
            let member = &mut self.members[session.slot.load(Ordering::Relaxed) as usize];
            member.live = true;
            member.next = place;
        }
        session.outbox.join();
    }

    /// Runs `offer` on every member that is in one of the envelope's topics and of its scope.
    fn each(&mut self, envelope: &Envelope, mut offer: impl FnMut(&mut Member)) {
        let Self { members, topics, .. } = self;
        let scope = envelope.scope();
        let mut offer = |member: &mut Member| {
            if scope.covers(member.session.transport) {
                offer(member);
            }
        };
        for topic in envelope.topics() {
            if topic.is_all() {
                members.iter_mut().for_each(|(_, member)| offer(member));
            } else if let Some(slots) = topics.get(topic) {
                slots.iter().for_each(|slot| offer(&mut members[*slot as usize]));
            }
        }
    }

    fn deliver(&mut self, place: u64, entry: &Entry, tally: &mut Tally) {
        let mut offer = |member: &mut Member| {
            // A session in two of the topics has `next` past this place the second time.
            if !member.live || member.next > place {
                return;
            }
            member.next = place + 1;
            let gap = u64::from(matches!(entry.content, Content::Gap(_)));
            let Some(frame) = entry.encode(&member.session.wire) else {
                tally.untold_gaps += gap;
                return;
            };
            match member.session.outbox.offer_or_catch_up(frame, place) {
                Offer::Taken => {
                    tally.gaps += gap;
                    tally.delivered += 1 - gap;
                }
                Offer::Full => {
                    member.live = false;
                    tally.catch_ups += 1;
                }
                Offer::Closed => {}
            }
        };
        match &entry.content {
            Content::Envelope(envelope) => self.each(envelope, offer),
            Content::Gap(_) => self.members.iter_mut().for_each(|(_, member)| offer(member)),
        }
    }

    fn deliver_local(&mut self, entry: &Entry, tally: &mut Tally) {
        let Content::Envelope(envelope) = &entry.content else {
            return;
        };
        let mut served: Vec<u32> = Vec::new();
        let several = envelope.topics().len() > 1;
        self.each(envelope, |member| {
            let session = &member.session;
            if several {
                let slot = session.slot.load(Ordering::Relaxed);
                match served.binary_search(&slot) {
                    Ok(_) => return,
                    Err(index) => served.insert(index, slot),
                }
            }
            let Some(frame) = entry.encode(&session.wire) else {
                return;
            };
            let notice = || session.wire.wire.gap(GapReason::Overflow, None);
            match session.outbox.offer_or_notice(frame, notice) {
                Offer::Taken => tally.delivered += 1,
                Offer::Full => tally.local_lost += 1,
                Offer::Closed => {}
            }
        });
    }
}

impl Tally {
    /// Tells a session that something is missing, or counts that it can't be told.
    fn announce(&mut self, session: &SessionState, reason: GapReason, cursor: Option<Position>) {
        match session.wire.wire.gap(reason, cursor) {
            Some(frame) => {
                session.outbox.force(frame);
                self.gaps += 1;
            }
            None => self.untold_gaps += 1,
        }
    }

    fn record(self, registry: &Registry) {
        let metrics = &registry.metrics;
        metrics.delivered.add(self.delivered);
        metrics.catch_ups.add(self.catch_ups);
        metrics.gaps.add(self.gaps);
        metrics.untold_gaps.add(self.untold_gaps);
        metrics.local_lost.add(self.local_lost);
    }
}

/// Whether a session of this transport and these topics is meant.
fn wants(envelope: &Envelope, transport: Transport, topics: &[Topic]) -> bool {
    envelope.scope().covers(transport)
        && envelope.topics().iter().any(|topic| topic.is_all() || topics.contains(topic))
}

/// The delivery task of a shard, which ends with it.
async fn run(shard: Weak<Shard>, wake: Arc<Notify>, ticks: Ticks) {
    let mut timer = interval(ticks.period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = 0_u64;
    loop {
        let ticked = tokio::select! {
            () = wake.notified() => false,
            _ = timer.tick() => true,
        };
        let Some(shard) = shard.upgrade() else { return };
        if ticked {
            tick += 1;
            shard.tick(tick, ticks);
        }
        if shard.pass() {
            shard.wake();
            drop(shard);
            // The sockets get their turn before the next pass.
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Limits, Message, Outbound, Scope, Settings, Wire, limits::History, limits::OutboxLimits};

    const TRANSPORT: Transport = Transport::new("test");

    /// Frames that a test can read: `m<epoch>.<offset> <text>`, `g<cursor>`, `h<cursor>`.
    #[derive(Debug)]
    struct PlainWire;

    fn cursor_text(cursor: Option<Position>) -> String {
        cursor.map_or_else(|| "-".to_owned(), |cursor| cursor.to_string())
    }

    impl Wire for PlainWire {
        fn name(&self) -> &'static str {
            "plain"
        }

        fn message(&self, message: &Message, position: Option<Position>) -> Bytes {
            format!("m{} {}", cursor_text(position), message.data).into()
        }

        fn gap(&self, _: GapReason, cursor: Option<Position>) -> Option<Bytes> {
            Some(format!("g{}", cursor_text(cursor)).into())
        }

        fn heartbeat(&self, cursor: Option<Position>) -> Bytes {
            format!("h{}", cursor_text(cursor)).into()
        }

        fn answers_heartbeat(&self) -> bool {
            true
        }
    }

    fn node(settings: Settings) -> (Arc<Registry>, Arc<Shard>) {
        let registry = Arc::new(Registry::new(settings));
        registry.log.begin(Some(Position { epoch: 1, offset: 0 }));
        let shard = Shard::new(Arc::clone(&registry));
        (registry, shard)
    }

    fn connect(shard: &Arc<Shard>, user: i64, cursor: Option<Position>) -> Session {
        let wire: Arc<dyn Wire> = Arc::new(PlainWire);
        let wire = shard.registry.wire(&wire).unwrap();
        let principal = Principal::new(user.into(), &user.to_string());
        shard.register(principal, TRANSPORT, wire, cursor.map(Ok)).unwrap()
    }

    fn drain(session: &mut Session) -> Vec<String> {
        let mut frames = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        // A session that looked at much in vain asks to be polled again.
        for _ in 0..1000 {
            match session.poll_next(&mut cx) {
                Poll::Ready(Outbound::Frame(frame)) => {
                    frames.push(String::from_utf8(frame.to_vec()).unwrap())
                }
                Poll::Ready(Outbound::Close(reason)) => {
                    frames.push(format!("c{}", reason.name()));
                    return frames;
                }
                Poll::Pending => {}
            }
        }
        frames
    }

    fn publish(registry: &Registry, offset: u64, envelope: Envelope) {
        registry.log.push(Some(Position { epoch: 1, offset }), Arc::new(envelope));
    }

    fn to_user(user: i64, text: &str) -> Envelope {
        Envelope::to_users([&user.into()], Scope::Both, Message::text(text.to_owned())).unwrap()
    }

    fn to_all(text: &str) -> Envelope {
        Envelope::broadcast(Scope::Both, Message::text(text.to_owned()))
    }

    #[test]
    fn a_session_in_two_of_the_topics_gets_the_message_once() {
        let (registry, shard) = node(Settings::default());
        let mut session = connect(&shard, 1, None);
        session.handle().subscribe(Topic::new("role:admin").unwrap());
        let topics = [Topic::all(), Topic::user(&1.into()), Topic::new("role:admin").unwrap()];
        let envelope = Envelope::to_topics(topics, Scope::Both, Message::text("x")).unwrap();
        publish(&registry, 1, envelope.clone());
        shard.send_local(Arc::new(Entry::new(None, Content::Envelope(Arc::new(envelope))))).unwrap();
        while shard.pass() {}
        assert_eq!(drain(&mut session), ["m- x", "m1.1 x"]);
    }

    #[test]
    fn a_scope_and_a_topic_choose_who_gets_it() {
        let (registry, shard) = node(Settings::default());
        let (mut one, mut two) = (connect(&shard, 1, None), connect(&shard, 2, None));
        let topic = Topic::new("order:42").unwrap();
        publish(&registry, 1, to_user(1, "mine"));
        let other = Scope::Only(Transport::new("other"));
        publish(&registry, 2, Envelope::broadcast(other, Message::text("not for us")));
        shard.pass();
        two.handle().subscribe(topic.clone());
        publish(
            &registry,
            3,
            Envelope::to_topics([topic.clone()], Scope::Both, Message::text("order")).unwrap(),
        );
        shard.pass();
        two.handle().unsubscribe(&topic);
        publish(&registry, 4, Envelope::to_topics([topic], Scope::Both, Message::text("late")).unwrap());
        shard.pass();
        assert_eq!(drain(&mut one), ["m1.1 mine"]);
        assert_eq!(drain(&mut two), ["m1.3 order"]);
    }

    #[test]
    fn a_dropped_session_leaves_no_trace_and_touches_no_other() {
        let (registry, shard) = node(Settings::default());
        let first = connect(&shard, 1, None);
        let late = first.handle();
        drop(first);
        // The second session gets the first one's slot.
        let mut second = connect(&shard, 1, None);
        late.close(CloseReason::Kicked);
        late.subscribe(Topic::new("role:admin").unwrap());
        publish(&registry, 1, to_user(1, "x"));
        publish(
            &registry,
            2,
            Envelope::to_topics([Topic::new("role:admin").unwrap()], Scope::Both, Message::text("y"))
                .unwrap(),
        );
        shard.pass();
        assert_eq!(drain(&mut second), ["m1.1 x"]);
        drop(second);
        assert_eq!(registry.directory.count(), (0, 0));
        assert!(shard.lock().topics.is_empty() && shard.lock().members.is_empty());
    }

    #[test]
    fn limits_refuse_the_newcomer_and_spare_the_others() {
        let limits = Limits { max_connections: 3, max_connections_per_user: 2, ..Limits::default() };
        let (_, shard) = node(Settings { limits, ..Settings::default() });
        let wire: Arc<dyn Wire> = Arc::new(PlainWire);
        let wire = shard.registry.wire(&wire).unwrap();
        let try_connect = |user: i64| {
            shard
                .register(Principal::new(user.into(), "t"), TRANSPORT, wire.clone(), None)
                .map_err(|e| e.to_string())
        };
        let _kept = (try_connect(1).unwrap(), try_connect(1).unwrap());
        assert_eq!(try_connect(1).unwrap_err(), "user 1 has reached 2 connections");
        let _third = try_connect(2).unwrap();
        assert_eq!(try_connect(3).unwrap_err(), "this node has reached its 3 connections");
    }

    #[test]
    fn a_tick_ends_what_has_to_end_and_only_that() {
        let (_, shard) = node(Settings::default());
        let ticks = Ticks { max_stall: 2, max_silence: 4, per_heartbeat: 1, period: Duration::from_secs(1) };
        let mut healthy = connect(&shard, 1, None);
        let mut silent = connect(&shard, 2, None);
        let stalled = connect(&shard, 3, None);
        let mut expired = shard
            .register(
                Principal { expires_at: Some(SystemTime::now()), ..Principal::new(4.into(), "t") },
                TRANSPORT,
                silent.handle().0.wire.clone(),
                None,
            )
            .unwrap();
        for tick in 1..=6 {
            shard.tick(tick, ticks);
            healthy.heard();
            assert_eq!(drain(&mut healthy), ["h1.0"]);
            if tick == 1 {
                assert_eq!(drain(&mut expired), ["ctoken-expired"]);
                assert_eq!(drain(&mut silent), ["h1.0"]);
            }
            if tick == 6 {
                assert_eq!(drain(&mut silent).last().map(String::as_str), Some("cno-pong"));
            } else if tick > 1 {
                drain(&mut silent);
            }
        }
        assert_eq!(stalled.handle().closing(), Some(CloseReason::SlowConsumer));
        assert!(!shard.registry.directory.any(&3.into(), |_| true), "a stalled socket holds no books open");
        assert_eq!(healthy.handle().closing(), None);
    }

    #[test]
    fn a_worker_that_missed_the_window_says_so() {
        let history = History { max_messages: 2, ..History::default() };
        let (registry, shard) = node(Settings { history, ..Settings::default() });
        let mut session = connect(&shard, 1, None);
        for offset in 1..=5 {
            publish(&registry, offset, to_all("x"));
        }
        while shard.pass() {}
        assert_eq!(drain(&mut session), ["g1.3", "m1.4 x", "m1.5 x"]);
    }

    /// What happens in one step of the model.
    #[derive(Debug, Clone)]
    enum Step {
        /// Somebody publishes to one user, or to all (`None`).
        Publish(Option<i64>),
        /// The bus skips positions.
        Skip(u64),
        Pass,
        /// A client's socket takes up to so many frames.
        Read(usize, usize),
        /// A client goes away and comes back with its cursor.
        Reconnect(usize),
        /// A client goes away and comes back with nothing.
        Fresh(usize),
    }

    const CLIENTS: usize = 4;

    fn step() -> impl Strategy<Value = Step> {
        let client = 0..CLIENTS;
        prop_oneof![
            6 => proptest::option::of(0..2_i64).prop_map(Step::Publish),
            1 => (1..4_u64).prop_map(Step::Skip),
            4 => Just(Step::Pass),
            5 => (client.clone(), 1..12_usize).prop_map(|(client, frames)| Step::Read(client, frames)),
            1 => client.clone().prop_map(Step::Reconnect),
            1 => client.prop_map(Step::Fresh),
        ]
    }

    /// A client as the model sees it: it knows only what it was sent.
    struct Client {
        session: Session,
        user: i64,
        /// It has everything up to here, or was told of a gap.
        has: u64,
    }

    impl Client {
        /// Reads up to `frames` frames and checks each against the list of all that was published.
        fn read(
            &mut self,
            frames: usize,
            published: &HashMap<u64, Option<i64>>,
        ) -> Result<(), TestCaseError> {
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..frames {
                let Poll::Ready(Outbound::Frame(frame)) = self.session.poll_next(&mut cx) else {
                    break;
                };
                let frame = String::from_utf8(frame.to_vec()).unwrap();
                let (kind, rest) = frame.split_at(1);
                let offset = rest.split(' ').next().unwrap().parse::<Position>().unwrap().offset;
                match kind {
                    "m" => {
                        prop_assert!(offset > self.has, "offset {offset} came after {}", self.has);
                        let mine = |offset: u64| match published.get(&offset) {
                            Some(target) => target.is_none_or(|user| user == self.user),
                            None => true,
                        };
                        prop_assert!(mine(offset), "offset {offset} is for another user");
                        for missing in self.has + 1..offset {
                            prop_assert!(!mine(missing), "offset {missing} is missing without a gap");
                        }
                    }
                    "g" => prop_assert!(offset >= self.has, "a gap up to {offset} after {}", self.has),
                    _ => unreachable!("no other frames here"),
                }
                self.has = offset;
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Against a plain list of what was published: each session sees its messages in order, none twice, and
        /// none missing without a gap, however it stalls, reconnects or falls out of the window.
        #[test]
        fn sessions_see_everything_in_order_or_a_gap(
            steps in proptest::collection::vec(step(), 1..200),
            window in 3..40_usize,
            outbox in 1..6_usize,
        ) {
            let (registry, shard) = node(Settings {
                history: History { max_messages: window, ..History::default() },
                outbox: OutboxLimits { max_messages: outbox, ..OutboxLimits::default() },
                ..Settings::default()
            });
            let mut published = HashMap::new();
            let mut last = 0;
            let open = |user: i64, cursor: Option<u64>| {
                let cursor = cursor.map(|offset| Position { epoch: 1, offset });
                let session = connect(&shard, user, cursor);
                let has = cursor.or(session.cursor()).unwrap().offset;
                Client { session, user, has }
            };
            let mut clients: Vec<Client> = (0..CLIENTS as i64).map(|n| open(n % 2, None)).collect();
            for step in steps {
                match step {
                    Step::Publish(target) => {
                        last += 1;
                        published.insert(last, target);
                        let text = last.to_string();
                        publish(&registry, last, target.map_or_else(|| to_all(&text), |user| to_user(user, &text)));
                    }
                    Step::Skip(lost) => last += lost,
                    Step::Pass => {
                        shard.pass();
                    }
                    Step::Read(client, frames) => clients[client].read(frames, &published)?,
                    Step::Reconnect(client) => {
                        let Client { user, has, .. } = clients[client];
                        clients[client] = open(user, Some(has));
                    }
                    Step::Fresh(client) => clients[client] = open(clients[client].user, None),
                }
            }
            // At the end all sockets take everything.
            while shard.pass() {}
            for client in &mut clients {
                for _ in 0..CATCH_UP_ENTRIES {
                    client.read(1000, &published)?;
                    shard.pass();
                }
                let missing: Vec<_> = (client.has + 1..=last)
                    .filter(|offset| published.get(offset).is_some_and(|to| to.is_none_or(|user| user == client.user)))
                    .collect();
                prop_assert!(missing.is_empty(), "{missing:?} never came");
            }
        }
    }
}
