//! [`ControlShared`]: the state that the parts of one control share.

use std::{
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use realtime_core::control::LocalControl;

use super::{
    peers::Peers,
    store::{Snapshot, Store},
};

/// The state that the sender of commands and the follower share.
#[derive(Debug)]
pub(super) struct ControlShared {
    pub(super) local: LocalControl,
    pub(super) store: Store,
    pub(super) peers: Mutex<Peers>,
    /// Set while this node refuses something that may be missing in Redis.
    pub(super) unsynced: AtomicBool,
}

/// Time for which the sender of a command waits for its receipts, in a Redis that knows all live nodes.
pub(super) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of commands that are added in one step.
pub(super) const BATCH: usize = 200;

impl ControlShared {
    /// Adds commands for everything that this node refuses and that is missing in Redis, for Redis and for the other nodes.
    pub(super) async fn add_missing(&self, snapshot: &Snapshot) -> Result<(), String> {
        let missing = snapshot.missing(self.local.revocations());
        for commands in missing.chunks(BATCH) {
            self.store.add(commands, false).await?;
        }
        Ok(())
    }

    /// Does the same with a new snapshot.
    pub(super) async fn sync_revocations(&self) -> Result<(), String> {
        let snapshot = self.store.snapshot().await?;
        self.add_missing(&snapshot).await
    }
}
