//! The demo of realtime: both transports in one actix-web server, switched by a configuration file.
//!
//! `server` puts everything together; each of the other modules is one part of what it serves.

mod ai;
mod answers;
mod api;
mod api_error;
mod asset;
mod audit;
mod basics;
mod body;
mod body_size;
mod caller;
#[cfg(feature = "websocket")]
mod chat;
mod client;
#[cfg(feature = "redis")]
mod cluster;
pub mod config;
#[cfg(feature = "redis")]
mod connect;
mod console;
mod dashboard;
#[cfg(test)]
mod documented_routes;
mod event;
mod explain;
#[cfg(feature = "opentelemetry")]
mod exporter;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod hosts;
mod internal;
pub mod log;
mod login;
mod logins;
mod metrics;
mod nodes;
mod online;
mod openapi;
mod page;
mod params;
mod passwords;
mod publish_span;
mod refusals;
mod reload;
mod scenes;
mod schema;
mod server;
mod signals;
mod state;
mod stats;
mod story;
mod throttle;
mod throttles;
mod ticket;
mod tls;
pub mod token;
mod trace;

#[cfg(feature = "redis")]
pub use connect::{Reached, Unreached, connect};
pub use reload::ReadConfig;
pub use server::{check, run};
