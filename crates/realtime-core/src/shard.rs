//! [`Shard`]: the sessions and topics of one worker, and the pass that fans the log out to them.
//!
//! Invariant: a session is *live* and served by the pass from its shard's place on, or it is *catching up* and
//! reads the log by itself. It changes sides only under the shard's lock and only at the shard's place, so nothing
//! is lost or doubled between the two.
//!
//! Lock order: shard, then a session's topics, then its outbox. The directory's lock is never held with another.

mod members;
#[cfg(test)]
mod tests;

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    task::{JoinHandle, yield_now},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    CloseReason, ConnectError, CursorError, GapReason, Position, Principal, SendError, Session, SessionId,
    Topic, Transport,
    log::{Content, Entry, Resume},
    outbox::Outbox,
    registry::Registry,
    session::SessionState,
    shard::members::{Member, Members, Tally, wants},
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
    members: Mutex<Members>,
    /// Local sends that wait for the next pass.
    local: Mutex<Vec<Arc<Entry>>>,
    wake: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// How many entries one pass takes before the sockets get their turn.
const PASS_ENTRIES: usize = 256;

/// About how long a connection whose body was woken will take to write: most of it is the system call.
const WRITE_COST: Duration = Duration::from_micros(5);

/// A shorter pause than this is none: timers have milliseconds.
const SHORTEST_PAUSE: Duration = Duration::from_micros(500);

/// How many entries a catching-up session looks at before others get their turn.
const CATCH_UP_ENTRIES: usize = 1024;

/// How many local sends wait for a pass.
const LOCAL_QUEUE: usize = 1024;

/// A closed session whose socket does not even take the farewell leaves the books after this many ticks.
const FAREWELL_TICKS: u32 = 3;

impl Shard {
    /// A shard whose passes somebody else runs.
    pub(crate) fn new(registry: Arc<Registry>) -> Arc<Self> {
        let members = Members { place: registry.log.end(), ..Members::default() };
        Arc::new(Self {
            registry,
            members: Mutex::new(members),
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
        let max_delay = registry.settings.fanout.max_delay;
        let shard = Self::new(registry);
        let task = tokio::spawn(run(Arc::downgrade(&shard), Arc::clone(&shard.wake), ticks, max_delay));
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

        let mut members = self.lock();
        let resume = cursor.map(|cursor| match cursor {
            Ok(cursor) => log.resume(cursor),
            Err(CursorError) => {
                Resume { place: members.place, gap: Some(GapReason::Cursor), recovered: false }
            }
        });
        let start = resume.map_or(members.place, |resume| resume.place);
        let live = start >= members.place;
        if !live {
            session.outbox.catch_up_from(start);
        }
        let slot = members.sessions.insert(Member { session: Arc::clone(&session), live, next: start });
        let slot = u32::try_from(slot).expect("a worker has fewer than 2^32 sessions");
        session.slot.store(slot, Ordering::Relaxed);
        for topic in topics {
            members.index(topic, slot);
        }
        let cursor = log.cursor_at(start);
        if let Some(reason) = resume.and_then(|resume| resume.gap) {
            let mut tally = Tally::default();
            tally.announce(&session, reason, cursor);
            tally.record(&self.registry);
        }
        drop(members);
        metrics.opened.add(1);
        self.registry.changed(&session.principal.user);
        tracing::debug!(session = %session.id, user = %session.principal.user, %transport, "session opened");
        Ok(Session::new(session, Arc::clone(self), cursor, resume.map(|resume| resume.recovered)))
    }

    /// Takes a session out. Only the first call does something.
    pub(crate) fn unregister(&self, session: &SessionState) {
        {
            let mut members = self.lock();
            if !session.registered.swap(false, Ordering::AcqRel) {
                return;
            }
            let slot = session.slot.load(Ordering::Relaxed);
            for topic in session.topics().iter() {
                members.unindex(topic, slot);
            }
            members.sessions.remove(slot as usize);
        }
        let Registry { directory, metrics, .. } = &*self.registry;
        directory.remove(session);
        self.registry.changed(&session.principal.user);
        let reason = session.outbox.closing().unwrap_or(CloseReason::Gone);
        metrics.closed.add(1);
        metrics.slow_consumers.add(u64::from(reason == CloseReason::SlowConsumer));
        tracing::debug!(session = %session.id, reason = reason.name(), "session ended");
    }

    pub(crate) fn subscribe(&self, session: &SessionState, topic: Topic) {
        let mut members = self.lock();
        // Checked under the lock, so that a slot that went to another session is never touched.
        if !topic.is_all() && session.registered.load(Ordering::Acquire) {
            let mut topics = session.topics();
            if !topics.contains(&topic) {
                topics.push(topic.clone());
                members.index(topic, session.slot.load(Ordering::Relaxed));
            }
        }
    }

    pub(crate) fn unsubscribe(&self, session: &SessionState, topic: &Topic) {
        let mut members = self.lock();
        if session.registered.load(Ordering::Acquire) {
            session.topics().retain(|other| other != topic);
            members.unindex(topic, session.slot.load(Ordering::Relaxed));
        }
    }

    /// Whether any of its sessions is in the topic.
    pub(crate) fn has_subscribers(&self, topic: &Topic) -> bool {
        self.lock().topics.contains_key(topic)
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

    /// A session has got a way past its body, or has lost it.
    pub(crate) fn count_direct(&self, attached: bool) {
        let metrics = &self.registry.metrics;
        if attached { metrics.direct_opened.add(1) } else { metrics.direct_closed.add(1) }
    }

    /// Fans out local sends and what is new in the log. Never waits.
    pub(crate) fn pass(&self) -> Pass {
        let log = &self.registry.log;
        let mut tally = Tally::default();
        let local = mem::take(&mut *self.local.lock().unwrap_or_else(PoisonError::into_inner));
        let mut members = self.lock();
        for entry in &local {
            members.deliver_local(entry, &mut tally);
        }
        let read = log.read(members.place, PASS_ENTRIES);
        if read.first > members.place {
            // This worker was so late that the window moved past it.
            let cursor = log.cursor_at(read.first);
            let missed = |member: &Member| member.live && member.next < read.first;
            for (_, member) in members.sessions.iter().filter(|(_, member)| missed(member)) {
                tally.announce(&member.session, GapReason::History, cursor);
            }
        }
        let end = read.first + read.entries.len() as u64;
        for (place, entry) in (read.first..).zip(&read.entries) {
            members.deliver(place, entry, place + 1 == end, &mut tally);
        }
        members.place = end;
        members.flush(&mut tally);
        let more = members.place < log.end();
        drop(members);
        let pass = Pass { more, woken: tally.woken };
        tally.record(&self.registry);
        pass
    }

    /// Moves a catching-up session on from `place`. Returns false when it looked at much and found nothing.
    pub(crate) fn catch_up(&self, session: &SessionState, place: u64) -> bool {
        let Registry { log, metrics, .. } = &*self.registry;
        let behind = {
            let mut members = self.lock();
            if place >= members.place {
                members.join(session, place);
                return true;
            }
            usize::try_from(members.place - place).unwrap_or(usize::MAX)
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
                Content::Envelope(_) | Content::Marker => 0,
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
        let mut members = self.lock();
        let cursor = log.cursor_at(members.place);
        let mut heartbeats: [Option<Bytes>; MAX_WIRES] = Default::default();
        for (slot, member) in &mut members.sessions {
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
        drop(members);
        for session in evicted {
            self.unregister(&session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pass has left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    /// There is more in the log.
    pub(crate) more: bool,
    /// How many connections write when it is their turn.
    pub(crate) woken: u32,
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// The delivery task of a shard, which ends with it.
///
/// After a pass it pauses for about as long as the pass and the writes that it causes take, up to `max_delay`. So a
/// burst costs each connection one write for all that was published meanwhile, and what comes alone never waits.
async fn run(shard: Weak<Shard>, wake: Arc<Notify>, ticks: Ticks, max_delay: Duration) {
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
        let began = Instant::now();
        let pass = shard.pass();
        drop(shard);
        if pass.more {
            wake.notify_one();
            // The sockets get their turn before the next pass.
            yield_now().await;
            continue;
        }
        let pause = (began.elapsed() + WRITE_COST * pass.woken).min(max_delay);
        if pause >= SHORTEST_PAUSE {
            sleep(pause).await;
        }
    }
}
