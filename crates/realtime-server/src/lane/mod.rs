//! The taken-over lane: sockets that have left the HTTP dispatcher and belong to their worker's epoll.
//!
//! A connection costs no task, no timer and no buffer there: bytes are kept only while a read or a write is
//! incomplete.

mod socket;
mod taken;
mod worker;

pub use socket::Socket;
pub(crate) use worker::adopt;
