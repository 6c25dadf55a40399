//! [`Ring`]: the events of one trace on one node, until they are asked for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::event::{NodeTrace, TraceEvent, TraceKind, TraceTarget};
use crate::log::tally::Recipient;

/// The events of one trace on one node, until they are asked for. Their number is bounded, and their rate.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(super) id: String,
    pub(super) target: TraceTarget,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    events: VecDeque<TraceEvent>,
    /// Number of the first event. Numbers of a later ring are greater, so that those of a node that has restarted are not
    /// taken for earlier ones.
    first: u64,
    /// Number up to which events have been told: later ones were asked for.
    told: u64,
    lost: u64,
    /// Events that are still taken in this second, and its begin.
    left: u32,
    second: Instant,
    asked: Instant,
    /// Messages that were queued and have yet to be written.
    pending: VecDeque<Pending>,
}

/// A message that waits for a socket.
#[derive(Debug)]
struct Pending {
    session: Arc<dyn Recipient>,
    /// Number of bytes that the socket has accepted once it has the message.
    end: u64,
    event: TraceEvent,
}

/// Number of events that are kept.
const KEPT: usize = 1000;
/// Number of events that are taken in a second.
const PER_SECOND: u32 = 200;
/// Number of events in one answer.
const TOLD: usize = 500;
/// Number of messages that are followed to the socket.
const FOLLOWED: usize = 1000;

impl Ring {
    pub(super) fn new(id: String, target: TraceTarget) -> Self {
        let now = Instant::now();
        let micros = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        let first = u64::try_from(micros).unwrap_or_default();
        let state = State {
            events: VecDeque::new(),
            first,
            told: first,
            lost: 0,
            left: PER_SECOND,
            second: now,
            asked: now,
            pending: VecDeque::new(),
        };
        Self { id, target, state: Mutex::new(state) }
    }

    pub(super) fn record(&self, event: TraceEvent) {
        self.lock().record(event);
    }

    /// Returns `true` if another event is taken in this second; counts it as lost otherwise. To be asked before an event is
    /// made, which costs more.
    pub(super) fn takes(&self) -> bool {
        let mut state = self.lock();
        let takes = state.takes();
        state.lost += u64::from(!takes);
        takes
    }

    /// Follows a message that was queued to the socket.
    pub(super) fn follow(&self, session: Arc<dyn Recipient>, end: u64, event: TraceEvent) {
        let mut state = self.lock();
        if state.pending.len() >= FOLLOWED {
            state.lost += 1;
        } else {
            state.pending.push_back(Pending { session, end, event });
        }
    }

    /// Notices what has been written since.
    pub(super) fn sweep(&self) {
        let mut state = self.lock();
        let pending = std::mem::take(&mut state.pending);
        for pending in pending {
            if pending.session.written() >= pending.end {
                let event = TraceEvent { at: SystemTime::now(), kind: TraceKind::Written, ..pending.event };
                state.record(event);
            } else if !pending.session.has_ended() {
                state.pending.push_back(pending);
            }
        }
    }

    /// The events from a number on.
    pub(super) fn read(&self, node: &str, from: u64) -> NodeTrace {
        let mut state = self.lock();
        state.asked = Instant::now();
        // A number beyond the end asks for nothing.
        if from <= state.first + state.events.len() as u64 {
            state.told = state.told.max(from);
        }
        let skip = usize::try_from(from.saturating_sub(state.first)).unwrap_or(usize::MAX);
        let named = |event: &TraceEvent| TraceEvent { node: node.to_owned(), ..event.clone() };
        let events: Vec<_> = state.events.iter().skip(skip).take(TOLD).map(named).collect();
        let next = state.first.max(from).saturating_add(events.len() as u64);
        NodeTrace { events, next, lost: state.lost }
    }

    /// Time since it was asked last.
    pub(super) fn idle(&self) -> Duration {
        self.lock().asked.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn takes(&mut self) -> bool {
        if self.left == 0 && self.second.elapsed() >= Duration::from_secs(1) {
            (self.left, self.second) = (PER_SECOND, Instant::now());
        }
        self.left > 0
    }

    fn record(&mut self, event: TraceEvent) {
        if !self.takes() {
            self.lost += 1;
            return;
        }
        self.left -= 1;
        if self.events.len() >= KEPT {
            self.events.pop_front();
            self.lost += u64::from(self.first >= self.told);
            self.first += 1;
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UserId;

    fn ring() -> Ring {
        Ring::new("a trace".to_owned(), TraceTarget::User(UserId::from(1)))
    }

    #[test]
    fn events_are_read_from_a_number_on_and_again_if_the_answer_was_lost() {
        let ring = ring();
        for kind in [TraceKind::Connect, TraceKind::Begin] {
            ring.record(TraceEvent::new(kind));
        }
        let first = ring.read("a", 0);
        assert_eq!(first, ring.read("a", 0));
        assert_eq!((first.events.len(), first.events[0].node.as_str(), first.lost), (2, "a", 0));
        ring.record(TraceEvent::new(TraceKind::Close));
        let second = ring.read("a", first.next);
        assert_eq!(second.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [TraceKind::Close]);
        assert_eq!(ring.read("a", u64::MAX).events.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_been_told_is_not_lost_when_it_makes_room() {
        let ring = ring();
        let mut next = 0;
        for second in 0..20 {
            for _ in 0..100 {
                ring.record(TraceEvent::new(TraceKind::Written));
            }
            ring.read("a", u64::MAX);
            let read = ring.read("a", next);
            assert_eq!((read.events.len(), read.lost), (100, 0), "second {second}");
            next = read.next;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for _ in 0..10 {
            for _ in 0..PER_SECOND {
                ring.record(TraceEvent::new(TraceKind::Written));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The last hundred that were told have not been asked behind yet.
        let read = ring.read("a", next);
        assert_eq!((read.events.len(), read.lost), (TOLD, 10 * u64::from(PER_SECOND) + 100 - KEPT as u64));
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let ring = ring();
        for _ in 0..PER_SECOND + 7 {
            ring.record(TraceEvent::new(TraceKind::Written));
        }
        let read = ring.read("a", 0);
        assert_eq!((read.events.len(), read.lost), (PER_SECOND as usize, 7));
        assert!(!ring.takes());
        assert_eq!(ring.read("a", read.next).lost, 8);
    }
}
