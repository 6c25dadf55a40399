//! WebSocket transport of **realtime**, a push framework for actix-web.
//!
//! [`routes`] adds the endpoint to an `App`; [`WebSockets`] pushes through it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use actix_web::App;
//! use realtime_websocket::{
//!     HttpServer, Hub, JwtAlgorithm, JwtAuthenticator, WebSocketConfig, WebSockets, routes,
//! };
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::builder().start()?;
//!     let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
//!     let sockets = WebSockets::new(hub.clone());
//!     let server = HttpServer::new({
//!         let hub = hub.clone();
//!         move || {
//!             App::new().configure(routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
//!         }
//!     })
//!     .bind(("127.0.0.1", 8080))?
//!     .run();
//!     actix_web::rt::spawn(async move { sockets.publish_all("hello").await });
//!     server.await?;
//!     Ok(())
//! }
//! ```
//!
//! [`HttpServer`] is actix-web's with connections that leave the HTTP dispatcher once they are open, so that one costs
//! less than a KiB; everything works on `actix_web::HttpServer` as well, with [`socket_options`] for `on_connect`.
//!
//! A server with open connections waits for its whole shutdown timeout, and then breaks them off. To end every session
//! with a close code, handle signals in the application (`HttpServer::disable_signals`) and call `Hub::drain` first.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod close;
mod connection;
mod endpoint;
mod frame;
mod inbound;
mod origin;
mod protocol;
mod rate;
mod reader;
mod refusal;
mod routes;
mod sockets;
mod upgrade;

pub use inbound::{Echo, InboundHandler};
pub use origin::{AllowedOrigins, OriginError};
pub use protocol::SUBPROTOCOL;
pub use realtime_core::*;
pub use realtime_server::{HttpServer, socket_options};
pub use refusal::UpgradeError;
pub use routes::{WebSocketConfig, routes};
pub use sockets::WebSockets;

/// The label of this transport.
pub const TRANSPORT: Transport = Transport::new("websocket");
