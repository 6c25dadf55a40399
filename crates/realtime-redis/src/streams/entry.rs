//! The entries of the stream: field `v` is the format's version, `e` the envelope as JSON. Unknown fields are ignored, in
//! the JSON, too: `topics`, `scope` (absent: both transports), `event`, `data`, `at`, and what few have: `base64`, `except`, `id`,
//! `ttl` (milliseconds), `collapse`, `class` and `keep`, `retain`, `confirm`, `traceparent` and `tracestate`.

use std::{borrow::Cow, num::NonZeroU16, sync::Arc, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytestring::ByteString;
use realtime_core::{
    CollapseKey, Envelope, EnvelopeId, EventName, Message, Payload, Position, Scope, SessionId, SlowPolicy,
    Topic, TraceContext, Transport, bus::StreamWrite,
};
use redis::{Cmd, RedisWrite, ToRedisArgs, Value};
use serde::{Deserialize, Deserializer, Serialize};

use super::retained::{Place, ttl_millis};

/// The version of the format that this code writes and reads.
pub(super) const VERSION: &str = "1";
pub(super) const VERSION_FIELD: &str = "v";
pub(super) const ENVELOPE_FIELD: &str = "e";
/// The field of a heartbeat that holds the node's incarnation.
pub(super) const HEARTBEAT_FIELD: &str = "b";
/// The field of a heartbeat that holds its start: microseconds on the node's own clock.
const BEGAN_FIELD: &str = "n";
/// The field of the entry that begins an epoch.
pub(super) const CLAIM_FIELD: &str = "c";
/// The time of an entry without an envelope: milliseconds since 1970 by Redis' clock.
const TIME_FIELD: &str = "t";

/// A decoded entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) content: Content,
    /// The time of creation: milliseconds since 1970 by Redis' clock, or by the publisher's if that is an older version.
    pub(crate) at: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Envelope(Arc<Envelope>),
    /// A heartbeat of the node with this incarnation.
    Heartbeat {
        incarnation: String,
        /// Its start, in microseconds on that node's clock; absent from older versions.
        began: Option<u64>,
    },
    /// The beginning of an epoch.
    Claim,
    /// An entry that this version does not understand, and the reason.
    Unknown(&'static str),
}

/// The fields of an entry that a publisher adds to the stream.
pub(super) trait Fields {
    /// Appends the names and values after the version to a command; `at` is Redis' time.
    fn write(&self, command: &mut Cmd, at: u64);

    /// Returns the id by which a second attempt is recognized, if there is one.
    fn id(&self) -> Option<&EnvelopeId> {
        None
    }

    /// Returns the place among the retained messages, if it is one.
    fn place(&self, at: u64) -> Option<Place> {
        let _ = at;
        None
    }

    /// Returns the entry of a text stream that it is, which is added only if it continues the stream.
    fn stream(&self) -> Option<&StreamWrite<'_>> {
        None
    }
}

impl Fields for Envelope {
    fn write(&self, command: &mut Cmd, at: u64) {
        command.arg(ENVELOPE_FIELD).arg(&Encoded { envelope: self, at });
    }

    fn id(&self) -> Option<&EnvelopeId> {
        self.id()
    }

    fn place(&self, at: u64) -> Option<Place> {
        Place::of(self, at)
    }
}

/// An entry of a text stream, with its envelope.
pub(super) struct StreamFields<'a> {
    pub(super) write: &'a StreamWrite<'a>,
    pub(super) envelope: Envelope,
}

impl Fields for StreamFields<'_> {
    fn write(&self, command: &mut Cmd, at: u64) {
        self.envelope.write(command, at);
    }

    fn stream(&self) -> Option<&StreamWrite<'_>> {
        Some(self.write)
    }
}

/// A heartbeat that this node writes.
pub(super) struct Heartbeat<'a> {
    pub(super) incarnation: &'a str,
    pub(super) began: u64,
}

impl Fields for Heartbeat<'_> {
    fn write(&self, command: &mut Cmd, at: u64) {
        command
            .arg(HEARTBEAT_FIELD)
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
    #[serde(default, deserialize_with = "event_name")]
    event: Cow<'a, EventName>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, ByteString>>,
    /// The bytes of a message that is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<Cow<'a, str>>,
    /// The excluded session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    except: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    /// Milliseconds from `at` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collapse: Option<Cow<'a, str>>,
    /// The class of which the newest `keep` are for slow clients. A node of an earlier version sends all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep: Option<u64>,
    #[serde(default, skip_serializing_if = "<&bool as std::ops::Not>::not")]
    retain: bool,
    /// Each node counts the sessions that it is for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    confirm: bool,
    /// The context of the trace in which it was published, as in the headers of these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<Cow<'a, str>>,
    /// Milliseconds since 1970.
    at: u64,
}

/// The name of an event, the hub's own included.
fn event_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, EventName>, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    EventName::of_bus(&text).map(Cow::Owned).map_err(serde::de::Error::custom)
}

/// An envelope as the value of field `e`; it is serialized directly into the command.
struct Encoded<'a> {
    envelope: &'a Envelope,
    at: u64,
}

impl ToRedisArgs for Encoded<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let Message { event, data, .. } = self.envelope.message();
        let (data, base64) = match data {
            Payload::Text(text) => (Some(Cow::Borrowed(text)), None),
            Payload::Binary(bytes) => (None, Some(Cow::Owned(BASE64_STANDARD.encode(bytes)))),
        };
        let (collapse, class, keep) = match self.envelope.slow_policy() {
            SlowPolicy::Collapse(key) => (Some(key), None, None),
            SlowPolicy::DropOldest { class, keep } => (None, Some(class), Some(u64::from(keep.get()))),
            _ => (None, None, None),
        };
        let trace = self.envelope.trace_context();
        let json = Json {
            topics: Cow::Borrowed(self.envelope.topics()),
            scope: match self.envelope.scope() {
                Scope::Both => None,
                Scope::Only(transport) => Some(Cow::Owned(transport.to_string())),
            },
            event: Cow::Borrowed(event),
            data,
            base64,
            except: self.envelope.excluded(),
            id: self.envelope.id().map(|id| Cow::Borrowed(id.as_str())),
            ttl: self.envelope.ttl().map(ttl_millis),
            collapse: collapse.map(|key| Cow::Borrowed(key.as_str())),
            class: class.map(|key| Cow::Borrowed(key.as_str())),
            keep,
            retain: self.envelope.is_retained(),
            confirm: self.envelope.wants_confirmation(),
            traceparent: trace.map(|trace| Cow::Owned(trace.to_string())),
            tracestate: trace.and_then(TraceContext::tracestate).map(Cow::Borrowed),
            at: self.at,
        };
        serde_json::to_writer(out.writer_for_next_arg(), &json).expect("strings and numbers are always JSON");
    }
}

/// Decodes an entry's fields as Redis returns them, names and values alternating.
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
        return unknown("unsupported version, expected 1");
    }
    if let Some(incarnation) = field(HEARTBEAT_FIELD) {
        let incarnation = String::from_utf8_lossy(incarnation).into_owned();
        let content = Content::Heartbeat { incarnation, began: number(BEGAN_FIELD) };
        return Entry { content, at: number(TIME_FIELD) };
    }
    if field(CLAIM_FIELD).is_some() {
        return Entry { content: Content::Claim, at: number(TIME_FIELD) };
    }
    let Some(json) = field(ENVELOPE_FIELD) else { return unknown("no envelope") };
    match decode_envelope(json) {
        Ok((envelope, at)) => Entry { content: Content::Envelope(envelope), at: Some(at) },
        Err(problem) => unknown(problem),
    }
}

/// Decodes an envelope and its time.
///
/// # Errors
/// The reason why this version does not understand it.
pub(super) fn decode_envelope(json: &[u8]) -> Result<(Arc<Envelope>, u64), &'static str> {
    let json = serde_json::from_slice(json).map_err(|_| "malformed envelope")?;
    let Json {
        topics,
        scope,
        event,
        data,
        base64,
        except,
        id,
        ttl,
        collapse,
        class,
        keep,
        retain,
        confirm,
        traceparent,
        tracestate,
        at,
    } = json;
    let scope = match scope.as_deref().map(Transport::parse) {
        None => Scope::Both,
        Some(Some(transport)) => Scope::Only(transport),
        Some(None) => return Err("invalid scope"),
    };
    let data = match (data, base64.map(|text| BASE64_STANDARD.decode(&*text))) {
        (Some(text), None) => Payload::Text(text.into_owned()),
        (None, Some(Ok(bytes))) => Payload::Binary(bytes.into()),
        _ => return Err("malformed message"),
    };
    let message = Message { event: event.into_owned(), data };
    let mut envelope = Envelope::to_topics(topics.into_owned(), scope, message).map_err(|_| "no topics")?;
    if let Some(session) = except {
        envelope = envelope.except(session);
    }
    if confirm {
        envelope = envelope.with_confirmation();
    }
    // The id has served its purpose: an invalid one does not cost anybody the message.
    if let Some(id) = id.and_then(|id| EnvelopeId::new(&id).ok()) {
        envelope = envelope.with_id(id);
    }
    if let Some(ttl) = ttl {
        envelope = envelope.with_ttl(Duration::from_millis(ttl));
    }
    if let Some(key) = collapse.and_then(|key| CollapseKey::new(&key).ok()) {
        envelope = envelope.collapse(key);
    }
    let keep = keep.and_then(|keep| NonZeroU16::new(u16::try_from(keep).unwrap_or(u16::MAX)));
    if let Some((class, keep)) = class.and_then(|key| CollapseKey::new(&key).ok()).zip(keep) {
        envelope = envelope.when_slow(SlowPolicy::DropOldest { class, keep });
    }
    if retain {
        envelope = envelope.retain();
    }
    // A malformed one is none.
    if let Some(trace) = traceparent.and_then(|parent| TraceContext::parse(&parent, tracestate.as_deref())) {
        envelope = envelope.with_trace_context(trace);
    }
    Ok((Arc::new(envelope), at))
}

/// Splits an element of an answer into an entry's position and its fields; `None` if it is not an entry.
pub(super) fn split(entry: &Value) -> Option<Result<(Position, &[Value]), String>> {
    let Value::Array(entry) = entry else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = entry.as_slice() else { return None };
    let id = String::from_utf8_lossy(id);
    let position = parse_position(&id).ok_or_else(|| format!("the id of entry {id} is not a position"));
    Some(position.map(|position| (position, fields.as_slice())))
}

/// Returns the total size of an entry's fields in bytes.
pub(super) fn size(fields: &[Value]) -> usize {
    fields.iter().map(|field| if let Value::BulkString(bytes) = field { bytes.len() } else { 0 }).sum()
}

/// Parses the id of an entry as a position.
pub(super) fn parse_position(id: &str) -> Option<Position> {
    let (epoch, offset) = id.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<Value> {
        let texts = pairs.iter().flat_map(|(name, value)| [*name, *value]);
        texts.map(|text| Value::BulkString(text.into())).collect()
    }

    #[test]
    fn an_encoded_envelope_decodes_to_itself() {
        let event = EventName::new("order").unwrap();
        let topics = [Topic::new("role:admin").unwrap(), Topic::all()];
        for scope in [Scope::Both, Scope::Only(Transport::new("sse"))] {
            let message = Message::new(event.clone(), "a \"text\"\n😀\u{0}");
            let mut envelope = Envelope::to_topics(topics.clone(), scope, message).unwrap();
            if scope == Scope::Both {
                envelope = envelope
                    .with_id(EnvelopeId::new("an-id").unwrap())
                    .with_ttl(Duration::from_secs(10))
                    .collapse(CollapseKey::new("a-key").unwrap())
                    .with_confirmation()
                    .retain();
            }
            let written = Encoded { envelope: &envelope, at: 1_795_492_719_616 }.to_redis_args().remove(0);
            let written = String::from_utf8(written).unwrap();
            let options = r#""id":"an-id","ttl":10000,"collapse":"a-key","retain":true,"#;
            assert_eq!(written.contains(options), scope == Scope::Both, "{written}");
            assert_eq!(written.contains("retain"), scope == Scope::Both, "{written}");
            let entry = decode(&fields(&[("v", "1"), ("e", &written), ("later", "ignored")]));
            let Content::Envelope(read) = &entry.content else { panic!("{entry:?}") };
            assert_eq!((&**read, entry.at), (&envelope, Some(1_795_492_719_616)));
        }
    }

    #[test]
    fn a_class_is_carried_and_a_strange_number_costs_nobody_the_message() {
        let keep = NonZeroU16::new(20).unwrap();
        let class = SlowPolicy::DropOldest { class: CollapseKey::new("ticks").unwrap(), keep };
        let envelope = Envelope::broadcast(Scope::Both, Message::text("x")).when_slow(class.clone());
        let written = Encoded { envelope: &envelope, at: 1 }.to_redis_args().remove(0);
        let written = String::from_utf8(written).unwrap();
        assert!(
            written.contains(r#""class":"ticks","keep":20,"#) && !written.contains("collapse"),
            "{written}"
        );
        let policy = |json: &str| decode_envelope(json.as_bytes()).unwrap().0.slow_policy().clone();
        assert_eq!(policy(&written), class);
        assert_eq!(policy(&written.replace("20", "0")), SlowPolicy::Disconnect);
        let most =
            SlowPolicy::DropOldest { class: CollapseKey::new("ticks").unwrap(), keep: NonZeroU16::MAX };
        assert_eq!(policy(&written.replace("20", "99999999")), most);
    }

    #[test]
    fn a_trace_context_is_carried_and_a_message_without_one_has_no_field_of_it() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let plain = Envelope::broadcast(Scope::Both, Message::text("x"));
        let write = |envelope: &Envelope| {
            String::from_utf8(Encoded { envelope, at: 1 }.to_redis_args().remove(0)).unwrap()
        };
        assert_eq!(write(&plain), r#"{"topics":["all"],"event":"message","data":"x","at":1}"#);
        let read = |json: &str| decode_envelope(json.as_bytes()).unwrap().0;
        for (state, members) in [(None, ""), (Some("a=1,b=2"), r#","tracestate":"a=1,b=2""#)] {
            let traced = plain.clone().with_trace_context(TraceContext::parse(PARENT, state).unwrap());
            let written = write(&traced);
            let wanted = format!(r#""data":"x","traceparent":"{PARENT}"{members},"at":1}}"#);
            assert!(written.ends_with(&wanted), "{written}");
            assert_eq!(*read(&written), traced);
            assert_eq!(*read(&written.replace("00-", "ff-")), plain, "a malformed one is none");
        }
    }

    #[test]
    fn unknown_entries_are_reported_with_their_reason() {
        for (pairs, problem) in [
            (vec![("e", "{}")], "version"),
            (vec![("v", "2"), ("e", "{}")], "version"),
            (vec![("v", "1")], "no envelope"),
            (vec![("v", "1"), ("e", "{}")], "malformed"),
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
        let strange_id = r#"{"topics":["a"],"data":"x","at":1,"id":""}"#;
        let content = decode(&fields(&[("v", "1"), ("e", strange_id)])).content;
        assert!(matches!(content, Content::Envelope(envelope) if envelope.id().is_none()));
    }

    #[test]
    fn heartbeats_and_claims_of_older_versions_have_no_time() {
        let heartbeat = |began| Content::Heartbeat { incarnation: "n".into(), began };
        for (pairs, content, at) in [
            (vec![("v", "1"), ("b", "n")], heartbeat(None), None),
            (vec![("v", "1"), ("b", "n"), ("n", "17"), ("t", "1000")], heartbeat(Some(17)), Some(1000)),
            (vec![("v", "1"), ("c", "1")], Content::Claim, None),
            (vec![("v", "1"), ("c", "1"), ("t", "1000")], Content::Claim, Some(1000)),
        ] {
            assert_eq!(decode(&fields(&pairs)), Entry { content, at });
        }
    }
}
