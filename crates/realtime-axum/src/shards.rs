//! [`Shards`]: the shards of the runtime's threads.

use std::sync::{Arc, Mutex, PoisonError};

use realtime_core::{Hub, wire::Shard};

/// The shards of the threads that have served a request, kept between connections.
#[derive(Debug, Default)]
pub(crate) struct Shards(Mutex<Vec<Arc<Shard>>>);

impl Shards {
    /// Keeps the shard of the calling thread.
    pub(crate) fn keep(&self, hub: &Hub) {
        let shard = hub.shard();
        let mut shards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !shards.iter().any(|kept| Arc::ptr_eq(kept, &shard)) {
            shards.push(shard);
        }
    }
}
