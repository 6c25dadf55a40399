//! Functions for the workspace's micro-benchmarks, behind the feature `bench`. They may change at any time.

use bytes::Bytes;
use realtime_core::{Message, Position, wire::WireFormat};

use crate::format::{Framing, SseFormat};

/// A message as a block of an event stream.
pub fn block(message: &Message) -> Bytes {
    SseFormat(Framing::Plain).message(message, Some(Position { epoch: 1_795_492_719_616, offset: 7 }))
}
