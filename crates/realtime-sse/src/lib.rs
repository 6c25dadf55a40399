//! Server-Sent Events transport of **realtime**, a push framework for actix-web.
//!
//! [`routes`] adds the stream and its close endpoint to an `App`; [`SseEmitters`] pushes through it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use actix_web::App;
//! use realtime_sse::{HttpServer, Hub, JwtAlgorithm, JwtAuthenticator, SseConfig, SseEmitters, routes};
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::builder().start()?;
//!     let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
//!     let sse = SseEmitters::new(hub.clone());
//!     let server = HttpServer::new({
//!         let hub = hub.clone();
//!         move || {
//!             App::new().configure(routes(hub.clone(), jwt.clone(), SseConfig::default()))
//!         }
//!     })
//!     // A client that disconnects is noticed at once, not by the next write.
//!     .h1_allow_half_closed(false)
//!     .bind(("127.0.0.1", 8080))?
//!     .run();
//!     actix_web::rt::spawn(async move { sse.publish_all("hello").await });
//!     server.await?;
//!     Ok(())
//! }
//! ```
//!
//! [`HttpServer`] is actix-web's with connections that leave the HTTP dispatcher once they are open, so that one costs
//! less than a KiB; everything works on `actix_web::HttpServer` as well, with [`socket_options`] for `on_connect`.
//!
//! A server with open connections waits for its whole shutdown timeout, and then breaks them off. To end every session in
//! order, handle signals in the application (`HttpServer::disable_signals`) and call `Hub::drain` first.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod connection;
mod emitters;
mod refusal;
mod routes;
mod stream;
mod wire;

pub use emitters::SseEmitters;
pub use realtime_core::*;
pub use realtime_server::{HttpServer, socket_options};
pub use refusal::EmitterError;
pub use routes::{SseConfig, routes};
pub use stream::{SseStream, StreamAborted};

/// The label of this transport.
pub const TRANSPORT: Transport = Transport::new("sse");
