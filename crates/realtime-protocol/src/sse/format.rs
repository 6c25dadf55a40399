//! Encoder of event streams (WHATWG HTML, section 9.2.6), in RuoYi's style without spaces after colons.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use realtime_core::{
    CloseReason, EventName, Message, Position, Topic, Transport,
    wire::{BusState, GapReason, WireFormat},
};
use serde::Serialize;

/// The label of this transport.
pub const TRANSPORT: Transport = Transport::new("sse").text_only();

/// Headers of an event stream, which proxies and middleware do not cache, transform, compress or buffer.
pub const HEADERS: [(&str, &str); 4] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("content-encoding", "identity"),
];

/// Default time after which clients reconnect.
pub const RETRY: Duration = Duration::from_secs(3);

/// WireFormat format `text/event-stream`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SseFormat(pub(crate) Framing);

/// Framing of blocks in the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// None: the server frames them.
    Plain,
    /// Chunks (RFC 9112, section 7.1), on a connection that was taken over from the server.
    Chunked,
}

impl Framing {
    pub(crate) fn frame(self, block: Bytes) -> Bytes {
        match self {
            Self::Plain => block,
            Self::Chunked => chunk(&block, ""),
        }
    }

    /// The last block, and the end of the response.
    pub(crate) fn end(self, block: Bytes) -> Bytes {
        match self {
            Self::Plain => block,
            Self::Chunked => chunk(&block, "0\r\n\r\n"),
        }
    }
}

fn chunk(block: &[u8], rest: &str) -> Bytes {
    let size = format!("{:x}\r\n", block.len());
    [size.as_bytes(), block, b"\r\n", rest.as_bytes()].concat().into()
}

impl WireFormat for SseFormat {
    fn name(&self) -> &'static str {
        match self.0 {
            Framing::Plain => "sse",
            Framing::Chunked => "sse, chunked",
        }
    }

    fn message(&self, message: &Message, topic: Option<&Topic>, position: Option<Position>) -> Bytes {
        self.0.frame(match message.data.as_text() {
            Some(text) => block(message.event.as_str(), position, topic, text),
            // The hub refuses to publish such a message to streams. One of another origin moves the cursor on.
            None => format!(":binary message left out\n{}\n", id_line(position)).into(),
        })
    }

    fn gap(
        &self,
        reason: GapReason,
        cursor: Option<Position>,
        since: Option<SystemTime>,
        spread: Duration,
    ) -> Option<Bytes> {
        let since = since.map_or_else(|| "null".to_owned(), |since| millis(since).to_string());
        let (reason, spread) = (reason.name(), spread.as_millis());
        let data = format!(r#"{{"reason":"{reason}","since":{since},"spread":{spread}}}"#);
        Some(self.0.frame(block(EventName::GAP, cursor, None, &data)))
    }

    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes {
        self.0.frame(match bus {
            BusState::Up => format!(":heartbeat\n{}\n", id_line(cursor)).into(),
            // Pages do not see comments.
            BusState::Restored => block(EventName::BUS, cursor, None, r#"{"downSince":null}"#),
            BusState::Down(time) => {
                block(EventName::BUS, cursor, None, &format!(r#"{{"downSince":{}}}"#, millis(time)))
            }
        })
    }

    fn expiring(&self, left: Duration) -> Option<Bytes> {
        let data = format!(r#"{{"in":{}}}"#, left.as_millis());
        Some(self.0.frame(block(EventName::EXPIRING, None, None, &data)))
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// The first block: it sets the client's cursor and reconnection time and fires no event.
pub(crate) fn connected(retry: Duration, cursor: Option<Position>) -> Bytes {
    format!(":connected\nretry:{}\n{}\n", retry.as_millis(), id_line(cursor)).into()
}

/// A block that sets the client's cursor and fires no event.
pub(crate) fn cursor(cursor: Option<Position>) -> Option<Bytes> {
    cursor.map(|cursor| format!("id:{cursor}\n\n").into())
}

/// The last block.
pub(crate) fn disconnected(reason: CloseReason) -> Bytes {
    match reason {
        CloseReason::Drain { retry } | CloseReason::LimitReached { retry } => unavailable(retry),
        // The client would end another session by coming back, which would come back, too.
        CloseReason::TooManySessions => unavailable(STAY_AWAY),
        _ => Bytes::from_static(b":disconnected\n\n"),
    }
}

/// Time for which a client does not come back whose session had to make room. An `EventSource` knows no "never" at the end of
/// a stream.
const STAY_AWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The only block for a client that has to reconnect later.
pub(crate) fn unavailable(retry: Duration) -> Bytes {
    format!(":disconnected\nretry:{}\n\n", retry.as_millis()).into()
}

/// An event that moves no cursor.
pub(crate) fn event(name: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("strings, numbers and booleans are always JSON");
    block(name, None, None, &json)
}

fn id_line(cursor: Option<Position>) -> String {
    cursor.map(|cursor| format!("id:{cursor}\n")).unwrap_or_default()
}

/// An event. CRLF, CR and LF all end a line of an event stream, so each line of the text gets a field of its own.
fn block(event: &str, id: Option<Position>, topic: Option<&Topic>, data: &str) -> Bytes {
    let mut block = String::with_capacity(data.len() + event.len() + 64);
    block.push_str("event:");
    block.push_str(event);
    block.push('\n');
    block.push_str(&id_line(id));
    if let Some(topic) = topic {
        // Parsers ignore fields that they do not know.
        block.push_str("topic:");
        block.push_str(topic.as_str());
        block.push('\n');
    }
    let mut rest = data;
    loop {
        let end = rest.find(['\r', '\n']);
        let line = end.map_or(rest, |end| &rest[..end]);
        block.push_str("data:");
        if line.starts_with(' ') {
            // Parsers remove one space after the colon.
            block.push(' ');
        }
        block.push_str(line);
        block.push('\n');
        let Some(end) = end else { break };
        let terminator = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + terminator..];
    }
    block.push('\n');
    block.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> Option<Position> {
        Some(Position { epoch: 7, offset })
    }

    #[test]
    fn blocks_are_the_seeds_with_an_id() {
        let wire = SseFormat(Framing::Plain);
        let message = wire.message(&Message::text("a\nb\r\nc\rd"), None, at(1));
        assert_eq!(message, "event:message\nid:7.1\ndata:a\ndata:b\ndata:c\ndata:d\n\n");
        let topic = Topic::new("order:7").unwrap();
        let named = wire.message(&Message::text("x"), Some(&topic), at(1));
        assert_eq!(named, "event:message\nid:7.1\ntopic:order:7\ndata:x\n\n");
        assert_eq!(wire.message(&Message::text(""), None, None), "event:message\ndata:\n\n");
        assert_eq!(wire.message(&Message::text(" x"), None, None), "event:message\ndata:  x\n\n");
        assert_eq!(wire.heartbeat(at(2), BusState::Up), ":heartbeat\nid:7.2\n\n");
        assert_eq!(wire.heartbeat(None, BusState::Up), ":heartbeat\n\n");
        let down = wire.heartbeat(at(2), BusState::Down(UNIX_EPOCH + Duration::from_secs(9)));
        assert_eq!(down, "event:realtime.bus\nid:7.2\ndata:{\"downSince\":9000}\n\n");
        let gap = wire
            .gap(
                GapReason::History,
                at(3),
                Some(UNIX_EPOCH + Duration::from_millis(9)),
                Duration::from_millis(70),
            )
            .unwrap();
        assert_eq!(gap, "event:gap\nid:7.3\ndata:{\"reason\":\"history\",\"since\":9,\"spread\":70}\n\n");
        assert_eq!(connected(Duration::from_secs(3), at(0)), ":connected\nretry:3000\nid:7.0\n\n");
        let expiring = wire.expiring(Duration::from_secs(30)).unwrap();
        assert_eq!(expiring, "event:realtime.expiring\ndata:{\"in\":30000}\n\n");
        let drain = CloseReason::Drain { retry: Duration::from_millis(1200) };
        assert_eq!(disconnected(drain), ":disconnected\nretry:1200\n\n");
        assert_eq!(disconnected(CloseReason::Kicked), ":disconnected\n\n");
        assert_eq!(disconnected(CloseReason::TooManySessions), ":disconnected\nretry:86400000\n\n");
    }

    #[test]
    fn chunks_hold_one_block_each_and_the_last_one_ends_the_response() {
        let wire = SseFormat(Framing::Chunked);
        let message = wire.message(&Message::text("a"), None, at(1));
        assert_eq!(message, "1d\r\nevent:message\nid:7.1\ndata:a\n\n\r\n");
        let end = Framing::Chunked.end(disconnected(CloseReason::Kicked));
        assert_eq!(end, "f\r\n:disconnected\n\n\r\n0\r\n\r\n");
    }

    /// The fields of a stream as WHATWG HTML, section 9.2.6, reads them.
    fn parse(stream: &str) -> Vec<(String, String)> {
        let normal = stream.replace("\r\n", "\n").replace('\r', "\n");
        let lines = normal.strip_suffix("\n\n").expect("a block ends with an empty line").split('\n');
        lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
            })
            .collect()
    }

    proptest! {
        /// No text ever becomes another field or another event, and each comes back whole.
        #[test]
        fn framing_never_yields_an_extra_field(
            text in "(?s)[ \r\n:a-cé😀\u{0}\u{2028}]{0,40}|(?s).{0,80}",
            topic in "(?s).{0,30}",
        ) {
            // What is no topic is refused where it is parsed.
            let topic = Topic::new(&topic).ok();
            let block = SseFormat(Framing::Plain).message(&Message::text(text.clone()), topic.as_ref(), at(1));
            let fields = parse(std::str::from_utf8(&block).unwrap());
            prop_assert_eq!(&fields[0], &("event".to_owned(), "message".to_owned()));
            prop_assert_eq!(&fields[1], &("id".to_owned(), "7.1".to_owned()));
            let (topics, data) = fields[2..].split_at(usize::from(topic.is_some()));
            prop_assert!(topic.iter().map(Topic::as_str).eq(topics.iter().map(|(_, value)| value.as_str())));
            prop_assert!(topics.iter().all(|(name, _)| name == "topic"));
            prop_assert!(data.iter().all(|(name, _)| name == "data"));
            let lines: Vec<_> = data.iter().map(|(_, value)| value.as_str()).collect();
            prop_assert_eq!(lines.join("\n"), text.replace("\r\n", "\n").replace('\r', "\n"));
        }
    }
}
