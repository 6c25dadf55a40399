//! [`EncodedRun`]: consecutive entries of the log in one wire format.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    log::{Entry, LeftOut},
    session::state::SessionKind,
};

/// Entries with the same topics and scope, encoded for the sessions of one kind.
pub(super) struct EncodedRun<'a> {
    kind: *const SessionKind,
    /// The frames, each with its sequence number.
    frames: SmallVec<[(u64, &'a Bytes); 1]>,
    /// Messages that are not sent any more, each with its sequence number.
    left_out: Vec<(u64, LeftOut)>,
    /// The concatenation of the frames, if there are several and they are joined.
    joined: Vec<u8>,
}

impl<'a> EncodedRun<'a> {
    /// Encodes the entries from a sequence number on. `joins` concatenates them, for sessions that they are written to
    /// at once.
    pub(super) fn new(kind: &Arc<SessionKind>, first: u64, run: &'a [Arc<Entry>], joins: bool) -> Self {
        let mut left_out = Vec::new();
        let frames = (first..).zip(run).filter_map(|(seq, entry)| match entry.left_out() {
            None => Some((seq, entry.encode(&kind.wire)?)),
            Some(reason) => {
                left_out.push((seq, reason));
                None
            }
        });
        let frames: SmallVec<[_; 1]> = frames.collect();
        let mut joined = Vec::new();
        if joins && frames.len() > 1 {
            frames.iter().for_each(|(_, frame)| joined.extend_from_slice(frame));
        }
        Self { kind: Arc::as_ptr(kind), frames, left_out, joined }
    }

    pub(super) fn is_of(&self, kind: &Arc<SessionKind>) -> bool {
        self.kind == Arc::as_ptr(kind)
    }

    /// The messages from a sequence number on that are not sent any more, each with its own.
    pub(super) fn left_out(&self, seq: u64) -> impl Iterator<Item = (u64, LeftOut)> {
        self.left_out.iter().filter(move |(at, _)| *at >= seq).copied()
    }

    /// The frames from a sequence number on, and their concatenation, if there is one.
    pub(super) fn since(&self, seq: u64) -> (&[(u64, &'a Bytes)], &[u8]) {
        match &self.frames[..] {
            [(only, frame)] if *only >= seq => (&self.frames, frame),
            [_] => (&[], &[]),
            frames => {
                let (before, frames) = frames.split_at(frames.partition_point(|(at, _)| *at < seq));
                let bytes: usize = before.iter().map(|(_, frame)| frame.len()).sum();
                (frames, self.joined.get(bytes..).unwrap_or_default())
            }
        }
    }
}
