//! [`Reader`]: parses the messages of a client (RFC 6455, section 5).
//!
//! A frame's header is checked before a byte of its payload is stored. After a protocol error all further input is read
//! and discarded: a socket that is closed with unread input is reset, and the client would not receive the Close frame.

use std::mem;

use bytes::{Buf, Bytes, BytesMut};
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
    failed: bool,
}

#[derive(Default)]
struct Partial {
    head: Head,
    /// The frame whose payload is incomplete.
    frame: Option<Frame>,
    /// The fragmented message so far.
    message: Option<Frame>,
}

/// The received bytes of a frame's header: at most 2 + 8 + 4.
#[derive(Default)]
struct Head {
    bytes: [u8; 14],
    len: u8,
}

struct Frame {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the payload that have yet to be received.
    remaining: u64,
    /// Received bytes, unmasked.
    payload: BytesMut,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

impl Reader {
    /// Takes the next message off the front of `input`; `None` when it is incomplete, and all of `input` has been read. A
    /// message has at most `max` bytes; 0 means no limit.
    ///
    /// # Errors
    /// The protocol error, once. All further input is discarded.
    pub(crate) fn next(
        &mut self,
        input: &mut &[u8],
        max: usize,
    ) -> Result<Option<ClientMessage>, CloseReason> {
        if self.failed {
            *input = &[];
        }
        if input.is_empty() {
            return Ok(None);
        }
        let mut partial = self.partial.take().unwrap_or_default();
        let max = if max == 0 { u64::MAX } else { max as u64 };
        let read = partial.read(input, max);
        if read.is_err() {
            self.failed = true;
        } else if !partial.is_empty() {
            self.partial = Some(partial);
        }
        read
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn read(&mut self, input: &mut &[u8], max: u64) -> Result<Option<ClientMessage>, CloseReason> {
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None => {
                    if !self.head.fill(input) {
                        return Ok(None);
                    }
                    let frame = self.parse_header(max)?;
                    self.frame.insert(frame)
                }
            };
            if !frame.fill(input) {
                return Ok(None);
            }
            if let Some(frame) = self.frame.take()
                && let Some(message) = self.complete(frame)?
            {
                return Ok(Some(message));
            }
        }
    }

    /// Parses a complete header and checks it (sections 5.2 to 5.5).
    fn parse_header(&mut self, max: u64) -> Result<Frame, CloseReason> {
        let head = mem::take(&mut self.head);
        let [first, second, ..] = head.bytes;
        let (fin, opcode, remaining) = (first & 0x80 != 0, first & 0x0F, head.payload_len());
        let unmasked = second & 0x80 == 0;
        if first & 0x70 != 0 || unmasked || remaining > i64::MAX as u64 {
            return Err(CloseReason::Protocol);
        }
        match (opcode, &self.message) {
            (CLOSE..=PONG, _) if fin && remaining <= 125 => {}
            (TEXT | BINARY, None) | (CONTINUATION, Some(_)) => {
                let received = self.message.as_ref().map_or(0, |message| message.payload.len() as u64);
                if remaining > max.saturating_sub(received) {
                    return Err(CloseReason::TooBig);
                }
            }
            _ => return Err(CloseReason::Protocol),
        }
        Ok(Frame { fin, opcode, mask: head.mask(), remaining, payload: BytesMut::new() })
    }

    /// Message that a complete frame ends; `None` when more fragments follow.
    fn complete(&mut self, frame: Frame) -> Result<Option<ClientMessage>, CloseReason> {
        let Frame { fin, opcode, payload, .. } = frame;
        match opcode {
            CLOSE => return close_code(&payload).map(|code| Some(ClientMessage::Close(code))),
            PING => return Ok(Some(ClientMessage::Ping(payload.freeze()))),
            PONG => return Ok(Some(ClientMessage::Pong(payload.freeze()))),
            _ => {}
        }
        let mut message = match self.message.take() {
            Some(mut message) => {
                message.payload.unsplit(payload);
                message
            }
            None => Frame { payload, ..frame },
        };
        message.fin = fin;
        if !fin {
            self.message = Some(message);
            return Ok(None);
        }
        let payload = message.payload.freeze();
        if message.opcode == BINARY {
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
    /// Takes bytes until the payload is complete; returns whether it is. No memory is reserved for an announced length.
    fn fill(&mut self, chunk: &mut &[u8]) -> bool {
        let step = self.remaining.min(chunk.len() as u64) as usize;
        let received = self.payload.len();
        self.payload.extend_from_slice(&chunk[..step]);
        chunk.advance(step);
        unmask(&mut self.payload[received..], self.mask, received);
        self.remaining -= step as u64;
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

    /// Feeds bytes in pieces of a size; returns the messages and the protocol error, if any.
    fn read(bytes: &[u8], piece: usize, max: usize) -> (Vec<ClientMessage>, Option<CloseReason>) {
        let (mut reader, mut all, mut fault) = (Reader::default(), Vec::new(), None);
        for mut piece in bytes.chunks(piece) {
            loop {
                match reader.next(&mut piece, max) {
                    Ok(Some(message)) => all.push(message),
                    Ok(None) => break,
                    Err(reason) => assert_eq!(fault.replace(reason), None, "a fault is reported once"),
                }
            }
            assert!(piece.is_empty());
        }
        (all, fault)
    }

    #[test]
    fn a_silent_client_keeps_nothing() {
        let (bytes, mut reader) = ([frame(0x81, b"hello"), frame(0x89, b"")].concat(), Reader::default());
        for at in 0..=bytes.len() {
            let mut input = &bytes[..at];
            while let Ok(Some(_)) = reader.next(&mut input, 0) {}
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

    #[test]
    fn what_breaks_the_protocol_is_a_fault() {
        for (name, bytes) in [
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
        ] {
            // Input behind a protocol error is ignored.
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
}
