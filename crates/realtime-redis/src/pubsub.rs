//! [`RedisPubSubBus`]: RuoYi's own two channels, so that Rust and Java nodes are one cluster.
//!
//! A subscription that has died looks just like a quiet one. So every node sends itself a canary once a second, all
//! the way through Redis and the connection that hears the others, and believes in nothing else (see `listener`).

mod listener;
mod publisher;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::stream;
use realtime_core::{
    Bus, BusError, BusEvent, Envelope, EventName, Published, SSE_TOPIC, Scope, Topic, Transport, UserId,
    WEBSOCKET_TOPIC,
};
use redis::Pipeline;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    config::{RedisConfig, RedisConfigError},
    line::Line,
    master::Servers,
    pubsub::publisher::Link,
    ruoyi::Form,
};

/// Carries envelopes in RuoYi's bytes over `global:websocket` and `global:sse`, with Redis' PUBLISH and SUBSCRIBE.
///
/// At most once, and without positions: what is published while a node is cut off never reaches that node, which
/// sees a gap instead; nobody can replay. `publish` returns when Redis has taken the envelope. Each channel keeps its
/// order; an envelope for both transports is one message on each.
///
/// It carries what those bytes can say: users with numeric ids or everybody, in the event `message`. Anything else is
/// [`BusError::Unsupported`]. Cloning it gives the same bus.
#[derive(Debug, Clone)]
pub struct RedisPubSubBus(Arc<Shared>);

/// What the parts of one bus share.
#[derive(Debug)]
struct Shared {
    config: RedisConfig,
    servers: Arc<Servers>,
    channels: [Channel; 2],
    /// The channel on which nobody but this bus hears itself.
    canary: String,
    /// Canaries tell their time from here.
    born: Instant,
    metrics: Metrics,
    line: Line<Link>,
}

/// A channel and what goes over it.
#[derive(Debug)]
struct Channel {
    name: String,
    transport: Transport,
    form: Form,
}

#[derive(Debug, Default)]
struct Metrics {
    connects: AtomicU64,
    undecodable: AtomicU64,
}

/// What a bus has counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubSubMetrics {
    /// How many connections were opened.
    pub connects: u64,
    /// Messages that could not be read; each was skipped.
    pub undecodable: u64,
}

/// How many events wait for the hub before the listener stops taking messages.
const QUEUE: usize = 1024;

impl RedisPubSubBus {
    /// A bus over the servers of a configuration. It connects by itself, and goes on trying.
    ///
    /// # Errors
    /// [`RedisConfigError`] when a URL is none.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        let channel =
            |name, label, form| Channel { name: config.name(name), transport: Transport::new(label), form };
        Ok(Self(Arc::new(Shared {
            servers: Servers::shared(&config)?,
            channels: [
                channel(WEBSOCKET_TOPIC, "websocket", Form::WEBSOCKET),
                channel(SSE_TOPIC, "sse", Form::SSE),
            ],
            canary: config.name(&format!("realtime:canary:{:032x}", rand::random::<u128>())),
            born: Instant::now(),
            metrics: Metrics::default(),
            line: Line::default(),
            config,
        })))
    }

    /// What it has counted.
    pub fn metrics(&self) -> PubSubMetrics {
        let Metrics { connects, undecodable } = &self.0.metrics;
        let [connects, undecodable] = [connects, undecodable].map(|n| n.load(Ordering::Relaxed));
        PubSubMetrics { connects, undecodable }
    }
}

impl Bus for RedisPubSubBus {
    fn publish<'a>(&'a self, envelope: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async move {
            self.0.publish(&self.0.commands(envelope)?).await?;
            Ok(Published { position: None })
        })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(listener::run(Arc::clone(&self.0), sender));
        // The task ends with the stream that owns it.
        Box::pin(stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let event = receiver.recv().await?;
            Some((event, (receiver, tasks)))
        }))
    }
}

impl Shared {
    /// The commands that publish an envelope: one for each of its transports.
    fn commands(&self, envelope: &Envelope) -> Result<Pipeline, BusError> {
        let message = envelope.message();
        if message.event != EventName::default() {
            let event = message.event.as_str();
            return Err(BusError::Unsupported(format!("event `{event}`, only `message`")));
        }
        let users = users(envelope.topics())?;
        let mut commands = redis::pipe();
        for channel in self.channels.iter().filter(|channel| envelope.scope().covers(channel.transport)) {
            commands.cmd("PUBLISH").arg(&channel.name).arg(channel.form.encode(&users, &message.data));
        }
        match envelope.scope() {
            Scope::Only(transport) if commands.is_empty() => {
                Err(BusError::Unsupported(format!("transport `{transport}`, only `websocket` and `sse`")))
            }
            _ => Ok(commands),
        }
    }
}

/// The users that the topics name, each once; none for everybody.
fn users(topics: &[Topic]) -> Result<Vec<i64>, BusError> {
    if topics.iter().all(Topic::is_all) {
        return Ok(Vec::new());
    }
    let mut seen = HashSet::new();
    let mut users = Vec::with_capacity(topics.len());
    for topic in topics {
        let user = match topic.as_str().strip_prefix("user:") {
            Some(user) => user.parse::<UserId>().ok().and_then(|user| user.as_number()).ok_or_else(|| {
                BusError::Unsupported(format!("user `{user}`, only users whose id is a number"))
            }),
            None if topic.is_all() => Err(BusError::Unsupported("`all` together with other topics".into())),
            None => Err(BusError::Unsupported(format!("topic `{topic}`, only users and `all`"))),
        }?;
        if seen.insert(user) {
            users.push(user);
        }
    }
    Ok(users)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
