//! The WebSocket transport: its endpoint, and its connections as state machines.
//!
//! An adapter checks the handshake of RFC 6455 and chooses the [`Protocol`] among [`SUBPROTOCOLS`]; everything else is up
//! to the [`Service`].

mod config;
mod connection;
mod endpoint;
mod frame;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod inbound;
mod open;
mod protocol;
mod rate;
mod reader;
mod refresh;
mod refusal;
mod service;

pub use config::WebSocketConfig;
pub use connection::WebSocketConnection;
pub use endpoint::Endpoint;
pub use inbound::{Echo, InboundHandler};
pub use open::OpenError;
pub use protocol::{Protocol, RAW_SUBPROTOCOL, SUBPROTOCOL, SUBPROTOCOLS, TRANSPORT};
pub use refusal::Refusal;
pub use service::Service;
