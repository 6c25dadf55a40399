//! [`RedisStreamsBus`]: one stream, one order; every node reads it by position.
//!
//! Entry ids are `<epoch>-<offset>`: the epoch is chosen by the nodes, the offset is numbered by Redis without holes, so a
//! reader detects missing entries from the ids alone. The epoch changes whenever a loss can't be ruled out (see
//! `claim`), and Redis itself rejects entries of an older one.

mod claim;
mod clock;
mod connection;
mod entry;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod heartbeat;
mod own;
mod publisher;
mod retained;
mod retained_reader;
mod shared;
mod start;
mod tail;
mod tail_state;
mod text_scripts;
mod text_store;
mod window;

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::stream;
use realtime_core::{
    Envelope, Position,
    bus::{Bus, BusError, BusEvent, Published, StreamStore},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

#[cfg(feature = "sim")]
pub(crate) use self::{
    clock::RedisTime,
    entry::{Content, Entry},
    tail_state::TailState,
};
use self::{shared::StreamsShared, text_store::TextStore};
use crate::{
    config::{RedisConfig, RedisConfigError},
    task::restarting,
};

/// A bus that carries envelopes in a Redis stream; needs Redis 7.0 or later.
///
/// `publish` returns when Redis has accepted the entry. An entry that was acknowledged and that Redis kept reaches every
/// node, also those that were disconnected at the time; a loss that can't be ruled out is announced as a gap. Clones share
/// the same bus.
///
/// An envelope with an [id](realtime_core::EnvelopeId) is published once within five minutes, however often and on however
/// many nodes that is tried: later attempts return the position of the first one. It is added by a script, which takes Redis
/// about four times as long, and keeps a key of about 180 bytes for that time; envelopes without an id cost neither.
///
/// An envelope that is [retained](realtime_core::Envelope::retain) is added by a script as well, together with its copy for
/// nodes that start later; [`RedisConfig::retained`] has the bounds of these copies.
///
/// It carries [text streams](realtime_core::streams): their entries are added by a script, too, which decides about them in
/// the same step, and their texts are kept beside the stream until some minutes after their ends.
#[derive(Debug, Clone)]
pub struct RedisStreamsBus(Arc<StreamsShared>);

/// Counters of a bus since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsMetrics {
    /// Number of requests for the stream's epoch.
    pub claims: u64,
    /// Number of connections opened.
    pub connects: u64,
    /// Entries that could not be read; each was announced as a gap.
    pub undecodable: u64,
}

/// Number of events that wait for the hub before the tail stops reading.
const QUEUE: usize = 1024;

impl RedisStreamsBus {
    /// Creates a bus over the servers of a configuration. It connects in the background and retries until it succeeds.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL.
    pub fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        Ok(Self(Arc::new(StreamsShared::new(config)?)))
    }

    /// Returns a snapshot of the counters.
    pub fn metrics(&self) -> StreamsMetrics {
        let counters = &self.0.counters;
        StreamsMetrics {
            claims: self.0.claims.get(),
            connects: counters.connects.get(),
            undecodable: counters.undecodable.get(),
        }
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
        self.0.connection.runtime().use_current();
        let mut tasks = JoinSet::new();
        tasks.spawn(tail::run(Arc::clone(&self.0), sender));
        let shared = Arc::clone(&self.0);
        tasks.spawn(restarting("heartbeat", move || heartbeat::publish_heartbeats(Arc::clone(&shared))));
        // The tasks end with the stream that owns them.
        Box::pin(stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let event = receiver.recv().await?;
            Some((event, (receiver, tasks)))
        }))
    }

    fn streams(&self) -> Option<Arc<dyn StreamStore>> {
        Some(Arc::new(TextStore(Arc::clone(&self.0))))
    }

    fn fence(&self) -> BoxFuture<'_, Result<Option<Position>, BusError>> {
        Box::pin(async move {
            let limit = self.0.config.command_timeout;
            let late = |_| BusError::Unavailable(format!("no answer from Redis within {limit:?}"));
            timeout(limit, self.0.heartbeat()).await.map_err(late)?.map(Some)
        })
    }
}
