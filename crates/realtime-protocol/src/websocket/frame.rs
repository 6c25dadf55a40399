//! Encoder of WebSocket frames (RFC 6455, section 5.2): unfragmented and unmasked, as a server sends them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::text::beginning;

const FIN: u8 = 0x80;

/// Opcode of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

/// Encodes one frame.
pub(crate) fn encode(kind: Kind, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(FIN | kind as u8);
    match payload.len() {
        len @ 0..126 => frame.put_u8(len as u8),
        len @ 126..65_536 => {
            frame.put_u8(126);
            frame.put_u16(len as u16);
        }
        len => {
            frame.put_u8(127);
            frame.put_u64(len as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

/// Encodes a Close frame. The reason is truncated to the 123 bytes that fit.
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let reason = beginning(reason, 123);
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.put_u16(code);
    payload.put_slice(reason.as_bytes());
    encode(Kind::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xFF, 0xFF]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = encode(Kind::Text, &vec![b'x'; len]);
            assert_eq!(&frame[..head.len()], head);
            assert_eq!(frame.len(), head.len() + len);
        }
    }

    #[test]
    fn a_close_frame_never_exceeds_a_control_frame() {
        let frame = close(1008, &"é".repeat(100));
        assert_eq!(frame[0], 0x88);
        assert_eq!(usize::from(frame[1]), frame.len() - 2);
        assert!(frame[1] <= 125);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
