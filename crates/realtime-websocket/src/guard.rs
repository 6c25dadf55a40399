//! [`Guard`]: reads frame headers as they pass, before anything buffers their payload.
//!
//! actix's parser looks at a frame's length only once the whole frame is in memory, so a header that announces 2^40
//! bytes makes it collect them all. The guard lets one frame through per poll, so that what came before a bad frame
//! is handled first; in front of a bad one it leaves its verdict and throws away whatever follows, so that the
//! socket has nothing unread when it is closed and the client gets to see the Close frame.

use std::{
    cell::Cell,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::{dev::Payload, error::PayloadError};
use bytes::Bytes;
use futures_core::Stream;
use realtime_core::CloseReason;

/// The bytes of a client, up to the first frame that may not be.
pub(crate) struct Guard {
    payload: Payload,
    chunk: Bytes,
    header: Header,
    /// Bytes of the current frame's payload that are still to come.
    remaining: u64,
    /// Bytes of the current fragmented message so far; `None` outside of one.
    message: Option<u64>,
    max: u64,
    /// The last frame is complete; the reader gets a chance to handle it.
    pause: bool,
    verdict: Verdict,
}

/// Why nothing passes any more, if so. Whoever finds another fault may set it too.
pub(crate) type Verdict = Rc<Cell<Option<CloseReason>>>;

/// The bytes of a frame's header so far: at most 2 + 8 + 4.
#[derive(Default)]
struct Header {
    bytes: [u8; 14],
    len: usize,
}

impl Header {
    /// How long the header is, as far as it can be told.
    fn wanted(&self) -> usize {
        if self.len < 2 {
            return 2;
        }
        let extended = match self.bytes[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.bytes[1] & 0x80 == 0 { 0 } else { 4 };
        2 + extended + mask
    }

    fn payload_len(&self) -> u64 {
        match self.bytes[1] & 0x7F {
            126 => u16::from_be_bytes([self.bytes[2], self.bytes[3]]).into(),
            127 => u64::from_be_bytes(self.bytes[2..10].try_into().expect("eight bytes are eight")),
            len => len.into(),
        }
    }
}

impl Guard {
    /// Guards a payload; a message has at most `max` bytes, 0 means no limit.
    pub(crate) fn new(payload: Payload, max: usize) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let guard = Self {
            payload,
            chunk: Bytes::new(),
            header: Header::default(),
            remaining: 0,
            message: None,
            max: if max == 0 { u64::MAX } else { max as u64 },
            pause: false,
            verdict: Rc::clone(&verdict),
        };
        (guard, verdict)
    }

    /// How many bytes of the chunk may pass now: up to the end of the current frame.
    fn scan(&mut self) -> Result<usize, CloseReason> {
        let mut at = 0;
        while at < self.chunk.len() {
            if self.remaining > 0 {
                let step = self.remaining.min((self.chunk.len() - at) as u64);
                self.remaining -= step;
                at += step as usize;
                if self.remaining == 0 {
                    self.pause = true;
                    break;
                }
                continue;
            }
            self.header.bytes[self.header.len] = self.chunk[at];
            self.header.len += 1;
            at += 1;
            if self.header.len == self.header.wanted() {
                self.remaining = self.judge()?;
                self.header = Header::default();
                if self.remaining == 0 {
                    self.pause = true;
                    break;
                }
            }
        }
        Ok(at)
    }

    /// Checks a whole header (RFC 6455, sections 5.2 to 5.5) and returns how long its payload is.
    fn judge(&mut self) -> Result<u64, CloseReason> {
        let [first, second, ..] = self.header.bytes;
        let (fin, opcode, len) = (first & 0x80 != 0, first & 0x0F, self.header.payload_len());
        let unmasked = second & 0x80 == 0;
        if first & 0x70 != 0 || unmasked || len > i64::MAX as u64 {
            return Err(CloseReason::Protocol);
        }
        match (opcode, self.message) {
            (0x8..=0xA, _) if fin && len <= 125 => return Ok(len),
            (0x1 | 0x2, None) | (0x0, Some(_)) => {}
            _ => return Err(CloseReason::Protocol),
        }
        let message = self.message.unwrap_or(0).saturating_add(len);
        self.message = (!fin).then_some(message);
        if message > self.max { Err(CloseReason::TooBig) } else { Ok(len) }
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        self.chunk = Bytes::new();
        loop {
            match ready!(Pin::new(&mut self.payload).poll_next(cx)) {
                Some(Ok(_)) => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl Stream for Guard {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if mem::take(&mut this.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.verdict.get().is_some() {
            return this.poll_discard(cx);
        }
        if this.chunk.is_empty() {
            match ready!(Pin::new(&mut this.payload).poll_next(cx)) {
                Some(Ok(chunk)) => this.chunk = chunk,
                other => return Poll::Ready(other),
            }
        }
        match this.scan() {
            Ok(pass) => Poll::Ready(Some(Ok(this.chunk.split_to(pass)))),
            Err(reason) => {
                // Part of the bad frame's header may have passed with an earlier chunk: the parser waits for more.
                this.verdict.set(Some(reason));
                this.poll_discard(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const MASK: [u8; 4] = [0; 4];

    fn frame(first: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match len {
            0..126 => frame.push(0x80 | len as u8),
            126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(vec![b'x'; len]);
        frame
    }

    /// Feeds bytes in pieces of a size and returns what passed, and the verdict.
    fn pass(bytes: &[u8], piece: usize, max: usize) -> (usize, Option<CloseReason>) {
        let chunks: Vec<Result<Bytes, PayloadError>> =
            bytes.chunks(piece).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let stream = Box::pin(futures_util::stream::iter(chunks));
        let (mut guard, verdict) = Guard::new(Payload::Stream { payload: stream }, max);
        let mut cx = Context::from_waker(Waker::noop());
        let mut passed = 0;
        loop {
            match Pin::new(&mut guard).poll_next(&mut cx) {
                Poll::Ready(Some(chunk)) => passed += chunk.unwrap().len(),
                Poll::Ready(None) => return (passed, verdict.get()),
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn good_frames_pass_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        for (first, len) in
            [(0x81, 5), (0x82, 300), (0x01, 10), (0x89, 3), (0x00, 10), (0x80, 70_000), (0x88, 2)]
        {
            bytes.extend(frame(first, len));
        }
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            assert_eq!(pass(&bytes, piece, 0), (bytes.len(), None), "pieces of {piece}");
        }
    }

    #[test]
    fn an_announced_size_is_judged_before_a_byte_of_it_comes() {
        let mut bytes = frame(0x81, 3);
        let good = bytes.len();
        bytes.extend([0x82, 0x80 | 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(pass(&bytes, bytes.len(), 65_536), (good, Some(CloseReason::TooBig)));
        assert_eq!(pass(&bytes, 1, 65_536).1, Some(CloseReason::TooBig));
    }

    #[test]
    fn the_pieces_of_a_message_count_together() {
        let mut bytes = frame(0x01, 60);
        bytes.extend(frame(0x00, 60));
        assert_eq!(pass(&bytes, 1000, 120).1, None);
        bytes.extend(frame(0x80, 1));
        assert_eq!(pass(&bytes, 1000, 120).1, Some(CloseReason::TooBig));
    }

    #[test]
    fn what_breaks_the_protocol_ends_the_stream() {
        for (name, bytes) in [
            ("reserved bits", frame(0xC1, 1)),
            ("reserved opcode", frame(0x83, 1)),
            ("reserved control opcode", frame(0x8B, 1)),
            ("long control frame", frame(0x89, 126)),
            ("fragmented control frame", frame(0x09, 1)),
            ("continuation of nothing", frame(0x80, 1)),
            ("text inside a message", [frame(0x01, 1), frame(0x81, 1)].concat()),
            ("unmasked", vec![0x81, 1, b'x']),
            ("length with the top bit", [vec![0x82, 0xFF], vec![0xFF; 8], MASK.to_vec()].concat()),
        ] {
            assert_eq!(pass(&bytes, 1000, 0).1, Some(CloseReason::Protocol), "{name}");
        }
    }
}
