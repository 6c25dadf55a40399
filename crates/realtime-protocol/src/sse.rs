//! The transport of Server-Sent Events: its endpoint, and its streams as state machines.
//!
//! An adapter sends each response of the [`Service`] with the headers that [`Service::page`] gives, and a stream that it
//! opens with [`HEADERS`].

mod config;
mod connection;
mod cors;
mod format;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod greeting;
mod refusal;
mod service;
mod streams;

pub use config::SseConfig;
pub use connection::SseConnection;
pub use format::{Framing, HEADERS, RETRY, TRANSPORT};
pub use refusal::OpenError;
pub use service::Service;
pub use streams::{SPARE, Streams};
