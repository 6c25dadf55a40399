//! [`Changes`]: the listeners of presence changes, and where the reading of the stream of changes starts.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_core::stream::BoxStream;
use realtime_core::presence::{PresenceEvent, PresenceFeed};
use tokio::{sync::Notify, time::Instant};

use crate::commands::LAST_ID;

/// The listeners of presence changes; the stream is read only while there are any.
///
/// A listener gets the changes after the newest one that this node knew of at the time of the call. Every answer of Redis
/// about presence includes the newest change, and the lease is renewed at least once a second. So nothing is missing between
/// the call and the first read, and no change is sent that the listener could have known from this node. On a node without
/// any answer so far, a listener gets the changes since the time of the call, by Redis' clock.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) feed: PresenceFeed,
    state: Mutex<State>,
    /// Notified when there is a listener to read for.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The newest change that this node knows of; `None` before the first answer.
    known: Option<ChangeId>,
    /// Set while there are listeners, and until the reader has noticed that there are none.
    reading: bool,
    /// The start of the next reading, until the reader takes it.
    start: Option<Start>,
    /// Set while the reader is reading.
    taken: bool,
    /// Set when the previous reader has panicked, so that changes may be missing.
    interrupted: bool,
}

/// The start of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// Behind a change.
    Behind(ChangeId),
    /// With the changes written since then.
    Since(Instant),
}

/// The id of a change in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChangeId {
    pub(super) id: String,
    /// The number of the change, if known: unless the next one has the next number, changes are missing.
    pub(super) number: Option<u64>,
}

impl ChangeId {
    /// The id before the first change.
    pub(super) fn before_all() -> Self {
        Self { id: "0-0".to_owned(), number: Some(0) }
    }

    /// Takes the id of an entry and the number among its fields.
    pub(super) fn new(id: String, fields: &HashMap<String, String>) -> Self {
        if id == LAST_ID {
            // Nothing can follow it: the stream is about to be begun anew.
            return Self { number: None, ..Self::before_all() };
        }
        Self { id, number: fields.get("n").and_then(|number| number.parse().ok()) }
    }
}

impl Changes {
    /// Subscribes to the changes from now on.
    pub(super) fn listen(&self) -> BoxStream<'static, PresenceEvent> {
        let mut state = self.state();
        if !state.reading {
            (state.reading, state.start) = (true, Some(state.next_start()));
            self.wake.notify_one();
        }
        self.feed.subscribe()
    }

    /// Returns whether changes are being read, so that the newest one is known anyway.
    pub(super) fn is_read(&self) -> bool {
        self.state().reading
    }

    /// Records that an answer of Redis includes all changes up to `newest`.
    pub(super) fn set_known(&self, newest: ChangeId) {
        self.state().known = Some(newest);
    }

    /// Starts a new reading if the previous reader has panicked.
    pub(super) fn restart_interrupted(&self) {
        let mut state = self.state();
        if state.taken {
            (state.start, state.interrupted) = (Some(state.next_start()), true);
        }
    }

    /// Waits for a listener. Returns the start of the reading, and whether changes may be missing before it.
    pub(super) async fn wait_for_listener(&self) -> (Start, bool) {
        loop {
            {
                let mut state = self.state();
                if let Some(start) = state.start.take() {
                    state.taken = true;
                    return (start, mem::take(&mut state.interrupted));
                }
            }
            self.wake.notified().await;
        }
    }

    /// Ends the reading if there are no listeners. Returns whether it has ended.
    pub(super) fn end_without_listeners(&self) -> bool {
        // Under the lock: a listener that subscribes afterwards starts a new reading.
        let mut state = self.state();
        if self.feed.listeners() == 0 {
            (state.reading, state.taken) = (false, false);
        }
        !state.reading
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_start(&self) -> Start {
        self.known.clone().map_or_else(|| Start::Since(Instant::now()), Start::Behind)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;

    fn change(number: u64) -> ChangeId {
        ChangeId { id: format!("{number}-0"), number: Some(number) }
    }

    fn behind(number: u64) -> (Start, bool) {
        (Start::Behind(change(number)), false)
    }

    #[tokio::test]
    async fn a_listener_starts_behind_the_newest_change_that_its_node_knew() {
        let changes = Changes::default();
        assert!(changes.wait_for_listener().now_or_never().is_none(), "there is no listener");
        changes.set_known(change(3));
        let first = changes.listen();
        changes.set_known(change(5));
        let second = changes.listen();
        assert_eq!(changes.wait_for_listener().await, behind(3));
        assert!(changes.wait_for_listener().now_or_never().is_none(), "there is one reader");
        drop(first);
        assert!(!changes.end_without_listeners());
        drop(second);
        assert!(changes.end_without_listeners());
        changes.set_known(change(6));
        let third = changes.listen();
        assert_eq!(changes.wait_for_listener().await, behind(6));
        drop(third);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_from_before_the_first_answer_starts_at_its_call() {
        let (changes, called) = (Changes::default(), Instant::now());
        let listener = changes.listen();
        sleep(Duration::from_secs(1)).await;
        // Other nodes may have written these since.
        changes.set_known(change(5));
        assert_eq!(changes.wait_for_listener().await, (Start::Since(called), false));
        drop(listener);
    }
}
