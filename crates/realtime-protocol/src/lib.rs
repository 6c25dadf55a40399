//! Protocols and endpoints of the transports of **realtime** without an HTTP server.
//!
//! An application depends on an adapter instead: `realtime-websocket` and `realtime-sse` for actix-web, `realtime-axum`
//! for axum. An adapter makes a [`Handshake`](realtime_core::auth::Handshake) of each request and gives it to a
//! [`websocket::Service`] or an [`sse::Service`]. It sends the [`Answer`] that a request is refused with, or runs the
//! [`Connection`] that was opened.
//!
//! # Features
//!
//! `websocket` and `sse` (both are on by default): the transport's module.
//!
//! # Guarantees
//!
//! - A [`Connection`] does no I/O and never blocks. What it writes depends on its session, its input and the clock only, so
//!   clients cannot tell by which adapter they are served.
//! - A request is refused in the same order of checks, with the same status and body, by every adapter.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg_attr(not(any(feature = "sse", feature = "websocket")), expect(dead_code))]
mod answer;
mod body;
mod connection;
mod path;
#[cfg(feature = "sse")]
pub mod sse;
#[cfg(any(feature = "sse", feature = "websocket"))]
mod start;
#[cfg(any(feature = "sse", feature = "websocket"))]
mod text;
mod tickets;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use answer::Answer;
pub use body::announces_body;
pub use connection::{Aborted, Connection, Step};
pub use path::{PathError, check_path};
pub use tickets::issue_ticket;
