//! Redis behind **realtime**, a push framework for actix-web: many nodes in step.
//!
//! [`RedisStreamsBus`] carries envelopes in one stream, with positions: replay works on every node, and whatever
//! cannot be ruled out as lost is announced as a gap.
//!
//! ```no_run
//! use realtime_core::Hub;
//! use realtime_redis::{RedisConfig, RedisStreamsBus};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = RedisStreamsBus::new(RedisConfig::single("redis://127.0.0.1/"))?;
//! let hub = Hub::builder().bus(bus).start()?;
//! # Ok(())
//! # }
//! ```

mod backoff;
mod config;
mod master;
mod streams;

pub use config::{RedisConfig, RedisConfigError, Topology};
pub use streams::{RedisStreamsBus, StreamsMetrics};
