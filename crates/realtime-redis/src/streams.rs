//! [`RedisStreamsBus`]: one stream, one order; every node reads it by position.
//!
//! Entry ids are `<epoch>-<offset>`: the epoch is ours, the offset is numbered by Redis without holes, so a reader
//! sees for itself when something is missing. The epoch changes whenever a loss can't be ruled out (see `claim`),
//! and Redis itself refuses entries of an older one.

mod claim;
mod clock;
mod entry;
mod own;
mod publisher;
mod start;
mod tail;
mod tail_state;
mod window;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::stream;
use realtime_core::{Bus, BusError, BusEvent, Envelope, Position, Published};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

#[cfg(feature = "sim")]
pub(crate) use self::{
    clock::RedisTime,
    entry::{Content, Entry},
    tail_state::TailState,
};
use crate::{
    config::{RedisConfig, RedisConfigError},
    master::Servers,
    streams::{own::OwnEntry, publisher::Publisher, window::Window},
    task::restarting,
};

/// Carries envelopes in a Redis stream; needs Redis 7.0 or later.
///
/// `publish` returns when Redis has taken the entry. What it acknowledged and Redis kept reaches every node, also
/// those that were cut off meanwhile; whatever can't be ruled out as lost is a gap. Cloning it gives the same bus.
#[derive(Debug, Clone)]
pub struct RedisStreamsBus(Arc<Shared>);

/// What the parts of one bus share.
#[derive(Debug)]
struct Shared {
    config: RedisConfig,
    servers: Arc<Servers>,
    keys: Keys,
    /// Tells our own heartbeats from others'.
    incarnation: String,
    /// Our heartbeats tell their time from here.
    created: Instant,
    metrics: Metrics,
    publisher: Publisher,
    own: OwnEntry,
    window: Window,
    /// The next entry that is added trims by age and bytes instead of by number.
    trim: AtomicBool,
}

/// Both keys are in one slot of a cluster.
#[derive(Debug)]
struct Keys {
    log: String,
    epoch: String,
}

#[derive(Debug, Default)]
struct Metrics {
    claims: AtomicU64,
    connects: AtomicU64,
    undecodable: AtomicU64,
}

/// What a bus has counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamsMetrics {
    /// How often the stream's epoch was asked for.
    pub claims: u64,
    /// How many connections were opened.
    pub connects: u64,
    /// Entries that could not be read; each was a gap.
    pub undecodable: u64,
}

/// How many events wait for the hub before the tail stops reading.
const QUEUE: usize = 1024;

impl RedisStreamsBus {
    /// A bus over the servers of a configuration. It connects by itself, and goes on trying.
    ///
    /// # Errors
    /// [`RedisConfigError`] when a URL is none.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        let tag = config.tag("rt");
        let window = Window::new(config.max_age, config.max_bytes);
        let keys = Keys { log: format!("{tag}:log"), epoch: format!("{tag}:epoch") };
        Ok(Self(Arc::new(Shared {
            servers: Servers::shared(&config)?,
            keys,
            config,
            incarnation: format!("{:032x}", rand::random::<u128>()),
            created: Instant::now(),
            metrics: Metrics::default(),
            publisher: Publisher::default(),
            own: OwnEntry::default(),
            window,
            trim: AtomicBool::default(),
        })))
    }

    /// What it has counted.
    pub fn metrics(&self) -> StreamsMetrics {
        let Metrics { claims, connects, undecodable } = &self.0.metrics;
        let [claims, connects, undecodable] =
            [claims, connects, undecodable].map(|n| n.load(Ordering::Relaxed));
        StreamsMetrics { claims, connects, undecodable }
    }
}

impl Bus for RedisStreamsBus {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async move {
            let position = self.0.publish(envelope).await?;
            Ok(Published { position: Some(position) })
        })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(tail::run(Arc::clone(&self.0), sender));
        let beating = Arc::clone(&self.0);
        tasks.spawn(restarting("heartbeat", move || publisher::beat(Arc::clone(&beating))));
        // The tasks end with the stream that owns them.
        Box::pin(stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let event = receiver.recv().await?;
            Some((event, (receiver, tasks)))
        }))
    }

    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        Box::pin(async move {
            let limit = self.0.config.command_timeout;
            let late = |_| BusError::Unavailable(format!("no answer from Redis within {limit:?}"));
            timeout(limit, self.0.heartbeat()).await.map_err(late)?.map(Some)
        })
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The id of a stream's entry as a position.
fn position(id: &str) -> Option<Position> {
    let (epoch, offset) = id.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}
