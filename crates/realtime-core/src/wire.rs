//! The parts that a transport is built with.
//!
//! A transport encodes messages with its [`WireFormat`] and pulls the frames of a [`Session`](crate::Session), or gives
//! the session a socket to write to ([`DirectWrite`]). `realtime-protocol` builds both transports with them; an application
//! needs none of them.

mod format;

pub use self::format::{BusState, GapReason, WireFormat};
pub(crate) use self::format::{MAX_WIRES, WireFormatId};
pub use crate::{
    admission::Admission,
    direct::DirectWrite,
    line_limit::LineLimit,
    outbox::SendDirect,
    retry::random_retry,
    session::{
        Outbound,
        state::{Begin, ConnectTopics},
    },
    shard::Shard,
    surrogates::replace_lone_surrogates,
};
