//! [`WebSocket`]: reads the frames of `realtime.v1`.

use std::time::Duration;

use serde_json::Value;

use super::{ServerEvent, cursor, excerpt};
use crate::frame::{Frame, masked_pong, masked_text};

/// Bytes received but not parsed yet.
#[derive(Debug, Default)]
pub(crate) struct WebSocket {
    buffer: Vec<u8>,
}

impl WebSocket {
    /// Reads on; what has to be answered is put into `answers`.
    pub(crate) fn feed(&mut self, bytes: &[u8], events: &mut Vec<ServerEvent>, answers: &mut Vec<u8>) {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            let (frame, length) = match Frame::first(&self.buffer[used..]) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    events.push(ServerEvent::Malformed(error.to_string()));
                    used = self.buffer.len();
                    break;
                }
            };
            used += length;
            match frame {
                Frame::Message(text) => match std::str::from_utf8(text) {
                    Ok(text) => read(text, events, answers),
                    Err(_) => events.push(ServerEvent::Malformed("text that is not UTF-8".into())),
                },
                Frame::Ping(payload) => answers.extend(masked_pong(payload)),
                Frame::Pong => {}
                Frame::Close(code) => events.push(ServerEvent::Close(code)),
            }
        }
        self.buffer.drain(..used);
    }
}

fn read(text: &str, events: &mut Vec<ServerEvent>, answers: &mut Vec<u8>) {
    let heard = parse(text);
    if matches!(heard, ServerEvent::Beat { .. }) {
        answers.extend(masked_text(br#"{"type":"pong"}"#));
    }
    events.push(heard);
}

fn parse(text: &str) -> ServerEvent {
    let malformed = || ServerEvent::Malformed(format!("frame {:?}", excerpt(text)));
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return malformed() };
    let at = |field: &str| match &frame[field] {
        Value::Null => Ok(None),
        Value::String(text) => cursor(text).map(Some),
        _ => Err(malformed()),
    };
    let millis = |field: &str| frame[field].as_u64().map(Duration::from_millis);
    let word = |field: &str| frame[field].as_str().map(str::to_owned).ok_or_else(malformed);
    let read = || {
        Ok(match frame["type"].as_str() {
            Some("hello") => ServerEvent::Hello {
                recovered: frame["recovered"].as_bool(),
                cursor: at("cursor")?,
                silence: millis("pingInterval"),
            },
            Some("message") => {
                ServerEvent::Message { event: word("event")?, data: word("data")?, cursor: at("id")? }
            }
            Some("gap") => ServerEvent::Gap { reason: word("reason")?, cursor: at("cursor")? },
            Some("ping") => ServerEvent::Beat { cursor: at("cursor")? },
            Some("bye") => ServerEvent::Bye { reason: word("reason")?, retry: millis("retry") },
            // Unknown types are ignored, so that the protocol can be extended.
            Some(_) => ServerEvent::Other { cursor: None },
            None => return Err(malformed()),
        })
    };
    read().unwrap_or_else(|malformed| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::text;

    #[test]
    fn frames_are_read_however_they_are_cut_and_pings_are_answered() {
        let mut bytes = Vec::new();
        for frame in [
            r#"{"type":"hello","session":"x","recovered":true,"cursor":"7.1","pingInterval":1000}"#,
            r#"{"type":"message","id":"7.2","event":"message","data":"one"}"#,
            r#"{"type":"ping","cursor":"7.2"}"#,
            r#"{"type":"gap","reason":"bus","cursor":"8.1"}"#,
            r#"{"type":"later","more":1}"#,
            r#"{"type":"bye","reason":"drain","retry":20}"#,
        ] {
            bytes.extend(text(frame.as_bytes()));
        }
        bytes.extend([0x89, 1, b'p', 0x88, 2, 0x03, 0xf4]);
        let at = |cursor: &str| Some(cursor.parse().unwrap());
        let expected = [
            ServerEvent::Hello {
                recovered: Some(true),
                cursor: at("7.1"),
                silence: Some(Duration::from_secs(1)),
            },
            ServerEvent::Message { event: "message".into(), data: "one".into(), cursor: at("7.2") },
            ServerEvent::Beat { cursor: at("7.2") },
            ServerEvent::Gap { reason: "bus".into(), cursor: at("8.1") },
            ServerEvent::Other { cursor: None },
            ServerEvent::Bye { reason: "drain".into(), retry: Some(Duration::from_millis(20)) },
            ServerEvent::Close(Some(1012)),
        ];
        for cut in 0..=bytes.len() {
            let (mut socket, mut events, mut answers) = (WebSocket::default(), Vec::new(), Vec::new());
            socket.feed(&bytes[..cut], &mut events, &mut answers);
            socket.feed(&bytes[cut..], &mut events, &mut answers);
            assert_eq!(events, expected, "cut at {cut}");
            let pongs = [masked_text(br#"{"type":"pong"}"#), masked_pong(b"p")].concat();
            assert_eq!(answers, pongs);
        }
    }

    #[test]
    fn what_the_protocol_does_not_know_is_malformed() {
        for bad in [
            "x",
            "{}",
            r#"{"type":"ping","cursor":7}"#,
            r#"{"type":"message","id":"7.1:","event":"m","data":""}"#,
        ] {
            let (mut events, mut answers) = (Vec::new(), Vec::new());
            WebSocket::default().feed(&text(bad.as_bytes()), &mut events, &mut answers);
            assert!(matches!(&events[..], [ServerEvent::Malformed(_)]), "{bad}: {events:?}");
            assert!(answers.is_empty());
        }
    }
}
