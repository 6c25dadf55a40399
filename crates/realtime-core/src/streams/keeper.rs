//! The keeper: renews the leases of this node's writers, ends streams whose writers have none, and forgets old ones.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{TryStreamExt, stream};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{driver::interrupt, entry::StreamEnd, id::StreamKey, writer_state::StreamError};
use crate::{
    bus::{BusError, StreamStore},
    node::Node,
};

/// Interval of renewals and of the search for abandoned streams.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a stream that the store does not know is ended: longer than a lease, so that its writer had time to
/// publish it anew.
const ORPHANED: Duration = Duration::from_secs(12);

/// Number of streams whose leases are renewed in one request.
const RENEWALS: usize = 500;

/// Number of streams that are ended at once.
const AT_ONCE: usize = 16;

/// Time for which a node that stops waits for the ends of its streams.
const LEAVE: Duration = Duration::from_secs(2);

/// Runs until it is dropped.
pub(crate) async fn keep(node: Arc<Node>, store: Arc<dyn StreamStore>) {
    let mut timer = interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut orphans = HashMap::new();
    loop {
        timer.tick().await;
        if node.streams.table.is_empty() && node.streams.all_writers().is_empty() {
            orphans.clear();
            continue;
        }
        node.streams.table.expire(Instant::now());
        for result in [renew(&node, &*store).await, sweep(&node, &*store, &mut orphans).await] {
            if let Err(error) = result {
                tracing::debug!(%error, "failed to keep the text streams");
            }
        }
    }
}

/// Renews the leases of this node's writers.
async fn renew(node: &Node, store: &dyn StreamStore) -> Result<(), BusError> {
    let writers = node.streams.all_writers();
    let keys: Vec<_> = writers.iter().map(|writer| writer.key.clone()).collect();
    for keys in keys.chunks(RENEWALS) {
        for lost in store.renew(keys).await? {
            // The next write shows whether it was ended or lost.
            writers.iter().filter(|writer| writer.key == lost).for_each(|writer| writer.doubt());
        }
    }
    Ok(())
}

/// Ends the streams of other nodes whose writers have no lease any more.
async fn sweep(
    node: &Node,
    store: &dyn StreamStore,
    orphans: &mut HashMap<(StreamKey, u64), Instant>,
) -> Result<(), BusError> {
    let own: HashSet<_> = node.streams.all_writers().iter().map(|writer| writer.key.clone()).collect();
    let mut live = node.streams.table.live();
    live.retain(|(key, ..)| !own.contains(key));
    orphans.retain(|(key, run), _| live.iter().any(|(live, of, _)| live == key && of == run));
    if live.is_empty() {
        return Ok(());
    }
    end_abandoned(node, store).await?;
    // A store that has lost its data knows no leases either.
    for (key, run, _) in &live {
        orphans.entry((key.clone(), *run)).or_insert_with(Instant::now);
    }
    live.retain(|(key, run, _)| orphans[&(key.clone(), *run)].elapsed() >= ORPHANED);
    if live.is_empty() {
        return Ok(());
    }
    let known: HashSet<_> = store.heads().await?.into_iter().map(|head| head.key).collect();
    for (key, run, len) in live {
        orphans.insert((key.clone(), run), Instant::now());
        if !known.contains(&key) {
            interrupt(node, store, "", (key, run, len)).await?;
        }
    }
    Ok(())
}

/// Ends the streams whose leases have ended: a search finds some of them, and another one the next. This node's own leases
/// are renewed in between.
async fn end_abandoned(node: &Node, store: &dyn StreamStore) -> Result<(), BusError> {
    let mut tried = HashSet::new();
    loop {
        let mut found = store.abandoned().await?;
        found.retain(|head| tried.insert((head.key.clone(), head.run)));
        if found.is_empty() {
            return Ok(());
        }
        stream::iter(found.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, async |head| {
                interrupt(node, store, &head.writer, (head.key, head.run, head.len)).await.map(drop)
            })
            .await?;
        renew(node, store).await?;
    }
}

/// Ends this node's streams as interrupted, since it stops.
pub(crate) async fn leave(node: &Node) {
    let writers = node.streams.all_writers();
    for writer in &writers {
        writer.finish(StreamEnd::Interrupted);
    }
    let ended = async {
        for writer in &writers {
            let _: Result<(), StreamError> = writer.wait_for(|state| state.over.clone()).await;
        }
    };
    if timeout(LEAVE, ended).await.is_err() {
        tracing::warn!("text streams of this node could not be ended; other nodes end them");
    }
}
