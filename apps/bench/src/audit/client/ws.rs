//! [`WebSocket`]: reads the frames of `realtime.v1`.

use std::time::Duration;

use serde_json::Value;

use super::{Said, cursor, excerpt};
use crate::frame::{Frame, masked_pong, masked_text};

/// What has been read of a connection so far.
#[derive(Debug, Default)]
pub(crate) struct WebSocket {
    buffer: Vec<u8>,
}

impl WebSocket {
    /// Reads on; what has to be answered is put into `answers`.
    pub(crate) fn feed(&mut self, bytes: &[u8], said: &mut Vec<Said>, answers: &mut Vec<u8>) {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        loop {
            let (frame, length) = match Frame::first(&self.buffer[used..]) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    said.push(Said::Malformed(error.to_string()));
                    used = self.buffer.len();
                    break;
                }
            };
            used += length;
            match frame {
                Frame::Message(text) => match std::str::from_utf8(text) {
                    Ok(text) => read(text, said, answers),
                    Err(_) => said.push(Said::Malformed("text that is not UTF-8".into())),
                },
                Frame::Ping(payload) => answers.extend(masked_pong(payload)),
                Frame::Pong => {}
                Frame::Close(code) => said.push(Said::Close(code)),
            }
        }
        self.buffer.drain(..used);
    }
}

fn read(text: &str, said: &mut Vec<Said>, answers: &mut Vec<u8>) {
    let heard = parse(text);
    if matches!(heard, Said::Beat { .. }) {
        answers.extend(masked_text(br#"{"type":"pong"}"#));
    }
    said.push(heard);
}

fn parse(text: &str) -> Said {
    let malformed = || Said::Malformed(format!("frame {:?}", excerpt(text)));
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
            Some("hello") => Said::Hello {
                recovered: frame["recovered"].as_bool(),
                cursor: at("cursor")?,
                silence: millis("pingInterval"),
            },
            Some("message") => {
                Said::Message { event: word("event")?, data: word("data")?, cursor: at("id")? }
            }
            Some("gap") => Said::Gap { reason: word("reason")?, cursor: at("cursor")? },
            Some("ping") => Said::Beat { cursor: at("cursor")? },
            Some("bye") => Said::Bye { reason: word("reason")?, retry: millis("retry") },
            // Clients ignore what they do not know, so that servers may say more.
            Some(_) => Said::Other { cursor: None },
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
            Said::Hello { recovered: Some(true), cursor: at("7.1"), silence: Some(Duration::from_secs(1)) },
            Said::Message { event: "message".into(), data: "one".into(), cursor: at("7.2") },
            Said::Beat { cursor: at("7.2") },
            Said::Gap { reason: "bus".into(), cursor: at("8.1") },
            Said::Other { cursor: None },
            Said::Bye { reason: "drain".into(), retry: Some(Duration::from_millis(20)) },
            Said::Close(Some(1012)),
        ];
        for cut in 0..=bytes.len() {
            let (mut socket, mut said, mut answers) = (WebSocket::default(), Vec::new(), Vec::new());
            socket.feed(&bytes[..cut], &mut said, &mut answers);
            socket.feed(&bytes[cut..], &mut said, &mut answers);
            assert_eq!(said, expected, "cut at {cut}");
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
            let (mut said, mut answers) = (Vec::new(), Vec::new());
            WebSocket::default().feed(&text(bad.as_bytes()), &mut said, &mut answers);
            assert!(matches!(&said[..], [Said::Malformed(_)]), "{bad}: {said:?}");
            assert!(answers.is_empty());
        }
    }
}
