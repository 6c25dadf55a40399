//! Listings of the READMEs of the crates, compiled and run as documentation tests.

#[doc = include_str!("../../crates/realtime-axum/README.md")]
struct Axum;

#[doc = include_str!("../../crates/realtime-core/README.md")]
struct Core;

#[doc = include_str!("../../crates/realtime-redis/README.md")]
struct Redis;

#[doc = include_str!("../../crates/realtime-server/README.md")]
struct Server;

#[doc = include_str!("../../crates/realtime-sse/README.md")]
struct Sse;

#[doc = include_str!("../../crates/realtime-websocket/README.md")]
struct WebSocket;
