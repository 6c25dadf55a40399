//! Hub and contracts of **realtime**, a push framework for actix-web.
//!
//! A [`Hub`] is one node. [`Hub::publish`] gives an [`Envelope`] to the [`Bus`]; every node, the publisher's own included,
//! appends it to its log, and each worker delivers it to its [`Session`]s. The crates `realtime-websocket` and
//! `realtime-sse` connect sessions to sockets, and `realtime-redis` connects nodes. This crate contains neither sockets
//! nor Redis.
//!
//! ```
//! use realtime_core::{Envelope, Hub, Message, Scope};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder().start()?;
//! let message = Message::text(r#"{"type":"order","data":{"status":"paid"}}"#);
//! let published = hub.publish(Envelope::to_users([&42.into()], Scope::Both, message)?).await?;
//! println!("published at {}", published.position.expect("the in-memory bus has positions"));
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! On a bus with positions, such as [`MemoryBus`]:
//!
//! - **One order.** All sessions see messages in the order of the bus, and none twice.
//! - **Replay.** A client that reconnects with its cursor receives what it missed.
//! - **Announced gaps.** What can no longer be replayed is reported as a gap at its place.
//! - **Bounds.** Every queue is bounded. A session that reads slowly delays neither the others nor the publisher.
//! - **Final kicks.** Once a kick is acknowledged, no node accepts the token again.
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | publish | [`Hub`], [`Envelope`], [`Message`], [`Topic`], [`Scope`] |
//! | reach the sessions of this node | [`Hub::sessions`], [`SessionHandle`] |
//! | identify users | [`Authenticator`], [`Handshake`], [`Principal`] |
//! | configure a node | [`HubBuilder`], [`Settings`] |
//! | connect nodes | [`Bus`], [`Presence`], [`Control`] |
//! | write a transport | [`Session`], [`Wire`], [`Shard`] |
//!
//! # Features
//!
//! - `jwt` (default): `JwtAuthenticator`, logins signed with HS256, HS384 or HS512.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod auth;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod bus;
mod close;
mod connect_error;
mod control;
mod direct;
mod directory;
mod facade;
mod frame_queue;
mod global;
mod hub;
#[cfg(feature = "jwt")]
mod jwt;
mod limits;
mod log;
mod message;
mod metrics;
mod node;
mod outbox;
mod position;
mod presence;
mod refusals;
mod registry;
mod retry;
mod ruoyi;
mod send_error;
mod session;
mod shard;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
mod sync;
mod ticks;
mod topic;
mod transport;
mod user;
mod wire;

/// The text of messages: a string that is cheap to clone.
pub use bytestring::ByteString;
/// Return type of the asynchronous functions of this crate's traits.
pub use futures_core::future::BoxFuture;

pub use auth::{AuthError, Authenticator, ClientIdPolicy, Credential, Handshake, Principal, TokenHash};
pub use bus::{Bus, BusError, BusEvent, Published, memory::MemoryBus};
pub use close::CloseReason;
pub use connect_error::ConnectError;
pub use control::{
    Control, ControlError, Order, Outcome, RefusedToken, Revocation,
    local::{Applied, LocalControl},
};
pub use direct::DirectWrite;
pub use facade::{Facade, FacadeError};
pub use global::{AlreadyInstalled, hub, install};
pub use hub::{Hub, builder::HubBuilder, kicks::KickError};
#[cfg(feature = "jwt")]
pub use jwt::{Claims, EmptySecret, JwtAlgorithm, JwtAuthenticator, UnknownAlgorithm};
pub use limits::{
    BusOutage, Drain, Fanout, Heartbeat, History, Limits, OnDown, OutboxLimits, PresenceTimes, Settings,
    SettingsError,
};
pub use message::{EmptyTargets, Envelope, EventName, EventNameError, Message, Scope};
pub use metrics::MetricsSnapshot;
pub use outbox::SendDirect;
pub use position::{CursorError, Position};
pub use presence::{
    OnlineCount, OnlineSession, OnlineUser, Presence, PresenceChange, PresenceError, PresenceEvent,
    PresenceState, feed::PresenceFeed, local::LocalPresence, none::NoPresence,
};
pub use retry::random_retry;
pub use ruoyi::{
    dto::{SSE_TOPIC, SseMessageDto, WEBSOCKET_TOPIC, WebSocketMessageDto},
    error_status::{ErrorStatus, UnknownErrorStatus},
    reply::Reply,
};
pub use send_error::{LocalError, PublishError, SendError, TooLarge};
pub use session::{Outbound, Session, handle::SessionHandle, id::SessionId, state::Begin};
pub use shard::Shard;
pub use topic::{Topic, TopicError};
pub use transport::Transport;
pub use user::{UserId, UserIdError};
pub use wire::{BusState, GapReason, Wire};
