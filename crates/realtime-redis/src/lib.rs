//! Redis behind **realtime**, a push framework for actix-web: message bus, presence, kicks and revocations of a cluster.
//!
//! [`RedisCluster`] has all that connects a node with the others:
//!
//! ```no_run
//! use realtime_core::Hub;
//! use realtime_redis::{RedisCluster, RedisConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = RedisConfig::single("redis://127.0.0.1/");
//! let hub = Hub::builder().cluster(RedisCluster::streams(config, "node-1")?).start()?;
//! # drop(hub);
//! # Ok(())
//! # }
//! ```
//!
//! Its parts can also be set one by one:
//!
//! - [`RedisStreamsBus`] publishes through one stream, with positions: clients are replayed what they missed on any node,
//!   and any possible loss is reported as a gap.
//! - [`RedisPubSubBus`] uses the channels and bytes of RuoYi-Vue-Plus, so that Rust and Java nodes form one cluster; at most
//!   once, without positions.
//! - [`RedisPresence`] lists who is online in the cluster. [`RedisControl`] ends sessions and revokes tokens on every node.
//! - [`RedisTickets`] keeps single-use tickets, made on one node and used on any.
//! - `SaTokenAuthenticator` accepts the logins that RuoYi-Vue-Plus keeps in Redis (feature `sa-token`).
//!
//! [`RedisConfig`] deserializes from an application's own configuration file.
//!
//! # Guarantees
//!
//! With [`RedisStreamsBus`]:
//!
//! - **One order.** All nodes see messages in the order of one stream, and none twice.
//! - **Replay** on any node, from the stream's window.
//! - **Announced gaps** after an outage, a failover or trimming, at their place.
//! - **Readiness means delivery.** A node whose messages do not arrive is not ready; every command has a time limit.
//! - **Final kicks.** Kicks and revocations reach every node, or name those that have not confirmed.
//!
//! # Features
//!
//! - `metrics`: times and counters of requests to Redis for the recorder of the facade
//!   [`metrics`](https://docs.rs/metrics), which has to be installed before: see
//!   [`Hub::record_metrics`](https://docs.rs/realtime-core/latest/realtime_core/struct.Hub.html#method.record_metrics).
//! - `sa-token` (default): `SaTokenAuthenticator` and `SaTokenWatch`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod batcher;
mod bus_counters;
mod cluster;
mod commands;
mod config;
mod content;
mod control;
mod counter;
mod error;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod incarnation;
mod large_entry;
mod liveness;
mod master;
mod millis;
mod part;
mod presence;
mod probe;
mod pubsub;
mod repair;
mod ruoyi;
#[cfg(feature = "sa-token")]
mod sa_token;
mod server_connection;
mod shared_connection;
mod shared_runtime;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
mod single_flight;
mod streams;
mod task;
mod tickets;
mod tls;

pub use cluster::RedisCluster;
pub use config::{RedisConfig, RedisConfigError, RedisMode, Topology};
pub use control::RedisControl;
pub use incarnation::Incarnation;
pub use presence::RedisPresence;
pub use probe::{RedisProbe, RedisProbeError};
pub use pubsub::{PubSubMetrics, RedisPubSubBus};
#[cfg(feature = "sa-token")]
pub use sa_token::{
    SaTokenAuthenticator, SaTokenConfig, SaTokenConfigError, SaTokenStyle, SaTokenStyleError, SaTokenWatch,
};
pub use streams::{RedisStreamsBus, StreamsMetrics};
pub use tickets::RedisTickets;
pub use tls::{RedisTls, RedisTlsError};
