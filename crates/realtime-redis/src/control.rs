//! [`RedisControl`]: orders to every node of a cluster, in a stream of their own.
//!
//! Each node reads the stream by position and carries out what it finds. So a node that was cut off, or has just
//! started, carries out what it missed: a revocation outlives the node that gave it. Each node keeps a lease and
//! leaves a receipt, and whoever gave the order waits for the receipts of all nodes that hold a lease.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_core::future::BoxFuture;
use realtime_core::{Applied, Control, ControlError, LocalControl, Order, Outcome};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    backoff::Backoff,
    commands::Commands,
    config::{RedisConfig, RedisConfigError},
    incarnation::Incarnation,
};

/// Gives orders to every node through Redis 7.0 or later.
#[derive(Debug)]
pub struct RedisControl {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// The last order that this node has carried out.
    done: watch::Receiver<String>,
}

#[derive(Debug)]
struct Shared {
    local: LocalControl,
    commands: Commands,
    /// The orders.
    orders: String,
    /// Before an order's id: the receipts of its nodes.
    receipts: String,
    /// A node's incarnation -> when its lease ends, in milliseconds by Redis' clock.
    nodes: String,
    incarnation: Incarnation,
    born: Instant,
    renew: redis::Script,
}

/// What a node leaves behind when it has carried out an order.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    closed: usize,
}

/// How long the nodes may take to confirm an order.
const CONFIRM: Duration = Duration::from_secs(1);
/// How often receipts are looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long a node is believed to live without a word.
const LEASE: Duration = Duration::from_secs(9);
/// How often a node renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How long receipts are kept.
const KEEP_RECEIPTS: u64 = 60;
/// About how many orders are kept: a node that starts carries out all of them.
const KEEP_ORDERS: usize = 10_000;

/// KEYS: nodes. ARGV: incarnation, lease in ms. Leases that have ended go.
const RENEW: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return 0
";

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
        let tag = config.name("rt");
        let commands = Commands::make(config)?;
        Ok(move |local| {
            let key = |name: &str| format!("{{{tag}}}:{name}");
            let orders = key("control");
            let shared = Arc::new(Shared {
                local,
                commands: commands(orders.clone()),
                receipts: key("receipts:"),
                nodes: key("nodes"),
                orders,
                incarnation,
                born: Instant::now(),
                renew: redis::Script::new(RENEW),
            });
            let (sender, done) = watch::channel("0-0".to_owned());
            let task = tokio::spawn(follow(Arc::clone(&shared), sender));
            Self { shared, task, done }
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
            let id = match self.shared.add(&order).await {
                Ok(id) => id,
                Err(error) => {
                    self.shared.local.apply(&order);
                    return Err(ControlError(format!("{error}; only this node has carried it out")));
                }
            };
            let deadline = Instant::now() + CONFIRM;
            let mut outcome = Outcome::default();
            loop {
                let (nodes, receipts) = self.shared.confirmed(&id).await.map_err(ControlError)?;
                outcome.closed = receipts.values().map(|receipt| receipt.closed).sum();
                let missing = nodes.iter().filter(|node| !receipts.contains_key(*node));
                outcome.unconfirmed = missing.map(|node| Incarnation::node(node).to_owned()).collect();
                // This node is always waited for, also before its first lease.
                let done = reached(&self.done.borrow(), &id);
                if (done && outcome.unconfirmed.is_empty()) || Instant::now() >= deadline {
                    return Ok(outcome);
                }
                timeout_at(deadline, sleep(LOOK)).await.ok();
            }
        })
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.task.abort();
            if let Err(error) = self.shared.give_up_lease().await {
                tracing::warn!(%error, "the lease of control runs out by itself");
            }
        })
    }
}

impl Shared {
    async fn renew_lease(&self) -> Result<(), String> {
        let mut invocation = self.renew.prepare_invoke();
        invocation.key(&self.nodes).arg(self.incarnation.as_str()).arg(LEASE.as_secs() * 1000);
        self.commands.run(async |connection| invocation.invoke_async::<()>(connection).await).await
    }

    async fn give_up_lease(&self) -> Result<(), String> {
        let remove = async |connection: &mut redis::aio::MultiplexedConnection| {
            let node = self.incarnation.as_str();
            redis::cmd("ZREM").arg(&self.nodes).arg(node).query_async::<()>(connection).await
        };
        self.commands.run(remove).await
    }

    /// Adds an order and returns its id.
    async fn add(&self, order: &Order) -> Result<String, String> {
        let json = serde_json::to_string(order).expect("strings and numbers are always JSON");
        let add = async |connection: &mut redis::aio::MultiplexedConnection| {
            redis::cmd("XADD")
                .arg(&self.orders)
                .arg("MAXLEN")
                .arg("~")
                .arg(KEEP_ORDERS)
                .arg("*")
                .arg("v")
                .arg("1")
                .arg("o")
                .arg(&json)
                .query_async::<String>(connection)
                .await
        };
        self.commands.run(add).await
    }

    /// The live nodes, and the receipts for an order.
    async fn confirmed(&self, id: &str) -> Result<(HashSet<String>, HashMap<String, Receipt>), String> {
        let ask = async |connection: &mut redis::aio::MultiplexedConnection| {
            redis::pipe()
                .cmd("ZRANGE")
                .arg(&self.nodes)
                .arg(0)
                .arg(-1)
                .cmd("HGETALL")
                .arg(format!("{}{id}", self.receipts))
                .query_async::<(HashSet<String>, HashMap<String, String>)>(connection)
                .await
        };
        let (nodes, receipts) = self.commands.run(ask).await?;
        let read = |(node, json): (String, String)| Some((node, serde_json::from_str(&json).ok()?));
        Ok((nodes, receipts.into_iter().filter_map(read).collect()))
    }

    /// The id that an order would have had when this node began, by Redis' clock.
    async fn birth(&self) -> Result<String, String> {
        let ask = async |connection: &mut redis::aio::MultiplexedConnection| {
            redis::cmd("TIME").query_async::<(u64, u64)>(connection).await
        };
        let (seconds, micros) = self.commands.run(ask).await?;
        let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
        Ok(format!("{}-0", now.saturating_sub(self.born.elapsed()).as_millis()))
    }

    /// Carries out an order and leaves a receipt.
    async fn carry_out(&self, id: &str, fields: &HashMap<String, String>, start: &str) -> Result<(), String> {
        let order = fields.get("o").and_then(|json| serde_json::from_str::<Order>(json).ok());
        let Some(order) = order else {
            tracing::warn!(id, "an order that this version does not know is skipped");
            return Ok(());
        };
        if matches!(order, Order::Kick { .. }) && reached(start, id) {
            // It is older than this node: those it meant are gone, and whoever is here has logged in since.
            return Ok(());
        }
        let Applied { closed, refused } = self.local.apply(&order);
        if !refused.is_empty() {
            // Only this node knows these tokens; the others read them right after the kick itself.
            self.add(&Order::Refuse { tokens: refused }).await?;
        }
        let receipt = serde_json::to_string(&Receipt { closed }).expect("a number is always JSON");
        let leave = async |connection: &mut redis::aio::MultiplexedConnection| {
            let key = format!("{}{id}", self.receipts);
            redis::pipe()
                .cmd("HSET")
                .arg(&key)
                .arg(self.incarnation.as_str())
                .arg(&receipt)
                .ignore()
                .cmd("EXPIRE")
                .arg(&key)
                .arg(KEEP_RECEIPTS)
                .ignore()
                .query_async::<()>(connection)
                .await
        };
        self.commands.run(leave).await
    }
}

/// Carries out orders for ever, from the oldest that is kept.
async fn follow(shared: Arc<Shared>, done: watch::Sender<String>) {
    let mut backoff = Backoff::default();
    let mut last = "0-0".to_owned();
    let mut start = None;
    let mut renewed: Option<Instant> = None;
    loop {
        let step = async {
            if renewed.is_none_or(|renewed| renewed.elapsed() >= RENEW_EVERY) {
                shared.renew_lease().await?;
                renewed = Some(Instant::now());
            }
            let start = match &start {
                Some(start) => start,
                None => start.insert(shared.birth().await?),
            };
            let orders = shared.commands.entries_after(&shared.orders, &last).await?;
            for (id, fields) in orders {
                shared.carry_out(&id, &fields, start).await?;
                last.clone_from(&id);
                done.send_replace(id);
            }
            Ok::<(), String>(())
        };
        match step.await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::debug!(%error, "orders cannot be read");
                // A server that forgot the orders may have forgotten the lease.
                renewed = None;
                sleep(backoff.next()).await;
            }
        }
    }
}

/// Whether a stream's id is not before another.
fn reached(id: &str, other: &str) -> bool {
    let parts = |id: &str| -> Option<(u64, u64)> {
        let (first, second) = id.split_once('-')?;
        Some((first.parse().ok()?, second.parse().ok()?))
    };
    parts(id) >= parts(other)
}
