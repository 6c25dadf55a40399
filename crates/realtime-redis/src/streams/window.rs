//! [`Window`]: which part of the stream is still worth keeping.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use realtime_core::Position;

use super::clock::millis;

/// What this node has read of the stream, in coarse steps of time and bytes: it knows from where on the stream is younger
/// than the window and fits into it.
#[derive(Debug)]
pub(super) struct Window {
    /// Milliseconds.
    max_age: u64,
    max_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    marks: VecDeque<Mark>,
    /// Bytes of all entries that were read.
    bytes: u64,
    /// The newest time of an entry.
    newest: u64,
}

/// A place in the stream.
#[derive(Debug)]
struct Mark {
    position: Position,
    /// Redis' time, in milliseconds since 1970: everything before is at most as new.
    at: u64,
    /// Bytes of all entries before it.
    before: u64,
}

/// How many steps the window has, in time and in bytes.
const STEPS: u64 = 64;

/// About how many bytes an entry takes besides its fields.
const ENTRY: usize = 32;

impl Window {
    pub(super) fn new(max_age: Duration, max_bytes: usize) -> Self {
        let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        Self { max_age: millis(max_age), max_bytes, state: Mutex::default() }
    }

    /// An entry was read, of so many bytes and of this time.
    pub(super) fn read(&self, position: Position, at: Option<u64>, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { marks, bytes: before, newest } = &mut *state;
        *newest = at.unwrap_or(0).max(position.epoch).max(*newest);
        let is_due = marks.back().is_none_or(|last| {
            *newest >= last.at.saturating_add((self.max_age / STEPS).max(1))
                || *before >= last.before.saturating_add((self.max_bytes / STEPS).max(1))
        });
        if is_due {
            marks.push_back(Mark { position, at: *newest, before: *before });
        }
        *before += u64::try_from(bytes + ENTRY).unwrap_or(u64::MAX);
    }

    /// The position before which everything is too old at this time of Redis, or does not fit.
    pub(super) fn begin(&self, now: u64) -> Option<Position> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { marks, bytes, .. } = &mut *state;
        let is_over = |mark: &Mark| {
            mark.at < now.saturating_sub(self.max_age) || bytes.saturating_sub(mark.before) > self.max_bytes
        };
        let mut begin = None;
        while marks.front().is_some_and(is_over) {
            begin = marks.pop_front();
        }
        // It stays for those who come later, and for what could not be trimmed this time.
        let begin = begin?;
        let position = begin.position;
        marks.push_front(begin);
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    #[test]
    fn what_is_too_old_is_before_the_window() {
        let window = Window::new(Duration::from_secs(64), 1 << 20);
        for n in 0..200 {
            window.read(at(n), Some(10_000 + 1000 * n), 10);
        }
        assert_eq!(window.begin(10_000 + 60_000), None, "nothing is");
        assert_eq!(window.begin(10_000 + 164_500), Some(at(100)));
        assert_eq!(window.begin(10_000 + 164_500), Some(at(100)));
        // The clock of one publisher is behind.
        window.read(at(200), Some(7), 10);
        assert_eq!(window.begin(10_000 + 199_000), Some(at(134)));
    }

    #[test]
    fn what_does_not_fit_is_before_the_window() {
        let window = Window::new(Duration::from_secs(3600), 100 * 64);
        for n in 0..100 {
            window.read(at(n), Some(10_000), 64 - ENTRY);
        }
        assert_eq!(window.begin(10_000), None);
        for n in 100..150 {
            window.read(at(n), None, 64 - ENTRY);
        }
        let Some(Position { offset: 48..=50, .. }) = window.begin(10_000) else { panic!("{window:?}") };
    }
}
