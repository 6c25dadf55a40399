//! [`Departures`]: sessions that are asked to go to other nodes, one after the other.

use std::{sync::Arc, time::Duration, vec};

use tokio::time::Instant;

use crate::{CloseReason, retry::random_retry, session::state::SessionState};

/// Sessions that have yet to be closed, evenly over a window, and each with a reconnection delay of its own.
///
/// All at once, they would also come back at once: those whose clients choose the time themselves, too.
pub(super) struct Departures {
    sessions: vec::IntoIter<Arc<SessionState>>,
    begun: Instant,
    /// Time between two closes.
    pace: Duration,
    taken: u32,
}

/// The longest time between two closes, so that a node of few sessions does not take the whole window.
const SLOWEST: Duration = Duration::from_millis(50);

/// Mean of the reconnection delays.
const RETRY: Duration = Duration::from_millis(500);

impl Departures {
    /// Departures from now on, which take `window` at most.
    pub(super) fn new(sessions: Vec<Arc<SessionState>>, window: Duration) -> Self {
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let pace = (window / count.max(1)).min(SLOWEST);
        Self { sessions: sessions.into_iter(), begun: Instant::now(), pace, taken: 0 }
    }

    /// Number of sessions that have yet to be closed.
    pub(super) fn left(&self) -> usize {
        self.sessions.len()
    }

    /// Time of the next close; `None` behind the last.
    pub(super) fn next_at(&self) -> Option<Instant> {
        (self.left() > 0).then(|| self.begun + self.pace * self.taken)
    }

    /// The next session, if its time has come.
    pub(super) fn next_due(&mut self) -> Option<Arc<SessionState>> {
        if self.next_at()? > Instant::now() {
            return None;
        }
        self.taken += 1;
        self.sessions.next()
    }
}

/// The reason of one session's end, with a delay of its own.
pub(super) fn reason() -> CloseReason {
    CloseReason::Drain { retry: random_retry(RETRY) }
}
