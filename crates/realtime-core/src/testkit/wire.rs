//! [`TestWire`]: the wire format of sessions in tests, one line of JSON for each frame.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::session::{TestEvent, TestMessage};
use crate::{
    Message, Payload, Position, Topic,
    wire::{BusState, GapReason, WireFormat},
};

#[derive(Debug)]
pub(crate) struct TestWire;

#[derive(Serialize, Deserialize)]
enum Frame<'a> {
    Message { event: Cow<'a, str>, topic: Option<Cow<'a, str>>, data: Data<'a>, cursor: Option<String> },
    Gap { reason: Cow<'a, str>, cursor: Option<String>, since: Option<u64> },
    Heartbeat { cursor: Option<String>, bus_up: bool },
}

#[derive(Serialize, Deserialize)]
enum Data<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
}

impl Frame<'_> {
    fn encode(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).expect("strings are always JSON");
        line.push(b'\n');
        line.into()
    }
}

/// Reads a frame, without its line feed.
pub(super) fn decode(line: &[u8]) -> TestEvent {
    let position = |cursor: Option<String>| -> Option<Position> {
        cursor.map(|cursor| cursor.parse().expect("it was a position"))
    };
    match serde_json::from_slice(line).expect("what `TestWire` wrote") {
        Frame::Message { event, topic, data, cursor } => TestEvent::Message(TestMessage {
            event: event.into_owned(),
            topic: topic.map(|topic| topic.parse().expect("it was a topic")),
            data: match data {
                Data::Text(text) => Payload::Text(text.into_owned().into()),
                Data::Binary(bytes) => Payload::Binary(bytes.into_owned().into()),
            },
            position: position(cursor),
        }),
        Frame::Gap { reason, cursor, since } => {
            let reason = REASONS.into_iter().find(|known| known.name() == reason);
            let since = since.map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
            TestEvent::Gap { reason: reason.expect("one of the reasons"), cursor: position(cursor), since }
        }
        Frame::Heartbeat { cursor, bus_up } => TestEvent::Heartbeat { cursor: position(cursor), bus_up },
    }
}

const REASONS: [GapReason; 4] = [GapReason::History, GapReason::Bus, GapReason::Cursor, GapReason::Overflow];

impl WireFormat for TestWire {
    fn name(&self) -> &'static str {
        "testkit"
    }

    fn message(&self, message: &Message, topic: Option<&Topic>, position: Option<Position>) -> Bytes {
        let data = match &message.data {
            Payload::Text(text) => Data::Text(Cow::Borrowed(text)),
            Payload::Binary(bytes) => Data::Binary(Cow::Borrowed(bytes)),
        };
        let event = message.event.as_str().into();
        let topic = topic.map(|topic| topic.as_str().into());
        Frame::Message { event, topic, data, cursor: position.map(|position| position.to_string()) }.encode()
    }

    fn gap(
        &self,
        reason: GapReason,
        cursor: Option<Position>,
        since: Option<SystemTime>,
        _: Duration,
    ) -> Option<Bytes> {
        let cursor = cursor.map(|cursor| cursor.to_string());
        let since = since.map(|since| since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis());
        let since = since.and_then(|millis| u64::try_from(millis).ok());
        Some(Frame::Gap { reason: reason.name().into(), cursor, since }.encode())
    }

    fn heartbeat(&self, cursor: Option<Position>, bus: BusState) -> Bytes {
        let (cursor, bus_up) = (cursor.map(|cursor| cursor.to_string()), !matches!(bus, BusState::Down(_)));
        Frame::Heartbeat { cursor, bus_up }.encode()
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}
