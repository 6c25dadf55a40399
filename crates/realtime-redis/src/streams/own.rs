//! [`OwnEntry`]: a message of this node that is tracked until it comes back, which proves as much as a heartbeat.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use realtime_core::Position;
use tokio::sync::Notify;

/// Time between two messages that are tracked.
const TRACK_EVERY: Duration = Duration::from_millis(250);

/// Tracker of one message at a time on its way through the stream to this node's tail.
///
/// An entry that the tail read at the position that the publisher was given proves that the two use the same server. Another
/// epoch proves nothing: the publisher and the tail may be connected to different servers.
#[derive(Debug, Default)]
pub(super) struct OwnEntry {
    state: Mutex<State>,
    /// Notified when a message has come back.
    back: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The position of the tracked message, and the time that it proves.
    sent: Option<(Position, Instant)>,
    /// The time at which the last one was sent.
    sent_at: Option<Instant>,
    /// The position up to which the tail has read.
    read: Option<Position>,
    /// The time proved by the newest message that came back, until the tail has taken it.
    proved: Option<Instant>,
    /// The time at which the last message came back, and the newest time that was proved.
    back: Option<(Instant, Instant)>,
}

impl OwnEntry {
    /// Records that a message was added at `position`, behind everything that was acknowledged on any node before `began`.
    pub(super) fn sent(&self, position: Position, began: Instant, now: Instant) {
        let mut state = self.state();
        let is_due = state.sent_at.is_none_or(|at| now.saturating_duration_since(at) >= TRACK_EVERY);
        if state.sent.is_none() && is_due {
            (state.sent, state.sent_at) = (Some((position, began)), Some(now));
            if state.compare(now) {
                self.back.notify_one();
            }
        }
    }

    /// Records how far the tail has read. Returns the time proved by the newest message that has come back, once.
    pub(super) fn read(&self, last: Option<Position>, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.read = last;
        if state.compare(now) {
            self.back.notify_one();
        }
        state.proved.take()
    }

    /// Returns whether a message has come back within this time.
    pub(super) fn came_back_within(&self, time: Duration, now: Instant) -> bool {
        self.state().back.is_some_and(|(back, _)| now.saturating_duration_since(back) < time)
    }

    /// Waits until a message has come back that proves this time or a later one.
    pub(super) async fn proves(&self, began: Instant) {
        while self.state().back.is_none_or(|(_, newest)| newest < began) {
            self.back.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether the message has come back.
    fn compare(&mut self, now: Instant) -> bool {
        let (Some((position, began)), Some(read)) = (self.sent, self.read) else { return false };
        let is_read = read >= position;
        if is_read {
            self.sent = None;
        }
        let is_back = is_read && read.epoch == position.epoch;
        if is_back {
            let began = began.min(now);
            self.proved = self.proved.max(Some(began));
            self.back = Some((now, self.back.map_or(began, |(_, newest)| newest.max(began))));
        }
        is_back
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
        // Only one message is tracked.
        own.sent(at(1, 6), began + TRACK_EVERY, began + TRACK_EVERY);
        let later = began + TRACK_EVERY * 2;
        assert_eq!(own.read(Some(at(1, 9)), later), Some(began));
        assert_eq!(own.read(Some(at(1, 9)), later), None, "it is returned once");
        assert!(own.came_back_within(TRACK_EVERY, later));
        assert!(!own.came_back_within(TRACK_EVERY, later + TRACK_EVERY));
        // The tail may be faster than the answer to the publisher.
        own.sent(at(1, 8), later, later);
        assert_eq!(own.read(Some(at(1, 9)), later), Some(later));
    }

    #[test]
    fn a_later_epoch_proves_nothing() {
        let (own, began) = (OwnEntry::default(), Instant::now());
        own.sent(at(1, 5), began, began);
        assert_eq!(own.read(Some(at(2, 0)), began), None);
        let later = began + TRACK_EVERY;
        own.sent(at(2, 3), later, later);
        assert_eq!(own.read(Some(at(2, 3)), later), Some(later));
        // Nor does an earlier one: the publisher has moved on, the tail has not.
        own.sent(at(3, 0), later + TRACK_EVERY, later + TRACK_EVERY);
        assert_eq!(own.read(Some(at(2, 9)), later + TRACK_EVERY), None);
    }
}
