//! [`StreamEntry`]: a message of a text stream, and its JSON.

use std::borrow::Cow;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::id::{StreamId, StreamKey};
use crate::{Envelope, EventName, Message, Scope};

/// The end of a text stream that its writer chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The text is complete.
    Done,
    /// Somebody asked to stop it.
    Stopped,
    /// It could not be completed.
    Failed,
}

/// The end of a text stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StreamEnd {
    /// The text is complete.
    Done,
    /// Somebody asked to stop it.
    Stopped,
    /// It could not be completed.
    Failed,
    /// The node of its writer has died or stopped.
    Interrupted,
}

impl StreamEnd {
    /// The stable name, as in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Parses a [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Done, Self::Stopped, Self::Failed, Self::Interrupted]
            .into_iter()
            .find(|end| end.name() == name)
    }
}

impl From<Outcome> for StreamEnd {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Stopped => Self::Stopped,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// A message of a text stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// The stream.
    pub key: StreamKey,
    /// Number of the writer, from 1. A higher one begins the text anew.
    pub run: u64,
    /// Length of the text before it, in bytes of UTF-8.
    pub at: u64,
    /// The change.
    pub change: StreamChange,
}

/// Change of a text stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamChange {
    /// More text. An empty one at 0 begins a run.
    Text(ByteString),
    /// The end.
    End(StreamEnd),
}

impl StreamChange {
    /// The text; empty for an end.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::End(_) => "",
        }
    }

    /// The end, if it is one.
    pub fn end(&self) -> Option<StreamEnd> {
        match self {
            Self::Text(_) => None,
            Self::End(end) => Some(*end),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    stream: Cow<'a, str>,
    run: u64,
    at: u64,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<StreamEnd>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

impl StreamEntry {
    /// The envelope that carries it, for both transports.
    pub fn envelope(&self) -> Envelope {
        let (text, state) = match &self.change {
            StreamChange::Text(text) => (Some(Cow::Borrowed(&**text)), None),
            StreamChange::End(end) => (None, Some(*end)),
        };
        let stream = Cow::Borrowed(self.key.id.as_str());
        envelope(&self.key, &Json { stream, run: self.run, at: self.at, text, state, prefix: false })
    }

    /// The entry that an envelope carries; `None` for any other envelope.
    pub(crate) fn decode(envelope: &Envelope) -> Option<Self> {
        let [topic] = envelope.topics() else { return None };
        let Json { stream, run, at, text, state, prefix: false } =
            serde_json::from_str(envelope.message().data.as_text()?).ok()?
        else {
            return None;
        };
        let change = match (text, state) {
            (Some(text), None) => StreamChange::Text(text.into_owned().into()),
            (None, Some(end)) => StreamChange::End(end),
            _ => return None,
        };
        let key = StreamKey { topic: topic.clone(), id: StreamId::new(&stream).ok()? };
        Some(Self { key, run, at, change })
    }
}

/// The envelope with the text of a stream so far, for sessions that do not have its beginning.
pub(super) fn prefix(key: &StreamKey, run: u64, text: &str, end: Option<StreamEnd>) -> Envelope {
    let (stream, text) = (Cow::Borrowed(key.id.as_str()), Some(Cow::Borrowed(text)));
    envelope(key, &Json { stream, run, at: 0, text, state: end, prefix: true })
}

fn envelope(key: &StreamKey, json: &Json<'_>) -> Envelope {
    let text = serde_json::to_string(json).expect("strings and numbers are always JSON");
    Envelope::to_topic(key.topic.clone(), Scope::Both, Message::new(EventName::stream(), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topic;

    fn key() -> StreamKey {
        StreamKey { topic: Topic::user(&7.into()), id: StreamId::new("answer-7").unwrap() }
    }

    fn json(envelope: &Envelope) -> &str {
        assert_eq!(envelope.message().event.as_str(), EventName::STREAM);
        envelope.message().data.as_text().unwrap()
    }

    #[test]
    fn entries_have_the_documented_form_and_decode_to_themselves() {
        let entry = |at, change| StreamEntry { key: key(), run: 2, at, change };
        for (entry, text) in [
            (
                entry(5, StreamChange::Text("l\"o😀".into())),
                r#"{"stream":"answer-7","run":2,"at":5,"text":"l\"o😀"}"#,
            ),
            (entry(0, StreamChange::Text("".into())), r#"{"stream":"answer-7","run":2,"at":0,"text":""}"#),
            (
                entry(7, StreamChange::End(StreamEnd::Done)),
                r#"{"stream":"answer-7","run":2,"at":7,"state":"done"}"#,
            ),
        ] {
            let envelope = entry.envelope();
            assert_eq!(json(&envelope), text);
            assert_eq!(StreamEntry::decode(&envelope), Some(entry));
        }
    }

    #[test]
    fn a_prefix_says_so_and_is_no_entry() {
        let envelope = prefix(&key(), 2, "Hello", None);
        assert_eq!(json(&envelope), r#"{"stream":"answer-7","run":2,"at":0,"text":"Hello","prefix":true}"#);
        assert_eq!(StreamEntry::decode(&envelope), None);
        let envelope = prefix(&key(), 2, "Hello", Some(StreamEnd::Stopped));
        assert!(json(&envelope).ends_with(r#""text":"Hello","state":"stopped","prefix":true}"#));
    }

    #[test]
    fn names_of_ends_are_those_of_the_json() {
        for end in [StreamEnd::Done, StreamEnd::Stopped, StreamEnd::Failed, StreamEnd::Interrupted] {
            assert_eq!(serde_json::to_string(&end).unwrap(), format!("\"{}\"", end.name()));
            assert_eq!(StreamEnd::parse(end.name()), Some(end));
        }
        assert_eq!(StreamEnd::parse("over"), None);
    }
}
