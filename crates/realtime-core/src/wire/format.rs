//! [`WireFormat`]: how a transport writes what the hub sends.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{Message, Position};

/// One form in which frames go to clients: raw WebSocket text, `realtime.v1`, an event stream.
///
/// The hub encodes each message once per wire form and shares the bytes among all recipients, so an encoding
/// must depend on nothing but its arguments.
pub trait WireFormat: Send + Sync + 'static {
    /// The form's name. Two wires of one name are one.
    fn name(&self) -> &'static str;

    /// A message, with its position where the bus gives one. Without a byte, clients of this form are not sent it.
    fn message(&self, message: &Message, position: Option<Position>) -> Bytes;

    /// The notice that messages may be missing up to `cursor`; `None` where the format has none.
    ///
    /// `spread` is this client's part of the time over which clients should load their state afresh.
    fn gap(&self, reason: GapReason, cursor: Option<Position>, spread: Duration) -> Option<Bytes>;

    /// The heartbeat, with the position up to which the client has everything (`None`: no news of it), and whether the
    /// bus is there.
    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes;

    /// Whether clients answer the heartbeat, so that a silent one is dead.
    fn answers_heartbeat(&self) -> bool;
}

/// State of the bus, for heartbeats: while it is unavailable, published messages do not reach clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// It is there, as it was at the heartbeat before.
    Up,
    /// It is there again, after a heartbeat that said it was away.
    Restored,
    /// It has been away since this time.
    Down(SystemTime),
}

/// Why messages may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// They have left the window of recent envelopes.
    History,
    /// The bus lost its history or was away.
    Bus,
    /// The client's cursor is none of this history.
    Cursor,
    /// A local send met a full outbox.
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

/// How many wire forms one hub can have: an entry of the log has a cell for each.
pub(crate) const MAX_WIRES: usize = 6;

/// A wire with its cell in the log's entries.
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
