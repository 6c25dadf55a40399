//! [`OwnEntry`]: a message of this node on its way back, which proves as much as a heartbeat.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use realtime_core::Position;

/// Time between two messages that are followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// A message of this node on its way through the stream to its own tail, one at a time.
///
/// An entry that was read where Redis has put it proves that the tail reads what the publisher writes. Another epoch proves
/// nothing: the publisher and the tail may be at two servers.
#[derive(Debug, Default)]
pub(super) struct OwnEntry(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Where the message stands that is followed, and the time that it stands for.
    sent: Option<(Position, Instant)>,
    /// When the last one was sent.
    sent_at: Option<Instant>,
    /// Up to where the tail has read.
    read: Option<Position>,
    /// The time that the newest message stands for that came back, while the tail has not been told.
    proved: Option<Instant>,
    /// When the last message came back.
    back: Option<Instant>,
}

impl OwnEntry {
    /// A message was added at `position`. All that was acknowledged on any node before `began` stands before it.
    pub(super) fn sent(&self, position: Position, began: Instant, now: Instant) {
        let mut state = self.state();
        let is_due = state.sent_at.is_none_or(|at| now.saturating_duration_since(at) >= FOLLOW_EVERY);
        if state.sent.is_none() && is_due {
            (state.sent, state.sent_at) = (Some((position, began)), Some(now));
            state.compare(now);
        }
    }

    /// The tail has read up to here. Answers the time that the newest message stands for that has come back.
    pub(super) fn read(&self, last: Option<Position>, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.read = last;
        state.compare(now);
        state.proved.take()
    }

    /// Whether a message has come back within this time.
    pub(super) fn came_back_within(&self, time: Duration, now: Instant) -> bool {
        self.state().back.is_some_and(|back| now.saturating_duration_since(back) < time)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn compare(&mut self, now: Instant) {
        let (Some((position, began)), Some(read)) = (self.sent, self.read) else { return };
        if read.epoch > position.epoch {
            self.sent = None;
        } else if read >= position {
            self.sent = None;
            self.proved = self.proved.max(Some(began.min(now)));
            self.back = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn a_message_proves_something_once_the_tail_has_read_it() {
        let (own, began) = (OwnEntry::default(), Instant::now());
        own.sent(at(1, 5), began, began);
        assert_eq!(own.read(Some(at(1, 4)), began), None);
        assert!(!own.came_back_within(Duration::MAX, began));
        // It is the only one that is followed.
        own.sent(at(1, 6), began + FOLLOW_EVERY, began + FOLLOW_EVERY);
        let later = began + FOLLOW_EVERY * 2;
        assert_eq!(own.read(Some(at(1, 9)), later), Some(began));
        assert_eq!(own.read(Some(at(1, 9)), later), None, "it is told once");
        assert!(own.came_back_within(FOLLOW_EVERY, later));
        assert!(!own.came_back_within(FOLLOW_EVERY, later + FOLLOW_EVERY));
        // The tail may be faster than the answer to the publisher.
        own.sent(at(1, 8), later, later);
        assert_eq!(own.read(Some(at(1, 9)), later), Some(later));
    }

    #[test]
    fn a_later_epoch_proves_nothing() {
        let (own, began) = (OwnEntry::default(), Instant::now());
        own.sent(at(1, 5), began, began);
        assert_eq!(own.read(Some(at(2, 0)), began), None);
        let later = began + FOLLOW_EVERY;
        own.sent(at(2, 3), later, later);
        assert_eq!(own.read(Some(at(2, 3)), later), Some(later));
        // Nor does an earlier one: the publisher has moved on, the tail has not.
        own.sent(at(3, 0), later + FOLLOW_EVERY, later + FOLLOW_EVERY);
        assert_eq!(own.read(Some(at(2, 9)), later + FOLLOW_EVERY), None);
    }
}
