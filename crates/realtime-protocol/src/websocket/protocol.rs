//! [`Protocol`]: the two formats of a WebSocket connection, raw texts and `realtime.v1`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use bytestring::ByteString;
use realtime_core::{
    CloseReason, EventName, Message, Payload, Position, Session, Topic, Transport,
    auth::{RefusedTopic, TopicDecision},
    wire::{Begin, BusState, GapReason, WireFormat, replace_lone_surrogates},
};
use serde::{Deserialize, Serialize};

use super::frame::{self, Kind};

/// The label of this transport.
pub const TRANSPORT: Transport = Transport::new("websocket");

/// Subprotocol with cursors, gaps and close reasons.
pub const SUBPROTOCOL: &str = "realtime.v1";

/// Subprotocol of raw texts, the same as none. For clients that have to offer one, since their token is in another entry:
/// see [`Handshake::BEARER_PROTOCOL`](realtime_core::auth::Handshake::BEARER_PROTOCOL).
pub const RAW_SUBPROTOCOL: &str = "realtime.raw";

/// The subprotocols that a handshake chooses from: the first of them that the client offers.
pub const SUBPROTOCOLS: [&str; 2] = [SUBPROTOCOL, RAW_SUBPROTOCOL];

/// Default delay before a client reconnects, in milliseconds.
const RETRY_MS: u128 = 1000;

/// Format of a connection's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Each text frame is a message; there are no other frames but control frames.
    Raw,
    /// Each text frame is a JSON object with a `type`.
    V1,
}

/// A client's text frame, parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// A text for the handler.
    Text(ByteString),
    /// A ping of the application level.
    Ping,
    /// The answer to a heartbeat.
    Pong,
    /// The names of topics that the client wants to be in.
    Subscribe(Vec<String>),
    /// The names of topics that the client wants to leave.
    Unsubscribe(Vec<String>),
    /// A token that renews the session's login.
    Refresh(String),
}

impl Protocol {
    /// Format of a connection whose handshake has chosen a subprotocol, or none.
    pub fn of(subprotocol: Option<&str>) -> Self {
        if subprotocol == Some(SUBPROTOCOL) { Self::V1 } else { Self::Raw }
    }

    pub(crate) fn wire(self) -> Arc<dyn WireFormat> {
        match self {
            Self::Raw => Arc::new(RawFormat),
            Self::V1 => Arc::new(V1Format),
        }
    }

    /// Returns whether each connection begins with a `hello` frame.
    pub(crate) fn has_hello(self) -> bool {
        self == Self::V1
    }

    /// The first frame of a connection where [`Self::has_hello`] is true. `topics` are those that its request asked for.
    pub(crate) fn hello(
        session: &Session,
        begin: Begin,
        ping_interval_ms: u128,
        topics: Option<&TopicDecision>,
    ) -> Bytes {
        v1(&V1Outbound::Hello {
            session: session.handle().id().to_string(),
            recovered: begin.recovered,
            cursor: text(begin.cursor),
            ping_interval: ping_interval_ms,
            subscribed: topics.map(|topics| &topics.granted[..]),
            refused: topics.map(|topics| &topics.refused[..]),
            expires_in: session.handle().expires_in().map(|left| left.as_millis()),
        })
    }

    /// Encodes the handler's answer.
    pub(crate) fn answer(self, data: &Payload) -> Bytes {
        match self {
            Self::Raw => raw(data),
            Self::V1 => v1(&V1Outbound::message(None, EventName::default().as_str(), None, data)),
        }
    }

    /// The answer to [`Inbound::Ping`].
    pub(crate) fn pong() -> Bytes {
        v1(&V1Outbound::Pong)
    }

    /// The answer to [`Inbound::Subscribe`], with the position behind which the client gets everything in these topics.
    pub(crate) fn subscribed(topics: &TopicDecision, cursor: Option<Position>) -> Bytes {
        let TopicDecision { granted: topics, refused, .. } = topics;
        v1(&V1Outbound::Subscribed { topics, refused, cursor: text(cursor) })
    }

    /// The answer to [`Inbound::Unsubscribe`].
    pub(crate) fn unsubscribed(topics: &[Topic]) -> Bytes {
        v1(&V1Outbound::Unsubscribed { topics })
    }

    /// The answer to [`Inbound::Refresh`]: the login was renewed, and expires after this time.
    pub(crate) fn refreshed(expires_in: Option<Duration>) -> Bytes {
        v1(&V1Outbound::Refreshed { expires_in: expires_in.map(|left| left.as_millis()) })
    }

    /// The answer to [`Inbound::Refresh`]: the session keeps its login.
    pub(crate) fn refresh_refused(reason: &str) -> Bytes {
        v1(&V1Outbound::RefreshRefused { reason })
    }

    /// The frames that end a connection; `None` when the client is gone.
    pub(crate) fn closing_frames(self, reason: CloseReason) -> Option<Bytes> {
        let close = frame::close(reason.code()?, reason.name());
        match self {
            Self::Raw => Some(close),
            Self::V1 => {
                let retry = match reason {
                    CloseReason::Drain { retry } | CloseReason::LimitReached { retry } => {
                        Some(retry.as_millis())
                    }
                    _ if reason.may_reconnect() => Some(RETRY_MS),
                    _ => None,
                };
                let bye = v1(&V1Outbound::Bye { reason: reason.name(), retry });
                Some([bye, close].concat().into())
            }
        }
    }

    /// Parses a text frame.
    pub(crate) fn read(self, frame: ByteString) -> Result<Inbound, CloseReason> {
        match self {
            Self::Raw => Ok(Inbound::Text(frame)),
            Self::V1 => match serde_json::from_str(&replace_lone_surrogates(&frame)) {
                Ok(V1Inbound::Message { data }) => Ok(Inbound::Text(data.into())),
                Ok(V1Inbound::Ping) => Ok(Inbound::Ping),
                Ok(V1Inbound::Pong) => Ok(Inbound::Pong),
                Ok(V1Inbound::Subscribe { topics }) => Ok(Inbound::Subscribe(topics)),
                Ok(V1Inbound::Unsubscribe { topics }) => Ok(Inbound::Unsubscribe(topics)),
                Ok(V1Inbound::Refresh { token }) => Ok(Inbound::Refresh(token)),
                Err(_) => Err(CloseReason::InvalidPayload),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum V1Outbound<'a> {
    Hello {
        session: String,
        recovered: Option<bool>,
        cursor: Option<String>,
        ping_interval: u128,
        #[serde(skip_serializing_if = "Option::is_none")]
        subscribed: Option<&'a [Topic]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<&'a [RefusedTopic]>,
        /// Milliseconds until the login ends.
        expires_in: Option<u128>,
    },
    Message {
        id: Option<String>,
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a str>,
        /// The bytes of a message that is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    Gap {
        reason: &'static str,
        cursor: Option<String>,
        /// Milliseconds since 1970.
        since: Option<u128>,
        /// Milliseconds to wait before the client reloads its state.
        spread: u128,
    },
    Ping {
        cursor: Option<String>,
        /// Milliseconds since 1970.
        #[serde(skip_serializing_if = "Option::is_none")]
        bus_down_since: Option<u128>,
    },
    Pong,
    Subscribed {
        topics: &'a [Topic],
        refused: &'a [RefusedTopic],
        cursor: Option<String>,
    },
    Unsubscribed {
        topics: &'a [Topic],
    },
    Refreshed {
        expires_in: Option<u128>,
    },
    #[serde(rename = "refresh-refused")]
    RefreshRefused {
        reason: &'a str,
    },
    Expiring {
        /// Milliseconds.
        r#in: u128,
    },
    Bye {
        reason: &'static str,
        retry: Option<u128>,
    },
}

impl<'a> V1Outbound<'a> {
    fn message(id: Option<String>, event: &'a str, topic: Option<&'a Topic>, data: &'a Payload) -> Self {
        let base64 = data.as_text().is_none().then(|| BASE64_STANDARD.encode(data.as_bytes()));
        let topic = topic.map(Topic::as_str);
        Self::Message { id, event, topic, data: data.as_text(), base64 }
    }
}

/// A frame of the client. Members that it does not know are those of a newer client, and ignored.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum V1Inbound {
    Message { data: String },
    Ping,
    Pong,
    Subscribe { topics: Vec<String> },
    Unsubscribe { topics: Vec<String> },
    Refresh { token: String },
}

fn v1(object: &V1Outbound<'_>) -> Bytes {
    let json = serde_json::to_vec(object).expect("strings, numbers and booleans are always JSON");
    frame::encode(Kind::Text, &json)
}

fn text(position: Option<Position>) -> Option<String> {
    position.map(|position| position.to_string())
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

fn raw(data: &Payload) -> Bytes {
    let kind = if data.as_text().is_some() { Kind::Text } else { Kind::Binary };
    frame::encode(kind, data.as_bytes())
}

/// A frame with the message and nothing else. It has no frame for gaps.
#[derive(Debug)]
struct RawFormat;

impl WireFormat for RawFormat {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        raw(&message.data)
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        None
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        frame::encode(Kind::Ping, &[])
    }

    fn close_code(&self, reason: CloseReason) -> Option<u16> {
        reason.code()
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

/// `realtime.v1`; docs/protocol.md lists its frames.
#[derive(Debug)]
struct V1Format;

impl WireFormat for V1Format {
    fn name(&self) -> &'static str {
        SUBPROTOCOL
    }

    fn message(&self, message: &Message, topic: Option<&Topic>, position: Option<Position>) -> Bytes {
        v1(&V1Outbound::message(text(position), message.event.as_str(), topic, &message.data))
    }

    fn gap(
        &self,
        reason: GapReason,
        cursor: Option<Position>,
        since: Option<SystemTime>,
        spread: Duration,
    ) -> Option<Bytes> {
        let gap = V1Outbound::Gap {
            reason: reason.name(),
            cursor: text(cursor),
            since: since.map(millis),
            spread: spread.as_millis(),
        };
        Some(v1(&gap))
    }

    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes {
        let bus_down_since = match bus {
            BusState::Down(time) => Some(millis(time)),
            BusState::Up | BusState::Restored => None,
        };
        v1(&V1Outbound::Ping { cursor: text(cursor), bus_down_since })
    }

    fn expiring(&self, left: Duration) -> Option<Bytes> {
        Some(v1(&V1Outbound::Expiring { r#in: left.as_millis() }))
    }

    fn close_code(&self, reason: CloseReason) -> Option<u16> {
        reason.code()
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use realtime_core::EventName;

    use super::*;

    fn payload(frame: &Bytes) -> &str {
        assert_eq!(frame[0], 0x81);
        std::str::from_utf8(&frame[2..]).unwrap()
    }

    #[test]
    fn v1_frames_are_as_documented() {
        let at = Some(Position { epoch: 7, offset: 3 });
        let message = Message::new(EventName::new("order").unwrap(), "{\"a\":1}");
        assert_eq!(
            payload(&V1Format.message(&message, None, at)),
            r#"{"type":"message","id":"7.3","event":"order","data":"{\"a\":1}"}"#
        );
        let topic = Topic::new(r#"order:"7""#).unwrap();
        assert_eq!(
            payload(&V1Format.message(&"x".into(), Some(&topic), at)),
            r#"{"type":"message","id":"7.3","event":"message","topic":"order:\"7\"","data":"x"}"#
        );
        assert_eq!(payload(&RawFormat.message(&"x".into(), Some(&topic), at)), "x");
        assert_eq!(payload(&V1Format.heartbeat(at, BusState::Up)), r#"{"type":"ping","cursor":"7.3"}"#);
        let down = BusState::Down(UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(
            payload(&V1Format.heartbeat(None, down)),
            r#"{"type":"ping","cursor":null,"busDownSince":9000}"#
        );
        assert_eq!(
            payload(&V1Format.gap(GapReason::History, None, None, Duration::from_millis(70)).unwrap()),
            r#"{"type":"gap","reason":"history","cursor":null,"since":null,"spread":70}"#
        );
        assert_eq!(
            payload(&Protocol::V1.answer(&Payload::Text("hi".into()))),
            r#"{"type":"message","id":null,"event":"message","data":"hi"}"#
        );
        assert_eq!(payload(&Protocol::pong()), r#"{"type":"pong"}"#);
        let refused = vec![RefusedTopic { topic: "x\n".into(), reason: "no".into() }];
        let topics = TopicDecision { granted: vec![topic.clone()], refused, ..TopicDecision::default() };
        assert_eq!(
            payload(&Protocol::subscribed(&topics, at)),
            r#"{"type":"subscribed","topics":["order:\"7\""],"refused":[{"topic":"x\n","reason":"no"}],"cursor":"7.3"}"#
        );
        assert_eq!(
            payload(&Protocol::unsubscribed(&[topic])),
            r#"{"type":"unsubscribed","topics":["order:\"7\""]}"#
        );
        let hour = Duration::from_secs(3600);
        assert_eq!(payload(&V1Format.expiring(hour).unwrap()), r#"{"type":"expiring","in":3600000}"#);
        assert_eq!(payload(&Protocol::refreshed(Some(hour))), r#"{"type":"refreshed","expiresIn":3600000}"#);
        assert_eq!(payload(&Protocol::refreshed(None)), r#"{"type":"refreshed","expiresIn":null}"#);
        assert_eq!(
            payload(&Protocol::refresh_refused("token has expired")),
            r#"{"type":"refresh-refused","reason":"token has expired"}"#
        );
    }

    #[test]
    fn bye_says_whether_and_when_to_come_back() {
        let bye = |reason| {
            let frames = Protocol::V1.closing_frames(reason).unwrap();
            let len = usize::from(frames[1]);
            let code = u16::from_be_bytes([frames[len + 4], frames[len + 5]]);
            (payload(&frames.slice(..len + 2)).to_owned(), code)
        };
        let drain = CloseReason::Drain { retry: Duration::from_millis(1200) };
        assert_eq!(bye(drain), (r#"{"type":"bye","reason":"drain","retry":1200}"#.into(), 1012));
        assert_eq!(
            bye(CloseReason::Kicked),
            (r#"{"type":"bye","reason":"kicked","retry":null}"#.into(), 4409)
        );
        assert_eq!(
            bye(CloseReason::NoPong),
            (r#"{"type":"bye","reason":"no-pong","retry":1000}"#.into(), 4408)
        );
        assert_eq!(Protocol::Raw.closing_frames(CloseReason::Gone), None);
    }

    #[test]
    fn what_is_not_realtime_v1_is_refused() {
        assert_eq!(
            Protocol::V1.read(r#"{"type":"message","data":"x"}"#.into()),
            Ok(Inbound::Text("x".into()))
        );
        assert_eq!(Protocol::V1.read(r#"{"type":"pong"}"#.into()), Ok(Inbound::Pong));
        // Of a newer client.
        assert_eq!(Protocol::V1.read(r#"{"type":"ping","at":1}"#.into()), Ok(Inbound::Ping));
        let subscribe = Protocol::V1.read(r#"{"type":"subscribe","topics":["a"],"after":"7.1"}"#.into());
        assert_eq!(subscribe, Ok(Inbound::Subscribe(vec!["a".into()])));
        assert_eq!(
            Protocol::V1.read(r#"{"type":"message","data":"a\ud83d"}"#.into()),
            Ok(Inbound::Text("a\u{FFFD}".into()))
        );
        // Names are judged one by one.
        let names = || vec!["order:7".to_owned(), "a b".to_owned()];
        assert_eq!(
            Protocol::V1.read(r#"{"type":"subscribe","topics":["order:7","a b"]}"#.into()),
            Ok(Inbound::Subscribe(names()))
        );
        assert_eq!(
            Protocol::V1.read(r#"{"type":"unsubscribe","topics":["order:7","a b"]}"#.into()),
            Ok(Inbound::Unsubscribe(names()))
        );
        let refresh = Protocol::V1.read(r#"{"type":"refresh","token":"t"}"#.into());
        assert_eq!(refresh, Ok(Inbound::Refresh("t".into())));
        for bad in [
            "ping",
            "{}",
            r#"{"type":"message"}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","topics":"a"}"#,
            r#"{"type":"unsubscribe","topics":[1]}"#,
            r#"{"type":"message","data":{}}"#,
            r#"{"type":"x"}"#,
        ] {
            assert_eq!(Protocol::V1.read(bad.into()), Err(CloseReason::InvalidPayload), "{bad}");
        }
        assert_eq!(Protocol::Raw.read("{}".into()), Ok(Inbound::Text("{}".into())));
    }
}
