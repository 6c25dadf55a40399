//! [`Registry`]: the shards of this node.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, Weak},
    thread::{self, ThreadId},
};

use crate::{node::Node, shard::Shard};

/// The shards of this node, one for each thread that has asked for one.
pub(crate) struct Registry {
    pub(crate) node: Arc<Node>,
    shards: RwLock<HashMap<ThreadId, Weak<Shard>>>,
}

impl Registry {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, shards: RwLock::default() }
    }

    /// The calling thread's shard, created on first use.
    pub(crate) fn shard(&self) -> Arc<Shard> {
        let thread = thread::current().id();
        let known =
            self.shards.read().unwrap_or_else(PoisonError::into_inner).get(&thread).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let shard = Shard::spawn(Arc::clone(&self.node));
            let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
            shards.retain(|_, shard| shard.strong_count() > 0);
            shards.insert(thread, Arc::downgrade(&shard));
            shard
        })
    }

    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Wakes all shards, since the log has new entries.
    pub(crate) fn wake(&self) {
        for shard in self.shards() {
            shard.wake();
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("node", &self.node).finish_non_exhaustive()
    }
}
