//! [`Reader`]: parses the messages of a client (RFC 6455, section 5).
//!
//! A frame's header is checked before a byte of its payload is stored, and an incomplete message takes no more memory than
//! a message may have bytes. Behind a protocol error frames are skipped one by one, until the client's Close: a client that
//! has sent it and is waiting for the end of the connection gets it at once.

use std::mem;

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use realtime_core::CloseReason;

/// A complete message or control frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientMessage {
    Text(ByteString),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// With its code, if it has one.
    Close(Option<u16>),
}

/// Parser of the client's side of a connection.
#[derive(Default)]
pub(crate) struct Reader {
    /// The received part of an incomplete message; an idle client has none.
    partial: Option<Box<Partial>>,
    /// The client's Close has come, valid or not.
    closed: bool,
}

#[derive(Default)]
struct Partial {
    head: Head,
    /// The frame whose payload is incomplete.
    frame: Option<Frame>,
    /// Opcode of the fragmented message, if there is one.
    message: Option<u8>,
    /// Received bytes of the message, unmasked.
    data: Vec<u8>,
    /// Received bytes of a control frame, unmasked.
    control: Vec<u8>,
}

/// The received bytes of a frame's header: at most 2 + 8 + 4.
#[derive(Default)]
struct Head {
    bytes: [u8; 14],
    len: u8,
}

/// Header of a frame, and what has come of its payload.
struct Frame {
    first: u8,
    is_masked: bool,
    mask: [u8; 4],
    received: u64,
    /// Bytes of the payload that have yet to be received.
    remaining: u64,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

impl Reader {
    /// Takes the next message off the front of `input`. `None` when it is incomplete: all of `input` has been read, or as
    /// many frames of it have begun as may now. A message has at most `max` bytes; 0 means no limit.
    ///
    /// # Errors
    /// The protocol error. [`Self::skip_to_close`] reads what follows.
    pub(crate) fn next(
        &mut self,
        input: &mut &[u8],
        max: usize,
        frames: &mut u32,
    ) -> Result<Option<ClientMessage>, CloseReason> {
        if input.is_empty() {
            return Ok(None);
        }
        let mut partial = self.partial.take().unwrap_or_default();
        let max = if max == 0 { u64::MAX } else { max as u64 };
        let read = partial.read(input, max, frames, &mut self.closed);
        if read.is_err() || !partial.is_empty() {
            self.partial = Some(partial);
        }
        read
    }

    /// Skips frames, and stores nothing. Returns whether the client's Close has come, valid or not; until then it reads as
    /// [`Self::next`] does.
    pub(crate) fn skip_to_close(&mut self, input: &mut &[u8], frames: &mut u32) -> bool {
        if let Some(partial) = &mut self.partial {
            (partial.data, partial.control) = (Vec::new(), Vec::new());
        }
        if input.is_empty() {
            return self.closed;
        }
        let partial = self.partial.get_or_insert_default();
        while !self.closed && partial.begin(input, frames) {
            let skipped = partial.frame.as_mut().is_some_and(|frame| {
                let step = frame.take(input).len();
                frame.advance(step)
            });
            if !skipped {
                return false;
            }
            let frame = partial.frame.take();
            self.closed = frame.is_some_and(|frame| frame.opcode() == CLOSE);
        }
        if self.closed {
            self.partial = None;
            *input = &[];
        }
        self.closed
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn read(
        &mut self,
        input: &mut &[u8],
        max: u64,
        frames: &mut u32,
        closed: &mut bool,
    ) -> Result<Option<ClientMessage>, CloseReason> {
        loop {
            let is_new = self.frame.is_none();
            if !self.begin(input, frames) {
                return Ok(None);
            }
            if is_new {
                self.check(max)?;
            }
            if !self.fill(input, max) {
                return Ok(None);
            }
            if let Some(frame) = self.frame.take() {
                *closed |= frame.opcode() == CLOSE;
                if let Some(message) = self.complete(&frame)? {
                    return Ok(Some(message));
                }
            }
        }
    }

    /// Returns whether a frame has begun, after reading its header if need be. `frames` is the number that may begin.
    fn begin(&mut self, input: &mut &[u8], frames: &mut u32) -> bool {
        if self.frame.is_none() {
            if *frames == 0 || !self.head.fill(input) {
                return false;
            }
            *frames -= 1;
            self.frame = Some(mem::take(&mut self.head).parse());
        }
        true
    }

    /// Checks the header of the frame that has begun (sections 5.2 to 5.5).
    fn check(&self, max: u64) -> Result<(), CloseReason> {
        let Some(frame) = &self.frame else { return Ok(()) };
        if frame.first & 0x70 != 0 || !frame.is_masked || frame.remaining > i64::MAX as u64 {
            return Err(CloseReason::Protocol);
        }
        match (frame.opcode(), self.message) {
            (CLOSE..=PONG, _) if frame.fin() && frame.remaining <= 125 => Ok(()),
            (TEXT | BINARY, None) | (CONTINUATION, Some(_)) => {
                let received = self.data.len() as u64;
                if frame.remaining > max.saturating_sub(received) { Err(CloseReason::TooBig) } else { Ok(()) }
            }
            _ => Err(CloseReason::Protocol),
        }
    }

    /// Takes bytes until the payload is complete; returns whether it is. No memory is reserved for an announced length, and
    /// never more than a message may have.
    fn fill(&mut self, input: &mut &[u8], max: u64) -> bool {
        let Some(frame) = &mut self.frame else { return false };
        let data = if frame.is_control() { &mut self.control } else { &mut self.data };
        let rest = data.len() as u64 + frame.remaining;
        let bytes = frame.take(input);
        let begin = data.len();
        if data.capacity() - begin < bytes.len() {
            // The last fragment of a message determines its length.
            let most = usize::try_from(if frame.fin() { rest } else { max }).unwrap_or(usize::MAX);
            let grown = data.capacity().saturating_mul(2).min(most).max(begin + bytes.len());
            data.reserve_exact(grown - begin);
        }
        data.extend_from_slice(bytes);
        unmask(&mut data[begin..], frame.mask, frame.received as usize);
        frame.advance(bytes.len())
    }

    /// Message that a complete frame ends; `None` when more fragments follow.
    fn complete(&mut self, frame: &Frame) -> Result<Option<ClientMessage>, CloseReason> {
        let control = mem::take(&mut self.control);
        match frame.opcode() {
            CLOSE => return close_code(&control).map(|code| Some(ClientMessage::Close(code))),
            PING => return Ok(Some(ClientMessage::Ping(control.into()))),
            PONG => return Ok(Some(ClientMessage::Pong(control.into()))),
            _ => {}
        }
        let opcode = self.message.take().unwrap_or(frame.opcode());
        if !frame.fin() {
            self.message = Some(opcode);
            return Ok(None);
        }
        let payload = Bytes::from(mem::take(&mut self.data));
        if opcode == BINARY {
            return Ok(Some(ClientMessage::Binary(payload)));
        }
        let text = ByteString::try_from(payload).map_err(|_| CloseReason::InvalidPayload)?;
        Ok(Some(ClientMessage::Text(text)))
    }
}

impl Head {
    /// Takes bytes until the header is complete; returns whether it is.
    fn fill(&mut self, chunk: &mut &[u8]) -> bool {
        loop {
            let (len, wanted) = (usize::from(self.len), self.wanted());
            if len == wanted {
                return true;
            }
            if chunk.is_empty() {
                return false;
            }
            let step = chunk.len().min(wanted - len);
            chunk.copy_to_slice(&mut self.bytes[len..len + step]);
            self.len += step as u8;
        }
    }

    /// Length of the header, as far as the received bytes determine it.
    fn wanted(&self) -> usize {
        if self.len < 2 {
            return 2;
        }
        let mask = if self.bytes[1] & 0x80 == 0 { 0 } else { 4 };
        2 + self.extended() + mask
    }

    /// Bytes of the extended payload length.
    fn extended(&self) -> usize {
        match self.bytes[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    /// The frame of a complete header.
    fn parse(self) -> Frame {
        let [first, second, ..] = self.bytes;
        let (mask, remaining) = (self.mask(), self.payload_len());
        Frame { first, is_masked: second & 0x80 != 0, mask, received: 0, remaining }
    }

    fn payload_len(&self) -> u64 {
        match self.bytes[1] & 0x7F {
            126 => u16::from_be_bytes([self.bytes[2], self.bytes[3]]).into(),
            127 => u64::from_be_bytes(self.bytes[2..10].try_into().expect("eight bytes are eight")),
            len => len.into(),
        }
    }

    fn mask(&self) -> [u8; 4] {
        let at = 2 + self.extended();
        self.bytes[at..at + 4].try_into().expect("four bytes are four")
    }
}

impl Frame {
    fn fin(&self) -> bool {
        self.first & 0x80 != 0
    }

    fn opcode(&self) -> u8 {
        self.first & 0x0F
    }

    fn is_control(&self) -> bool {
        self.opcode() & 0x08 != 0
    }

    /// Takes those bytes of its payload off the input that are there.
    fn take<'a>(&self, input: &mut &'a [u8]) -> &'a [u8] {
        let step = self.remaining.min(input.len() as u64) as usize;
        let (bytes, rest) = input.split_at(step);
        *input = rest;
        bytes
    }

    /// Records that bytes of its payload were taken; returns whether it is complete.
    fn advance(&mut self, bytes: usize) -> bool {
        self.received += bytes as u64;
        self.remaining -= bytes as u64;
        self.remaining == 0
    }
}

/// Unmasks bytes at an offset in the payload (section 5.3).
fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mask: [u8; 16] = std::array::from_fn(|at| mask[(offset + at) % 4]);
    for block in bytes.chunks_mut(mask.len()) {
        for (byte, mask) in block.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// The code in a Close frame (sections 5.5.1 and 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseReason> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseReason::Protocol) };
    };
    match u16::from_be_bytes(*code) {
        // Codes that the standard and IANA's registry allow on the wire, and those of libraries and applications.
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => match std::str::from_utf8(reason) {
            Ok(_) => Ok(Some(code)),
            Err(_) => Err(CloseReason::InvalidPayload),
        },
        _ => Err(CloseReason::Protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x5A, 0, 0xFF, 7];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    const ANY: u32 = u32::MAX;

    /// Feeds bytes in pieces of a size; returns the messages and the protocol error, if any.
    fn read(bytes: &[u8], piece: usize, max: usize) -> (Vec<ClientMessage>, Option<CloseReason>) {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for mut piece in bytes.chunks(piece) {
            loop {
                match reader.next(&mut piece, max, &mut { ANY }) {
                    Ok(Some(message)) => all.push(message),
                    Ok(None) => break,
                    Err(reason) => return (all, Some(reason)),
                }
            }
            assert!(piece.is_empty());
        }
        (all, None)
    }

    /// Feeds bytes in pieces of a size to a reader that skips as soon as there is a fault; returns the fault, and whether
    /// the Close was found, with the last byte and not before.
    fn skip(bytes: &[u8], piece: usize, max: usize) -> (Option<CloseReason>, bool) {
        let (mut reader, mut fault, mut closed) = (Reader::default(), None, false);
        for mut piece in bytes.chunks(piece) {
            assert!(!closed, "a Close before the last byte");
            while fault.is_none() {
                match reader.next(&mut piece, max, &mut { ANY }) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(reason) => fault = Some(reason),
                }
            }
            if fault.is_some() {
                closed = reader.skip_to_close(&mut piece, &mut { ANY });
                assert!(piece.is_empty());
                let held = |partial: &Partial| partial.data.capacity() + partial.control.capacity();
                assert_eq!(reader.partial.as_deref().map_or(0, held), 0);
            }
        }
        (fault, closed)
    }

    #[test]
    fn a_silent_client_keeps_nothing() {
        let (bytes, mut reader) = ([frame(0x81, b"hello"), frame(0x89, b"")].concat(), Reader::default());
        for at in 0..=bytes.len() {
            let mut input = &bytes[..at];
            while let Ok(Some(_)) = reader.next(&mut input, 0, &mut { ANY }) {}
            assert_eq!(reader.partial.is_none(), [0, 11, bytes.len()].contains(&at), "after {at} bytes");
            reader = Reader::default();
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let big: Vec<u8> = (0..70_000).map(|n| n as u8).collect();
        let bytes = [
            frame(0x81, b"hello"),
            frame(0x82, &big[..300]),
            frame(0x01, "gr\u{fc}".as_bytes()),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, "\u{df}e".as_bytes()),
            frame(0x82, &big),
            frame(0x81, b""),
            frame(0x8A, b""),
            frame(0x88, b"\x03\xE8bye"),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            let (messages, fault) = read(&bytes, piece, 0);
            let all = [
                ClientMessage::Text("hello".into()),
                ClientMessage::Binary(Bytes::copy_from_slice(&big[..300])),
                ClientMessage::Ping(Bytes::from_static(b"are you there")),
                ClientMessage::Text("gr\u{fc}\u{df}e".into()),
                ClientMessage::Binary(Bytes::copy_from_slice(&big)),
                ClientMessage::Text("".into()),
                ClientMessage::Pong(Bytes::new()),
                ClientMessage::Close(Some(1000)),
            ];
            assert!(messages == all, "pieces of {piece}");
            assert_eq!(fault, None);
        }
    }

    #[test]
    fn an_announced_size_is_checked_before_a_byte_of_it_comes() {
        let mut bytes = frame(0x81, b"abc");
        bytes.extend([0x82, 0x80 | 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for piece in [1, bytes.len()] {
            assert_eq!(
                read(&bytes, piece, 65_536),
                (vec![ClientMessage::Text("abc".into())], Some(CloseReason::TooBig))
            );
        }
        // One that no limit forbids takes no memory for what has not come.
        assert_eq!(read(&bytes, 1000, 0), (vec![ClientMessage::Text("abc".into())], None));
    }

    #[test]
    fn the_pieces_of_a_message_count_together() {
        let mut bytes = frame(0x01, &[b'x'; 60]);
        bytes.extend(frame(0x00, &[b'x'; 60]));
        assert_eq!(read(&bytes, 1000, 120).1, None);
        bytes.extend(frame(0x80, b"x"));
        assert_eq!(read(&bytes, 1000, 120).1, Some(CloseReason::TooBig));
        assert_eq!(read(&bytes, 1000, 121).0, [ClientMessage::Text("x".repeat(121).into())]);
    }

    fn faults() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("reserved bits", frame(0xC1, b"x")),
            ("reserved opcode", frame(0x83, b"x")),
            ("reserved control opcode", frame(0x8B, b"x")),
            ("long control frame", frame(0x89, &[b'x'; 126])),
            ("fragmented control frame", frame(0x09, b"x")),
            ("continuation of nothing", frame(0x80, b"x")),
            ("text inside a message", [frame(0x01, b"x"), frame(0x81, b"x")].concat()),
            ("unmasked", vec![0x81, 1, b'x']),
            ("length with the top bit", [vec![0x82, 0xFF], vec![0xFF; 8], MASK.to_vec()].concat()),
            ("half a close code", frame(0x88, b"\x03")),
            ("a close code that is not sent", frame(0x88, b"\x03\xED")),
            ("a close code of nobody", frame(0x88, b"\x0B\xB7")),
            ("long close frame", frame(0x88, &[b'x'; 126])),
        ]
    }

    #[test]
    fn what_breaks_the_protocol_is_a_fault() {
        for (name, bytes) in faults() {
            let bytes = [frame(0x8A, b"before"), bytes, frame(0x81, b"after")].concat();
            let before = vec![ClientMessage::Pong(Bytes::from_static(b"before"))];
            assert_eq!(read(&bytes, 1000, 0), (before, Some(CloseReason::Protocol)), "{name}");
        }
    }

    #[test]
    fn a_text_that_is_no_text_is_a_fault_of_its_own() {
        let half = "\u{df}".as_bytes();
        let close = [&[3, 0xE8], &half[..1]].concat();
        for bytes in [frame(0x81, &half[..1]), frame(0x88, &close)] {
            assert_eq!(read(&bytes, 1000, 0), (Vec::new(), Some(CloseReason::InvalidPayload)));
        }
        let halves = [frame(0x01, &half[..1]), frame(0x80, &half[1..])].concat();
        assert_eq!(read(&halves, 1000, 0).0, [ClientMessage::Text("\u{df}".into())]);
    }

    #[test]
    fn behind_a_fault_the_close_is_found_however_the_bytes_are_cut() {
        let after = [
            frame(0xF3, &[0x88; 300]),
            frame(0x81, &vec![0x88; 70_000]),
            frame(0x00, b""),
            vec![0x81, 1, b'x'],
            frame(0x89, b"ping"),
            frame(0x88, b"\x03\xE8bye"),
        ]
        .concat();
        let too_big = ("too big", frame(0x81, &[b'x'; 70_001]));
        for (name, fault) in faults().into_iter().chain([too_big]) {
            if name == "length with the top bit" {
                // Nobody knows where the next frame begins.
                assert!(!skip(&[&fault[..], &after].concat(), 1000, 70_000).1);
                continue;
            }
            // A Close that is a fault is one nevertheless.
            let is_close = name.contains("close");
            let bytes = if is_close { fault } else { [&fault[..], &after].concat() };
            for piece in [1, 2, 3, 7, 1000, bytes.len()] {
                let (fault, closed) = skip(&bytes, piece, 70_000);
                assert!(fault.is_some() && closed, "{name} in pieces of {piece}: {fault:?}");
            }
        }
    }

    #[test]
    fn an_incomplete_message_takes_no_more_than_a_message_may_have() {
        const MAX: usize = 64 << 10;
        let whole = |piece: usize| {
            let count = MAX / piece;
            let pieces = (0..count).map(|at| frame(if at == 0 { 0x01 } else { 0x00 }, &vec![b'x'; piece]));
            pieces.collect::<Vec<_>>().concat()
        };
        let unfragmented = [&[0x81, 0x80 | 127][..], &(MAX as u64).to_be_bytes(), &MASK].concat();
        let unfragmented = [unfragmented, vec![b'x'; MAX - 1]].concat();
        for (name, bytes) in [
            ("one byte a fragment", whole(1)),
            ("seven bytes a fragment", whole(7)),
            ("4 KiB a fragment", whole(4 << 10)),
            ("one frame", unfragmented),
        ] {
            for piece in [1, 1000, 16 << 10] {
                let (mut reader, mut fed) = (Reader::default(), 0);
                for mut piece in bytes.chunks(piece) {
                    fed += piece.len();
                    assert_eq!(reader.next(&mut piece, MAX, &mut { ANY }), Ok(None));
                    let partial = reader.partial.as_deref().unwrap();
                    let held = partial.data.capacity() + partial.control.capacity();
                    assert!(held <= MAX && held <= 2 * fed.max(16 << 10), "{name}: {held} of {fed} bytes");
                }
            }
        }
    }

    #[test]
    fn only_as_many_frames_begin_as_may() {
        let bytes = [frame(0x01, b""), frame(0x00, b"a"), frame(0x00, b""), frame(0x80, b"b")].concat();
        let (mut reader, mut input) = (Reader::default(), &bytes[..]);
        for left in [bytes.len() - 6, bytes.len() - 13, 7] {
            assert_eq!(reader.next(&mut input, 0, &mut 1), Ok(None));
            assert_eq!(input.len(), left);
        }
        assert_eq!(reader.next(&mut input, 0, &mut 0), Ok(None));
        assert_eq!(input.len(), 7);
        assert_eq!(reader.next(&mut input, 0, &mut 1), Ok(Some(ClientMessage::Text("ab".into()))));
        let mut input = &bytes[..];
        assert!(!reader.skip_to_close(&mut input, &mut 2));
        assert_eq!(input.len(), 6 + 7);
    }
}
