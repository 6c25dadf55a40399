//! [`Log`]: the window of recent envelopes, the queue of all sessions and the source of replay.
//!
//! Every entry has a *place*, a number that is dense and this node's own. Shards and sessions hold a place;
//! clients hold a [`Position`], which is the bus's and the same on all nodes.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use once_cell::sync::OnceCell;

use crate::{
    Envelope, GapReason, Position,
    limits::History,
    wire::{MAX_WIRES, WireSlot},
};

/// The window of recent envelopes of one node.
#[derive(Debug)]
pub(crate) struct Log {
    window: RwLock<Window>,
    /// The place after the newest entry; read by shards without the lock.
    end: AtomicU64,
    limits: History,
}

#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Arc<Entry>>,
    /// The place of the oldest entry.
    first: u64,
    bytes: usize,
    /// Runs of dense positions, oldest first. Only the last can grow.
    runs: VecDeque<Run>,
}

/// From `place` on, entries have the positions `start`, `start.next()`, ...
#[derive(Debug, Clone, Copy)]
struct Run {
    place: u64,
    start: Position,
}

impl Run {
    fn position_at(&self, place: u64) -> Position {
        Position { epoch: self.start.epoch, offset: self.start.offset + (place - self.place) }
    }
}

/// An envelope or a gap in the log, with its encodings.
pub(crate) struct Entry {
    pub(crate) position: Option<Position>,
    pub(crate) content: Content,
    at: Instant,
    footprint: usize,
    encoded: [OnceCell<Bytes>; MAX_WIRES],
}

pub(crate) enum Content {
    Envelope(Arc<Envelope>),
    /// A position that the bus uses for itself; nobody is told.
    Marker,
    /// Something is missing here; the position of what follows is known where the bus has positions.
    Gap(GapReason),
}

impl Entry {
    pub(crate) fn new(position: Option<Position>, content: Content) -> Self {
        let footprint = size_of::<Self>()
            + match &content {
                Content::Envelope(envelope) => envelope.footprint(),
                Content::Marker | Content::Gap(_) => 0,
            };
        Self { position, content, at: Instant::now(), footprint, encoded: Default::default() }
    }

    /// The shared bytes of this entry in one wire form. `None`: clients of that form are told nothing.
    pub(crate) fn encode(&self, slot: &WireSlot) -> Option<&Bytes> {
        match &self.content {
            Content::Envelope(envelope) => Some(
                self.encoded[slot.index].get_or_init(|| slot.wire.message(envelope.message(), self.position)),
            ),
            Content::Marker => None,
            Content::Gap(reason) => self.encoded[slot.index]
                .get_or_try_init(|| slot.wire.gap(*reason, self.position).ok_or(()))
                .ok(),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Entries in a row. When `first` is above the place that was asked for, the ones between are gone.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) first: u64,
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// Where a returning client goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) place: u64,
    /// What is missing before `place`.
    pub(crate) gap: Option<GapReason>,
    /// Nothing is missing at all, from the cursor to the log's end.
    pub(crate) recovered: bool,
}

impl Log {
    pub(crate) fn new(limits: History) -> Self {
        Self { window: RwLock::default(), end: AtomicU64::new(0), limits }
    }

    /// The place after the newest entry.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The bus is there, and the next envelope follows `last`. A history that does not go on from where the log
    /// stands is a gap.
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
    }

    /// Appends an envelope. A position that is not the one after the last is announced as a gap before it.
    pub(crate) fn push(&self, position: Option<Position>, envelope: Arc<Envelope>) {
        self.append(position, Content::Envelope(envelope));
    }

    /// Appends a position that the bus uses for itself, with the same check.
    pub(crate) fn push_marker(&self, position: Position) {
        self.append(Some(position), Content::Marker);
    }

    fn append(&self, position: Option<Position>, content: Content) {
        let mut window = self.write();
        if let Some(position) = position
            && window.expected() != Some(position)
        {
            if window.expected().is_some() {
                let before = Position { offset: position.offset.saturating_sub(1), ..position };
                window.push_gap(GapReason::Bus, Some(before));
            }
            window.start_run(position);
        }
        window.push(Entry::new(position, content));
        window.trim(&self.limits);
        self.publish_end(&window);
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
        window.trim(&self.limits);
        self.publish_end(&window);
    }

    /// Forgets what is too old.
    pub(crate) fn trim(&self) {
        let stale = {
            let window = self.window.read().unwrap_or_else(PoisonError::into_inner);
            window.entries.front().is_some_and(|entry| entry.at.elapsed() > self.limits.max_age)
        };
        if stale {
            self.write().trim(&self.limits);
        }
    }

    /// Up to `max` entries from `place` on, or from the oldest one when `place` has left the window.
    pub(crate) fn read(&self, place: u64, max: usize) -> Read {
        let window = self.window.read().unwrap_or_else(PoisonError::into_inner);
        let first = place.max(window.first);
        let skip = (first - window.first) as usize;
        Read { first, entries: window.entries.iter().skip(skip).take(max).cloned().collect() }
    }

    /// The position of the last envelope before `place`: the cursor of whoever has everything up to there.
    pub(crate) fn cursor_at(&self, place: u64) -> Option<Position> {
        self.window.read().unwrap_or_else(PoisonError::into_inner).cursor_at(place)
    }

    /// Where a client goes on that has everything up to and including `cursor`.
    pub(crate) fn resume(&self, cursor: Position) -> Resume {
        let window = self.window.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = cursor.next();
        let found = window
            .runs
            .iter()
            .enumerate()
            .rev()
            .find(|(_, run)| run.start.epoch == wanted.epoch && run.start.offset <= wanted.offset);
        let lost = |place, reason| Resume { place, gap: Some(reason), recovered: false };
        let Some((index, run)) = found else {
            return match window.runs.front() {
                // All that is here is later than the cursor.
                Some(oldest) if oldest.start > wanted => {
                    let same = oldest.start.epoch == wanted.epoch;
                    lost(window.first, if same { GapReason::History } else { GapReason::Bus })
                }
                _ => lost(window.end(), GapReason::Cursor),
            };
        };
        let newest = index + 1 == window.runs.len();
        // A run ends with the gap that comes before the next one.
        let end = window.runs.get(index + 1).map_or(window.end(), |next| next.place - 1);
        let place = run.place + (wanted.offset - run.start.offset);
        if place > end {
            return if newest {
                lost(end, GapReason::Cursor)
            } else {
                Resume { place: end, gap: None, recovered: false }
            };
        }
        if place < window.first {
            return lost(window.first, GapReason::History);
        }
        Resume { place, gap: None, recovered: newest }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Window> {
        self.window.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_end(&self, window: &Window) {
        self.end.store(window.end(), Ordering::Release);
    }
}

impl Window {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The position that would follow without a gap.
    fn expected(&self) -> Option<Position> {
        self.runs.back().map(|run| run.position_at(self.end()))
    }

    fn start_run(&mut self, start: Position) {
        let place = self.end();
        self.runs.push_back(Run { place, start });
    }

    fn push_gap(&mut self, reason: GapReason, cursor: Option<Position>) {
        self.push(Entry::new(cursor, Content::Gap(reason)));
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.footprint;
        self.entries.push_back(Arc::new(entry));
    }

    fn trim(&mut self, limits: &History) {
        let now = Instant::now();
        while let Some(oldest) = self.entries.front() {
            let keep = self.entries.len() <= limits.max_messages
                && self.bytes <= limits.max_bytes
                && now.duration_since(oldest.at) <= limits.max_age;
            if keep {
                break;
            }
            self.bytes -= oldest.footprint;
            self.entries.pop_front();
            self.first += 1;
        }
        // The newest run stays even when it is empty: it knows which position comes next.
        while self.runs.len() > 1 && self.runs[1].place <= self.first {
            self.runs.pop_front();
        }
    }

    fn cursor_at(&self, place: u64) -> Option<Position> {
        let run = self.runs.iter().rev().find(|run| run.place <= place).or(self.runs.front())?;
        let next = run.position_at(place.max(run.place));
        Some(Position { offset: next.offset.saturating_sub(1), ..next })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    fn is_gap(read: &Read, index: usize) -> bool {
        matches!(read.entries[index].content, Content::Gap(_))
    }

    #[test]
    fn a_known_cursor_goes_on_right_after_itself() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        assert_eq!(log.resume(at(1, 0)), Resume { place: 0, gap: None, recovered: true });
        fill(&log, 1, 1..=4);
        assert_eq!(log.resume(at(1, 2)), Resume { place: 2, gap: None, recovered: true });
        assert_eq!(log.resume(at(1, 4)), Resume { place: 4, gap: None, recovered: true });
        assert_eq!(log.cursor_at(0), Some(at(1, 0)));
        assert_eq!(log.cursor_at(4), Some(at(1, 4)));
    }

    #[test]
    fn what_left_the_window_is_a_gap() {
        let log = log(3);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=10);
        let resume = log.resume(at(1, 2));
        assert_eq!(resume, Resume { place: 7, gap: Some(GapReason::History), recovered: false });
        assert!(log.resume(at(1, 7)).recovered);
        let read = log.read(0, 100);
        assert_eq!((read.first, read.entries.len()), (7, 3));
    }

    #[test]
    fn an_unknown_history_is_a_gap() {
        let log = log(10);
        log.begin(Some(at(5, 0)));
        fill(&log, 5, 1..=2);
        let older = Resume { place: 0, gap: Some(GapReason::Bus), recovered: false };
        assert_eq!(log.resume(at(4, 9)), older, "all that is here is new to it");
        let never = Resume { place: 2, gap: Some(GapReason::Cursor), recovered: false };
        assert_eq!(log.resume(at(6, 1)), never);
        assert_eq!(log.resume(at(5, 3)), never);
    }

    #[test]
    fn a_hole_in_the_positions_is_announced_where_it_is() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=2);
        fill(&log, 1, 5..=6);
        let read = log.read(0, 10);
        assert_eq!(read.entries.len(), 5);
        assert!(is_gap(&read, 2));
        assert_eq!(read.entries[2].position, Some(at(1, 4)), "a client that saw the gap is past it");
        assert_eq!(log.resume(at(1, 1)), Resume { place: 1, gap: None, recovered: false });
        assert_eq!(log.resume(at(1, 3)), Resume { place: 2, gap: None, recovered: false });
        assert_eq!(log.resume(at(1, 4)), Resume { place: 3, gap: None, recovered: true });
    }

    #[test]
    fn a_position_that_the_bus_uses_for_itself_is_no_gap() {
        let log = log(10);
        log.begin(Some(at(1, 0)));
        fill(&log, 1, 1..=1);
        log.push_marker(at(1, 2));
        fill(&log, 1, 3..=3);
        assert_eq!(log.end(), 3);
        assert!(log.resume(at(1, 1)).recovered && log.resume(at(1, 2)).recovered);
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
        assert_eq!(log.resume(at(1, 2)), Resume { place: 2, gap: None, recovered: false });
        assert!(log.resume(at(2, 0)).recovered);
    }

    #[test]
    fn a_bus_without_positions_has_no_cursor() {
        let log = log(10);
        log.begin(None);
        log.push(None, envelope("x"));
        assert_eq!(log.cursor_at(1), None);
        assert_eq!(log.resume(at(1, 1)).gap, Some(GapReason::Cursor));
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
        by_age.trim();
        assert_eq!(by_age.read(0, 10).entries.len(), 0);
        assert_eq!(by_age.cursor_at(1), Some(at(1, 1)), "an empty window still knows where it is");
        assert!(by_age.resume(at(1, 1)).recovered);
    }
}
