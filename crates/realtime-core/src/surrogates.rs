//! [`replace_lone_surrogates`]: JSON of programs that cut texts between the halves of a character.

use std::borrow::Cow;

/// Replaces escapes of halves of characters (`\ud83d` without `\ude00` behind it) in a JSON text by that of U+FFFD.
///
/// Languages whose texts are UTF-16 write such escapes when they cut a text within an emoji: JavaScript, Java, C#. They
/// are JSON (RFC 8259, section 8.2), but no text, and `serde_json` refuses them. Browsers send U+FFFD for them in a
/// WebSocket's texts, so that is what they mean everywhere here: in frames of `realtime.v1`, requests of the demo, and
/// messages of Java nodes.
///
/// ```
/// use realtime_core::wire::replace_lone_surrogates;
///
/// assert_eq!(replace_lone_surrogates(r#"["\ud83d!"]"#), r#"["\uFFFD!"]"#);
/// assert_eq!(replace_lone_surrogates(r#"["\ud83d\ude00"]"#), r#"["\ud83d\ude00"]"#);
/// ```
pub fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let (mut replaced, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(plain) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += plain;
        at += match (unit(bytes, at), unit(bytes, at + 6)) {
            (Some(HIGH..=HIGH_END), Some(LOW..=LOW_END)) => 12,
            (Some(HIGH..=LOW_END), _) => {
                replaced.push_str(&json[copied..at]);
                replaced.push_str(r"\uFFFD");
                copied = at + 6;
                6
            }
            // The escaped character may be a backslash.
            _ => 2,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    replaced.push_str(&json[copied..]);
    Cow::Owned(replaced)
}

const HIGH: u16 = 0xD800;
const HIGH_END: u16 = 0xDBFF;
const LOW: u16 = 0xDC00;
const LOW_END: u16 = 0xDFFF;

/// The UTF-16 unit whose escape begins there.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_half_of_a_character_becomes_a_replacement_character() {
        for (json, text) in [
            (r#""""#, ""),
            (r#""\ud83d""#, "\u{FFFD}"),
            (r#""a\uD83Db\uDE00\uD800\uD800c\uD83D""#, "a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}c\u{FFFD}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{FFFD}\u{1F600}"),
            (r#""\ud83d\ude00\ude00""#, "\u{1F600}\u{FFFD}"),
            (r#""\ud83d\n""#, "\u{FFFD}\n"),
            // No escapes but a backslash before them.
            (r#""\\ud83d""#, r"\ud83d"),
            (r#""\\\ud83d""#, "\\\u{FFFD}"),
            (r#""\u00e9\u4f60é你""#, "\u{e9}\u{4f60}\u{e9}\u{4f60}"),
        ] {
            let replaced = replace_lone_surrogates(json);
            assert_eq!(serde_json::from_str::<String>(&replaced).unwrap(), text, "{json}");
        }
        // What is no JSON is left to the parser.
        for broken in [r"\", r"\u", r"\ud83", r"\ud8é", r"\é", "\\ud83\u{e9}"] {
            assert_eq!(replace_lone_surrogates(broken), broken);
        }
    }

    proptest! {
        #[test]
        fn every_text_of_escapes_becomes_what_utf_16_says(units in prop::collection::vec(
            prop_oneof![any::<u16>(), 0xD7FF_u16..=0xE000, Just(0x5C), Just(0x22)], 0..20,
        )) {
            let json: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("\"{json}\"");
            let text: String = serde_json::from_str(&replace_lone_surrogates(&json)).unwrap();
            prop_assert_eq!(text, String::from_utf16_lossy(&units));
        }

        #[test]
        fn what_is_valid_stays(text in "\\PC*", mut json in "[\\\\ud8e0\"é]*") {
            let valid = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(&replace_lone_surrogates(&valid), &valid);
            // And nothing panics.
            json = replace_lone_surrogates(&json).into_owned();
            prop_assert_eq!(&replace_lone_surrogates(&json), &json);
        }
    }
}
