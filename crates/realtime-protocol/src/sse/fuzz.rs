//! Targets of fuzz tests: functions that take any bytes and panic where a promise is broken (feature `fuzz`, unstable).

use realtime_core::{EventName, Message, Position, Topic, wire::WireFormat};

use super::format::{Framing, SseFormat};

/// Encodes a message whose event, topic and text are what the bytes have between zeros: a parser of event streams reads one
/// event with this name, position and text, wherever the bytes are cut into texts.
pub fn events(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\u{1}');
    let (event, topic) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let text = parts.next().unwrap_or(event);
    let event = EventName::new(event).unwrap_or_default();
    let topic = Topic::new(topic).ok();
    let position = Position { epoch: data.len() as u64, offset: u64::MAX };
    let message = Message::new(event.clone(), text);
    let plain = SseFormat(Framing::Plain).message(&message, topic.as_ref(), Some(position));
    let plain = str::from_utf8(&plain).expect("an event stream is UTF-8");
    let expected = Event {
        name: event.as_str().to_owned(),
        data: text.replace("\r\n", "\n").replace('\r', "\n"),
        id: position.to_string(),
    };
    // What comes before and behind it is not affected.
    let stream = format!(":connected\nretry:3000\nid:7.0\n\n{plain}event:next\ndata:\n\n");
    let next = Event { name: "next".to_owned(), data: String::new(), id: expected.id.clone() };
    assert_eq!(parse(&stream), [expected, next]);

    let chunked = SseFormat(Framing::Chunked).message(&message, topic.as_ref(), Some(position));
    let (size, rest) =
        str::from_utf8(&chunked).expect("text").split_once("\r\n").expect("a chunk has a size");
    assert_eq!(usize::from_str_radix(size, 16), Ok(plain.len()));
    assert_eq!(rest.strip_suffix("\r\n"), Some(plain));
}

/// What a page gets.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
    id: String,
}

/// Reads a stream as WHATWG HTML, section 9.2.6, says.
fn parse(stream: &str) -> Vec<Event> {
    let (mut events, mut last_id) = (Vec::new(), String::new());
    let (mut name, mut data) = (String::new(), String::new());
    let normal = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (lines, incomplete) = normal.rsplit_once('\n').unwrap_or(("", &normal));
    assert_eq!(incomplete, "", "a block ends with a line feed");
    for line in lines.split('\n') {
        if line.is_empty() {
            if let Some(data) = data.strip_suffix('\n') {
                let name = if name.is_empty() { "message" } else { &name };
                events.push(Event { name: name.to_owned(), data: data.to_owned(), id: last_id.clone() });
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut last_id),
            _ => {}
        }
    }
    assert!(data.is_empty() && name.is_empty(), "a block has no end");
    events
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    proptest! {
        #[test]
        fn any_events(parts in vec(prop_oneof![
            select(vec![
                "\u{1}", "\r", "\n", "\r\n", "\n\n", " ", ":", "id:", "data:", "event:x\n", "retry:0", "\0", "\u{feff}",
                "\u{2028}", "order", "\u{85}",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            vec(any::<u8>(), 0..6),
        ], 0..20)) {
            events(&parts.concat());
        }
    }
}
