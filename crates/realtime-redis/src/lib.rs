//! Redis behind **realtime**, a push framework for actix-web: many nodes in step.
//!
//! - [`RedisStreamsBus`] carries envelopes in one stream, with positions: replay works on every node, and whatever
//!   cannot be ruled out as lost is announced as a gap.
//! - [`RedisPubSubBus`] speaks RuoYi's bytes on RuoYi's channels, so that Rust and Java nodes are one cluster; at most
//!   once, without positions.
//! - [`RedisPresence`] knows who is online in the cluster, [`RedisControl`] ends sessions and refuses tokens on every
//!   node.
//! - [`SaTokenAuthenticator`] takes the logins of RuoYi-Vue-Plus' Java nodes (feature `sa-token`, on by default).
//!
//! ```no_run
//! use realtime_core::Hub;
//! use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence, RedisStreamsBus};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = RedisConfig::single("redis://127.0.0.1/");
//! let life = Incarnation::new("node-1");
//! let hub = Hub::builder()
//!     .node("node-1")
//!     .bus(RedisStreamsBus::new(config.clone())?)
//!     .presence(RedisPresence::make(config.clone(), life.clone())?)
//!     .control(RedisControl::make(config, life)?)
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
mod incarnation;
mod line;
mod lookup;
mod master;
mod presence;
mod pubsub;
mod ruoyi;
#[cfg(feature = "sa-token")]
mod sa_token;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
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
