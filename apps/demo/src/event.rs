//! [`Event`]: the typed JSON of every push.

use std::time::SystemTime;

use realtime_core::Message;
use serde::{Serialize, Serializer};

/// `{"type":"order","data":{..},"time":"2026-01-31T12:00:00.000Z"}`.
#[derive(Debug, Serialize)]
pub(crate) struct Event<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: T,
    #[serde(serialize_with = "rfc3339")]
    time: SystemTime,
}

impl<T: Serialize> Event<T> {
    pub(crate) fn new(kind: &'static str, data: T) -> Self {
        Self { kind, data, time: SystemTime::now() }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("the demo's events have string keys and finite numbers")
    }

    pub(crate) fn message(&self) -> Message {
        Message::text(self.json())
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
