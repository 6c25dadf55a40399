//! HTTP server for actix-web applications whose connections can be taken over, part of **realtime**.
//!
//! A long-lived connection costs an actix server more than 11 KiB: the HTTP dispatcher keeps a task and two buffers for
//! as long as its response lasts. [`HttpServer`] runs the same `App` on an IO type of its own, from which a handler can
//! lift the socket once the response's head has been written ([`Takeover`]). From then on the socket belongs to an epoll
//! of its worker, and the connection is a small state machine ([`Connection`]).
//!
//! The transports of realtime do so by themselves; an application moves over by starting
//! `realtime_server::HttpServer` instead of `actix_web::HttpServer`. On actix-web's server, over TLS and HTTP/2, and on
//! other systems than Linux, the same state machine is run by the response's body ([`ConnectionBody`]).
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is taken over there"))]

mod chunks;
mod connection;
mod counts;
mod gate;
mod io;
#[cfg(target_os = "linux")]
mod lane;
mod options;
mod request;
mod serve;
mod server;
mod takeover;

pub use actix_server::{Server, ServerHandle};
pub use connection::{Aborted, Connection, ConnectionBody, Step};
#[cfg(target_os = "linux")]
pub use lane::Socket;
pub use options::socket_options;
pub use server::HttpServer;
pub use takeover::Takeover;
