//! Target of the fuzz tests of entries.

use realtime_core::Envelope;
use redis::{Arg, Cmd, Value};

use super::entry::{Content, Fields, VERSION, VERSION_FIELD, decode, split};

/// Decodes an entry of the stream whose id, names and values are what the bytes have between those that no text has: an
/// envelope that is understood comes back from what this node encodes.
pub fn stream_entries(data: &[u8]) {
    let mut parts: Vec<Value> =
        data.split(|byte| *byte == 0xFF).map(|part| Value::BulkString(part.to_vec())).collect();
    let id = parts.remove(0);
    if let Some(Ok((_, fields))) = split(&Value::Array(vec![id, Value::Array(parts.clone())])) {
        assert_eq!(fields, parts);
    }
    for fields in [parts, vec![bulk(b"v"), bulk(b"1"), bulk(b"e"), bulk(data)]] {
        let entry = decode(&fields);
        if let (Content::Envelope(envelope), Some(at)) = (&entry.content, entry.at) {
            assert_eq!(decode(&encode(envelope, at)), entry);
        }
    }
}

fn bulk(bytes: &[u8]) -> Value {
    Value::BulkString(bytes.to_vec())
}

/// The fields of the entry that this node adds for an envelope.
fn encode(envelope: &Envelope, at: u64) -> Vec<Value> {
    let mut command = Cmd::new();
    command.arg(VERSION_FIELD).arg(VERSION);
    envelope.write(&mut command, at);
    let fields = command.args_iter().map(|argument| {
        let Arg::Simple(bytes) = argument else { panic!("a command that adds an entry has no cursor") };
        bulk(bytes)
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    proptest! {
        #[test]
        fn any_entries(parts in vec(prop_oneof![
            8 => select(vec![
                r#"{"topics":["#, "\"all\"", "\"user:7\"", "]", r#","data":""#, r#"","at":"#, "1", "18446744073709551615", "}",
                r#","scope":"sse""#, r#","base64":"AA==""#, r#","ttl":"#, r#","collapse":"k""#, r#","retain":true"#,
                r#","except":"00000000000000000000000000000001""#, r#","id":"i""#, r#","confirm":true"#, r#","event":"x""#,
                "\\ud83d",
            ]).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
            1 => Just(b"\xFF".to_vec()),
        ], 0..16)) {
            stream_entries(&parts.concat());
        }
    }

    #[test]
    fn whole_entries_are_understood() {
        for (words, ok) in [(r#"{"topics":["all"],"data":"x","at":1}"#, true), ("{}", false)] {
            let fields = [bulk(b"v"), bulk(b"1"), bulk(b"e"), bulk(words.as_bytes())];
            assert_eq!(matches!(decode(&fields).content, Content::Envelope(_)), ok, "{words}");
            stream_entries(words.as_bytes());
        }
        let extremes = format!(
            r#"{{"topics":["all","user:7"],"base64":"AP8=","scope":"websocket","ttl":{},"retain":true,"at":{}}}"#,
            u64::MAX,
            u64::MAX
        );
        stream_entries(extremes.as_bytes());
    }
}
