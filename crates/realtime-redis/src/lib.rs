//! Redis for **realtime**, a push framework for actix-web: a cluster of nodes that act as one.
//!
//! - [`RedisStreamsBus`] carries envelopes in one stream, with positions: replay works on every node, and a loss that cannot
//!   be ruled out is announced as a gap.
//! - [`RedisPubSubBus`] uses RuoYi's format and channels, so that Rust and Java nodes form one cluster; at most once, without
//!   positions.
//! - [`RedisPresence`] lists the online users of the cluster, [`RedisControl`] ends sessions and revokes tokens on every node.
//! - [`SaTokenAuthenticator`] accepts the logins of RuoYi-Vue-Plus' Java nodes (feature `sa-token`, on by default).
//!
//! ```no_run
//! use realtime_core::Hub;
//! use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, RedisStreamsBus};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = RedisConfig::single("redis://127.0.0.1/");
//! let incarnation = Incarnation::new("node-1");
//! let hub = Hub::builder()
//!     .node("node-1")
//!     .bus(RedisStreamsBus::new(config.clone())?)
//!     .presence(RedisPresence::make(config.clone(), incarnation.clone())?)
//!     .control(RedisControl::make(config, incarnation)?)
//!     .start()?;
//! # drop(hub);
//! # Ok(())
//! # }
//! ```

mod backoff;
mod batcher;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod commands;
mod config;
mod control;
mod counter;
mod error;
mod incarnation;
mod master;
mod presence;
mod pubsub;
mod ruoyi;
#[cfg(feature = "sa-token")]
mod sa_token;
mod server_connection;
mod shared_connection;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
mod single_flight;
mod streams;
mod task;
mod tls;

pub use config::{RedisConfig, RedisConfigError, Topology};
pub use control::RedisControl;
pub use incarnation::Incarnation;
pub use presence::RedisPresence;
pub use pubsub::{PubSubMetrics, RedisPubSubBus};
#[cfg(feature = "sa-token")]
pub use sa_token::{
    SaTokenAuthenticator, SaTokenConfig, SaTokenConfigError, SaTokenStyle, SaTokenStyleError, SaTokenWatch,
};
pub use streams::{RedisStreamsBus, StreamsMetrics};
pub use tls::{RedisTls, RedisTlsError};
