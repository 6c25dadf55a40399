//! [`RedisControl`]: orders to every node of a cluster, in a stream of their own.
//!
//! Each node reads the stream by position and carries out what it finds, so a node that was cut off carries out what it
//! missed. What is refused is kept beside the stream, in sorted sets, written in one step with its order: a node that
//! starts reads them in one go and takes nobody in before. Each node keeps a lease and leaves a receipt, and whoever
//! gave the order waits for the receipts of all nodes that hold a lease.

mod follower;
mod store;

use std::{
    collections::HashSet,
    future::pending,
    slice,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_core::future::BoxFuture;
use realtime_core::{Applied, Control, ControlError, LocalControl, Order, Outcome};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use self::{
    follower::Follower,
    store::{Added, LEASE, Snapshot, Store},
};
use crate::{
    config::{RedisConfig, RedisConfigError},
    incarnation::Incarnation,
    task::restarting,
};

/// Gives orders to every node through Redis 7.0 or later.
#[derive(Debug)]
pub struct RedisControl {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    started: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Shared {
    local: LocalControl,
    store: Store,
    peers: Mutex<Peers>,
    /// This node refuses something that Redis may not know.
    untold: AtomicBool,
}

/// The nodes that hold a lease, as this one has seen it last: a Redis that was emptied has forgotten them.
#[derive(Debug, Default)]
struct Peers {
    nodes: HashSet<String>,
    /// Redis has forgotten leases. Until then those that were seen before are waited for.
    doubted_until: Option<Instant>,
}

/// How long the nodes may take to confirm an order.
const CONFIRM: Duration = Duration::from_secs(1);
/// How often receipts are looked for.
const LOOK: Duration = Duration::from_millis(10);

impl RedisControl {
    /// The control of a cluster; give it to `HubBuilder::control`, with the incarnation of the node's presence.
    ///
    /// # Errors
    /// [`RedisConfigError`] when a URL is none.
    ///
    /// # Panics
    /// The function it returns, outside a tokio runtime.
    pub fn make(
        config: RedisConfig,
        incarnation: Incarnation,
    ) -> Result<impl FnOnce(LocalControl) -> Self + Send, RedisConfigError> {
        let store = Store::make(config, incarnation)?;
        Ok(move |local| {
            let (peers, untold) = (Mutex::default(), AtomicBool::default());
            let shared = Arc::new(Shared { local, store: store(), peers, untold });
            let (sender, started) = watch::channel(false);
            let following = Arc::clone(&shared);
            let task = tokio::spawn(restarting("control", move || {
                Follower::new(Arc::clone(&following), sender.clone()).run()
            }));
            Self { shared, task, started }
        })
    }
}

impl Drop for RedisControl {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control for RedisControl {
    fn give(&self, order: Order) -> BoxFuture<'_, Result<Outcome, ControlError>> {
        Box::pin(async move {
            let added = match self.shared.store.add(slice::from_ref(&order), true).await {
                Ok(added) => added,
                Err(error) => {
                    let Applied { refused, .. } = self.shared.local.apply(&order);
                    if !refused.is_empty() || !order.revocations().is_empty() {
                        // The others are told when Redis is back.
                        self.shared.untold.store(true, Ordering::Release);
                    }
                    return Err(ControlError(format!("{error}; only this node has carried it out")));
                }
            };
            self.confirm(added).await.map_err(|error| {
                ControlError(format!("{error}; it was passed on, but not seen to be carried out"))
            })
        })
    }

    fn started(&self) -> BoxFuture<'_, ()> {
        let mut started = self.started.clone();
        Box::pin(async move {
            if started.wait_for(|started| *started).await.is_err() {
                pending().await
            }
        })
    }

    fn is_started(&self) -> bool {
        *self.started.borrow()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.task.abort();
            if self.shared.untold.load(Ordering::Acquire)
                && let Err(error) = self.shared.tell_now().await
            {
                tracing::warn!(%error, "this node stops before it could tell the others which tokens were kicked");
            }
            if let Err(error) = self.shared.store.give_up_lease().await {
                tracing::warn!(%error, "the lease of control runs out by itself");
            }
        })
    }
}

impl RedisControl {
    /// Waits until every live node has carried out an order and the refusals that followed from it.
    async fn confirm(&self, added: Added) -> Result<Outcome, String> {
        let Shared { store, peers, untold, .. } = &*self.shared;
        let deadline = Instant::now() + CONFIRM;
        // This node is always waited for, also before its first lease.
        let mut waited = HashSet::from([store.incarnation().to_owned()]);
        let in_doubt = {
            let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
            if !added.has_lease && *self.started.borrow() {
                peers.doubt();
                untold.store(true, Ordering::Release);
            }
            waited.extend(peers.doubted().cloned());
            peers.is_in_doubt()
        };
        let mut ids = added.ids;
        loop {
            let (nodes, receipts) = store.confirmed(&ids).await?;
            let followed = receipts.first().into_iter().flat_map(|of_order| of_order.values());
            let followed: Vec<_> = followed.filter_map(|receipt| receipt.refuse.clone()).collect();
            let known = ids.len();
            ids.extend(followed.into_iter().filter(|id| !ids.contains(id)).collect::<Vec<_>>());
            if ids.len() > known {
                continue;
            }
            let closed = receipts.iter().flat_map(|of_order| of_order.values()).map(|receipt| receipt.closed);
            let closed = closed.sum();
            let confirmed = |node: &String| receipts.iter().all(|of_order| of_order.contains_key(node));
            let missing: HashSet<_> = nodes.union(&waited).filter(|node| !confirmed(node)).collect();
            // Nodes that nobody knows just now come forward in less than the time.
            if (missing.is_empty() && !in_doubt) || Instant::now() >= deadline {
                let mut unconfirmed: Vec<_> =
                    missing.into_iter().map(|node| Incarnation::node(node).to_owned()).collect();
                unconfirmed.sort();
                return Ok(Outcome { closed, unconfirmed });
            }
            timeout_at(deadline, sleep(LOOK)).await.ok();
        }
    }
}

impl Peers {
    /// This node has renewed its lease: whether it was still there, and who holds one now.
    fn renewed(&mut self, had_lease: bool, nodes: HashSet<String>) {
        if !had_lease && !self.nodes.is_empty() {
            self.doubt();
        }
        if self.is_in_doubt() {
            self.nodes.extend(nodes);
        } else {
            *self = Self { nodes, doubted_until: None };
        }
    }

    /// This node's lease is gone, and so may be those of others that live.
    fn doubt(&mut self) {
        self.doubted_until = Some(Instant::now() + LEASE);
    }

    fn is_in_doubt(&self) -> bool {
        self.doubted_until.is_some_and(|until| Instant::now() < until)
    }

    /// Nodes that may live though Redis does not know them.
    fn doubted(&self) -> impl Iterator<Item = &String> {
        let in_doubt = self.is_in_doubt();
        self.nodes.iter().filter(move |_| in_doubt)
    }
}

impl Shared {
    /// Tells Redis and the other nodes what this node refuses and Redis does not know.
    async fn tell(&self, snapshot: &Snapshot) -> Result<(), String> {
        let missing = snapshot.missing(self.local.revocations());
        for chunk in missing.chunks(TELL) {
            self.store.add(chunk, false).await?;
        }
        Ok(())
    }

    async fn tell_now(&self) -> Result<(), String> {
        let snapshot = self.store.snapshot().await?;
        self.tell(&snapshot).await
    }
}

/// How many orders are added in one step.
const TELL: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_held_a_lease_before_redis_forgot_is_waited_for_until_it_would_have_ended() {
        let mut peers = Peers::default();
        peers.renewed(false, nodes(&["a"]));
        assert_eq!(peers.doubted().count(), 0, "a node that starts has forgotten nobody");
        peers.renewed(true, nodes(&["a", "b", "gone"]));
        peers.renewed(true, nodes(&["a", "b"]));
        assert_eq!(peers.doubted().count(), 0);
        peers.renewed(false, nodes(&["a"]));
        peers.renewed(true, nodes(&["a", "c"]));
        assert_eq!(peers.doubted().cloned().collect::<HashSet<_>>(), nodes(&["a", "b", "c"]));
        tokio::time::advance(LEASE).await;
        assert_eq!(peers.doubted().count(), 0);
        peers.renewed(true, nodes(&["a", "c"]));
        assert_eq!(peers.nodes, nodes(&["a", "c"]));
    }
}
