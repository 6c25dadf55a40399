//! [`Members`]: the sessions of a shard by slot and by topic, and the delivery of log entries to them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    iter::successors,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    slice,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

#[cfg(feature = "opentelemetry")]
use crate::write_spans::RunSpans;
use crate::{
    CloseReason, Envelope, EventName, Position, Topic,
    direct::WriteBuffer,
    error::CursorError,
    initial::{InitialEntries, StartPoint},
    log::{Content, Entry, Resume, Start, tally::Tally},
    node::Node,
    outbox::{Accepted, TrySendError},
    session::state::{Begin, Named, SessionKind, SessionState, Stage},
    shard::{
        encoded_run::EncodedRun,
        initial::{announce_lost, initial_entries, newcomer_entries, send_cursor, send_initial},
        pass_stats::{PassStats, wall_time},
    },
    sync::{Mutex, lock},
    trace::{Sent, Watch},
    user::UserRef,
    wire::GapReason,
};

#[derive(Debug, Default)]
pub(super) struct Members {
    /// The sequence number in the log up to which live sessions have been served.
    pub(super) seq: u64,
    /// The bus was up, and `seq` is after the entries that were history then.
    pub(super) up: bool,
    pub(super) sessions: Slab<Member>,
    /// One slot of each user; the user's other slots are linked to it.
    pub(super) users: HashTable<u32>,
    pub(super) hasher: RandomState,
    /// The slots of the sessions in each topic, except `all` and users' own topics.
    pub(super) topics: HashMap<Topic, Vec<u32>>,
    /// Shared properties of sessions: one for each pair of transport and wire format.
    pub(super) kinds: Vec<Arc<SessionKind>>,
    /// Sessions that have yet to begin.
    pub(super) parked: Vec<Parked>,
    /// Sessions whose end waits for the log.
    pub(super) held: Vec<Held>,
    /// Sessions whose tokens end soon.
    pub(super) expiring: BTreeSet<(SystemTime, u32)>,
    /// The slots of sessions whose sockets the next passes have to write to; some may be free by now.
    pub(super) unflushed: Vec<u32>,
    /// Buffer of the last write.
    pub(super) gather: WriteBuffer,
}

/// A session whose end waits for the log.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) slot: u32,
    /// Time when its end was decided, while the position at which it ends is not known.
    pub(super) since: Option<Instant>,
    pub(super) ticks: u32,
}

/// A session that has yet to begin: the node's log is not available yet, or lags behind the client's cursor.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) slot: u32,
    pub(super) cursor: Option<Result<Position, CursorError>>,
    /// Time when it connected. Everything acknowledged before is in the log once the log has caught up to this time.
    pub(super) since: Instant,
    /// The end of the log when it connected.
    pub(super) came: u64,
    pub(super) ticks: u32,
    /// Topics of which the client has had nothing yet, sorted.
    pub(super) fresh: Box<[Topic]>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) session: Arc<SessionState>,
    /// [`NOT_LIVE`], [`BOUNDED`], and the first sequence number that it has yet to be served.
    state: u64,
    /// The slots of the same user's sessions before and after this one, or [`NO_SLOT`].
    before: u32,
    after: u32,
}

/// Flag of a session that reads the log itself; the pass serves the others.
const NOT_LIVE: u64 = 1 << 63;
/// Flag of a session whose history begins behind a position that the pass may not have reached.
const BOUNDED: u64 = 1 << 62;

const NO_SLOT: u32 = u32::MAX;

/// Number of sessions that are fetched from memory at once. From 4 to 32 there was no difference.
const AHEAD: usize = 8;

/// Runs `offer` on the members in these slots, at most [`AHEAD`].
fn visit(
    sessions: &mut Slab<Member>,
    slots: impl Iterator<Item = u32> + Clone,
    mut offer: impl FnMut(&mut Member),
) {
    let ahead = slots.clone().filter_map(|slot| sessions.get(slot as usize));
    ahead.for_each(|member| member.session.prefetch());
    for slot in slots {
        if let Some(member) = sessions.get_mut(slot as usize) {
            offer(member);
        }
    }
}

impl Member {
    /// Creates a session that is not live.
    pub(super) fn new(session: Arc<SessionState>, next: u64) -> Self {
        Self { session, state: next | NOT_LIVE, before: NO_SLOT, after: NO_SLOT }
    }

    /// Returns `true` if the pass serves it.
    pub(super) fn is_live(&self) -> bool {
        self.state & NOT_LIVE == 0
    }

    /// The first sequence number that it has yet to be served.
    pub(super) fn next(&self) -> u64 {
        self.state & !(NOT_LIVE | BOUNDED)
    }

    pub(super) fn set_live(&mut self, live: bool) {
        self.state = self.state & !NOT_LIVE | if live { 0 } else { NOT_LIVE };
    }

    pub(super) fn set_next(&mut self, next: u64) {
        self.state = next | self.state & (NOT_LIVE | BOUNDED);
    }

    /// Has the pass look at the history that the session may read, until it is behind all of its bounds.
    pub(super) fn bound(&mut self) {
        self.state |= BOUNDED;
    }

    /// Skips those of a run of entries that the session may not read. Returns `false` if there is nothing else in it.
    fn skip_unreadable(&mut self, first: u64, run: &[Arc<Entry>]) -> bool {
        let reads = self.session.reads();
        let readable = |entry: &Arc<Entry>| entry.is_for(self.session.id, self.session.transport(), &reads);
        let skipped = run.iter().position(readable).unwrap_or(run.len());
        if run.last().is_none_or(|last| reads.has_begun(last.position)) {
            self.state &= !BOUNDED;
        }
        self.set_next(self.next().max(first + skipped as u64));
        skipped < run.len()
    }

    /// Makes it not live. Returns `true` if it was live.
    pub(super) fn take_off(&mut self) -> bool {
        let live = self.is_live();
        self.state |= NOT_LIVE;
        live
    }
}

/// Maximum number of entries of one pass.
const PASS_ENTRIES: usize = 256;

/// Visited sessions after which a pass starts no further entry: about 10 ms.
const PASS_VISITS: usize = 100_000;

/// Maximum number of sockets that a pass writes to: about 40 ms.
const PASS_WRITES: usize = 8192;

impl Members {
    /// Fans out local sends and new entries of the log, up to the limits of one pass. Returns `true` if there is more.
    pub(super) fn pass(
        &mut self,
        node: &Node,
        local: &Mutex<Vec<Arc<Entry>>>,
        stats: &mut PassStats,
    ) -> bool {
        let log = &node.log;
        if !self.unflushed.is_empty() && !self.flush(stats) {
            return true;
        }
        let more_local = self.pass_local(local, stats);
        if !self.up {
            let Some(up) = log.up() else {
                return !self.flush(stats) || more_local;
            };
            // Earlier entries are history.
            self.up = true;
            self.seq = self.seq.max(up);
            self.settle(node, stats);
        }
        let read = log.read(self.seq, PASS_ENTRIES);
        if read.first > self.seq {
            // This worker was so late that its next entries have left the window.
            let missed = |member: &Member| member.is_live() && member.next() < read.first;
            for (_, member) in self.sessions.iter().filter(|(_, member)| missed(member)) {
                announce_lost(node, &member.session, self.seq, read.first, stats);
            }
        }
        self.seq = read.first;
        stats.arrived = read.entries.iter().find(|entry| entry.is_message()).map(|entry| entry.at);
        let mut entries = &read.entries[..];
        while stats.visits < PASS_VISITS && !entries.is_empty() {
            let run;
            (run, entries) = entries.split_at(self.run(entries, PASS_VISITS - stats.visits));
            let visits = stats.visits + run.len() * self.sessions.len();
            self.deliver(self.seq, run, entries.is_empty() || visits >= PASS_VISITS, stats);
            self.seq += run.len() as u64;
        }
        self.settle(node, stats);
        let flushed = self.flush(stats);
        !flushed || more_local || self.seq < log.end()
    }

    /// Fans out local sends. They have a limit of their own, so that neither path delays the other.
    fn pass_local(&mut self, local: &Mutex<Vec<Arc<Entry>>>, stats: &mut PassStats) -> bool {
        let waiting = mem::take(&mut *lock(local));
        let mut visits = 0;
        let mut waiting = waiting.into_iter();
        while visits < PASS_VISITS
            && let Some(entry) = waiting.next()
        {
            visits += self.deliver_local(&entry, stats);
        }
        if waiting.len() == 0 {
            return false;
        }
        lock(local).splice(..0, waiting);
        true
    }

    /// Adds a session to its user's topic. Returns `true` if it is the only one there.
    pub(super) fn link(&mut self, slot: u32) -> bool {
        let Self { users, sessions, hasher, .. } = self;
        let user = UserRef::from(sessions[slot as usize].session.user());
        let found =
            users.find_mut(hasher.hash_one(user), |slot| sessions[*slot as usize].session.is_of(user));
        let Some(first) = found else {
            let hash = |slot: &u32| hasher.hash_one(UserRef::from(sessions[*slot as usize].session.user()));
            users.insert_unique(hash(&slot), slot, hash);
            return true;
        };
        let after = mem::replace(first, slot);
        sessions[after as usize].before = slot;
        let member = &mut sessions[slot as usize];
        (member.before, member.after) = (NO_SLOT, after);
        false
    }

    /// Removes a session from its user's topic. Returns `true` if none is left there.
    pub(super) fn unlink(&mut self, slot: u32) -> bool {
        let Self { users, sessions, hasher, .. } = self;
        let member = &mut sessions[slot as usize];
        let (before, after) =
            (mem::replace(&mut member.before, NO_SLOT), mem::replace(&mut member.after, NO_SLOT));
        if after != NO_SLOT {
            sessions[after as usize].before = before;
        }
        if before != NO_SLOT {
            sessions[before as usize].after = after;
            return false;
        }
        let user = UserRef::from(sessions[slot as usize].session.user());
        if let Ok(mut first) = users.find_entry(hasher.hash_one(user), |first| *first == slot) {
            if after == NO_SLOT {
                first.remove();
            } else {
                *first.get_mut() = after;
            }
        }
        after == NO_SLOT
    }

    /// Returns `true` if the user has a session that is in the user's topic.
    pub(super) fn has_user(&self, user: UserRef<'_>) -> bool {
        let own = |slot: &u32| self.sessions[*slot as usize].session.is_of(user);
        self.users.find(self.hasher.hash_one(user), own).is_some()
    }

    /// Number of the user's own sessions.
    pub(super) fn count_user(&self, user: UserRef<'_>) -> usize {
        let own = |slot: &u32| self.sessions[*slot as usize].session.is_of(user);
        let first = self.users.find(self.hasher.hash_one(user), own).copied();
        let next = |slot: &u32| Some(self.sessions[*slot as usize].after).filter(|slot| *slot != NO_SLOT);
        successors(first, next).count()
    }

    /// The sequence number of the first entry that a session has yet to be served, in a pass or by reading the log.
    pub(super) fn next_of(&self, session: &SessionState) -> u64 {
        let member = &self.sessions[session.slot() as usize];
        let reading = session.outbox.catching_up().filter(|_| !member.is_live());
        reading.unwrap_or_else(|| member.next().max(self.seq))
    }

    /// Adds a session to a named topic. Returns its index there.
    pub(super) fn index(&mut self, topic: Topic, slot: u32) -> u32 {
        let slots = self.topics.entry(topic).or_default();
        slots.push(slot);
        u32::try_from(slots.len() - 1).expect("a worker has fewer than 2^32 sessions")
    }

    /// Removes the session at `index` from a named topic. Returns `true` if none is left there.
    pub(super) fn unindex(&mut self, Named { topic, index, .. }: &Named) -> bool {
        let Some(slots) = self.topics.get_mut(topic) else { return false };
        slots.swap_remove(*index as usize);
        if let Some(moved) = slots.get(*index as usize)
            && let Some(mut named) = self.sessions[*moved as usize].session.named()
            && let Some(moved) = named.iter_mut().find(|named| named.topic == *topic)
        {
            moved.index = *index;
        }
        let is_empty = slots.is_empty();
        if is_empty {
            self.topics.remove(topic);
        } else if slots.capacity() > 64 && slots.len() < slots.capacity() / 4 {
            slots.shrink_to(slots.len() * 2);
        }
        is_empty
    }

    /// Makes a catching-up session live, since it has reached the shard's sequence number: the pass serves it from
    /// here.
    pub(super) fn join(&mut self, session: &SessionState, seq: u64) {
        if session.stage() == Stage::Registered {
            let member = &mut self.sessions[session.slot() as usize];
            member.set_live(true);
            member.set_next(seq);
        }
        session.outbox.join();
    }

    /// Begins a session if its first position is known. Returns `true` if it has begun.
    pub(super) fn try_begin(&mut self, parked: &Parked, node: &Node, stats: &mut PassStats) -> bool {
        let log = &node.log;
        let Some(up) = log.up() else { return false };
        let start = match parked.cursor {
            // Entries that were in the log when the client connected, or are history, are not new to it. What passes have
            // served since then is.
            None => Start { seq: up.max(parked.came), gap: None, recovered: false },
            Some(Err(CursorError)) => Start::lost(self.seq, GapReason::Cursor),
            Some(Ok(cursor)) => {
                // Read first, so that it covers no entry that is missing from the log when the cursor is looked up.
                let caught_up = log.has_caught_up(parked.since);
                match log.resume(cursor) {
                    Resume::At(start) => start,
                    Resume::Ahead if caught_up || parked.ticks > PARKED_TICKS => {
                        Start::lost(self.seq, GapReason::Cursor)
                    }
                    Resume::Ahead => return false,
                }
            }
        };
        self.begin(parked, start, node, stats);
        true
    }

    fn begin(&mut self, parked: &Parked, start: Start, node: &Node, stats: &mut PassStats) {
        let (seq, log) = (self.seq, &node.log);
        let member = &mut self.sessions[parked.slot as usize];
        member.set_next(start.seq);
        member.set_live(start.seq >= seq);
        let session = Arc::clone(&member.session);
        if !member.is_live() {
            session.outbox.catch_up_from(start.seq);
        }
        let start_point = StartPoint { seq: start.seq, position: log.cursor_at(start.seq) };
        let initial = if !node.has_initial() {
            InitialEntries::new()
        } else if start.recovered {
            let (topics, early) = (session.topics(), session.early_topics());
            // The session's topics, whose number is limited, and not the client's list.
            let is_new = |topic: &&Topic| parked.fresh.binary_search(topic).is_ok() || early.contains(topic);
            initial_entries(node, &session, topics.iter().filter(is_new), start_point)
        } else {
            newcomer_entries(node, &session, start_point)
        };
        // It gets no new cursor before its initial entries: a connection that breaks in between must get them again.
        let cursor = start_point.position.filter(|_| initial.is_empty());
        let begin = match parked.cursor {
            None => Begin { cursor, recovered: None },
            // Its own cursor until the gap has been sent: a connection that breaks before that must not lose the gap.
            Some(cursor) => Begin { cursor: cursor.ok(), recovered: Some(start.recovered) },
        };
        session.set_begin(begin);
        stats.recoveries.count(begin.recovered);
        if let Some(trace) = &stats.trace {
            trace.begun(&session, start.gap, seq.saturating_sub(start.seq));
        }
        if let Some(reason) = start.gap {
            let since = match parked.cursor {
                Some(Ok(cursor)) if reason == GapReason::History => node.log.since_cursor(cursor),
                _ => None,
            };
            stats.announce(&session, reason, cursor, since);
        }
        // A client that asked for them learns by the heartbeat that there are no more.
        if !initial.is_empty() || !parked.fresh.is_empty() {
            send_initial(&session, &initial, stats);
            let own = parked.cursor.and_then(Result::ok).filter(|_| start.gap.is_none());
            let cursor = match own {
                // A gap in the log is yet to come.
                Some(own) if !start.recovered => Some(own),
                own => start_point.position.max(own),
            };
            send_cursor(node, &session, cursor);
        }
        session.outbox.wake();
    }

    /// Begins the sessions whose first position is known by now, and wakes those whose end waits for the log.
    pub(super) fn settle(&mut self, node: &Node, stats: &mut PassStats) {
        let log = &node.log;
        let mut kept = 0;
        while kept < self.parked.len() {
            let parked = self.parked.swap_remove(kept);
            match catch_unwind(AssertUnwindSafe(|| self.try_begin(&parked, node, stats))) {
                Ok(true) => {}
                Ok(false) => {
                    self.parked.push(parked);
                    let last = self.parked.len() - 1;
                    self.parked.swap(kept, last);
                    kept += 1;
                }
                Err(panic) => {
                    // It lacks some of its first frames. The others are still parked.
                    self.sessions[parked.slot as usize].session.outbox.close(CloseReason::Internal);
                    resume_unwind(panic);
                }
            }
        }
        for held in &mut self.held {
            let outbox = &self.sessions[held.slot as usize].session.outbox;
            if held.since.is_some_and(|since| log.has_caught_up(since))
                && let Some(after) = log.cursor_at(log.end())
            {
                held.since = None;
                outbox.hold_until(after);
            }
            outbox.wake();
        }
    }

    /// Removes everything that is kept for a slot that becomes free.
    pub(super) fn forget(&mut self, slot: u32) {
        self.parked.retain(|parked| parked.slot != slot);
        self.held.retain(|held| held.slot != slot);
    }

    /// Runs `offer` on every member that is in one of the envelope's topics and in its scope. Returns the number of
    /// visits: of members, and of topics, each of which is looked up.
    pub(super) fn each(&mut self, envelope: &Envelope, mut offer: impl FnMut(&mut Member)) -> usize {
        let Self { sessions, topics, users, hasher, .. } = self;
        let scope = envelope.scope();
        let mut visits = envelope.topics().len();
        let mut offer = |member: &mut Member| {
            visits += 1;
            if scope.covers(member.session.transport()) {
                offer(member);
            }
        };
        for topic in envelope.topics() {
            if topic.is_all() {
                let end = sessions.iter().next_back().map_or(0, |(slot, _)| slot as u32 + 1);
                for first in (0..end).step_by(AHEAD) {
                    visit(sessions, first..end.min(first + AHEAD as u32), &mut offer);
                }
                continue;
            }
            if let Some(user) = topic.as_user() {
                let own = |slot: &u32| sessions[*slot as usize].session.is_of(user);
                let mut next = users.find(hasher.hash_one(user), own).copied().unwrap_or(NO_SLOT);
                while let Some(member) = sessions.get_mut(next as usize) {
                    offer(member);
                    next = member.after;
                }
            }
            // A session of another user may have been added to this user's topic.
            if !topics.is_empty()
                && let Some(slots) = topics.get(topic)
            {
                slots.chunks(AHEAD).for_each(|slots| visit(sessions, slots.iter().copied(), &mut offer));
            }
        }
        visits
    }

    /// Number of consecutive entries, from the first on, that have the same targets, limited so that all sessions can
    /// get them within `visits` visits.
    fn run(&self, entries: &[Arc<Entry>], visits: usize) -> usize {
        let Content::Envelope(first) = &entries[0].content else { return 1 };
        // Its place in each outbox is counted.
        if entries[0].tally().is_some() {
            return 1;
        }
        let same = |entry: &&Arc<Entry>| match &entry.content {
            Content::Envelope(other) => {
                other.scope() == first.scope()
                    && other.topics() == first.topics()
                    && other.excluded() == first.excluded()
                    && entry.tally().is_none()
            }
            Content::Skip | Content::Gap(_) => false,
        };
        let most = visits.div_ceil(self.sessions.len().max(1));
        1 + entries[1..].iter().take(most - 1).take_while(same).count()
    }

    /// Delivers entries with the same topics and scope to their recipients. Fetching a session from memory costs about
    /// as much as all other work on it, so each session gets all entries at once. The last entries of a pass are
    /// written at once.
    fn deliver(&mut self, first: u64, run: &[Arc<Entry>], is_last: bool, stats: &mut PassStats) {
        let envelope = match &run[0].content {
            Content::Envelope(envelope) => envelope,
            Content::Skip => return,
            Content::Gap(reason) => return self.deliver_gap(first, *reason, &run[0], stats),
        };
        let (end, excluded) = (first + run.len() as u64, envelope.excluded());
        let (mut gather, mut unflushed) = (mem::take(&mut self.gather), mem::take(&mut self.unflushed));
        let mut encoded: SmallVec<[EncodedRun<'_>; 2]> = SmallVec::new();
        let tally = run[0].tally();
        #[cfg(feature = "opentelemetry")]
        let mut spans = RunSpans::of(first, run);
        let (delivered, behind) = (stats.delivered, stats.catch_ups);
        let visits = self.each(envelope, |member| {
            // A session in two of the topics has `next` past this sequence number at the second visit.
            if !member.is_live() || member.next() >= end {
                if let Some(tally) = tally.filter(|_| !member.is_live()) {
                    count_behind(tally, &run[0], &member.session);
                }
                return;
            }
            let session = &member.session;
            if excluded.is_some() && excluded == Some(session.id) {
                if let Some(trace) = &stats.trace {
                    run.iter().for_each(|entry| trace.dropped(session, entry, "excluded"));
                }
                member.set_next(end);
                return;
            }
            if member.state & BOUNDED != 0 && !member.skip_unreadable(first, run) {
                return;
            }
            let session = &member.session;
            let found = encoded.iter().position(|encoded| encoded.is_of(&session.kind));
            let index = found.unwrap_or_else(|| {
                encoded.push(EncodedRun::new(&session.kind, first, run, is_last));
                encoded.len() - 1
            });
            for (seq, reason) in encoded[index].left_out(member.next()) {
                stats.leave_out(reason, 1);
                session.count_left_out(1);
                if let Some(trace) = &stats.trace {
                    trace.left_out(session, &run[(seq - first) as usize], reason);
                }
            }
            let (frames, joined) = encoded[index].since(member.next());
            if frames.is_empty() {
                // Not twice, for a session in two of the topics.
                member.set_next(end);
                return;
            }
            let (taken, sent) = if is_last && stats.writes < PASS_WRITES {
                stats.writes += 1;
                session.outbox.send_run(frames, joined, &mut gather)
            } else {
                session.outbox.queue_run(frames)
            };
            stats.delivered += taken as u64;
            if let Some(trace) = &stats.trace
                && trace.is_on(session)
            {
                trace_run(trace, session, (first, run), frames, taken);
            }
            #[cfg(feature = "opentelemetry")]
            if let Some(spans) = &mut spans {
                spans.sent(session, frames[..taken].iter().map(|(seq, frame)| (*seq, frame.len())));
            }
            if let Some(tally) = tally {
                match sent {
                    Ok(_) => tally.queued(Arc::clone(session) as _, session.outbox.end()),
                    Err(TrySendError::Full) => tally.behind(session.id, Arc::clone(session) as _),
                    Err(TrySendError::Closed) => {}
                }
            }
            match sent {
                Ok(Accepted::Done) | Err(TrySendError::Closed) => {}
                Ok(Accepted::NeedsFlush) => unflushed.push(session.slot()),
                Err(TrySendError::Full) => stats.catch_ups += 1,
            }
            member.set_next(end);
            member.set_live(sent != Err(TrySendError::Full));
        });
        if let Some(trace) = &stats.trace {
            trace.fanned_out(run, stats.delivered - delivered, stats.catch_ups - behind);
        }
        #[cfg(feature = "opentelemetry")]
        stats.write_spans.extend(spans.into_iter().flat_map(RunSpans::passed));
        stats.visits += visits * run.len();
        (self.gather, self.unflushed) = (gather, unflushed);
    }

    /// Announces a gap in the log to every live session, each in a frame of its own, so that they do not reload their
    /// state at the same moment.
    fn deliver_gap(&mut self, seq: u64, reason: GapReason, entry: &Entry, stats: &mut PassStats) {
        let since = entry.since().and_then(wall_time);
        stats.visits += self.sessions.len();
        let waiting = |member: &&mut Member| member.is_live() && member.next() <= seq;
        for member in self.sessions.iter_mut().map(|(_, member)| member).filter(waiting) {
            let session = &member.session;
            let Some(frame) = session.wire().wire.gap(reason, entry.position, since, stats.delay()) else {
                if let Some(trace) = &stats.trace {
                    trace.gap(session, reason, false);
                }
                member.set_next(seq + 1);
                stats.gaps_unreported.count(reason);
                continue;
            };
            match session.outbox.queue_or_catch_up(&frame, seq) {
                Ok(accepted) => {
                    stats.gaps.count(reason);
                    if let Some(trace) = &stats.trace {
                        trace.gap(session, reason, true);
                    }
                    if accepted == Accepted::NeedsFlush {
                        self.unflushed.push(session.slot());
                    }
                    member.set_next(seq + 1);
                }
                Err(TrySendError::Full) => {
                    member.set_live(false);
                    stats.catch_ups += 1;
                }
                Err(TrySendError::Closed) => {}
            }
        }
    }

    /// Writes delivered frames to sockets that were taken over, all frames of one session at once. If there are too
    /// many, the next passes continue. Returns `true` if all were written.
    pub(super) fn flush(&mut self, stats: &mut PassStats) -> bool {
        let writes = PASS_WRITES.saturating_sub(stats.writes).min(self.unflushed.len());
        for slots in self.unflushed[..writes].chunks(AHEAD) {
            visit(&mut self.sessions, slots.iter().copied(), |member| {
                member.session.outbox.flush(&mut self.gather);
            });
        }
        self.unflushed.drain(..writes);
        stats.writes += writes;
        self.gather.clear();
        stats.sent_bytes += mem::take(&mut self.gather.sent);
        self.unflushed.is_empty()
    }

    fn deliver_local(&mut self, entry: &Arc<Entry>, stats: &mut PassStats) -> usize {
        let Content::Envelope(envelope) = &entry.content else {
            return 0;
        };
        // The text so far of a stream that the node did not know. Its session gets it once, as at a begin.
        let is_initial = envelope.message().event.as_str() == EventName::STREAM;
        let left_out = entry.left_out();
        let mut unflushed = mem::take(&mut self.unflushed);
        let mut served = HashSet::new();
        let several = envelope.topics().len() > 1;
        let visits = self.each(envelope, |member| {
            let session = &member.session;
            if envelope.excluded() == Some(session.id) {
                return;
            }
            if several && !served.insert(session.slot()) {
                return;
            }
            if let Some(reason) = left_out {
                if let Some(trace) = &stats.trace {
                    trace.left_out(session, entry, reason);
                }
                return stats.leave_out(reason, 1);
            }
            if is_initial {
                return send_initial(session, slice::from_ref(entry), stats);
            }
            let Some(frame) = entry.encode(session.wire()) else {
                return;
            };
            let notice = || {
                let since = Some(SystemTime::now());
                session.wire().wire.gap(GapReason::Overflow, None, since, stats.delay())
            };
            match session.outbox.queue_or_notice(frame, notice) {
                Ok(accepted) => {
                    stats.delivered += 1;
                    if let Some(trace) = &stats.trace {
                        let sent = Sent { position: None, envelope, before_end: 0, replayed: false };
                        trace.sent(session, sent);
                    }
                    if accepted == Accepted::NeedsFlush {
                        unflushed.push(session.slot());
                    }
                }
                Err(TrySendError::Full) => {
                    stats.local_dropped += 1;
                    if let Some(trace) = &stats.trace {
                        trace.dropped(session, entry, "overflow");
                    }
                }
                Err(TrySendError::Closed) => {}
            }
        });
        self.unflushed = unflushed;
        visits
    }
}

/// Tells traces what a session got of a run, `taken` frames of those that were for it.
fn trace_run(
    trace: &Watch,
    session: &Arc<SessionState>,
    (first, run): (u64, &[Arc<Entry>]),
    frames: &[(u64, &Bytes)],
    taken: usize,
) {
    let entry = |seq: u64| &run[(seq - first) as usize];
    let mut before_end: u64 = frames[..taken].iter().map(|(_, frame)| frame.len() as u64).sum();
    for (seq, frame) in &frames[..taken] {
        before_end -= frame.len() as u64;
        if let Some(envelope) = entry(*seq).envelope() {
            let position = entry(*seq).position;
            trace.sent(session, Sent { position, envelope, before_end, replayed: false });
        }
    }
    if let Some((seq, _)) = frames.get(taken)
        && session.outbox.closing().is_none()
    {
        trace.behind(session, entry(*seq));
    }
}

/// Counts a session that reads the log itself among those that an entry is for.
fn count_behind(tally: &Tally, entry: &Entry, session: &Arc<SessionState>) {
    let Content::Envelope(envelope) = &entry.content else { return };
    let is_meant = envelope.excluded() != Some(session.id)
        && session.begin().is_some()
        && session.outbox.closing().is_none()
        && entry.encode(session.wire()).is_some();
    if is_meant {
        tally.behind(session.id, Arc::clone(session) as _);
    }
}

/// Ticks after which a cursor that is ahead is not waited for any longer, in case the bus never reports that it has
/// caught up.
const PARKED_TICKS: u32 = 600;
