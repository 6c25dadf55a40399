//! [`PubSubShared`]: the state that the parts of one bus share.

use std::sync::Arc;

use realtime_core::{
    Transport,
    ruoyi::{SSE_TOPIC, WEBSOCKET_TOPIC},
};
use tokio::time::Instant;

use crate::{
    bus_counters::BusCounters,
    config::{RedisConfig, RedisConfigError},
    master::MasterLookup,
    part::Part,
    ruoyi::Form,
    server_connection::ServerConnection,
    shared_connection::SharedConnection,
};

/// The state that the publisher and the listener of one bus share.
#[derive(Debug)]
pub(super) struct PubSubShared {
    pub(super) config: RedisConfig,
    pub(super) lookup: Arc<MasterLookup>,
    pub(super) channels: [Channel; 2],
    /// This bus's own channel, for its heartbeats.
    pub(super) heartbeat_channel: String,
    /// The origin of the times in heartbeats.
    pub(super) started_at: Instant,
    pub(super) counters: BusCounters,
    /// The connection for all publishes.
    pub(super) connection: SharedConnection<ServerConnection>,
}

/// A channel, its transport and the form of its messages.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) transport: Transport,
    pub(super) form: Form,
}

/// The error for a server that accepts a PUBLISH but delivers it to its own subscribers only.
pub(super) const NOT_A_MASTER: &str = "this server is not a master";

impl PubSubShared {
    pub(super) fn new(config: RedisConfig) -> Result<Self, RedisConfigError> {
        Part::Bus.describe();
        let channel =
            |name, label, form| Channel { name: config.name(name), transport: Transport::new(label), form };
        Ok(Self {
            lookup: MasterLookup::shared(&config)?,
            channels: [
                channel(WEBSOCKET_TOPIC, "websocket", Form::WEBSOCKET),
                channel(SSE_TOPIC, "sse", Form::SSE),
            ],
            // The name is part of the ACL rules of existing installations.
            heartbeat_channel: config.name(&format!("realtime:canary:{:032x}", rand::random::<u128>())),
            started_at: Instant::now(),
            counters: BusCounters::default(),
            connection: SharedConnection::new(config.command_timeout),
            config,
        })
    }

    /// Returns the name whose master is used for all commands. In a cluster any node would do: each forwards to all others.
    pub(super) fn key(&self) -> &str {
        &self.channels[0].name
    }
}
