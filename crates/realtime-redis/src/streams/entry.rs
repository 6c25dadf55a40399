//! The entries of the stream: `v` says which form, `e` is the envelope as JSON. Unknown fields are ignored.

use std::{borrow::Cow, sync::Arc};

use bytestring::ByteString;
use realtime_core::{Envelope, EventName, Message, Scope, Topic, Transport};
use redis::{Cmd, RedisWrite, ToRedisArgs, Value};
use serde::{Deserialize, Serialize};

/// The form that this code writes.
pub(super) const VERSION: &str = "1";
pub(super) const VERSION_FIELD: &str = "v";
pub(super) const ENVELOPE_FIELD: &str = "e";
/// The field of a heartbeat: which node's it is.
pub(super) const BEAT_FIELD: &str = "b";
/// The field of a heartbeat that says when it began: microseconds on its node's own clock.
const BEGAN_FIELD: &str = "n";
/// The field of the entry that begins an epoch.
pub(super) const CLAIM_FIELD: &str = "c";
/// The time of an entry without an envelope: milliseconds since 1970 by Redis' clock.
const TIME_FIELD: &str = "t";

/// An entry as the tail understands it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) content: Content,
    /// When it was made: milliseconds since 1970 by Redis' clock, or by the publisher's when that is an older version.
    pub(crate) at: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Envelope(Arc<Envelope>),
    /// A heartbeat of the node with this incarnation.
    Beat {
        incarnation: String,
        /// When it began, in microseconds of that node's clock; older versions do not tell.
        began: Option<u64>,
    },
    /// The begin of an epoch.
    Claim,
    /// Nothing that this code knows; why.
    Unknown(&'static str),
}

/// What a publisher adds to the stream.
pub(super) trait Fields {
    /// Writes the names and values that follow the version into a command; `at` is Redis' time.
    fn write(&self, command: &mut Cmd, at: u64);
}

impl Fields for Envelope {
    fn write(&self, command: &mut Cmd, at: u64) {
        command.arg(ENVELOPE_FIELD).arg(&Encoded { envelope: self, at });
    }
}

/// A heartbeat that this node writes.
pub(super) struct Beat<'a> {
    pub(super) incarnation: &'a str,
    pub(super) began: u64,
}

impl Fields for Beat<'_> {
    fn write(&self, command: &mut Cmd, at: u64) {
        command
            .arg(BEAT_FIELD)
            .arg(self.incarnation)
            .arg(BEGAN_FIELD)
            .arg(self.began)
            .arg(TIME_FIELD)
            .arg(at);
    }
}

#[derive(Serialize, Deserialize)]
struct Json<'a> {
    topics: Cow<'a, [Topic]>,
    /// Absent: both transports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Cow<'a, str>>,
    #[serde(default)]
    event: Cow<'a, EventName>,
    data: Cow<'a, ByteString>,
    /// Milliseconds since 1970.
    at: u64,
}

/// An envelope as the value of field `e`; it is written straight into the command.
struct Encoded<'a> {
    envelope: &'a Envelope,
    at: u64,
}

impl ToRedisArgs for Encoded<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let Message { event, data, .. } = self.envelope.message();
        let json = Json {
            topics: Cow::Borrowed(self.envelope.topics()),
            scope: match self.envelope.scope() {
                Scope::Both => None,
                Scope::Only(transport) => Some(Cow::Owned(transport.to_string())),
            },
            event: Cow::Borrowed(event),
            data: Cow::Borrowed(data),
            at: self.at,
        };
        serde_json::to_writer(out.writer_for_next_arg(), &json).expect("strings and numbers are always JSON");
    }
}

/// Reads an entry's fields, as Redis answers them: names and values in turn.
pub(super) fn decode(fields: &[Value]) -> Entry {
    let field = |wanted: &str| {
        fields.chunks_exact(2).find_map(|pair| match pair {
            [Value::BulkString(name), Value::BulkString(value)] if name == wanted.as_bytes() => Some(value),
            _ => None,
        })
    };
    let number = |wanted: &str| field(wanted).and_then(|value| str::from_utf8(value).ok()?.parse().ok());
    let unknown = |problem| Entry { content: Content::Unknown(problem), at: None };
    if field(VERSION_FIELD).map(Vec::as_slice) != Some(VERSION.as_bytes()) {
        return unknown("its version is not 1");
    }
    if let Some(incarnation) = field(BEAT_FIELD) {
        let incarnation = String::from_utf8_lossy(incarnation).into_owned();
        let content = Content::Beat { incarnation, began: number(BEGAN_FIELD) };
        return Entry { content, at: number(TIME_FIELD) };
    }
    if field(CLAIM_FIELD).is_some() {
        return Entry { content: Content::Claim, at: number(TIME_FIELD) };
    }
    let Some(json) = field(ENVELOPE_FIELD) else { return unknown("it has no envelope") };
    let Ok(Json { topics, scope, event, data, at }) = serde_json::from_slice(json) else {
        return unknown("its envelope cannot be read");
    };
    let scope = match scope.as_deref().map(Transport::parse) {
        None => Scope::Both,
        Some(Some(transport)) => Scope::Only(transport),
        Some(None) => return unknown("its scope is no transport"),
    };
    let message = Message::new(event.into_owned(), data.into_owned());
    match Envelope::to_topics(topics.into_owned(), scope, message) {
        Ok(envelope) => Entry { content: Content::Envelope(Arc::new(envelope)), at: Some(at) },
        Err(_) => unknown("it has no topics"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<Value> {
        let texts = pairs.iter().flat_map(|(name, value)| [*name, *value]);
        texts.map(|text| Value::BulkString(text.into())).collect()
    }

    #[test]
    fn an_envelope_comes_back_as_it_was() {
        let event = EventName::new("order").unwrap();
        let topics = [Topic::new("role:admin").unwrap(), Topic::all()];
        for scope in [Scope::Both, Scope::Only(Transport::new("sse"))] {
            let message = Message::new(event.clone(), "a \"text\"\n😀\u{0}");
            let envelope = Envelope::to_topics(topics.clone(), scope, message).unwrap();
            let written = Encoded { envelope: &envelope, at: 1_795_492_719_616 }.to_redis_args().remove(0);
            let written = String::from_utf8(written).unwrap();
            let entry = decode(&fields(&[("v", "1"), ("e", &written), ("later", "ignored")]));
            let Content::Envelope(read) = &entry.content else { panic!("{entry:?}") };
            assert_eq!((&**read, entry.at), (&envelope, Some(1_795_492_719_616)));
        }
    }

    #[test]
    fn what_is_not_understood_is_told_apart() {
        for (pairs, problem) in [
            (vec![("e", "{}")], "version"),
            (vec![("v", "2"), ("e", "{}")], "version"),
            (vec![("v", "1")], "no envelope"),
            (vec![("v", "1"), ("e", "{}")], "cannot be read"),
            (vec![("v", "1"), ("e", r#"{"topics":[],"data":"x","at":1}"#)], "no topics"),
            (vec![("v", "1"), ("e", r#"{"topics":["a"],"scope":"A b","data":"x","at":1}"#)], "scope"),
        ] {
            let Content::Unknown(reason) = decode(&fields(&pairs)).content else {
                panic!("{pairs:?} was read")
            };
            assert!(reason.contains(problem), "{pairs:?}: {reason}");
        }
        let unknown_fields = r#"{"topics":["a"],"data":"x","at":1,"priority":9}"#;
        let content = decode(&fields(&[("v", "1"), ("e", unknown_fields)])).content;
        assert!(matches!(content, Content::Envelope(_)));
    }

    #[test]
    fn heartbeats_and_claims_of_older_versions_have_no_time() {
        let beat = |began| Content::Beat { incarnation: "n".into(), began };
        for (pairs, content, at) in [
            (vec![("v", "1"), ("b", "n")], beat(None), None),
            (vec![("v", "1"), ("b", "n"), ("n", "17"), ("t", "1000")], beat(Some(17)), Some(1000)),
            (vec![("v", "1"), ("c", "1")], Content::Claim, None),
            (vec![("v", "1"), ("c", "1"), ("t", "1000")], Content::Claim, Some(1000)),
        ] {
            assert_eq!(decode(&fields(&pairs)), Entry { content, at });
        }
    }
}
