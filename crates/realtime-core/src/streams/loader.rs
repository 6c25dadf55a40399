//! The loader: fills a node's table from the bus's store, when the node may have missed something.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    bus::{BusError, StreamHead, StreamStore},
    log::Entry,
    node::Node,
};

/// Number of streams that are read at the same time.
const READS: usize = 8;

/// Pause after a failed attempt.
const RETRY: Duration = Duration::from_secs(1);

/// Fills the node's table from the store.
pub(crate) struct Loader {
    store: Option<Arc<dyn StreamStore>>,
    retry_at: Option<Instant>,
}

impl Loader {
    pub(crate) fn new(store: Option<Arc<dyn StreamStore>>) -> Self {
        Self { store, retry_at: None }
    }

    /// Returns `true` if the table is to be filled now.
    pub(crate) fn is_due(&self, node: &Node) -> bool {
        node.streams.is_doubted()
            && self.store.is_some()
            && self.retry_at.is_none_or(|retry_at| Instant::now() >= retry_at)
    }

    /// Fills the table. Returns the prefixes of the streams that it lacked, for the sessions that are there already.
    pub(crate) async fn load(&mut self, node: &Node) -> Vec<Arc<Entry>> {
        let Some(store) = &self.store else { return Vec::new() };
        // Doubts that arise from now on are another load's.
        node.streams.set_doubted(false);
        match restore(node, &**store).await {
            Ok(prefixes) => {
                self.retry_at = None;
                prefixes
            }
            Err(error) => {
                tracing::warn!(%error, "failed to read the text streams, which is tried again");
                node.streams.set_doubted(true);
                self.retry_at = Some(Instant::now() + RETRY);
                Vec::new()
            }
        }
    }
}

async fn restore(node: &Node, store: &dyn StreamStore) -> Result<Vec<Arc<Entry>>, BusError> {
    let table = &node.streams.table;
    let behind: Vec<StreamHead> =
        store.heads().await?.into_iter().filter(|head| table.is_behind(head)).collect();
    let mut prefixes = Vec::new();
    for heads in behind.chunks(READS) {
        let mut reads = Vec::new();
        for head in heads {
            reads.push(store.read(&head.key));
        }
        for read in join_all(reads).await {
            if let Some((head, text)) = read?
                && table.restore(&head, text, Instant::now())
            {
                prefixes.extend(table.prefix(&head.key));
            }
        }
    }
    Ok(prefixes)
}
