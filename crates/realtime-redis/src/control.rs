//! [`RedisControl`]: commands to every node of a cluster, in a stream of their own.
//!
//! Each node reads the stream by position and applies the commands, so a node that was disconnected applies those that it
//! missed. Refused tokens are stored beside the stream, in sorted sets, written in one step with their command: a starting node
//! reads the sets first and accepts connections afterwards. Each node keeps a lease and writes a receipt for each command, and
//! the sender of a command waits for the receipts of all nodes with a lease.

mod follower;
mod peers;
mod shared;
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
use realtime_core::{
    Position,
    control::{
        Answers, Command, CommandResult, Control, ControlError, DeliveryReport, LocalControl, LocalResult,
        NodeDelivery, Question,
    },
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use self::{
    follower::Follower,
    shared::{CONFIRM_TIMEOUT, ControlShared, Unsynced},
    store::{Added, Confirmed, RETURN, Receipt, Store, is_passing},
};
use crate::{
    config::{RedisConfig, RedisConfigError},
    content::Skipped,
    incarnation::Incarnation,
    millis::millis,
    task::restarting,
};

/// Control of every node of a cluster through Redis 7.0 or later.
#[derive(Debug)]
pub struct RedisControl {
    shared: Arc<ControlShared>,
    /// The follower. `None` once the node has left.
    task: Mutex<Option<JoinHandle<()>>>,
    started: watch::Receiver<bool>,
}

/// Time for the answers of the nodes to be read.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// The problem of a command in a Redis that may not know all live nodes.
const UNKNOWN_NODES: &str = "Redis does not know which nodes are alive";

/// Time between two queries for receipts.
const POLL_EVERY: Duration = Duration::from_millis(10);

impl RedisControl {
    /// Makes the control of a cluster, to be passed to `HubBuilder::control`, with the incarnation of the node's presence.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL.
    ///
    /// # Panics
    /// The returned function panics outside a tokio runtime.
    pub fn make(
        config: RedisConfig,
        incarnation: Incarnation,
    ) -> Result<impl FnOnce(LocalControl) -> Self + Send, RedisConfigError> {
        let store = Store::make(config, incarnation)?;
        Ok(move |local: LocalControl| {
            let (peers, unsynced, has_reports) =
                (Mutex::default(), Unsynced::default(), AtomicBool::default());
            let counted = local.clone();
            let store = store(Skipped::new(move || counted.count_unreadable()));
            let shared = Arc::new(ControlShared { local, store, peers, unsynced, has_reports });
            let (sender, started) = watch::channel(false);
            let following = Arc::clone(&shared);
            let task = tokio::spawn(restarting("control", move || {
                Follower::new(Arc::clone(&following), sender.clone()).run()
            }));
            Self { shared, task: Mutex::new(Some(task)), started }
        })
    }
}

impl Drop for RedisControl {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

impl Control for RedisControl {
    fn dispatch(&self, command: Command) -> BoxFuture<'_, Result<CommandResult, ControlError>> {
        Box::pin(async move {
            let added = match self.shared.store.add(slice::from_ref(&command), true).await {
                Ok(added) => added,
                Err(error) => {
                    let LocalResult { revoked, .. } = self.shared.local.apply(&command);
                    if !revoked.is_empty() || !command.revocations().is_empty() {
                        // The other nodes get it when Redis is available again.
                        self.shared.unsynced.add();
                    }
                    return Err(ControlError(format!("{error}; only this node has carried it out")));
                }
            };
            if is_passing(&command) {
                // Who sends it looks again, and a node that hangs must not hold it up.
                self.shared.store.remove_when_read(added.ids);
                return Ok(CommandResult::default());
            }
            self.confirm(added).await.map_err(|error| {
                ControlError(format!("{error}; it was sent, but may not have been carried out"))
            })
        })
    }

    fn report(
        &self,
        position: Position,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<DeliveryReport, ControlError>> {
        Box::pin(async move {
            let deadline = Instant::now() + timeout;
            // A node answers in time for its answer to be read.
            let within = timeout - (timeout / 4).min(ANSWER_TIME);
            let command = Command::Report { position, within: millis(within) };
            let (delivered, missing) =
                self.collect(&command, deadline, |receipt| receipt.delivery).await.map_err(ControlError)?;
            let nodes = delivered.into_iter().map(|(node, delivery)| NodeDelivery { node, delivery });
            Ok(DeliveryReport { nodes: nodes.collect(), missing })
        })
    }

    fn ask(&self, question: Question, timeout: Duration) -> BoxFuture<'_, Result<Answers, ControlError>> {
        Box::pin(async move {
            let (command, deadline) = (Command::Ask { question }, Instant::now() + timeout);
            let collected = self.collect(&command, deadline, |receipt| receipt.answer.clone()).await;
            let (nodes, missing) = collected.map_err(ControlError)?;
            Ok(Answers { nodes, missing })
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
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                task.abort();
                // Another renewal of the task after the end of the lease would begin it anew.
                task.await.ok();
            }
            if (self.shared.unsynced.is_some() || self.shared.has_reports.load(Ordering::Acquire))
                && let Err(error) = self.shared.sync_revocations().await
            {
                tracing::warn!(%error, "failed to send the revoked tokens of this node to the others before it stops");
            }
            if let Err(error) = self.shared.store.end_lease().await {
                tracing::warn!(%error, "failed to end the lease of control; it expires");
            }
        })
    }
}

impl RedisControl {
    /// Sends a command and waits for what it asks of every live node. Returns it by the node's name, and the nodes without.
    async fn collect<T>(
        &self,
        command: &Command,
        deadline: Instant,
        read: impl Fn(&Receipt) -> Option<T> + Send,
    ) -> Result<(Vec<(String, T)>, Vec<String>), String> {
        let ControlShared { store, .. } = &*self.shared;
        let asked = store.ask(command).await?;
        let waited = self.waited(&asked.added);
        let began = Instant::now();
        loop {
            let Confirmed { nodes, knows_all, receipts, .. } = store.confirmed(&asked.added.ids).await?;
            let answers = receipts.into_iter().next().unwrap_or_default();
            let has_all = knows_all && nodes.union(&waited).all(|node| answers.contains_key(node));
            if !has_all && Instant::now() < deadline {
                let pause = (began.elapsed() / 10).clamp(POLL_EVERY, 10 * POLL_EVERY);
                timeout_at(deadline, sleep(pause)).await.ok();
                continue;
            }
            if !knows_all {
                return Err(UNKNOWN_NODES.to_owned());
            }
            let name = |node: &str| Incarnation::node(node).to_owned();
            let answered = answers.iter().filter_map(|(node, receipt)| Some((node, read(receipt)?)));
            let answered: Vec<_> = answered.collect();
            let is_missing = |node: &&String| answered.iter().all(|(known, _)| known != node);
            let mut missing: Vec<_> =
                nodes.union(&waited).filter(is_missing).map(|node| name(node)).collect();
            missing.sort();
            let mut answered: Vec<_> =
                answered.into_iter().map(|(node, answer)| (name(node), answer)).collect();
            answered.sort_by(|(a, _), (b, _)| a.cmp(b));
            return Ok((answered, missing));
        }
    }

    /// Returns the nodes that a command waits for besides those with a lease.
    fn waited(&self, added: &Added) -> HashSet<String> {
        let ControlShared { store, peers, unsynced, .. } = &*self.shared;
        // The own receipt is always waited for, also before the first lease.
        let mut waited = HashSet::from([store.incarnation().to_owned()]);
        let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
        if !added.has_lease && *self.started.borrow() {
            peers.doubt();
            unsynced.add();
        }
        waited.extend(peers.doubted().cloned());
        waited
    }

    /// Waits until every live node has applied a command, and the revocations that follow from it.
    async fn confirm(&self, added: Added) -> Result<CommandResult, String> {
        let ControlShared { store, .. } = &*self.shared;
        let began = Instant::now();
        let waited = self.waited(&added);
        let mut ids = added.ids;
        loop {
            let Confirmed { nodes, knows_all, receipts, is_kept } = store.confirmed(&ids).await?;
            if !is_kept {
                return Err("Redis has lost it".to_owned());
            }
            let following = receipts.first().into_iter().flat_map(|of_order| of_order.values());
            let following: Vec<_> = following.filter_map(|receipt| receipt.refuse.clone()).collect();
            let known = ids.len();
            ids.extend(following.into_iter().filter(|id| !ids.contains(id)).collect::<Vec<_>>());
            if ids.len() > known {
                continue;
            }
            let all = || receipts.iter().flat_map(|of_order| of_order.values());
            let closed = all().map(|receipt| receipt.closed).fold(0, usize::saturating_add);
            let changed = all().map(|receipt| receipt.changed).fold(0, usize::saturating_add);
            let confirmed = |node: &String| receipts.iter().all(|of_order| of_order.contains_key(node));
            let missing: HashSet<_> = nodes.union(&waited).filter(|node| !confirmed(node)).collect();
            let timeout = if knows_all { CONFIRM_TIMEOUT } else { RETURN + CONFIRM_TIMEOUT };
            let is_late = began.elapsed() >= timeout;
            if is_late && !knows_all {
                return Err(UNKNOWN_NODES.to_owned());
            }
            if missing.is_empty() && knows_all || is_late {
                let mut unconfirmed: Vec<_> =
                    missing.into_iter().map(|node| Incarnation::node(node).to_owned()).collect();
                unconfirmed.sort();
                return Ok(CommandResult { closed, changed, unconfirmed });
            }
            sleep(POLL_EVERY).await;
        }
    }
}
