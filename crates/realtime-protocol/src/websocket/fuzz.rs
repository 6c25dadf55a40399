//! Targets of fuzz tests: functions that take any bytes and panic where a promise is broken (feature `fuzz`, unstable).

use bytestring::ByteString;
use realtime_core::CloseReason;

use super::{
    protocol::Protocol,
    reader::{ClientMessage, Reader},
};

/// Bytes of a message at most.
const MAX: usize = 300;

/// Reads the bytes of a client in pieces of the length that the first byte gives: the same messages come as from all of them
/// at once, none is above the limit, and nothing follows a fault.
pub fn frames(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(*piece).max(1)), whole);
    for message in whole.0 {
        match message {
            ClientMessage::Text(text) => {
                assert!(text.len() <= MAX);
                client_texts(&text);
            }
            ClientMessage::Binary(bytes) => assert!(bytes.len() <= MAX),
            ClientMessage::Ping(bytes) | ClientMessage::Pong(bytes) => assert!(bytes.len() <= 125),
            ClientMessage::Close(code) => {
                assert!(code.is_none_or(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)));
            }
        }
    }
}

fn read(bytes: &[u8], piece: usize) -> (Vec<ClientMessage>, Option<CloseReason>) {
    let (mut reader, mut messages, mut fault) = (Reader::default(), Vec::new(), None);
    for mut piece in bytes.chunks(piece) {
        let mut frames = u32::MAX;
        loop {
            if fault.is_some() {
                if reader.skip_to_close(&mut piece, &mut frames) {
                    return (messages, fault);
                }
                break;
            }
            match reader.next(&mut piece, MAX, &mut frames) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(reason) => fault = Some(reason),
            }
        }
        assert!(piece.is_empty(), "input is left");
    }
    (messages, fault)
}

/// Reads a client's text in both protocols: raw it is the message, and `realtime.v1` takes what it knows.
pub fn client_texts(text: &str) {
    let text = ByteString::from(text);
    assert!(Protocol::Raw.read(text.clone()).is_ok());
    Protocol::V1.read(text).ok();
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    proptest! {
        #[test]
        fn any_frames(
            piece in any::<u8>(),
            // Headers that are nearly right, and anything.
            parts in vec(
                prop_oneof![
                    (select(vec![0x01_u8, 0x80, 0x81, 0x82, 0x00, 0x88, 0x89, 0x8A, 0xC1]), 0..126_u8, any::<u32>())
                        .prop_map(|(first, len, mask)| {
                            let (head, len) = ([first, 0x80 | len], usize::from(len));
                            [&head[..], mask.to_be_bytes().as_slice(), vec![0; len].as_slice()].concat()
                        }),
                    vec(any::<u8>(), 0..20),
                ],
                0..8,
            ),
        ) {
            frames(&[&[piece][..], parts.concat().as_slice()].concat());
        }

        #[test]
        fn any_texts(parts in vec(prop_oneof![
            select(vec![
                r#"{"type":""#, r#"message"}"#, r#"subscribe","topics":["#, r#"ping"}"#, r#"","data":""#, "\"", "}", "[", "]",
                "\\ud83d", "\\u0000", ",", ":", "null", "1e999", "{",
            ]).prop_map(str::to_owned),
            ".{0,5}",
        ], 0..12)) {
            client_texts(&parts.concat());
        }
    }
}
