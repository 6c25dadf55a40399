//! [`Marker`]: the content of a load's messages, by which each is identified.

use std::io::Write;

use memchr::memmem;

/// The identity of a message, and the time from which its latency counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The number of the load's run.
    pub(crate) run: u32,
    /// The group of connections that it is for.
    pub(crate) group: u32,
    /// The caller that has published it.
    pub(crate) caller: u32,
    /// The number of the message among the caller's to the group, from 0.
    pub(crate) number: u32,
    /// The time of its publish, on the clock of the load; at a rate the time at which that was due.
    pub(crate) due: u64,
}

/// The beginning of a message.
const BEGIN: &[u8] = br#"{"type":"bench","run":"#;

/// The text to search for if a server has wrapped the message.
const NAME: &[u8] = b"bench";

impl Marker {
    /// Writes it as a JSON text of `size` bytes, or of as many as it needs.
    pub(crate) fn write(&self, size: usize, text: &mut Vec<u8>) {
        let Self { run, group, caller, number, due } = self;
        let end = text.len() + size;
        text.extend_from_slice(BEGIN);
        write!(text, r#"{run},"group":{group},"caller":{caller},"n":{number},"t":{due},"pad":""#)
            .expect("a Vec takes everything");
        text.resize(end.saturating_sub(2).max(text.len()), b'x');
        text.extend_from_slice(br#""}"#);
    }

    /// Calls `found` for each marker in a payload. A server may wrap, escape and bundle messages; each has at least `size`
    /// bytes.
    pub(crate) fn each(payload: &[u8], size: usize, mut found: impl FnMut(Self)) {
        let mut rest = payload;
        loop {
            let begin = if rest.starts_with(BEGIN) {
                BEGIN.len()
            } else {
                match memmem::find(rest, NAME) {
                    Some(at) => at + NAME.len(),
                    None => return,
                }
            };
            let (marker, end) = Self::read(rest, begin);
            rest = match marker {
                Some(marker) => {
                    found(marker);
                    // What follows the numbers is padding up to the message's size.
                    rest.get(end.max(size)..).unwrap_or_default()
                }
                None => &rest[begin..],
            };
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Reads the numbers from `at` on, with any text between them. Returns them and their end.
    fn read(text: &[u8], mut at: usize) -> (Option<Self>, usize) {
        let mut number = || {
            let digits = text.get(at..)?;
            let skip = digits.iter().take(24).position(u8::is_ascii_digit)?;
            let mut value = 0_u64;
            let mut length = skip;
            for digit in digits[skip..].iter().take_while(|digit| digit.is_ascii_digit()) {
                value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                length += 1;
            }
            at += length;
            Some(value)
        };
        let mut marker = || {
            let [run, group, caller, n] = [number()?, number()?, number()?, number()?];
            let small = |value: u64| u32::try_from(value).ok();
            Some(Self {
                run: small(run)?,
                group: small(group)?,
                caller: small(caller)?,
                number: small(n)?,
                due: number()?,
            })
        };
        let marker = marker();
        (marker, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker { run: 7, group: 42, caller: 0, number: 123, due: 9_876_543_210 };

    fn all(payload: &[u8], size: usize) -> Vec<Marker> {
        let mut all = Vec::new();
        Marker::each(payload, size, |marker| all.push(marker));
        all
    }

    fn text(size: usize) -> Vec<u8> {
        let mut text = Vec::new();
        MARKER.write(size, &mut text);
        text
    }

    #[test]
    fn a_message_has_its_size_and_is_json() {
        for size in [0, 10, 150, 4096] {
            let text = text(size);
            assert!(text.len() == size || size < 100, "{size}");
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(json["n"], 123);
            assert_eq!(all(&text, size), [MARKER], "{size}");
        }
    }

    #[test]
    fn a_message_is_found_in_what_a_server_makes_of_it() {
        let raw = String::from_utf8(text(150)).unwrap();
        let wrapped = format!(r#"{{"push":{{"channel":"bench","pub":{{"data":{raw}}}}}}}"#);
        let escaped = serde_json::json!({"type": "message", "id": "1.7", "data": raw}).to_string();
        let bundled = format!("{raw}\n{raw}\n{raw}");
        assert_eq!(all(escaped.as_bytes(), 150), [MARKER]);
        assert_eq!(all(bundled.as_bytes(), 150), [MARKER; 3]);
        assert_eq!(all(wrapped.as_bytes(), 150), [MARKER]);
    }

    #[test]
    fn other_texts_are_none() {
        for other in ["", "hello", "bench", r#"{"type":"bench","run":1"#, "pong"] {
            assert_eq!(all(other.as_bytes(), 150), [], "{other:?}");
        }
    }
}
