//! Promises of both transports to their clients, and of the server beneath them, without Redis.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod bus_outages;
mod embedding;
mod ended_logins;
mod ends;
mod event_streams;
mod every_broadcast_once;
mod handshakes;
mod history_of_grants;
mod hostile_frames;
mod hostile_handshakes;
mod hostile_requests;
mod independent_sessions;
mod limits_and_stops;
mod message_options;
mod nothing_left_behind;
mod one_order;
mod origins;
mod own_applications;
mod parameters;
mod pipelining;
mod refreshed_logins;
mod refused_logins;
mod replay;
mod same_answers;
mod session_limits;
mod slow_readers;
mod snapshots;
mod takeover;
mod tls_and_http2;
mod topics;
mod websockets;
