//! Functions for the workspace's micro-benchmarks, behind the feature `bench`. They may change at any time.

use bytes::Bytes;
use realtime_core::{Message, Position};

use crate::protocol::Protocol;

/// A message as a raw text frame.
pub fn raw(message: &Message) -> Bytes {
    Protocol::Raw.wire().message(message, None)
}

/// A message as a frame of `realtime.v1`.
pub fn v1(message: &Message) -> Bytes {
    Protocol::V1.wire().message(message, Some(Position { epoch: 1_795_492_719_616, offset: 7 }))
}
