//! Hub and contracts of **realtime**, a push framework for actix-web.
//!
//! A [`Hub`] is one node. [`Hub::publish`] passes an [`Envelope`] to the [`Bus`](bus::Bus). Every node, the publisher's
//! own included, appends it to its log, and each worker delivers it to its [`Session`]s. The crates
//! `realtime-websocket` and `realtime-sse` connect sessions to sockets, and `realtime-redis` connects nodes. This crate
//! contains neither sockets nor Redis.
//!
//! ```
//! use realtime_core::{Envelope, Hub, Message, Scope};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder().start()?;
//! let message = Message::text(r#"{"type":"order","data":{"status":"paid"}}"#);
//! let published = hub.publish(Envelope::to_users([42], Scope::Both, message)?).await?;
//! println!("published at {}", published.position.expect("the in-memory bus has positions"));
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! On a bus with positions, such as [`MemoryBus`]:
//!
//! - **One order.** All sessions get messages in the order of the bus, and none twice.
//! - **Replay.** A client that reconnects with its cursor receives the messages that it missed.
//! - **Announced gaps.** Messages that can no longer be replayed are reported as a gap, at their place in the stream.
//! - **Bounds.** Every queue is bounded. A session that reads slowly delays neither the others nor the publisher.
//! - **Final kicks.** Once a kick is acknowledged, no node accepts the token again.
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | publish | [`Hub`], [`Envelope`], [`Message`], [`Topic`], [`Scope`] |
//! | push a text while it is being written, such as the answer of a language model | [`Hub::stream`], [`streams`] |
//! | reach the sessions of this node | [`Hub::sessions`], [`SessionHandle`] |
//! | identify users | [`Authenticator`], [`Principal`], [`auth`] |
//! | let clients choose topics | [`auth::TopicPolicy`], [`HubBuilder::topic_policy`] |
//! | measure a node | [`metrics`](mod@metrics) |
//! | find out why a user got a message or did not | [`Hub::explain`], [`Hub::trace`] |
//! | configure a node | [`HubBuilder`], [`Settings`], [`settings`] |
//! | connect nodes | [`Cluster`], [`bus`], [`presence`], [`control`] |
//! | write a transport | [`Session`], [`wire`] |
//! | share a cluster with RuoYi-Vue-Plus | [`ruoyi`] |
//!
//! # Features
//!
//! - `jwt` (default): `JwtAuthenticator`, which verifies signed tokens, with a secret or with public keys.
//! - `jwks`: `JwkUrl`, public keys from an address on the web.
//! - `metrics`: `Hub::record_metrics`, for the exporters of the facade [`metrics`](https://docs.rs/metrics).
//! - `opentelemetry`: spans of OpenTelemetry for the writes of messages that are published in a recorded trace, and
//!   [`Hub::publish`] takes the current context.
//! - `conformance`: suites for implementations of [`Bus`](bus::Bus), [`Presence`](presence::Presence),
//!   [`Control`](control::Control), [`Authenticator`] and [`TicketStore`](auth::TicketStore).
//! - `testkit`: sessions without sockets, for an application's own tests.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
pub mod auth;
pub mod bus;
mod close;
mod collapse_key;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod connect_error;
pub mod control;
mod delivery;
mod direct;
mod directory;
mod envelope_id;
pub mod error;
pub mod explain;
pub mod facade;
mod frame_queue;
#[cfg(any(all(test, feature = "jwt"), feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod global;
mod hub;
mod initial;
mod interest;
mod key_text;
mod line_limit;
mod log;
mod message;
pub mod metrics;
mod node;
mod outbox;
mod position;
pub mod presence;
mod recent;
mod registry;
mod renewal;
mod retry;
mod revocation_list;
mod rfc3339;
pub mod ruoyi;
mod send_error;
mod session;
pub mod settings;
mod shard;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
mod slow_policy;
pub mod streams;
mod surrogates;
mod sync;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod ticks;
mod topic;
pub mod trace;
mod trace_context;
mod transport;
mod user;
pub mod wire;
#[cfg(feature = "opentelemetry")]
mod write_spans;

/// The text of messages: a string that is cheap to clone.
pub use bytestring::ByteString;
/// Return type of the asynchronous functions of this crate's traits.
pub use futures_core::future::BoxFuture;

pub use auth::{Authenticator, Principal};
pub use bus::MemoryBus;
pub use close::{CloseCode, CloseReason};
pub use collapse_key::CollapseKey;
pub use envelope_id::EnvelopeId;
pub use global::{hub, install};
pub use hub::{
    Hub,
    builder::{Cluster, HubBuilder},
    readiness::NotReady,
};
pub use message::{Envelope, EventName, Message, Payload, Scope};
pub use position::Position;
pub use session::{Session, handle::SessionHandle, id::SessionId};
pub use settings::Settings;
pub use slow_policy::SlowPolicy;
pub use topic::Topic;
pub use trace_context::TraceContext;
pub use transport::Transport;
pub use user::UserId;
