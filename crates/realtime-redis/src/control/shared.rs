//! [`ControlShared`]: the state that the parts of one control share.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
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
    pub(super) unsynced: Unsynced,
    /// Set while this node has yet to send the tokens of sessions that it has ended for another node's kick.
    pub(super) has_reports: AtomicBool,
}

/// Refusals of this node that may be missing in Redis, numbered as they come.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    last: AtomicU64,
    written: AtomicU64,
}

impl Unsynced {
    /// Records that there are some.
    pub(super) fn add(&self) {
        self.last.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns `true` if there are some.
    pub(super) fn is_some(&self) -> bool {
        self.last() != self.written.load(Ordering::Acquire)
    }

    /// The number of the last ones.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Records that Redis has those up to a number.
    pub(super) fn written(&self, through: u64) {
        self.written.fetch_max(through, Ordering::AcqRel);
    }
}

/// Time for which the sender of a command waits for its receipts, in a Redis that knows all live nodes.
pub(super) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of commands that are added in one step.
pub(super) const BATCH: usize = 200;

impl ControlShared {
    /// Adds commands for everything that this node refuses and that is missing in Redis, for Redis and for the other nodes.
    pub(super) async fn add_missing(&self, snapshot: &Snapshot) -> Result<(), String> {
        let missing = snapshot.missing(self.local.revocations()).await;
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
