//! [`DirectWrite`]: the socket of a session whose connection was taken over, and [`WriteBuffer`], the frames of one
//! write.

use std::{collections::VecDeque, fmt, io};

use bytes::Bytes;

/// Socket of a connection that was taken over, for `Session::attach`.
///
/// The connection's task writes to the same socket. The outbox decides which of the two may write, so that bytes never
/// interleave; the rest of a partially written frame is left to the connection's task.
pub trait DirectWrite: Send + Sync + fmt::Debug {
    /// Writes as many of the bytes as the socket accepts now, and returns their number. Never blocks.
    ///
    /// # Errors
    /// If it accepts none. The connection's task gets the same error and closes the connection.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Fetches what [`Self::write`] reads from memory, some writes ahead of it. By default nothing.
    fn prefetch(&self) {}

    /// Breaks the connection off and discards the bytes that the kernel still holds for it.
    fn abort(&self);
}

/// Consecutive frames of one write, shared by all sessions that get the same ones.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    /// Kept, so that no other frame can take the address of one of them.
    frames: Vec<Bytes>,
    bytes: Vec<u8>,
    /// Bytes that were written and have yet to be counted.
    pub(crate) sent: u64,
}

/// A larger buffer is freed after use.
const KEEP_BYTES: usize = 1 << 20;

impl WriteBuffer {
    /// The frames as one slice.
    pub(crate) fn join(&mut self, frames: &VecDeque<Bytes>) -> &[u8] {
        let same =
            |(ours, theirs): (&Bytes, &Bytes)| ours.as_ptr() == theirs.as_ptr() && ours.len() == theirs.len();
        if self.frames.len() != frames.len() || !self.frames.iter().zip(frames).all(same) {
            self.clear();
            for frame in frames {
                self.frames.push(frame.clone());
                self.bytes.extend_from_slice(frame);
            }
        }
        &self.bytes
    }

    /// Drops the frames.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_frames_are_joined_once_and_others_anew() {
        let (a, b) = (Bytes::from(vec![b'a'; 3]), Bytes::from(vec![b'b'; 2]));
        let mut gather = WriteBuffer::default();
        let first = gather.join(&VecDeque::from([a.clone(), b.clone()])).as_ptr();
        let queue = VecDeque::from([a.clone(), b.clone()]);
        assert_eq!(gather.join(&queue), b"aaabb");
        assert_eq!(gather.join(&queue).as_ptr(), first);
        assert_eq!(gather.join(&VecDeque::from([b.clone(), a.clone()])), b"bbaaa");
        // The rest of a frame begins elsewhere and counts as another frame.
        assert_eq!(gather.join(&VecDeque::from([b.slice(1..), a])), b"baaa");
    }
}
