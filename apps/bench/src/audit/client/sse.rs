//! [`EventStream`]: reads an event stream as WHATWG HTML, section 9.2.6, has it.

use std::time::Duration;

use serde_json::Value;

use super::{ServerEvent, cursor, excerpt};

/// Parser state of an event stream. A block without its empty line is never dispatched: a partial block
/// is discarded when the connection breaks.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    greeted: bool,
    event: String,
    data: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
    comments: Vec<String>,
}

impl EventStream {
    /// Reads on.
    pub(crate) fn feed(&mut self, bytes: &[u8], events: &mut Vec<ServerEvent>) {
        let mut bytes = bytes;
        // A leading byte order mark is not part of the stream.
        if !self.begun && !bytes.is_empty() {
            self.begun = true;
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.line(&String::from_utf8_lossy(&line), events);
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
    }

    fn line(&mut self, line: &str, events: &mut Vec<ServerEvent>) {
        if line.is_empty() {
            return self.dispatch(events);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" => self.comments.push(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A NUL makes the whole field void.
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            // Parsers that do not know it ignore it.
            "topic" => {}
            // A browser ignores it; a server that sends it has cut or glued something.
            _ => events.push(ServerEvent::Malformed(format!("line {:?}", excerpt(line)))),
        }
    }

    /// The empty line: only now does an id count, and an event happen.
    fn dispatch(&mut self, events: &mut Vec<ServerEvent>) {
        let Self { event, data, id, retry, comments, .. } = self;
        let (event, data) = (std::mem::take(event), data.take());
        let (id, retry, comments) = (id.take(), retry.take(), std::mem::take(comments));
        if comments.iter().any(|comment| comment == "disconnected") {
            return events.push(ServerEvent::Bye { reason: "disconnected".to_owned(), retry });
        }
        if let Some(retry) = retry {
            events.push(ServerEvent::Retry(retry));
        }
        let id = match id.as_deref().map(cursor).transpose() {
            Ok(id) => id,
            Err(malformed) => return events.push(malformed),
        };
        match (data, event.as_str()) {
            (Some(data), "gap") => {
                let reason = serde_json::from_str::<Value>(&data).ok();
                match reason.as_ref().and_then(|reason| reason["reason"].as_str()) {
                    Some(reason) => events.push(ServerEvent::Gap { reason: reason.to_owned(), cursor: id }),
                    None => events.push(ServerEvent::Malformed(format!("gap {:?}", excerpt(&data)))),
                }
            }
            // An event of another name, for pages that listen to it. Half a message is none: its text is no object.
            (Some(data), name)
                if !["", "message"].contains(&name)
                    && serde_json::from_str::<Value>(&data).is_ok_and(|data| data.is_object()) =>
            {
                events.push(ServerEvent::Other { cursor: id });
            }
            (Some(data), _) => events.push(ServerEvent::Message { event, data, cursor: id }),
            (None, "") if !self.greeted => {
                self.greeted = true;
                events.push(ServerEvent::Hello { recovered: None, cursor: id, silence: None });
            }
            (None, "") => events.push(ServerEvent::Beat { cursor: id }),
            (None, event) => events.push(ServerEvent::Malformed(format!("event {event:?} without data"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<ServerEvent> {
        let (mut stream, mut events) = (EventStream::default(), Vec::new());
        for part in parts {
            stream.feed(part, &mut events);
        }
        events
    }

    #[test]
    fn a_stream_is_read_however_it_is_cut_and_however_its_lines_end() {
        let stream = ":connected\nretry:3000\nid:7.1\n\nevent:message\nid:7.2\ndata:one\ndata: two\n\n\
                      :heartbeat\nid:7.3\n\nevent:gap\nid:7.9\ndata:{\"reason\":\"bus\"}\n\n\
                      event:later\ndata:{}\n\n:disconnected\nretry:2\n\n";
        let at = |offset| Some(format!("7.{offset}").parse().unwrap());
        let expected = [
            ServerEvent::Retry(Duration::from_secs(3)),
            ServerEvent::Hello { recovered: None, cursor: at(1), silence: None },
            ServerEvent::Message { event: "message".into(), data: "one\ntwo".into(), cursor: at(2) },
            ServerEvent::Beat { cursor: at(3) },
            ServerEvent::Gap { reason: "bus".into(), cursor: at(9) },
            ServerEvent::Other { cursor: None },
            ServerEvent::Bye { reason: "disconnected".into(), retry: Some(Duration::from_millis(2)) },
        ];
        for ending in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', ending);
            for cut in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(cut);
                assert_eq!(read(&[first, second]), expected, "{ending:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_block_that_was_cut_off_is_no_event_and_moves_no_cursor() {
        assert_eq!(read(&[b"event:message\nid:7.2\ndata:one\n"]), []);
        assert_eq!(read(&[b"event:message\nid:7.2\ndata:one"]), []);
        assert_eq!(read(&[b"id:7.2\n"]), []);
    }

    #[test]
    fn what_was_glued_together_is_seen() {
        let events = read(&[b"event:message\nid:7.2\ndata:on:disconnected\n\n"]);
        assert!(matches!(&events[..], [ServerEvent::Message { data, .. }] if data == "on:disconnected"));
        let events = read(&[b"event:message\nid:7.:disconnected\n\n"]);
        assert!(matches!(&events[..], [ServerEvent::Malformed(_)]), "{events:?}");
        let events = read(&[b"event:mess:disconnected\n\n"]);
        assert!(matches!(&events[..], [ServerEvent::Malformed(_)]), "{events:?}");
        let events = read(&[b"da:disconnected\n\n"]);
        assert!(matches!(&events[0], ServerEvent::Malformed(_)), "{events:?}");
    }
}
