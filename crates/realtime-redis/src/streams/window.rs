//! [`Window`]: the part of the stream that is worth keeping.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use realtime_core::Position;

use crate::millis::millis;

/// Marks in the stream as this node has read it, in coarse steps of time and bytes. They give the position from which on the
/// stream is younger than the maximum age and within the maximum size.
#[derive(Debug)]
pub(super) struct Window {
    /// In milliseconds.
    max_age: u64,
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    marks: VecDeque<Mark>,
    /// Total size of the entries read so far.
    bytes: u64,
    /// The newest time of an entry so far.
    newest: u64,
}

/// A position in the stream with its time and size.
#[derive(Debug)]
struct Mark {
    position: Position,
    /// Redis' time in milliseconds since 1970; everything before is at most as new.
    at: u64,
    /// Total size of the entries before it.
    before: u64,
}

/// Number of steps of the window, in time and in bytes.
const STEPS: u64 = 64;

/// Approximate overhead of an entry in bytes.
const ENTRY: usize = 32;

impl Window {
    pub(super) fn new(max_age: Duration, max_bytes: usize) -> Self {
        let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        Self { max_age: millis(max_age), max_bytes, state: Mutex::default() }
    }

    /// Forgets the entries of a log that is begun anew.
    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    /// Records an entry with its time and size.
    pub(super) fn read(&self, position: Position, at: u64, bytes: usize) {
        let mut state = self.state();
        let State { marks, bytes: before, newest } = &mut *state;
        *newest = at.max(*newest);
        let is_due = marks.back().is_none_or(|last| {
            *newest >= last.at.saturating_add((self.max_age / STEPS).max(1))
                || *before >= last.before.saturating_add((self.max_bytes / STEPS).max(1))
        });
        if is_due {
            marks.push_back(Mark { position, at: *newest, before: *before });
        }
        *before += u64::try_from(bytes + ENTRY).unwrap_or(u64::MAX);
    }

    /// Returns the position before which everything is too old at Redis' time `now`, or exceeds the size.
    pub(super) fn begin(&self, now: u64) -> Option<Position> {
        let mut state = self.state();
        let State { marks, bytes, .. } = &mut *state;
        let is_over = |mark: &Mark| {
            mark.at < now.saturating_sub(self.max_age) || bytes.saturating_sub(mark.before) > self.max_bytes
        };
        let mut begin = None;
        while marks.front().is_some_and(is_over) {
            begin = marks.pop_front();
        }
        // It is kept for the next call, and for entries that could not be trimmed this time.
        let begin = begin?;
        let position = begin.position;
        marks.push_front(begin);
        Some(position)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    #[test]
    fn entries_that_are_too_old_are_before_the_window() {
        let window = Window::new(Duration::from_secs(64), 1 << 20);
        for n in 0..200 {
            window.read(at(n), 10_000 + 1000 * n, 10);
        }
        assert_eq!(window.begin(10_000 + 60_000), None, "nothing is");
        assert_eq!(window.begin(10_000 + 164_500), Some(at(100)));
        assert_eq!(window.begin(10_000 + 164_500), Some(at(100)));
        // The clock of one publisher is behind.
        window.read(at(200), 7, 10);
        assert_eq!(window.begin(10_000 + 199_000), Some(at(134)));
    }

    #[test]
    fn entries_that_do_not_fit_are_before_the_window() {
        let window = Window::new(Duration::from_secs(3600), 100 * 64);
        for n in 0..100 {
            window.read(at(n), 10_000, 64 - ENTRY);
        }
        assert_eq!(window.begin(10_000), None);
        for n in 100..150 {
            window.read(at(n), 0, 64 - ENTRY);
        }
        let Some(Position { offset: 48..=50, .. }) = window.begin(10_000) else { panic!("{window:?}") };
    }

    #[test]
    fn a_log_that_is_begun_anew_has_nothing_before_the_window() {
        let window = Window::new(Duration::from_secs(64), 100 * 64);
        window.read(Position { epoch: 9, offset: 1 }, 10_000, 10);
        window.clear();
        for n in 0..101 {
            window.read(at(n), 10_000, 64 - ENTRY);
        }
        assert_eq!(window.begin(10_000), Some(at(0)));
    }
}
