//! WebSocket transport of **realtime**, a push framework for actix-web.
//!
//! [`routes`] adds the endpoint to an `App`, configured by [`WebSocketConfig`]. [`WebSockets`] and [`Hub::publish`] push
//! messages to users, to named topics or to all.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use actix_web::App;
//! use realtime_websocket::{
//!     HttpServer, Hub, WebSocketConfig, WebSockets, auth::{JwtAlgorithm, JwtAuthenticator}, routes,
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
//! # What goes over the wire
//!
//! A client that asks for the subprotocol [`SUBPROTOCOL`] receives JSON frames with positions, gaps and heartbeats; any
//! other client receives the bare texts. What clients send goes to an [`InboundHandler`], by default [`Echo`]. Clients may
//! choose topics, as far as their tokens and the hub's [`TopicPolicy`](auth::TopicPolicy) let them.
//!
//! # Guarantees
//!
//! For clients of [`SUBPROTOCOL`], on a bus with positions. Bare texts are ordered and bounded, but have no cursor.
//!
//! - **One order.** All sessions see messages in the order of the bus, and none twice.
//! - **Replay.** A client that reconnects with its cursor, to any node and over either transport, receives what it
//!   missed.
//! - **Announced gaps.** What can no longer be replayed is reported as a gap at its place.
//! - **Bounds.** Every queue is bounded. A client that reads slowly delays neither the others nor the publisher.
//! - **Final kicks.** Once a kick is acknowledged, no node accepts the token again.
//!
//! # Servers
//!
//! [`HttpServer`] has the methods of `actix_web::HttpServer`. On Linux it takes plain HTTP/1.1 connections over from the
//! HTTP dispatcher once they are open, so that one costs less than a KiB instead of 11. Its defaults are those for pushing.
//! Everything works on `actix_web::HttpServer`, too; there give [`socket_options`] to `on_connect`, and set
//! `h1_allow_half_closed(false)`, without which a client of an event stream that has left is noticed by a write that fails.
//!
//! # Stopping
//!
//! actix-web waits for open connections until its shutdown timeout (30 s) and then breaks them off. For an orderly stop,
//! handle signals yourself (`HttpServer::disable_signals`) and call [`Hub::drain`] first: it ends every session with a
//! request to come back.
//!
//! # Features
//!
//! - `jwt` (default): `JwtAuthenticator`. Without it, implement [`Authenticator`].
#![cfg_attr(docsrs, feature(doc_cfg))]

mod handshake;
mod routes;
mod sockets;
mod upgrade;
mod upgrade_error;

pub use handshake::handshake;
pub use realtime_core::auth::{AllowedOrigins, OriginError};
pub use realtime_core::{
    Authenticator, BoxFuture, ByteString, CloseCode, CloseReason, Cluster, CollapseKey, Envelope, EnvelopeId,
    EventName, Hub, HubBuilder, MemoryBus, Message, NotReady, Payload, Position, Principal, Scope, Session,
    SessionHandle, SessionId, Settings, SlowPolicy, Topic, TraceContext, Transport, UserId, auth, bus,
    control, error, explain, facade, hub, install, metrics, presence, ruoyi, settings, streams, trace, wire,
};
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use realtime_protocol::websocket::fuzz;
pub use realtime_protocol::websocket::{
    Echo, InboundHandler, RAW_SUBPROTOCOL, SUBPROTOCOL, TRANSPORT, WebSocketConfig,
};
pub use realtime_server::{
    CURSOR_HEADER, CursorHeader, HttpServer, WithCursor, cursor_header, socket_options,
};
pub use routes::routes;
pub use sockets::WebSockets;
pub use upgrade_error::UpgradeError;
