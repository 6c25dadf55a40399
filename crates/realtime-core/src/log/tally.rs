//! [`Tally`]: the sessions that an entry of the log is for, counted for the publisher.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{SessionId, delivery::Delivery};

/// Longest time for which an entry's deliveries are counted: nobody asks later.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// Counter of one entry's deliveries on this node.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: Delivery,
    /// Sessions whose outbox has the entry, and the byte of the outbox behind it.
    queued: Vec<(Arc<dyn Recipient>, u64)>,
    /// Sessions that have yet to read the entry from the log.
    behind: HashMap<SessionId, Arc<dyn Recipient>>,
    /// The numbers have been reported.
    closed: bool,
}

/// Session that an entry is delivered to.
pub(crate) trait Recipient: fmt::Debug + Send + Sync {
    /// Number of bytes that its socket has accepted.
    fn written(&self) -> u64;

    /// Returns `true` if nothing more is written.
    fn has_ended(&self) -> bool;
}

impl Tally {
    /// Counts a session whose outbox has accepted the entry, which ends at the byte `end`.
    pub(crate) fn queued(&self, recipient: Arc<dyn Recipient>, end: u64) {
        let mut state = self.lock();
        if !state.closed {
            state.count.sessions += 1;
            state.count.queued += 1;
            state.queued.push((recipient, end));
        }
    }

    /// Counts a session, once, that will read the entry from the log.
    pub(crate) fn behind(&self, id: SessionId, recipient: Arc<dyn Recipient>) {
        let mut state = self.lock();
        if !state.closed && state.behind.insert(id, recipient).is_none() {
            state.count.sessions += 1;
        }
    }

    /// Counts a session that has read the entry from the log. One that the entry was not for at first is not counted.
    pub(crate) fn caught_up(&self, id: SessionId, end: u64) {
        let mut state = self.lock();
        if let Some(recipient) = state.behind.remove(&id) {
            state.count.queued += 1;
            state.queued.push((recipient, end));
        }
    }

    /// The numbers until now. `true`: they are final.
    pub(crate) fn count(&self) -> (Delivery, bool) {
        let mut state = self.lock();
        let State { count, queued, behind, .. } = &mut *state;
        queued.retain(|(recipient, end)| {
            let written = recipient.written() >= *end;
            count.written += usize::from(written);
            !written && !recipient.has_ended()
        });
        behind.retain(|_, recipient| !recipient.has_ended());
        (*count, queued.is_empty() && behind.is_empty())
    }

    /// Ends the counting, and lets go of the sessions.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.queued, state.behind, state.closed) = (Vec::new(), HashMap::new(), true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Socket {
        written: AtomicU64,
        ended: AtomicBool,
    }

    impl Recipient for Socket {
        fn written(&self) -> u64 {
            self.written.load(Ordering::Relaxed)
        }

        fn has_ended(&self) -> bool {
            self.ended.load(Ordering::Relaxed)
        }
    }

    fn count(tally: &Tally) -> (usize, usize, usize, bool) {
        let (Delivery { sessions, queued, written }, is_final) = tally.count();
        (sessions, queued, written, is_final)
    }

    #[test]
    fn each_session_is_counted_once_in_each_number() {
        let tally = Tally::default();
        assert_eq!(count(&tally), (0, 0, 0, true));
        let (fast, slow, gone) =
            (Arc::<Socket>::default(), Arc::<Socket>::default(), Arc::<Socket>::default());
        let (id, other) = (SessionId::random(), SessionId::random());
        tally.queued(Arc::clone(&fast) as _, 10);
        tally.behind(id, Arc::clone(&slow) as _);
        tally.behind(id, Arc::clone(&slow) as _);
        tally.behind(other, Arc::clone(&gone) as _);
        tally.caught_up(SessionId::random(), 1);
        assert_eq!(count(&tally), (3, 1, 0, false));
        fast.written.store(10, Ordering::Relaxed);
        gone.ended.store(true, Ordering::Relaxed);
        assert_eq!(count(&tally), (3, 1, 1, false));
        tally.caught_up(id, 20);
        assert_eq!(count(&tally), (3, 2, 1, false));
        slow.written.store(19, Ordering::Relaxed);
        assert_eq!(count(&tally), (3, 2, 1, false));
        slow.ended.store(true, Ordering::Relaxed);
        assert_eq!(count(&tally), (3, 2, 1, true), "nothing more is written to it");
        tally.close();
        tally.queued(fast, 30);
        assert_eq!(count(&tally), (3, 2, 1, true));
    }
}
