//! [`Log`]: the window of recent envelopes, the queue of all sessions and the source of replay.
//!
//! Every entry has a *sequence number*, which is dense and local to this node. Shards and sessions hold sequence
//! numbers; clients hold a [`Position`], which the bus assigns and which is the same on all nodes.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use once_cell::race::OnceBox;
use smallvec::SmallVec;

use crate::{
    Envelope, Position, SessionId, Topic, Transport,
    settings::History,
    wire::{GapReason, MAX_WIRES, WireFormatId},
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
}

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

/// An envelope or a gap in the log, with its encodings.
pub(crate) struct Entry {
    pub(crate) position: Option<Position>,
    pub(crate) content: Content,
    at: Instant,
    footprint: usize,
    /// Boxed, since most entries have one or two. The cost of an entry is mostly that its memory is not cached when it
    /// is created and freed.
    encoded: [OnceBox<Bytes>; MAX_WIRES],
    /// Hashes of the topics, ascending; computed for the first session that searches many topics for its own.
    hashes: OnceBox<Vec<u64>>,
    charge: Option<Charge>,
}

/// Accounting of an entry's encodings, which count while the entry is in the window.
struct Charge {
    total: Arc<AtomicUsize>,
    /// The bytes that were added for this entry, or [`Charge::CLOSED`].
    own: AtomicUsize,
}

impl Charge {
    const CLOSED: usize = usize::MAX;

    fn add(&self, bytes: usize) {
        let added = self.own.fetch_update(Ordering::AcqRel, Ordering::Acquire, |own| {
            (own != Self::CLOSED).then(|| own.saturating_add(bytes).min(Self::CLOSED - 1))
        });
        if added.is_ok() {
            self.total.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    /// Ends the accounting, since the entry leaves the window.
    fn close(&self) {
        let own = self.own.swap(Self::CLOSED, Ordering::AcqRel);
        if own != Self::CLOSED {
            // `add` updates the total after this entry's count, so the total may lack bytes for a moment.
            self.total
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| Some(total.saturating_sub(own)))
                .ok();
        }
    }
}

pub(crate) enum Content {
    Envelope(Arc<Envelope>),
    /// Positions that are not messages, the last of which is the entry's. They are not sent to clients.
    Skip,
    /// Something is missing here. The position of the next entry is known if the bus has positions.
    Gap(GapReason),
}

impl Entry {
    pub(crate) fn new(position: Option<Position>, content: Content) -> Self {
        let footprint = size_of::<Self>()
            + match &content {
                Content::Envelope(envelope) => envelope.footprint(),
                Content::Skip | Content::Gap(_) => 0,
            };
        Self {
            position,
            content,
            at: Instant::now(),
            footprint,
            encoded: Default::default(),
            hashes: OnceBox::new(),
            charge: None,
        }
    }

    /// The shared bytes of an envelope in one wire format. `None` for skips, which are not sent, and for gaps, which each
    /// session gets in a frame of its own.
    pub(crate) fn encode(&self, slot: &WireFormatId) -> Option<&Bytes> {
        let Content::Envelope(envelope) = &self.content else { return None };
        let cell = &self.encoded[slot.index];
        let bytes = cell.get().or_else(|| {
            let bytes = slot.wire.message(envelope.message(), self.position);
            let len = bytes.len();
            // Another worker may have been first: all use its bytes then.
            if cell.set(Box::new(bytes)).is_ok()
                && let Some(charge) = &self.charge
            {
                charge.add(len);
            }
            cell.get()
        })?;
        // A format may leave a message out, and an empty chunk would end a chunked body.
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Returns `true` if the entry is an envelope for a session of this id, transport and topics.
    pub(crate) fn is_for(&self, id: SessionId, transport: Transport, topics: &OwnTopics) -> bool {
        let Content::Envelope(envelope) = &self.content else { return false };
        if !envelope.scope().covers(transport) || envelope.excluded() == Some(id) {
            return false;
        }
        let targets = envelope.topics();
        if targets.len() <= FEW_TOPICS {
            return targets.iter().any(|topic| topic.is_all() || topics.contains(topic));
        }
        let hashes = self.hashes.get_or_init(|| {
            let mut hashes: Vec<u64> = targets.iter().map(hash).collect();
            hashes.sort_unstable();
            Box::new(hashes)
        });
        topics.hashes().any(|(own, topic)| {
            // Topics with equal hashes are compared: another topic may have the same hash.
            hashes.binary_search(&own).is_ok() && targets.contains(topic)
        }) || (hashes.binary_search(&topics.all).is_ok() && targets.iter().any(Topic::is_all))
    }
}

/// Maximum number of targets of an envelope that are compared one by one.
const FEW_TOPICS: usize = 8;

/// The topics of a session that reads the log, with their hashes.
pub(crate) struct OwnTopics {
    topics: Vec<(u64, Topic)>,
    all: u64,
}

impl OwnTopics {
    pub(crate) fn new(topics: Vec<Topic>) -> Self {
        let topics = topics.into_iter().map(|topic| (hash(&topic), topic)).collect();
        Self { topics, all: hash(&Topic::all()) }
    }

    fn contains(&self, topic: &Topic) -> bool {
        self.topics.iter().any(|(_, own)| own == topic)
    }

    fn hashes(&self) -> impl Iterator<Item = (u64, &Topic)> {
        self.topics.iter().map(|(hash, topic)| (*hash, topic))
    }
}

fn hash(topic: &Topic) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("position", &self.position).finish_non_exhaustive()
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
    pub(crate) fn new(limits: History) -> Self {
        Self {
            window: RwLock::default(),
            end: AtomicU64::new(0),
            up: AtomicU64::new(0),
            encoded: Arc::default(),
            limits,
        }
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
        self.publish_end(&window);
        if self.up().is_none() {
            self.up.store(window.end() + 1, Ordering::Release);
        }
    }

    /// Appends an envelope. If its position is not the one after the last, a gap is announced before it.
    pub(crate) fn push(&self, position: Option<Position>, envelope: Arc<Envelope>) {
        self.append(position, position, Content::Envelope(envelope));
    }

    /// Appends positions that are no messages as one entry, with the same check of the first.
    pub(crate) fn push_skip(&self, from: Position, through: Position) {
        if from.epoch != through.epoch || from > through {
            tracing::error!(%from, %through, "the bus skips a range that is none; it is announced as a gap");
            return self.push_gap(GapReason::Bus);
        }
        self.append(Some(from), Some(through), Content::Skip);
    }

    /// Appends an entry for the positions from `from` to `position`.
    fn append(&self, from: Option<Position>, position: Option<Position>, content: Content) {
        let mut entry = Entry::new(position, content);
        entry.charge = Some(Charge { total: Arc::clone(&self.encoded), own: AtomicUsize::new(0) });
        let mut window = self.write();
        if let Some(from) = from
            && window.expected() != Some(from)
        {
            if window.expected().is_some() {
                let before = Position { offset: from.offset.saturating_sub(1), ..from };
                window.push_gap(GapReason::Bus, Some(before));
            }
            window.start_run(from);
        }
        let now = entry.at;
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

    /// Records that everything that was acknowledged before this instant is in the log.
    pub(crate) fn set_caught_up(&self, at: Instant) {
        self.write().caught_up = Some(at);
    }

    /// Returns `true` if everything that was acknowledged before this instant is in the log.
    pub(crate) fn has_caught_up(&self, at: Instant) -> bool {
        self.read_window().caught_up.is_some_and(|caught_up| caught_up > at)
    }

    /// Drops expired entries, a bounded number at a time. Returns `true` if there are more.
    pub(crate) fn trim(&self) -> bool {
        let exceeds = || self.read_window().exceeds(&self.limits, &self.encoded, Instant::now());
        if !exceeds() {
            return false;
        }
        // Freed after the lock is released: thousands of entries that expire at once would delay every worker.
        let gone = self.write().trim(&self.limits, &self.encoded, Instant::now());
        drop(gone);
        exceeds()
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
        self.push(Entry::new(cursor, Content::Gap(reason)));
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.footprint;
        self.entries.push_back(Arc::new(entry));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{Message, Scope};

    fn envelope(text: &str) -> Arc<Envelope> {
        Arc::new(Envelope::broadcast(Scope::Both, Message::text(text)))
    }

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    fn log(max_messages: usize) -> Log {
        Log::new(History { max_messages, ..History::default() })
    }

    fn fill(log: &Log, epoch: u64, offsets: std::ops::RangeInclusive<u64>) {
        for offset in offsets {
            log.push(Some(at(epoch, offset)), envelope("x"));
        }
    }

    fn from(seq: u64) -> Resume {
        Resume::At(Start { seq, gap: None, recovered: true })
    }

    /// The gap is an entry, which is delivered in its turn.
    fn into_gap(seq: u64) -> Resume {
        Resume::At(Start { seq, gap: None, recovered: false })
    }

    fn recovers(log: &Log, cursor: Position) -> bool {
        matches!(log.resume(cursor), Resume::At(Start { gap: None, recovered: true, .. }))
    }

    fn is_gap(read: &Read, index: usize) -> bool {
        matches!(read.entries[index].content, Content::Gap(_))
    }

    #[test]
    fn a_known_cursor_resumes_right_after_itself() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        assert_eq!(log.resume(at(1, 0)), from(0));
        fill(&log, 1, 1..=4);
        assert_eq!(log.resume(at(1, 2)), from(2));
        assert_eq!(log.resume(at(1, 4)), from(4));
        assert_eq!(log.cursor_at(0), Some(at(1, 0)));
        assert_eq!(log.cursor_at(4), Some(at(1, 4)));
    }

    #[test]
    fn entries_that_left_the_window_are_a_gap() {
        let log = log(3);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=10);
        let resume = log.resume(at(1, 2));
        assert_eq!(resume, Resume::At(Start::lost(7, GapReason::History)));
        assert!(recovers(&log, at(1, 7)));
        let read = log.read(0, 100);
        assert_eq!((read.first, read.entries.len()), (7, 3));
    }

    #[test]
    fn an_older_history_is_a_gap_and_a_later_one_may_still_come() {
        let log = log(10);
        log.begin(Some(at(5, 0)));
        fill(&log, 5, 1..=2);
        let older = Resume::At(Start::lost(0, GapReason::Bus));
        assert_eq!(log.resume(at(4, 9)), older, "all entries are new to it");
        for ahead in [at(6, 1), at(5, 3), at(5, u64::MAX), at(u64::MAX, u64::MAX)] {
            assert_eq!(log.resume(ahead), Resume::Ahead, "{ahead}: this node may lag");
        }
    }

    #[test]
    fn skipped_positions_are_announced_as_a_gap_at_their_place() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=2);
        fill(&log, 1, 5..=6);
        let read = log.read(0, 10);
        assert_eq!(read.entries.len(), 5);
        assert!(is_gap(&read, 2));
        assert_eq!(read.entries[2].position, Some(at(1, 4)), "a client that got the gap is past it");
        assert_eq!(log.resume(at(1, 1)), into_gap(1));
        assert_eq!(log.resume(at(1, 3)), into_gap(2));
        assert_eq!(log.resume(at(1, 4)), from(3));
    }

    #[test]
    fn a_position_that_the_bus_uses_for_itself_is_no_gap() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=1);
        log.push_skip(at(1, 2), at(1, 2));
        fill(&log, 1, 3..=3);
        assert_eq!(log.end(), 3);
        assert_eq!(log.read_window().segments.len(), 1, "one position costs no segment");
        assert!(recovers(&log, at(1, 1)) && recovers(&log, at(1, 2)));
    }

    #[test]
    fn a_skipped_range_is_no_gap_and_one_entry() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=2);
        log.push_skip(at(1, 3), at(1, 1_000_000));
        fill(&log, 1, 1_000_001..=1_000_002);
        assert_eq!(log.end(), 5);
        let read = log.read(0, 10);
        assert!(!(0..5).any(|index| is_gap(&read, index)));
        assert_eq!(log.resume(at(1, 0)), from(0));
        assert_eq!(log.resume(at(1, 1)), from(1));
        for behind in [2, 3, 500, 999_999, 1_000_000] {
            assert_eq!(log.resume(at(1, behind)), from(3), "{behind}: the next message follows");
        }
        assert_eq!(log.resume(at(1, 1_000_001)), from(4));
        assert_eq!(log.resume(at(1, 1_000_003)), Resume::Ahead);
        assert_eq!((log.cursor_at(2), log.cursor_at(3)), (Some(at(1, 2)), Some(at(1, 1_000_000))));
        assert_eq!(log.cursor_at(4), Some(at(1, 1_000_001)));
    }

    #[test]
    fn a_cursor_in_a_skipped_range_outlives_the_ranges_entry() {
        let log = log(2);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=1);
        log.push_skip(at(1, 2), at(1, 9));
        fill(&log, 1, 10..=11);
        assert_eq!(log.resume(at(1, 5)), from(2));
        assert_eq!(log.resume(at(1, 1)), from(2), "nothing lies between");
        assert_eq!(log.resume(at(1, 0)), Resume::At(Start::lost(2, GapReason::History)));
    }

    #[test]
    fn a_gap_before_and_behind_a_skipped_range_is_announced() {
        let log = log(20);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=1);
        log.push_skip(at(1, 3), at(1, 9));
        let read = log.read(0, 10);
        assert!(is_gap(&read, 1), "2 is missing");
        assert_eq!(log.resume(at(1, 1)), into_gap(1));
        assert_eq!(log.resume(at(1, 4)), from(3));
        fill(&log, 1, 11..=11);
        assert!(is_gap(&log.read(0, 10), 3), "10 is missing");
        assert_eq!(log.resume(at(1, 4)), into_gap(3));
        // A new epoch may begin with a range, and is a gap.
        log.push_skip(at(2, 1), at(2, 4));
        assert_eq!(log.resume(at(1, 11)), into_gap(5));
        assert_eq!(log.resume(at(2, 2)), from(7));
        // A range that is none may hide anything.
        log.push_skip(at(2, 9), at(2, 5));
        assert!(is_gap(&log.read(7, 10), 0));
    }

    #[test]
    fn ranges_one_behind_the_other_are_one_way_through() {
        let log = log(20);
        log.begin(Some(at(1, 0)));
        for n in 0..4 {
            log.push_skip(at(1, n * 10 + 1), at(1, n * 10 + 9));
            fill(&log, 1, n * 10 + 10..=n * 10 + 10);
        }
        for offset in 0..40 {
            let read = log.resume(at(1, offset));
            let Resume::At(Start { seq, gap: None, recovered: true }) = read else { panic!("{read:?}") };
            let next = log.read(seq, 20).entries.into_iter().find_map(|entry| match entry.content {
                Content::Envelope(_) => entry.position,
                _ => None,
            });
            assert_eq!(next, Some(at(1, (offset / 10 + 1) * 10)), "behind {offset}");
        }
    }

    #[test]
    fn a_bus_that_comes_back_where_it_was_loses_nothing() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=2);
        log.begin(Some(at(1, 2)));
        assert_eq!(log.end(), 2);
        log.begin(Some(at(2, 0)));
        assert_eq!(log.end(), 3, "a new epoch is a gap");
        fill(&log, 2, 1..=1);
        assert_eq!(log.resume(at(1, 2)), into_gap(2));
        assert!(recovers(&log, at(2, 0)));
    }

    #[test]
    fn a_bus_without_positions_has_no_cursor() {
        let log = log(10);
        log.begin(None);
        log.push(None, envelope("x"));
        assert_eq!(log.cursor_at(1), None);
        assert_eq!(log.resume(at(1, 1)), Resume::At(Start::lost(1, GapReason::Cursor)));
        log.push_gap(GapReason::Bus);
        assert_eq!(log.end(), 2);
    }

    #[test]
    fn the_window_is_bounded_by_bytes_and_age() {
        let entry = Entry::new(None, Content::Envelope(envelope("x"))).footprint;
        let by_bytes = Log::new(History { max_bytes: entry * 2, ..History::default() });
        fill(&by_bytes, 1, 1..=5);
        assert_eq!(by_bytes.read(0, 10).entries.len(), 2);

        let by_age = Log::new(History { max_age: Duration::ZERO, ..History::default() });
        by_age.begin(Some(at(1, 0)));
        by_age.push(Some(at(1, 1)), envelope("x"));
        while by_age.trim() {}
        assert_eq!(by_age.read(0, 10).entries.len(), 0);
        assert_eq!(by_age.cursor_at(1), Some(at(1, 1)), "an empty window keeps its position");
        assert!(recovers(&by_age, at(1, 1)));
    }

    #[test]
    fn a_cursor_of_a_missing_epoch_resumes_at_the_gap_in_its_place() {
        let log = log(20);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=2);
        log.begin(Some(at(5, 0)));
        fill(&log, 5, 1..=2);
        assert_eq!(log.resume(at(3, 7)), into_gap(2));
        assert_eq!(log.resume(at(1, u64::MAX)), into_gap(2), "no arithmetic overflows");
    }

    #[test]
    fn a_sequence_number_whose_history_was_removed_has_no_cursor() {
        let log = log(2);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=2);
        fill(&log, 2, 1..=3);
        assert_eq!((log.cursor_at(1), log.cursor_at(2)), (None, None), "a later one would hide the gap");
        assert_eq!(log.cursor_at(6), Some(at(2, 3)));
    }

    #[test]
    fn history_ends_where_the_bus_was_first_up() {
        let log = log(10);
        fill(&log, 1, 4..=6);
        assert_eq!(log.up(), None);
        log.begin(Some(at(1, 6)));
        fill(&log, 1, 7..=8);
        log.begin(Some(at(1, 8)));
        assert_eq!(log.up(), Some(3));
        assert!(recovers(&log, at(1, 3)) && !recovers(&log, at(1, 2)));
    }

    #[test]
    fn encodings_count_for_as_long_as_their_entry_is_kept() {
        let slot = WireFormatId { wire: Arc::new(Upper), index: 0 };
        let plain = Entry::new(None, Content::Envelope(envelope("x"))).footprint;
        let log = Log::new(History { max_bytes: plain * 10, ..History::default() });
        for offset in 1..=200 {
            log.push(Some(at(1, offset)), envelope("x"));
            for entry in log.read(0, 1000).entries {
                assert_eq!(entry.encode(&slot).unwrap().len(), plain);
            }
        }
        let kept = log.read(0, 1000).entries;
        assert!((5..=6).contains(&kept.len()), "{} entries of twice the size", kept.len());
        assert_eq!(log.encoded.load(Ordering::Relaxed), plain * kept.len());
    }

    /// Operations of a bus on positions.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Message,
        Skip(u64),
        /// This number of positions is lost.
        Hole(u64),
        Epoch,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Message),
            3 => (1_u64..5).prop_map(Step::Skip),
            1 => (1_u64..3).prop_map(Step::Hole),
            1 => Just(Step::Epoch),
        ]
    }

    proptest! {
        /// From every position on, a client gets what came behind it, in order, and a gap wherever something is missing.
        #[test]
        fn every_cursor_is_followed_by_all_that_came_behind_it(steps in prop::collection::vec(step(), 1..40)) {
            let log = log(1000);
            let mut next = at(1, 1);
            log.begin(Some(at(1, 0)));
            // `None` stands for what is missing.
            let mut history: Vec<Option<Position>> = Vec::new();
            // Each position, and how much of the history is before it.
            let mut cursors = vec![(at(1, 0), 0)];
            let mut missing = false;
            for step in steps {
                let count = match step {
                    Step::Message | Step::Epoch => 1,
                    Step::Skip(count) | Step::Hole(count) => count,
                };
                match step {
                    Step::Hole(_) => missing = true,
                    Step::Epoch => (missing, next) = (true, at(next.epoch + 1, 1)),
                    Step::Message | Step::Skip(_) => {}
                }
                let through = at(next.epoch, next.offset + count - 1);
                if !matches!(step, Step::Hole(_)) {
                    history.extend(std::mem::take(&mut missing).then_some(None));
                }
                match step {
                    Step::Message | Step::Epoch => {
                        log.push(Some(next), envelope("x"));
                        history.push(Some(next));
                    }
                    Step::Skip(_) => log.push_skip(next, through),
                    Step::Hole(_) => {}
                }
                let seen = history.len();
                if !matches!(step, Step::Hole(_)) {
                    cursors.extend((next.offset..=through.offset).map(|offset| (at(next.epoch, offset), seen)));
                }
                next = through.next();
            }
            for (cursor, seen) in cursors {
                let Resume::At(start) = log.resume(cursor) else { panic!("{cursor} is known") };
                let rest: Vec<_> = log.read(start.seq, 1000).entries.into_iter().filter_map(|entry| {
                    match entry.content {
                        Content::Envelope(_) => Some(entry.position),
                        Content::Gap(_) => Some(None),
                        Content::Skip => None,
                    }
                }).collect();
                prop_assert_eq!(&rest, &history[seen..], "behind {}", cursor);
                prop_assert_eq!(start.gap, None);
                prop_assert_eq!(start.recovered, !rest.contains(&None), "behind {}", cursor);
            }
        }
    }

    /// Encodes everything to as many bytes as an entry takes.
    #[derive(Debug)]
    struct Upper;

    impl crate::wire::WireFormat for Upper {
        fn name(&self) -> &'static str {
            "upper"
        }

        fn message(&self, _: &Message, _: Option<Position>) -> Bytes {
            vec![b'X'; Entry::new(None, Content::Envelope(envelope("x"))).footprint].into()
        }

        fn gap(&self, _: GapReason, _: Option<Position>, _: Duration) -> Option<Bytes> {
            None
        }

        fn heartbeat(&self, _: Option<Position>, _: crate::wire::BusState) -> Bytes {
            Bytes::new()
        }

        fn answers_heartbeat(&self) -> bool {
            false
        }
    }

    #[test]
    fn many_targets_are_found_as_few_are() {
        let session = [Topic::user(&7.into()), Topic::new("role:admin").unwrap()];
        let own = OwnTopics::new(session.to_vec());
        let entry = |topics: Vec<Topic>| {
            let envelope = Envelope::to_topics(topics, Scope::Both, Message::text("x")).unwrap();
            Entry::new(None, Content::Envelope(Arc::new(envelope)))
        };
        let others = || (100..1000_i64).map(|user| Topic::user(&user.into()));
        let (id, transport) = (SessionId::random(), Transport::new("test"));
        assert!(!entry(others().collect()).is_for(id, transport, &own));
        assert!(entry(others().chain([Topic::user(&7.into())]).collect()).is_for(id, transport, &own));
        assert!(entry(others().chain([Topic::all()]).collect()).is_for(id, transport, &own));
        assert!(entry(vec![session[1].clone()]).is_for(id, transport, &own));
    }
}
