//! [`Log`]: the window of recent envelopes, the queue of all sessions and the source of replay.
//!
//! Every entry has a *sequence number*, which is dense and local to this node. Shards and sessions hold sequence
//! numbers; clients hold a [`Position`], which the bus assigns and which is the same on all nodes.

mod entry;
pub(crate) mod retained;
pub(crate) mod tally;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    hash::RandomState,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

pub(crate) use self::entry::{Content, Entry, LeftOut, OwnTopics};
use self::{entry::Charge, retained::Retained};
use crate::{
    Envelope, Position,
    metrics::HistorySnapshot,
    settings::{History, RetainedLimits},
    wire::GapReason,
};

/// The window of recent envelopes of one node.
#[derive(Debug)]
pub(crate) struct Log {
    window: RwLock<Window>,
    /// The sequence number after the newest entry; read by shards without the lock.
    end: AtomicU64,
    /// The sequence number at which the bus was first up, plus one; 0 before. Earlier entries are history.
    up: AtomicU64,
    /// The bytes of the encodings of the window's entries.
    encoded: Arc<AtomicUsize>,
    limits: History,
    retained: Arc<Retained>,
}

#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Arc<Entry>>,
    /// The sequence number of the oldest entry.
    first: u64,
    /// The bytes of the envelopes.
    bytes: usize,
    /// Runs of dense positions, oldest first. Only the last can grow.
    segments: VecDeque<Segment>,
    /// Everything that was acknowledged before this instant is in the log.
    caught_up: Option<Instant>,
    /// The bus was up: what arrived before is history, and says nothing about times.
    up: bool,
    /// The time at which the last entry arrived.
    arrived: Option<Instant>,
    /// The time at which the bus became unavailable.
    down: Option<Instant>,
    /// Times of entries, also of some that have left the window.
    marks: VecDeque<Mark>,
    /// The sequence numbers of the messages of each class that have not been left out, oldest first. Of most classes, each
    /// message replaces the one before.
    classes: HashTable<SmallVec<[u64; 1]>>,
    hasher: RandomState,
    /// The entries whose deliveries are counted, with the times at which they arrived.
    counted: VecDeque<(Instant, Weak<Entry>)>,
}

/// What comes at `seq` or later was published after `at`.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    at: Instant,
    /// The time at which this was noted.
    made: Instant,
}

/// Time between two marks, and their number: more than a quarter of an hour.
const MARK_EVERY: Duration = Duration::from_secs(1);
const MARKS: usize = 1024;

/// From `seq` on, entries have the positions `start`, `start.next()`, ...
#[derive(Debug, Clone, Copy)]
struct Segment {
    seq: u64,
    start: Position,
    /// Offset from which on there was nothing before `start`: that of `start`, unless the bus has skipped a range.
    reach: u64,
    /// Number of gaps before it. Between segments with the same number nothing is missing.
    gaps: u64,
}

impl Segment {
    fn position_at(&self, seq: u64) -> Position {
        Position { epoch: self.start.epoch, offset: self.start.offset.saturating_add(seq - self.seq) }
    }

    /// The sequence number right after a cursor of this segment's epoch; `None` if the segment begins later, or if the
    /// number would overflow.
    fn seq_after(&self, cursor: Position) -> Option<u64> {
        let wanted = cursor.offset.checked_add(1)?;
        // Nothing lies between `reach` and the start.
        let wanted = if wanted >= self.reach { wanted.max(self.start.offset) } else { wanted };
        self.seq.checked_add(wanted.checked_sub(self.start.offset)?)
    }

    /// Returns `true` if the segment begins at or before the position that follows a cursor of the same epoch.
    fn covers(&self, cursor: Position) -> bool {
        self.start.epoch == cursor.epoch && self.reach <= cursor.offset.saturating_add(1)
    }
}

/// Consecutive entries. If `first` is above the requested sequence number, the entries in between have left the window.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) first: u64,
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// Result of looking up a reconnecting client's cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// From a sequence number in the log.
    At(Start),
    /// The cursor belongs to a history that is not here yet: this node lags, or there is no such history.
    Ahead,
}

/// The sequence number at which a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) seq: u64,
    /// Reason why something is missing before `seq`.
    pub(crate) gap: Option<GapReason>,
    /// Nothing is missing from the cursor to the log's end.
    pub(crate) recovered: bool,
}

impl Start {
    pub(crate) fn lost(seq: u64, reason: GapReason) -> Self {
        Self { seq, gap: Some(reason), recovered: false }
    }
}

impl Log {
    pub(crate) fn new(limits: History, retained: RetainedLimits) -> Self {
        Self {
            window: RwLock::default(),
            end: AtomicU64::new(0),
            up: AtomicU64::new(0),
            encoded: Arc::default(),
            limits,
            retained: Arc::new(Retained::new(retained)),
        }
    }

    /// The messages for sessions that enter their topics.
    pub(crate) fn retained(&self) -> &Arc<Retained> {
        &self.retained
    }

    /// The sequence number after the newest entry.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The sequence number at which the bus was first up. Earlier entries are history, which is replayed and never sent
    /// as new. `None` before the bus was up.
    pub(crate) fn up(&self) -> Option<u64> {
        self.up.load(Ordering::Acquire).checked_sub(1)
    }

    /// Records that the bus is up and that the next envelope follows `last`. A history that does not continue at the
    /// log's end is a gap.
    pub(crate) fn begin(&self, last: Option<Position>) {
        let mut window = self.write();
        if let Some(last) = last
            && window.expected() != Some(last.next())
        {
            if window.expected().is_some() {
                window.push_gap(GapReason::Bus, Some(last));
            }
            window.start_run(last.next());
        }
        (window.up, window.down) = (true, None);
        self.publish_end(&window);
        if self.up().is_none() {
            self.up.store(window.end() + 1, Ordering::Release);
        }
    }

    /// Appends an envelope. If its position is not the one after the last, a gap is announced before it, and the result
    /// is `true`. It is not sent any more from `end` on; without an end, the time of an envelope with a ttl begins now.
    pub(crate) fn push(
        &self,
        position: Option<Position>,
        envelope: Arc<Envelope>,
        end: Option<Instant>,
    ) -> bool {
        let end = end.or_else(|| envelope.end(Duration::ZERO));
        let is_replaceable = envelope.kept_of_class().is_some();
        let entry = Entry::new(position, Content::Envelope(envelope)).with_end(end);
        self.append(position, if is_replaceable { entry.replaceable() } else { entry })
    }

    /// Appends positions that are no messages as one entry, with the same check of the first.
    pub(crate) fn push_skip(&self, from: Position, through: Position) -> bool {
        if from.epoch != through.epoch || from > through {
            tracing::error!(%from, %through, "the bus skips a range that is none; it is announced as a gap");
            self.push_gap(GapReason::Bus);
            return true;
        }
        self.append(Some(from), Entry::new(Some(through), Content::Skip))
    }

    /// Appends an entry for the positions from `from` to its own. Returns `true` if a gap was announced before it.
    fn append(&self, from: Option<Position>, mut entry: Entry) -> bool {
        let position = entry.position;
        entry.charge = Some(Charge::new(Arc::clone(&self.encoded)));
        let mut window = self.write();
        let mut gap = false;
        if let Some(from) = from
            && window.expected() != Some(from)
        {
            if window.expected().is_some() {
                let before = Position { offset: from.offset.saturating_sub(1), ..from };
                window.push_gap(GapReason::Bus, Some(before));
                gap = true;
            }
            window.start_run(from);
        }
        let now = entry.at;
        if let Content::Envelope(envelope) = &entry.content
            && envelope.has_options()
        {
            let seq = window.end();
            window.collapse(envelope, seq);
            if envelope.is_retained() {
                // Before any shard sees the entry: a session that enters behind it gets it from there.
                self.retained.insert(seq, position, envelope, entry.end());
            }
        }
        window.push(entry);
        if let (Some(from), Some(through)) = (from, position)
            && from != through
        {
            window.skip(from, through);
        }
        let gone = window.trim(&self.limits, &self.encoded, now);
        self.publish_end(&window);
        drop(window);
        drop(gone);
        gap
    }

    /// Appends the notice that something is missing here.
    pub(crate) fn push_gap(&self, reason: GapReason) {
        let mut window = self.write();
        let end = window.end();
        let cursor = window.cursor_at(end);
        window.push_gap(reason, cursor);
        if let Some(cursor) = cursor {
            window.start_run(cursor.next());
        }
        let gone = window.trim(&self.limits, &self.encoded, Instant::now());
        self.publish_end(&window);
        drop(window);
        drop(gone);
    }

    /// Records that the bus is unavailable.
    pub(crate) fn set_down(&self) {
        self.write().down.get_or_insert_with(Instant::now);
    }

    /// The time after which everything at `seq` or later was published, if it is known.
    pub(crate) fn since(&self, seq: u64) -> Option<Instant> {
        self.read_window().since(seq)
    }

    /// The time after which everything that follows a cursor was published, if it is known.
    pub(crate) fn since_cursor(&self, cursor: Position) -> Option<Instant> {
        let window = self.read_window();
        let segment = window.segments.iter().rev().find(|segment| segment.covers(cursor))?;
        window.since(segment.seq_after(cursor)?)
    }

    /// Records that everything that was acknowledged before this instant is in the log.
    pub(crate) fn set_caught_up(&self, at: Instant) {
        self.write().caught_up = Some(at);
    }

    /// Returns `true` if everything that was acknowledged before this instant is in the log.
    pub(crate) fn has_caught_up(&self, at: Instant) -> bool {
        self.read_window().caught_up.is_some_and(|caught_up| caught_up > at)
    }

    /// The time since which everything that was acknowledged before is in the log, if the bus has said so.
    pub(crate) fn caught_up(&self) -> Option<Instant> {
        self.read_window().caught_up
    }

    /// Size and age of the window.
    pub(crate) fn size(&self) -> HistorySnapshot {
        let window = self.read_window();
        HistorySnapshot {
            entries: window.entries.len() as u64,
            bytes: (window.bytes + self.encoded.load(Ordering::Acquire)) as u64,
            age: window.entries.front().map(|oldest| oldest.at.elapsed()).unwrap_or_default(),
        }
    }

    /// Drops expired entries, a bounded number at a time. Returns `true` if there are more.
    pub(crate) fn trim(&self) -> bool {
        self.retained.trim();
        self.end_counts(Instant::now());
        let exceeds = || self.read_window().exceeds(&self.limits, &self.encoded, Instant::now());
        if !exceeds() {
            return false;
        }
        // Freed after the lock is released: thousands of entries that expire at once would delay every worker.
        let gone = self.write().trim(&self.limits, &self.encoded, Instant::now());
        drop(gone);
        exceeds()
    }

    /// Ends the counting of deliveries that nobody has asked for in time: it keeps the sessions that an entry is for.
    pub(crate) fn end_counts(&self, now: Instant) {
        let is_over = |window: &Window| {
            let oldest = window.counted.front();
            oldest.is_some_and(|(at, _)| now.saturating_duration_since(*at) >= tally::LONGEST)
        };
        if !is_over(&self.read_window()) {
            return;
        }
        let (mut over, mut window) = (Vec::new(), self.write());
        while is_over(&window) {
            over.extend(window.counted.pop_front());
        }
        drop(window);
        for entry in over.iter().filter_map(|(_, entry)| entry.upgrade()) {
            if let Some(tally) = entry.tally() {
                tally.count();
                tally.close();
            }
        }
    }

    /// Up to `max` entries from `seq` on, or from the oldest one if `seq` has left the window.
    pub(crate) fn read(&self, seq: u64, max: usize) -> Read {
        let window = self.read_window();
        let first = seq.max(window.first);
        let skip = usize::try_from(first - window.first).unwrap_or(usize::MAX);
        Read { first, entries: window.entries.iter().skip(skip).take(max).cloned().collect() }
    }

    /// The position of the last envelope before `seq`: the cursor of a client that has everything up to there. `None`
    /// if it is no longer known: a later position would hide the entries in between.
    pub(crate) fn cursor_at(&self, seq: u64) -> Option<Position> {
        self.read_window().cursor_at(seq)
    }

    /// The position of the last entry; `None` before the first position is known.
    pub(crate) fn cursor(&self) -> Option<Position> {
        let window = self.read_window();
        window.cursor_at(window.end())
    }

    /// The entry at a position, with its sequence number, if it is in the window.
    pub(crate) fn find(&self, position: Position) -> Option<(u64, Arc<Entry>)> {
        let window = self.read_window();
        let starts = |segment: &&Segment| {
            segment.start.epoch == position.epoch && segment.start.offset <= position.offset
        };
        let segment = window.segments.iter().rev().find(starts)?;
        let seq = segment.seq.checked_add(position.offset - segment.start.offset)?;
        let index = usize::try_from(seq.checked_sub(window.first)?).ok()?;
        let entry = window.entries.get(index).filter(|entry| entry.position == Some(position))?;
        Some((seq, Arc::clone(entry)))
    }

    /// The point at which a client resumes that has everything up to and including `cursor`.
    pub(crate) fn resume(&self, cursor: Position) -> Resume {
        let window = self.read_window();
        let Some(newest) = window.segments.back() else {
            // A bus without positions has no cursors.
            return Resume::At(Start::lost(window.end(), GapReason::Cursor));
        };
        let found = window.segments.iter().enumerate().rev().find(|(_, segment)| segment.covers(cursor));
        let Some((index, segment)) = found else {
            if cursor.epoch > newest.start.epoch {
                return Resume::Ahead;
            }
            // Everything that follows is new to the client. A later segment begins with the gap before it.
            let next = window.segments.iter().position(|segment| segment.start > cursor).unwrap_or(0);
            let seq = window.segments[next].seq.saturating_sub(1);
            return Resume::At(if next > 0 && seq >= window.first {
                Start { seq, gap: None, recovered: false }
            } else {
                let same = window.segments[next].start.epoch == cursor.epoch;
                Start::lost(window.first, if same { GapReason::History } else { GapReason::Bus })
            });
        };
        let is_newest = index + 1 == window.segments.len();
        // A segment ends with the gap or the skipped range that comes before the next one.
        let end = window.segments.get(index + 1).map_or(window.end(), |next| next.seq - 1);
        let seq = segment.seq_after(cursor).filter(|seq| *seq <= end);
        if seq.is_none() && is_newest {
            return Resume::Ahead;
        }
        let recovered = segment.gaps == newest.gaps && seq.is_some();
        let seq = seq.unwrap_or(end);
        Resume::At(if seq < window.first {
            Start::lost(window.first, GapReason::History)
        } else {
            Start { seq, gap: None, recovered }
        })
    }

    fn read_window(&self) -> RwLockReadGuard<'_, Window> {
        self.window.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Window> {
        self.window.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_end(&self, window: &Window) {
        self.end.store(window.end(), Ordering::Release);
    }
}

/// Entries that have left the window. Publishing to a full window removes one at a time.
type Gone = SmallVec<[Arc<Entry>; 1]>;

/// Number of entries that one step of trimming removes under the lock.
const TRIM_ENTRIES: usize = 512;

impl Window {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The position that would follow without a gap.
    fn expected(&self) -> Option<Position> {
        self.segments.back().map(|segment| segment.position_at(self.end()))
    }

    /// Begins a segment behind a gap, or the first one.
    fn start_run(&mut self, start: Position) {
        let (seq, gaps) = (self.end(), self.segments.back().map_or(0, |newest| newest.gaps + 1));
        self.segments.push_back(Segment { seq, start, reach: start.offset, gaps });
    }

    /// Begins a segment behind positions that are no messages.
    fn skip(&mut self, from: Position, through: Position) {
        let (seq, gaps) = (self.end(), self.segments.back().map_or(0, |newest| newest.gaps));
        self.segments.push_back(Segment { seq, start: through.next(), reach: from.offset, gaps });
    }

    fn push_gap(&mut self, reason: GapReason, cursor: Option<Position>) {
        let since = self.known_until();
        self.push(Entry::new(cursor, Content::Gap(reason)).with_since(since));
    }

    /// The time up to which nothing that was published is missing, if it is known.
    fn known_until(&self) -> Option<Instant> {
        self.caught_up.or(self.arrived).or(self.down).filter(|_| self.up)
    }

    /// The time after which everything at `seq` or later was published, if it is known.
    fn since(&self, seq: u64) -> Option<Instant> {
        let index = self.marks.partition_point(|mark| mark.seq <= seq).checked_sub(1)?;
        Some(self.marks[index].at)
    }

    fn push(&mut self, entry: Entry) {
        self.arrived = Some(entry.at);
        let is_due = |last: &Mark| entry.at.saturating_duration_since(last.made) >= MARK_EVERY;
        if self.up && self.marks.back().is_none_or(is_due) {
            self.mark(entry.at);
        }
        self.bytes += entry.footprint;
        let entry = Arc::new(entry);
        if entry.tally().is_some() {
            self.counted.push_back((entry.at, Arc::downgrade(&entry)));
        }
        self.entries.push_back(entry);
    }

    /// Has an envelope that is about to get a sequence number replace the oldest ones of its class, beyond those that are
    /// kept of it.
    fn collapse(&mut self, envelope: &Envelope, seq: u64) {
        let Some((hash, keep)) = envelope.class_hash(&self.hasher).zip(envelope.kept_of_class()) else {
            return;
        };
        let Self { entries, first, classes, hasher, .. } = self;
        let of = |seq: u64| match usize::try_from(seq - *first).ok().and_then(|index| entries.get(index)) {
            Some(entry) => entry.envelope().map(|envelope| (entry, envelope)),
            None => None,
        };
        let is_same = |class: &SmallVec<[u64; 1]>| {
            class.last().and_then(|seq| of(*seq)).is_some_and(|(_, older)| envelope.shares_class(older))
        };
        match classes.find_mut(hash, is_same) {
            Some(class) => {
                let beyond = (class.len() + 1).saturating_sub(usize::from(keep));
                for older in class.drain(..beyond) {
                    if let Some((older, _)) = of(older) {
                        older.replace_by(seq);
                    }
                }
                class.push(seq);
            }
            None => {
                let rehash = |class: &SmallVec<[u64; 1]>| {
                    let newest = class.last().and_then(|seq| of(*seq));
                    newest.and_then(|(_, envelope)| envelope.class_hash(hasher)).unwrap_or_default()
                };
                classes.insert_unique(hash, smallvec![seq], rehash);
            }
        }
    }

    /// Forgets an entry that leaves the window, the first one: nothing can replace it any more.
    fn forget(&mut self, oldest: &Entry) {
        if let Some(hash) = oldest.envelope().and_then(|envelope| envelope.class_hash(&self.hasher))
            && let Ok(mut class) = self.classes.find_entry(hash, |class| class.first() == Some(&self.first))
        {
            class.get_mut().remove(0);
            if class.get().is_empty() {
                class.remove();
            }
        }
    }

    /// Records the time of the next entry, which has just arrived.
    fn mark(&mut self, now: Instant) {
        if self.marks.len() >= MARKS {
            self.marks.pop_front();
        }
        // A node that lags reads entries long after they were published.
        let at = self.caught_up.unwrap_or(now);
        self.marks.push_back(Mark { seq: self.end(), at, made: now });
    }

    fn exceeds(&self, limits: &History, encoded: &AtomicUsize, now: Instant) -> bool {
        self.entries.front().is_some_and(|oldest| {
            self.entries.len() > limits.max_messages
                || self.bytes + encoded.load(Ordering::Acquire) > limits.max_bytes
                || now.saturating_duration_since(oldest.at) > limits.max_age
        })
    }

    /// Removes entries beyond the limits, up to [`TRIM_ENTRIES`]. The caller drops them after releasing the lock.
    fn trim(&mut self, limits: &History, encoded: &AtomicUsize, now: Instant) -> Gone {
        let mut gone = Gone::new();
        while gone.len() < TRIM_ENTRIES && self.exceeds(limits, encoded, now) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.footprint;
            self.forget(&oldest);
            if let Some(charge) = &oldest.charge {
                charge.close();
            }
            self.first += 1;
            gone.push(oldest);
        }
        // The newest segment stays even if it is empty, since it determines the next position.
        while self.segments.len() > 1 && self.segments[1].seq <= self.first {
            self.segments.pop_front();
        }
        gone
    }

    fn cursor_at(&self, seq: u64) -> Option<Position> {
        let index = self.segments.partition_point(|segment| segment.seq <= seq).checked_sub(1)?;
        let segment = self.segments[index];
        let next = segment.position_at(seq);
        Some(Position { offset: next.offset.saturating_sub(1), ..next })
    }
}
