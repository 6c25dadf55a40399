//! Transports of **realtime**, a push framework, for axum: WebSocket and Server-Sent Events over one hub.
//!
//! [`routes`] are a `Router` with both endpoints, configured by [`Config`]. [`Hub::publish`] pushes messages to users, to
//! named topics or to all.
//!
//! ```no_run
//! use std::{net::SocketAddr, sync::Arc};
//!
//! use axum::{Router, serve::ListenerExt};
//! use realtime_axum::{
//!     Config, Hub, auth::{JwtAlgorithm, JwtAuthenticator}, routes, socket_options,
//! };
//! use tokio::net::TcpListener;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::builder().start()?;
//!     let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
//!     let app: Router = routes(hub.clone(), jwt, Config::default());
//!
//!     let max_stall = hub.settings().outbox.max_stall;
//!     let listener = TcpListener::bind("127.0.0.1:8080").await?;
//!     let listener = listener.tap_io(move |tcp| socket_options(tcp, max_stall));
//!     axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
//!         .with_graceful_shutdown(async move {
//!             tokio::signal::ctrl_c().await.ok();
//!             hub.drain().await;
//!         })
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! # What goes over the wire
//!
//! The same as with actix-web, byte for byte behind the heads of responses: `realtime-protocol` speaks it for both. See
//! docs/protocol.md.
//!
//! # Guarantees
//!
//! On a bus with positions:
//!
//! - **One order.** All sessions see messages in the order of the bus, and none twice.
//! - **Replay.** A client that reconnects with its cursor, to any node and over either transport, receives what it
//!   missed.
//! - **Announced gaps.** What can no longer be replayed is reported as a gap at its place.
//! - **Bounds.** Every queue is bounded. A client that reads slowly delays neither the others nor the publisher.
//! - **Final kicks.** Once a kick is acknowledged, no node accepts the token again.
//!
//! # The server
//!
//! - Serve with `into_make_service_with_connect_info::<SocketAddr>()`, or the limits of an address count nobody.
//! - Give [`socket_options`] to the listener's `tap_io`: hyper does not ask for more of an event stream while its client
//!   reads nothing, so that the kernel has to end that connection. It counts what leaves its window, which a client that
//!   reads slowly opens seldom: one that needs longer than `max_stall` for some 100 KiB may be cut and come back.
//!   Over HTTP/2 it does not see a client that reads nothing: such a stream stays open, without its session.
//! - Behind a TLS acceptor, add [`OverTls`] to the requests, so that the origin `https://<host>` counts as the server's own.
//! - Call [`Hub::drain`] when the server stops: it ends every session with a request to come back.
//! - Layers that compress or buffer responses do not belong around these routes.
//!
//! # Features
//!
//! - `jwt` (default): `JwtAuthenticator`. Without it, implement [`Authenticator`].
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod handshake;
mod options;
mod respond;
mod routes;
mod shards;
mod socket;
mod sse;
mod stream;
mod upgrade;
mod websocket;

pub use config::Config;
pub use handshake::{OverTls, handshake};
pub use options::socket_options;
pub use realtime_core::auth::{AllowedOrigins, OriginError};
pub use realtime_core::{
    Authenticator, BoxFuture, ByteString, CloseCode, CloseReason, Cluster, CollapseKey, Envelope, EnvelopeId,
    EventName, Hub, HubBuilder, MemoryBus, Message, NotReady, Payload, Position, Principal, Scope, Session,
    SessionHandle, SessionId, Settings, SlowPolicy, Topic, TraceContext, Transport, UserId, auth, bus,
    control, error, explain, facade, hub, install, metrics, presence, ruoyi, settings, streams, trace, wire,
};
pub use realtime_protocol::{
    sse::SseConfig,
    websocket::{Echo, InboundHandler, RAW_SUBPROTOCOL, SUBPROTOCOL, WebSocketConfig},
};
pub use routes::routes;
pub use sse::sse_routes;
pub use websocket::websocket_routes;
