//! [`Frame`]: WebSocket frames as servers send them (RFC 6455, section 5), and the few that clients answer with.

/// A frame of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A text or binary message.
    Message(&'a [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    Pong,
    /// The end, with its code where there is one.
    Close(Option<u16>),
}

/// Bytes that are no frame that this client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a reserved bit is set in a frame's first byte {0:#04x}")]
    Reserved(u8),
    #[error("a message in fragments, which this client does not read")]
    Fragment,
    #[error("a masked frame from a server")]
    Masked,
    #[error("a frame of {0} bytes, more than this client reads")]
    TooLong(u64),
}

/// The longest payload that is read.
const MAX_PAYLOAD: u64 = 64 << 20;

impl<'a> Frame<'a> {
    /// The first frame of some bytes and its length; `None` while it is cut.
    pub(crate) fn first(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved(first));
        }
        if second & 0x80 != 0 {
            return Err(FrameError::Masked);
        }
        let (head, length) = match second {
            126 => match bytes.get(2..4) {
                Some(length) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (10, u64::from_be_bytes(length)),
                None => return Ok(None),
            },
            short => (2, u64::from(short)),
        };
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let end = head + length as usize;
        let Some(payload) = bytes.get(head..end) else { return Ok(None) };
        let frame = match first {
            0x81 | 0x82 => Self::Message(payload),
            0x88 => Self::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
            0x89 => Self::Ping(payload),
            0x8a => Self::Pong,
            _ => return Err(FrameError::Fragment),
        };
        Ok(Some((frame, end)))
    }
}

/// A server's text frame.
pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    push_length(&mut frame, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A client's text frame.
pub(crate) fn masked_text(payload: &[u8]) -> Vec<u8> {
    masked(0x81, payload)
}

/// A client's answer to a ping.
pub(crate) fn masked_pong(payload: &[u8]) -> Vec<u8> {
    masked(0x8a, payload)
}

/// The mask's key is zero: it protects intermediaries from hostile pages, and there are neither here.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    push_length(&mut frame, payload.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn push_length(frame: &mut Vec<u8>, length: usize, mask: u8) {
    match length {
        0..126 => frame.push(mask | length as u8),
        126..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_however_it_is_cut() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = text(&payload);
            let cuts = (0..frame.len()).filter(|&cut| cut < 16 || cut + 16 > frame.len());
            for cut in cuts {
                assert_eq!(Frame::first(&frame[..cut]), Ok(None), "{length} cut at {cut}");
            }
            let mut more = frame.clone();
            more.push(0x81);
            assert_eq!(Frame::first(&more), Ok(Some((Frame::Message(&payload), frame.len()))));
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        assert_eq!(Frame::first(&[0x89, 2, b'h', b'i']), Ok(Some((Frame::Ping(b"hi"), 4))));
        assert_eq!(Frame::first(&[0x8a, 0]), Ok(Some((Frame::Pong, 2))));
        assert_eq!(Frame::first(&[0x88, 2, 0x03, 0xf4]), Ok(Some((Frame::Close(Some(1012)), 4))));
        assert_eq!(Frame::first(&[0x88, 0]), Ok(Some((Frame::Close(None), 2))));
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        assert_eq!(Frame::first(&masked_text(b"x")), Err(FrameError::Masked));
        assert_eq!(Frame::first(&[0xc1, 0]), Err(FrameError::Reserved(0xc1)));
        assert_eq!(Frame::first(&[0x01, 0]), Err(FrameError::Fragment));
        assert_eq!(
            Frame::first(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
            Err(FrameError::TooLong(u64::MAX))
        );
    }
}
