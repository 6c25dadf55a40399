//! The entries of the stream: `v` says which form, `e` is the envelope as JSON. Unknown fields are ignored.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytestring::ByteString;
use realtime_core::{Envelope, EventName, Message, Scope, Topic, Transport};
use redis::{RedisWrite, ToRedisArgs, Value};
use serde::{Deserialize, Serialize};

/// The form that this code writes.
pub(super) const VERSION: &str = "1";
pub(super) const VERSION_FIELD: &str = "v";
pub(super) const ENVELOPE_FIELD: &str = "e";
/// The field of a heartbeat: which node's it is.
pub(super) const BEAT_FIELD: &str = "b";
/// The field of the entry that begins an epoch.
pub(super) const CLAIM_FIELD: &str = "c";

/// An entry as the tail understands it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Envelope {
        envelope: Arc<Envelope>,
        /// When it was published, by the publisher's clock.
        at: SystemTime,
    },
    /// A heartbeat of the node with this incarnation.
    Beat(String),
    /// The begin of an epoch.
    Claim,
    /// Nothing that this code knows; why.
    Unknown(&'static str),
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
pub(super) struct Encoded<'a>(pub(super) &'a Envelope);

impl ToRedisArgs for Encoded<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Message { event, data, .. } = self.0.message();
        let json = Json {
            topics: Cow::Borrowed(self.0.topics()),
            scope: match self.0.scope() {
                Scope::Both => None,
                Scope::Only(transport) => Some(Cow::Owned(transport.to_string())),
            },
            event: Cow::Borrowed(event),
            data: Cow::Borrowed(data),
            at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
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
    if field(VERSION_FIELD).map(Vec::as_slice) != Some(VERSION.as_bytes()) {
        return Entry::Unknown("its version is not 1");
    }
    if let Some(beat) = field(BEAT_FIELD) {
        return Entry::Beat(String::from_utf8_lossy(beat).into_owned());
    }
    if field(CLAIM_FIELD).is_some() {
        return Entry::Claim;
    }
    let Some(json) = field(ENVELOPE_FIELD) else { return Entry::Unknown("it has no envelope") };
    let Ok(Json { topics, scope, event, data, at }) = serde_json::from_slice(json) else {
        return Entry::Unknown("its envelope cannot be read");
    };
    let scope = match scope.as_deref().map(Transport::parse) {
        None => Scope::Both,
        Some(Some(transport)) => Scope::Only(transport),
        Some(None) => return Entry::Unknown("its scope is no transport"),
    };
    let message = Message::new(event.into_owned(), data.into_owned());
    match Envelope::to_topics(topics.into_owned(), scope, message) {
        Ok(envelope) => Entry::Envelope {
            envelope: Arc::new(envelope),
            at: UNIX_EPOCH.checked_add(Duration::from_millis(at)).unwrap_or(UNIX_EPOCH),
        },
        Err(_) => Entry::Unknown("it has no topics"),
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
            let written = Encoded(&envelope).to_redis_args().remove(0);
            let written = String::from_utf8(written).unwrap();
            let entry = decode(&fields(&[("v", "1"), ("e", &written), ("later", "ignored")]));
            let Entry::Envelope { envelope: read, at } = entry else { panic!("{entry:?}") };
            assert_eq!(*read, envelope);
            assert!(at.elapsed().unwrap() < Duration::from_secs(60));
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
            let Entry::Unknown(reason) = decode(&fields(&pairs)) else { panic!("{pairs:?} was read") };
            assert!(reason.contains(problem), "{pairs:?}: {reason}");
        }
        let unknown_fields = r#"{"topics":["a"],"data":"x","at":1,"priority":9}"#;
        assert!(matches!(decode(&fields(&[("v", "1"), ("e", unknown_fields)])), Entry::Envelope { .. }));
        assert_eq!(decode(&fields(&[("v", "1"), ("b", "n")])), Entry::Beat("n".into()));
        assert_eq!(decode(&fields(&[("v", "1"), ("c", "1")])), Entry::Claim);
    }
}
