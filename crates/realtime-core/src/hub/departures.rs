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

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_core::{future::BoxFuture, stream::BoxStream};
    use futures_util::future::ready;

    use super::*;
    use crate::{
        Hub, Principal, Transport, UserId,
        presence::{
            NoPresence, OnlineCount, OnlineSession, OnlineUser, Presence, PresenceError, PresenceEvent,
        },
        testkit::{self, TestSession},
    };

    /// A presence that is `true` once its node has left.
    #[derive(Default)]
    struct Left(AtomicBool);

    impl Presence for Left {
        fn leave(&self) -> BoxFuture<'_, ()> {
            self.0.store(true, Ordering::SeqCst);
            Box::pin(ready(()))
        }

        fn changes(&self) -> BoxStream<'static, PresenceEvent> {
            NoPresence.changes()
        }

        fn is_online<'a>(&'a self, users: &'a [UserId]) -> BoxFuture<'a, Result<Vec<bool>, PresenceError>> {
            NoPresence.is_online(users)
        }

        fn count(&self) -> BoxFuture<'_, Result<OnlineCount, PresenceError>> {
            Box::pin(ready(Err(PresenceError("it does not count".into()))))
        }

        fn users(&self, _: usize, _: usize) -> BoxFuture<'_, Result<Vec<OnlineUser>, PresenceError>> {
            Box::pin(ready(Ok(Vec::new())))
        }

        fn sessions<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, Result<Vec<OnlineSession>, PresenceError>> {
            Box::pin(ready(Ok(Vec::new())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_leaves_the_cluster_though_a_connection_does_not_notice_that_it_is_broken_off() {
        let left = Arc::new(Left::default());
        let presence = Arc::clone(&left);
        let hub = Hub::builder().presence(|_| presence).start().unwrap();
        testkit::ready(&hub).await;
        let principal = Principal::new(1.into(), "a token");
        // Neither read nor dropped.
        let stuck = TestSession::open(&hub, principal, Transport::new("sse"), None).await.unwrap();
        assert_eq!(hub.drain().await, 1);
        assert!(left.0.load(Ordering::SeqCst));
        assert!(hub.all_sessions().is_empty());
        drop(stuck);
    }
}
