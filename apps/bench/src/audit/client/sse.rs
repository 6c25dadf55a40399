//! [`EventStream`]: reads an event stream as WHATWG HTML, section 9.2.6, has it.

use std::time::Duration;

use serde_json::Value;

use super::{Said, cursor, excerpt};

/// What has been read of a stream so far. A block without its empty line is never an event: whatever of it has come
/// when the connection breaks is thrown away.
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
    pub(crate) fn feed(&mut self, bytes: &[u8], said: &mut Vec<Said>) {
        let mut bytes = bytes;
        // A byte order mark at the begin is not part of the stream; no server of ours sends one.
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
                    self.line(&String::from_utf8_lossy(&line), said);
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
    }

    fn line(&mut self, line: &str, said: &mut Vec<Said>) {
        if line.is_empty() {
            return self.dispatch(said);
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
            // A browser ignores it; a server that sends it has cut or glued something.
            _ => said.push(Said::Malformed(format!("line {:?}", excerpt(line)))),
        }
    }

    /// The empty line: only now does an id count, and an event happen.
    fn dispatch(&mut self, said: &mut Vec<Said>) {
        let Self { event, data, id, retry, comments, .. } = self;
        let (event, data) = (std::mem::take(event), data.take());
        let (id, retry, comments) = (id.take(), retry.take(), std::mem::take(comments));
        if let Some(retry) = retry {
            said.push(Said::Retry(retry));
        }
        let id = match id.as_deref().map(cursor).transpose() {
            Ok(id) => id,
            Err(malformed) => return said.push(malformed),
        };
        match (data, event.as_str()) {
            (Some(data), "gap") => {
                let reason = serde_json::from_str::<Value>(&data).ok();
                match reason.as_ref().and_then(|reason| reason["reason"].as_str()) {
                    Some(reason) => said.push(Said::Gap { reason: reason.to_owned(), cursor: id }),
                    None => said.push(Said::Malformed(format!("gap {:?}", excerpt(&data)))),
                }
            }
            // An event of another name, for pages that listen to it. Half a message is none: its text is no object.
            (Some(data), name)
                if !["", "message"].contains(&name)
                    && serde_json::from_str::<Value>(&data).is_ok_and(|data| data.is_object()) =>
            {
                said.push(Said::Other { cursor: id });
            }
            (Some(data), _) => said.push(Said::Message { event, data, cursor: id }),
            (None, "") if comments.iter().any(|comment| comment == "disconnected") => {}
            (None, "") if !self.greeted => {
                self.greeted = true;
                said.push(Said::Hello { recovered: None, cursor: id, silence: None });
            }
            (None, "") => said.push(Said::Beat { cursor: id }),
            (None, event) => said.push(Said::Malformed(format!("event {event:?} without data"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<Said> {
        let (mut stream, mut said) = (EventStream::default(), Vec::new());
        for part in parts {
            stream.feed(part, &mut said);
        }
        said
    }

    #[test]
    fn a_stream_is_read_however_it_is_cut_and_however_its_lines_end() {
        let stream = ":connected\nretry:3000\nid:7.1\n\nevent:message\nid:7.2\ndata:one\ndata: two\n\n\
                      :heartbeat\nid:7.3\n\nevent:gap\nid:7.9\ndata:{\"reason\":\"bus\"}\n\n\
                      event:later\ndata:{}\n\n:disconnected\nretry:2\n\n";
        let at = |offset| Some(format!("7.{offset}").parse().unwrap());
        let expected = [
            Said::Retry(Duration::from_secs(3)),
            Said::Hello { recovered: None, cursor: at(1), silence: None },
            Said::Message { event: "message".into(), data: "one\ntwo".into(), cursor: at(2) },
            Said::Beat { cursor: at(3) },
            Said::Gap { reason: "bus".into(), cursor: at(9) },
            Said::Other { cursor: None },
            Said::Retry(Duration::from_millis(2)),
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
        let said = read(&[b"event:message\nid:7.2\ndata:on:disconnected\n\n"]);
        assert!(matches!(&said[..], [Said::Message { data, .. }] if data == "on:disconnected"));
        let said = read(&[b"event:message\nid:7.:disconnected\n\n"]);
        assert!(matches!(&said[..], [Said::Malformed(_)]), "{said:?}");
        let said = read(&[b"event:mess:disconnected\n\n"]);
        assert!(matches!(&said[..], [Said::Malformed(_)]), "{said:?}");
        let said = read(&[b"da:disconnected\n\n"]);
        assert!(matches!(&said[0], Said::Malformed(_)), "{said:?}");
    }
}
