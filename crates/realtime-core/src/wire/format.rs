//! [`WireFormat`]: the encoding of messages and notices for clients.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{CloseReason, Message, Position, Topic};

/// Encoding of frames for clients: raw WebSocket text, `realtime.v1`, an event stream.
///
/// The hub encodes each message once per wire format and shares the bytes among all recipients, so an encoding must
/// depend on nothing but its arguments.
pub trait WireFormat: Send + Sync + 'static {
    /// The format's name. Formats with the same name count as one.
    fn name(&self) -> &'static str;

    /// Encodes a message, with its position if the bus has positions. If the result is empty, clients of this format do
    /// not get the message.
    ///
    /// `topic` is the topic that it was published to, if that is a single [named](Topic::is_named) one.
    fn message(&self, message: &Message, topic: Option<&Topic>, position: Option<Position>) -> Bytes;

    /// Encodes the notice that messages may be missing up to `cursor`; `None` if the format has none.
    ///
    /// They may be missing since `since`: everything published before has been sent; `None` where that is not known.
    /// `spread` is this client's share of the time over which clients reload their state.
    fn gap(
        &self,
        reason: GapReason,
        cursor: Option<Position>,
        since: Option<SystemTime>,
        spread: Duration,
    ) -> Option<Bytes>;

    /// Encodes the heartbeat, with the position up to which the client has everything (`None`: not known) and the state
    /// of the bus.
    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes;

    /// Encodes the notice that the session's login ends after `left`, so that the client renews it; `None`, the default,
    /// if the format has none.
    fn expiring(&self, left: Duration) -> Option<Bytes> {
        let _ = left;
        None
    }

    /// The code that a client of this format gets with the end of its session; `None`, the default, if the format has no
    /// codes, or for a reason without one.
    fn close_code(&self, reason: CloseReason) -> Option<u16> {
        let _ = reason;
        None
    }

    /// Returns `true` if clients answer the heartbeat, so that a silent one counts as disconnected.
    fn answers_heartbeat(&self) -> bool;
}

/// State of the bus, for heartbeats: while it is unavailable, published messages do not reach clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// The bus is available, as it was at the previous heartbeat.
    Up,
    /// The bus is available again, after a heartbeat that reported an outage.
    Restored,
    /// The bus has been unavailable since this time.
    Down(SystemTime),
}

/// Reason why messages may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// They have left the window of recent envelopes.
    History,
    /// The bus lost its history or was unavailable.
    Bus,
    /// The client's cursor does not belong to this history.
    Cursor,
    /// A local send was dropped because the outbox was full.
    Overflow,
}

impl GapReason {
    /// The reason's stable name, as in gap frames.
    pub fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Bus => "bus",
            Self::Cursor => "cursor",
            Self::Overflow => "overflow",
        }
    }
}

/// Maximum number of wire formats of one hub: an entry of the log has a cell for each.
pub(crate) const MAX_WIRES: usize = 6;

/// A wire format with its cell in the log's entries.
#[derive(Clone)]
pub(crate) struct WireFormatId {
    pub(crate) wire: Arc<dyn WireFormat>,
    pub(crate) index: usize,
}

impl fmt::Debug for WireFormatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireFormatId({}: {})", self.index, self.wire.name())
    }
}
