//! What a transport is written with.
//!
//! A transport encodes messages by its [`WireFormat`] and pulls the frames of a [`Session`](crate::Session), or gives
//! it a socket to write to ([`DirectWrite`]). `realtime-websocket` and `realtime-sse` are written with nothing else.

mod format;

pub use self::format::{BusState, GapReason, WireFormat};
pub(crate) use self::format::{MAX_WIRES, WireFormatId};
pub use crate::{
    direct::DirectWrite,
    outbox::SendDirect,
    retry::random_retry,
    session::{Outbound, state::Begin},
    shard::Shard,
};
