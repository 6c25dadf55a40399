//! Heartbeats: entries by which a node proves to itself that what it publishes comes back through its tail.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use realtime_core::{Position, bus::BusError};
use tokio::time::{sleep, timeout};

use super::{clock::HEARTBEAT_INTERVAL, entry::Heartbeat, shared::StreamsShared};

/// Writes a heartbeat each [`HEARTBEAT_INTERVAL`], unless a message of this node came back instead, and keeps Redis' clock.
/// Never returns.
pub(super) async fn publish_heartbeats(shared: Arc<StreamsShared>) {
    loop {
        shared.trim_by_window.store(true, Ordering::Relaxed);
        // A failure shows at the tail: the heartbeat does not come back.
        let problem =
            if shared.is_proved_by_messages().await { None } else { shared.heartbeat().await.err() };
        if let Some(error) = &problem {
            tracing::debug!(%error, "failed to write a heartbeat");
        }
        shared.set_heartbeat_problem(problem);
        let mut pause = HEARTBEAT_INTERVAL;
        if let Some(connection) = shared.connection.current() {
            match connection.check_role().await {
                Ok(true) => {}
                Ok(false) => shared.connection.discard(&connection),
                Err(error) => tracing::debug!(%error, "failed to ask Redis for its role and time"),
            }
            pause = connection.clock.until_next_heartbeat();
        }
        sleep(pause).await;
    }
}

impl StreamsShared {
    /// Adds a heartbeat, within twice the time limit of a command. Where the master can change it is looked up first, so
    /// that a node that is isolated with an old master does not mistake its own heartbeat for proof.
    ///
    /// Everything that was acknowledged on any node before this call precedes the entry.
    pub(super) async fn heartbeat(self: &Arc<Self>) -> Result<Position, BusError> {
        let began = self.micros();
        self.look_up_master().await;
        Ok(self.add(&Heartbeat { incarnation: &self.incarnation, began }).await?.position)
    }

    /// Returns whether a message proves what a heartbeat would: the master was looked up, and a message that was published
    /// after that came back.
    async fn is_proved_by_messages(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        if !self.own.came_back_within(HEARTBEAT_INTERVAL / 2, now) {
            return false;
        }
        self.look_up_master().await;
        timeout(HEARTBEAT_INTERVAL / 2, self.own.proves(now)).await.is_ok()
    }
}
