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
        // Also those that were read before an error: the next load does not miss them any more.
        let mut prefixes = Vec::new();
        self.retry_at = None;
        if let Err(error) = restore(node, &**store, &mut prefixes).await {
            tracing::warn!(%error, "failed to read the text streams, which is tried again");
            node.streams.set_doubted(true);
            self.retry_at = Some(Instant::now() + RETRY);
        }
        prefixes
    }
}

/// Fills the table, and adds the prefixes of what it lacked to `prefixes`.
async fn restore(
    node: &Node,
    store: &dyn StreamStore,
    prefixes: &mut Vec<Arc<Entry>>,
) -> Result<(), BusError> {
    let table = &node.streams.table;
    let behind: Vec<StreamHead> =
        store.heads().await?.into_iter().filter(|head| table.is_behind(head)).collect();
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
    Ok(())
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_core::future::BoxFuture;

    use super::*;
    use crate::{
        Settings, Topic,
        bus::{StreamWrite, StreamWritten},
        streams::{StreamEnd, StreamId, StreamKey},
    };

    /// A store with two streams, of which one cannot be read at first.
    #[derive(Debug, Default)]
    struct Failing(AtomicBool);

    fn ended(id: &str) -> StreamHead {
        let key = StreamKey { topic: Topic::user(&7.into()), id: StreamId::new(id).expect("an id") };
        StreamHead { key, run: 1, writer: "w".into(), len: 5, end: Some(StreamEnd::Done) }
    }

    impl StreamStore for Failing {
        fn write<'a>(&'a self, _: &'a StreamWrite<'a>) -> BoxFuture<'a, Result<StreamWritten, BusError>> {
            Box::pin(async { Ok(StreamWritten::Lost) })
        }

        fn heads(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
            Box::pin(async { Ok(["one", "two"].map(ended).into()) })
        }

        fn read<'a>(
            &'a self,
            key: &'a StreamKey,
        ) -> BoxFuture<'a, Result<Option<(StreamHead, String)>, BusError>> {
            let id = key.id.as_str();
            let fails = id == "two" && !self.0.swap(true, Ordering::Relaxed);
            Box::pin(async move {
                if fails {
                    return Err(BusError::Unavailable("no answer".into()));
                }
                Ok(Some((ended(id), "Hello".to_owned())))
            })
        }

        fn renew<'a>(&'a self, _: &'a [StreamKey]) -> BoxFuture<'a, Result<Vec<StreamKey>, BusError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn abandoned(&self) -> BoxFuture<'_, Result<Vec<StreamHead>, BusError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    #[tokio::test]
    async fn a_text_that_was_read_is_told_though_another_one_could_not_be_read() {
        let node = Node::new(Settings::default());
        let mut loader = Loader::new(Some(Arc::new(Failing::default())));
        assert_eq!((loader.load(&node).await.len(), node.streams.is_doubted()), (1, true));
        assert_eq!((loader.load(&node).await.len(), node.streams.is_doubted()), (1, false));
    }
}
