//! HTTP server for actix-web applications whose connections can be taken over, part of **realtime**.
//!
//! A long-lived connection costs an actix server more than 11 KiB: the HTTP dispatcher keeps a task and two buffers for
//! as long as the response lasts. [`HttpServer`] runs the same `App` on an IO type of its own, from which a handler can
//! lift the socket once the head of the response has been written ([`Takeover`]). From then on an epoll instance of the
//! worker drives the socket, and the connection is a small state machine ([`Connection`]).
//!
//! ```no_run
//! use actix_web::{App, web};
//! use realtime_server::HttpServer; // instead of actix_web::HttpServer
//!
//! #[actix_web::main]
//! async fn main() -> std::io::Result<()> {
//!     HttpServer::new(|| App::new().route("/", web::get().to(async || "hello")))
//!         .bind(("127.0.0.1", 8080))?
//!         .run()
//!         .await
//! }
//! ```
//!
//! The crates `realtime-websocket` and `realtime-sse` take their connections over on their own. For another protocol,
//! implement [`Connection`] and answer an upgrade with a [`ConnectionBody`].
//!
//! # Guarantees
//!
//! - A [`Connection`] behaves the same on both lanes. On actix-web's server, over TLS and HTTP/2, on systems other than Linux,
//!   and in a response that is no 101, the response body runs the same state machine.
//! - Bytes that arrived before the socket was lifted out reach the connection, in order.
//! - One request is read at a time, and the next one only after it was answered.
//! - A connection that was taken over is closed by its worker, when its state machine ends, and by nothing else.
//!
//! # Logs
//!
//! actix-http logs each request that is malformed or too long at `error`, and each response whose client has left. Anybody
//! can make any number of these lines, so a service on the internet switches them off: the targets
//! `actix_http::h1::decoder`, `actix_http::h1::dispatcher` and `actix_http::h2::dispatcher`.
//!
//! # Features
//!
//! - `http2`: HTTP/2, over TLS by ALPN, and in clear by `HttpServer::bind_auto_h2c`.
//! - `rustls-0_23`: TLS by rustls 0.23, `HttpServer::bind_rustls_0_23`.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is taken over there"))]

mod announced_body;
mod body;
mod chunks;
mod conform;
mod counts;
mod cursor;
mod expect;
mod gate;
mod handshake;
mod io;
#[cfg(target_os = "linux")]
mod lane;
mod options;
mod patience;
mod request;
mod respond;
mod serve;
mod server;
mod takeover;
mod tickets;
mod upload;

pub use actix_server::{Server, ServerHandle};
pub use announced_body::announces_body;
pub use body::ConnectionBody;
pub use conform::conform;
pub use cursor::{CURSOR_HEADER, CursorHeader, WithCursor, cursor_header};
pub use handshake::handshake;
#[cfg(target_os = "linux")]
pub use lane::Socket;
pub use options::socket_options;
pub use realtime_protocol::{Aborted, Connection, PathError, Step, check_path};
pub use respond::respond;
pub use server::HttpServer;
pub use takeover::Takeover;
pub use tickets::issue_ticket;
