//! [`RedisCluster`]: all that connects a node with the others.

use std::fmt;

use realtime_core::{Cluster, HubBuilder, control::LocalControl, presence::LocalPresence};

use crate::{
    Incarnation, RedisConfig, RedisConfigError, RedisControl, RedisMode, RedisPresence, RedisPubSubBus,
    RedisStreamsBus, RedisTickets,
};

/// Bus, presence, control and tickets of a node over the same servers, for [`HubBuilder::cluster`].
///
/// They share the node's name and its [`Incarnation`], so that a kick waits for exactly the nodes that presence lists.
///
/// ```no_run
/// use realtime_core::Hub;
/// use realtime_redis::{RedisCluster, RedisConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = RedisConfig::single("redis://127.0.0.1/");
/// let hub = Hub::builder().cluster(RedisCluster::streams(config, "node-1")?).start()?;
/// # drop(hub);
/// # Ok(())
/// # }
/// ```
///
/// What Redis keeps follows the [`RedisConfig`] alone: 300 s, 100,000 messages and 64 MiB by default, whatever the hub's
/// settings are. Settings of one's own have to be given to both, by [`RedisConfig::history`] and [`RedisConfig::retained`]; else a
/// node that restarts replays what Redis keeps, and no more:
///
/// ```no_run
/// use std::time::Duration;
///
/// use realtime_core::{Hub, Settings};
/// use realtime_redis::{RedisCluster, RedisConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut settings = Settings::default();
/// settings.history.max_age = Duration::from_secs(3600);
/// let config = RedisConfig::single("redis://127.0.0.1/").history(&settings.history).retained(&settings.retained);
/// let hub = Hub::builder().settings(settings).cluster(RedisCluster::streams(config, "node-1")?).start()?;
/// # drop(hub);
/// # Ok(())
/// # }
/// ```
///
/// One of the parts is replaced by setting it afterwards: with `.presence(|local| local)` each node knows its own users only,
/// and with `.bus(bus.clone())` an application keeps a bus of which it reads the counters.
pub struct RedisCluster {
    node: String,
    bus: RedisBus,
    presence: MakePresence,
    control: MakeControl,
    tickets: MakeTickets,
}

enum RedisBus {
    Streams(RedisStreamsBus),
    PubSub(RedisPubSubBus),
}

type MakePresence = Box<dyn FnOnce(LocalPresence) -> RedisPresence + Send>;

type MakeTickets = Box<dyn FnOnce() -> RedisTickets + Send>;

type MakeControl = Box<dyn FnOnce(LocalControl) -> RedisControl + Send>;

impl RedisCluster {
    /// Creates the parts of the node with this name, with the bus that [`RedisConfig::mode`] names.
    ///
    /// No two nodes of a cluster may have the same name. Nothing is connected before the hub starts.
    ///
    /// # Errors
    /// [`RedisConfigError`] for an invalid URL, or a file that cannot be used.
    pub fn new(config: RedisConfig, node: impl Into<String>) -> Result<Self, RedisConfigError> {
        match config.mode {
            RedisMode::Streams => Self::streams(config, node),
            RedisMode::PubSub => Self::pubsub(config, node),
        }
    }

    /// Creates the parts with a [`RedisStreamsBus`], independent of the configuration's mode: positions, replay,
    /// announced gaps.
    /// # Errors
    /// As [`Self::new`].
    pub fn streams(config: RedisConfig, node: impl Into<String>) -> Result<Self, RedisConfigError> {
        Self::over(RedisBus::Streams(RedisStreamsBus::new(config.clone())?), config, node.into())
    }

    /// Creates the parts with a [`RedisPubSubBus`], independent of the configuration's mode: the messages of RuoYi's
    /// Java nodes, at most once.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn pubsub(config: RedisConfig, node: impl Into<String>) -> Result<Self, RedisConfigError> {
        Self::over(RedisBus::PubSub(RedisPubSubBus::new(config.clone())?), config, node.into())
    }

    fn over(bus: RedisBus, config: RedisConfig, node: String) -> Result<Self, RedisConfigError> {
        let incarnation = Incarnation::new(&node);
        let presence = Box::new(RedisPresence::make(config.clone(), incarnation.clone())?);
        let control = Box::new(RedisControl::make(config.clone(), incarnation)?);
        let tickets = Box::new(RedisTickets::make(config)?);
        Ok(Self { node, bus, presence, control, tickets })
    }
}

impl Cluster for RedisCluster {
    fn install(self, hub: HubBuilder) -> HubBuilder {
        let Self { node, bus, presence, control, tickets } = self;
        let hub = hub.node(node).presence(presence).control(control).tickets(tickets);
        match bus {
            RedisBus::Streams(bus) => hub.bus(bus),
            RedisBus::PubSub(bus) => hub.bus(bus),
        }
    }
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.bus {
            RedisBus::Streams(_) => RedisMode::Streams,
            RedisBus::PubSub(_) => RedisMode::PubSub,
        };
        f.debug_struct("RedisCluster").field("node", &self.node).field("mode", &mode).finish_non_exhaustive()
    }
}
