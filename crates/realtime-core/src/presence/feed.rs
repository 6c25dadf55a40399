//! [`PresenceFeed`]: a broadcast of presence changes.

use futures_core::stream::BoxStream;
use futures_util::stream::{StreamExt, unfold};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{PresenceChange, PresenceEvent};

/// Broadcast of presence changes to any number of listeners. A listener that falls behind gets a gap.
#[derive(Debug)]
pub struct PresenceFeed(broadcast::Sender<PresenceEvent>);

/// Events that are buffered for a listener.
const WAITING: usize = 16_384;

impl PresenceFeed {
    /// Publishes a change. Never waits.
    pub fn send(&self, change: PresenceChange) {
        // An error means that there are no listeners.
        self.0.send(PresenceEvent::Changed(change)).ok();
    }

    /// Publishes a gap: changes are missing here.
    pub fn send_gap(&self) {
        self.0.send(PresenceEvent::Gap).ok();
    }

    /// Number of listeners. While there are none, changes need not be read from elsewhere.
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    /// Events from now on. The stream ends when the feed is dropped.
    pub fn subscribe(&self) -> BoxStream<'static, PresenceEvent> {
        let events = unfold(self.0.subscribe(), async |mut receiver| {
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => PresenceEvent::Gap,
                Err(RecvError::Closed) => return None,
            };
            Some((event, receiver))
        });
        events.boxed()
    }
}

impl Default for PresenceFeed {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::presence::PresenceState;

    #[tokio::test]
    async fn a_listener_that_falls_behind_gets_a_gap() {
        let feed = PresenceFeed::default();
        let mut events = feed.subscribe();
        let change = |user: usize| PresenceChange {
            user_id: i64::try_from(user).unwrap().into(),
            state: PresenceState::Online,
            since: SystemTime::UNIX_EPOCH,
        };
        for user in 0..=WAITING {
            feed.send(change(user));
        }
        assert_eq!(events.next().await, Some(PresenceEvent::Gap));
        assert_eq!(events.next().await, Some(PresenceEvent::Changed(change(1))));
        drop(feed);
        assert_eq!(events.skip(WAITING - 1).next().await, None);
    }
}
