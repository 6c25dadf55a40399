//! [`RedisPubSubBus`]: RuoYi's own two channels, so that Rust and Java nodes are one cluster.
//!
//! A broken subscription looks like a quiet one. So every node publishes a heartbeat to itself once a second, through Redis
//! and the connection that receives the other nodes' messages, and accepts no other proof (see `listener`).

mod listener;
mod publisher;
mod shared;

use std::{collections::HashSet, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::stream;
use realtime_core::{
    Envelope, EventName, Scope, SlowPolicy, Topic, UserId,
    bus::{Bus, BusError, BusEvent, Published},
};
use redis::Pipeline;
use tokio::{sync::mpsc, task::JoinSet};

use self::shared::PubSubShared;
use crate::config::{RedisConfig, RedisConfigError};

/// A bus that carries envelopes in RuoYi's format over `global:websocket` and `global:sse`, with Redis' PUBLISH and
/// SUBSCRIBE.
///
/// Delivery is at most once, and without positions: messages published while a node is disconnected never reach that node,
/// which gets a gap instead, and there is no replay. `publish` returns when Redis has accepted the envelope. Each channel
/// keeps its order; an envelope for both transports is one message on each.
///
/// The format supports users with numeric ids or all users, in the event `message`. Anything else is
/// [`BusError::Unsupported`]: an [id](realtime_core::EnvelopeId), so that a retry after an unknown outcome may be delivered
/// twice, a ttl, a collapse key, retain, an excluded session, a confirmation. Clones share the same bus.
#[derive(Debug, Clone)]
pub struct RedisPubSubBus(Arc<PubSubShared>);

/// Counters of a bus since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PubSubMetrics {
    /// Number of connections opened.
    pub connects: u64,
    /// Messages that could not be decoded; each was skipped.
    pub undecodable: u64,
}

/// Number of events that wait for the hub before the listener stops reading messages.
const QUEUE: usize = 1024;

impl RedisPubSubBus {
    /// Creates a bus over the servers of a configuration. It connects in the background and retries until it succeeds.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        Ok(Self(Arc::new(PubSubShared::new(config)?)))
    }

    /// Returns a snapshot of the counters.
    pub fn metrics(&self) -> PubSubMetrics {
        let counters = &self.0.counters;
        PubSubMetrics { connects: counters.connects.get(), undecodable: counters.undecodable.get() }
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
        self.0.connection.runtime().use_current();
        let mut tasks = JoinSet::new();
        tasks.spawn(listener::run(Arc::clone(&self.0), sender));
        // The task ends with the stream that owns it.
        Box::pin(stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let event = receiver.recv().await?;
            Some((event, (receiver, tasks)))
        }))
    }
}

impl PubSubShared {
    /// Returns the commands that publish an envelope: one for each of its transports.
    fn commands(&self, envelope: &Envelope) -> Result<Pipeline, BusError> {
        let message = envelope.message();
        if message.event != EventName::default() {
            let event = message.event.as_str();
            return Err(BusError::Unsupported(format!("event `{event}`, only `message`")));
        }
        let text = message.data.as_text().ok_or_else(|| BusError::Unsupported("bytes, only texts".into()))?;
        if envelope.excluded().is_some() {
            return Err(BusError::Unsupported("a message that leaves a session out".into()));
        }
        for (option, has) in [
            ("an idempotency key", envelope.id().is_some()),
            ("a ttl", envelope.ttl().is_some()),
            ("a collapse key", envelope.collapse_key().is_some()),
            ("a slow policy", *envelope.slow_policy() != SlowPolicy::Disconnect),
            ("retain", envelope.is_retained()),
            ("a confirmation of the nodes", envelope.wants_confirmation()),
        ] {
            if has {
                return Err(BusError::Unsupported(format!("{option}: RuoYi's messages have no room for it")));
            }
        }
        let users = users(envelope.topics())?;
        let mut commands = redis::pipe();
        for channel in self.channels.iter().filter(|channel| envelope.scope().covers(channel.transport)) {
            commands.cmd("PUBLISH").arg(&channel.name).arg(channel.form.encode(&users, text));
        }
        match envelope.scope() {
            Scope::Only(transport) if commands.is_empty() => {
                Err(BusError::Unsupported(format!("transport `{transport}`, only `websocket` and `sse`")))
            }
            _ => Ok(commands),
        }
    }
}

/// Returns the users that the topics name, each once; none for all users.
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
