//! Shared parts of the tests: the real demo process, and clients of it that share no code with realtime.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot go on panics")]

mod axum_server;
mod browser;
mod cargo;
mod client;
pub mod conformance;
mod demo;
mod descriptors;
mod dev_server;
mod embedded;
mod faults;
mod generated;
mod hub;
mod java;
mod own_process;
mod proxy;
mod publisher;
mod raw_client;
#[cfg(doctest)]
mod readmes;
mod redis;
mod redis_cluster;
mod redis_process;
mod redis_sentinel;
mod redis_tls;
mod reverse_proxy;
mod running;
mod server_kind;
mod suite;
mod traced;

pub use axum_server::AxumServer;
pub use browser::{Browser, Scheme, Screen};
pub use cargo::{built, cargo};
pub use client::{CloseFrame, EventStream, Server, Socket, WsMessage, within};
pub use demo::{API_KEY, Demo, SECRET, sign, token};
pub use descriptors::{descriptors, until};
pub use dev_server::DevServer;
pub use embedded::Embedded;
pub use faults::{Fault, Part};
pub use generated::{Generated, difference, run_generator};
pub use hub::{publish, session};
pub use java::{JAVA_SECRET, JavaLogins, Payload};
pub use own_process::in_own_process;
pub use proxy::Proxy;
pub use publisher::{Acknowledged, Published, Publisher};
pub use raw_client::RawClient;
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use redis_process::{RedisProcess, free_port};
pub use redis_sentinel::RedisSentinel;
pub use redis_tls::{Authority, RedisTlsServer};
pub use reverse_proxy::{ProxyKind, ReverseProxy, Upstream};
pub use running::Running;
pub use server_kind::ServerKind;
pub use suite::Suite;
pub use traced::Traced;
