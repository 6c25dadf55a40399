//! [`Form`]: the exact format of RuoYi's messages on its two channels.
//!
//! Redisson's `TypedJsonJacksonCodec` with Jackson's default typing writes every object as a pair of its class and
//! its properties, and every list as a pair of its class and its elements. The encoder writes the one form that Java nodes
//! are sure to read, the decoder accepts all forms that they may send.

use std::{borrow::Borrow, collections::HashMap, fmt::Write};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use serde_json::value::RawValue;

/// The Jackson form of one of the two DTOs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// The class that Java nodes expect; they ignore any other.
    class: &'static str,
    /// The property that holds the users.
    list: &'static str,
}

/// A decoded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dto {
    /// The recipients; in this format no user means all users.
    pub(crate) users: Vec<i64>,
    /// The text for the clients.
    pub(crate) message: String,
}

/// The reason why a payload cannot be decoded. It never contains the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecodable {
    /// The payload is not text.
    #[error("not UTF-8")]
    Utf8,
    /// The payload is not of the form `["class",{}]`.
    #[error("not a pair of a class and its properties")]
    Shape,
    /// Java nodes ignore such a message, too.
    #[error("unexpected class")]
    Class,
    /// `message` is absent or null.
    #[error("no message")]
    NoMessage,
    /// `message` is an object or a list.
    #[error("message is not a text")]
    Message,
    /// The users are not a list, or one of them is not a number.
    #[error("users are not a list of numbers")]
    Users,
}

impl Form {
    /// `WebSocketMessageDto`.
    pub(crate) const WEBSOCKET: Self =
        Self { class: "org.dromara.common.websocket.dto.WebSocketMessageDto", list: "sessionKeys" };

    /// `SseMessageDto`.
    pub(crate) const SSE: Self = Self { class: "org.dromara.common.sse.dto.SseMessageDto", list: "userIds" };

    /// Encodes a message for some users; for all users if there is none.
    pub(crate) fn encode(self, users: &[i64], message: &str) -> String {
        let Self { class, list } = self;
        let mut json = format!(r#"["{class}",{{"message":""#);
        escape(message, &mut json);
        json.push('"');
        if !users.is_empty() {
            let users = users.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            json.push_str(&format!(r#","{list}":["java.util.ArrayList",[{users}]]"#));
        }
        json.push_str("}]");
        json
    }

    /// Decodes a payload.
    pub(crate) fn decode(self, payload: &[u8]) -> Result<Dto, Undecodable> {
        let json = str::from_utf8(payload).map_err(|_| Undecodable::Utf8)?;
        let (class, properties): (Text, HashMap<Text, &RawValue>) =
            serde_json::from_str(json).map_err(|_| Undecodable::Shape)?;
        if class.0 != self.class {
            return Err(Undecodable::Class);
        }
        let property = |name: &str| properties.get(name).map(|raw| raw.get()).filter(|json| *json != "null");
        let users = property(self.list).map_or(Some(Vec::new()), users).ok_or(Undecodable::Users)?;
        let message = property("message").ok_or(Undecodable::NoMessage)?;
        Ok(Dto { users, message: text(message).ok_or(Undecodable::Message)? })
    }
}

/// Escapes as Jackson does for a stream: short escapes where they exist, control characters and each half of a surrogate
/// pair by number; everything else is unchanged.
fn escape(text: &str, json: &mut String) {
    for character in text.chars() {
        match character {
            '"' => json.push_str(r#"\""#),
            '\\' => json.push_str(r"\\"),
            '\u{8}' => json.push_str(r"\b"),
            '\t' => json.push_str(r"\t"),
            '\n' => json.push_str(r"\n"),
            '\u{c}' => json.push_str(r"\f"),
            '\r' => json.push_str(r"\r"),
            '\0'..='\u{1f}' | '\u{10000}'.. => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(json, "\\u{unit:04X}").expect("a string takes everything");
                }
            }
            _ => json.push(character),
        }
    }
}

/// Decodes a string; a number or boolean is returned as written, as Jackson coerces them.
fn text(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok().map(|Text(text)| text),
        b'[' | b'{' => None,
        _ => Some(json.to_owned()),
    }
}

/// Decodes the elements of a list, bare or in a pair with the list's class.
fn users(json: &str) -> Option<Vec<i64>> {
    let mut elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    if let [class, list] = elements[..]
        && class.get().starts_with('"')
        && list.get().starts_with('[')
    {
        elements = serde_json::from_str(list.get()).ok()?;
    }
    elements.iter().map(|element| text(element.get())?.trim().parse().ok()).collect()
}

/// A Java string: an unpaired escaped surrogate becomes U+FFFD instead of an error.
#[derive(PartialEq, Eq, Hash)]
struct Text(String);

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                let mut bytes = bytes.to_vec();
                // serde_json encodes an unpaired surrogate as the three bytes of its code point; U+FFFD has three, too.
                for at in 0..bytes.len().saturating_sub(2) {
                    if bytes[at] == 0xED && bytes[at + 1] >= 0xA0 {
                        bytes[at..at + 3].copy_from_slice("\u{FFFD}".as_bytes());
                    }
                }
                String::from_utf8(bytes).map(Text).map_err(E::custom)
            }
        }

        // serde_json accepts unpaired surrogates only as bytes.
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SSE: &str = r#"["org.dromara.common.sse.dto.SseMessageDto","#;
    const WEBSOCKET: &str = r#"["org.dromara.common.websocket.dto.WebSocketMessageDto","#;

    fn dto(users: &[i64], message: &str) -> Dto {
        Dto { users: users.to_vec(), message: message.to_owned() }
    }

    fn decode_sse(properties: &str) -> Result<Dto, Undecodable> {
        Form::SSE.decode(format!("{SSE}{properties}]").as_bytes())
    }

    #[test]
    fn golden_bytes_hold_in_both_directions() {
        for (users, message, properties) in [
            (&[][..], "hi", r#"{"message":"hi"}"#),
            (&[1], "hi", r#"{"message":"hi","LIST":["java.util.ArrayList",[1]]}"#),
            (&[1, 2], "hi", r#"{"message":"hi","LIST":["java.util.ArrayList",[1,2]]}"#),
            (&[1, 2, 3], "hi", r#"{"message":"hi","LIST":["java.util.ArrayList",[1,2,3]]}"#),
            (
                &[1_925_000_000_000_000_001, i64::MAX, -1],
                "",
                r#"{"message":"","LIST":["java.util.ArrayList",[1925000000000000001,9223372036854775807,-1]]}"#,
            ),
            (&[], "你好，世界 é", r#"{"message":"你好，世界 é"}"#),
            (&[], "😀 \u{10FFFF}", r#"{"message":"\uD83D\uDE00 \uDBFF\uDFFF"}"#),
            (&[], "\0\u{1}\u{b}\u{1f}", r#"{"message":"\u0000\u0001\u000B\u001F"}"#),
            (&[], "\u{8}\t\n\u{c}\r\"\\/", r#"{"message":"\b\t\n\f\r\"\\/"}"#),
            (&[], "\u{7f}\u{80}\u{2028}\u{ffff}", "{\"message\":\"\u{7f}\u{80}\u{2028}\u{ffff}\"}"),
            (&[], r#"{"type":"order"}"#, r#"{"message":"{\"type\":\"order\"}"}"#),
        ] {
            for (form, begin, list) in
                [(Form::SSE, SSE, "userIds"), (Form::WEBSOCKET, WEBSOCKET, "sessionKeys")]
            {
                let payload = format!("{begin}{}]", properties.replace("LIST", list));
                assert_eq!(form.encode(users, message), payload);
                assert_eq!(form.decode(payload.as_bytes()), Ok(dto(users, message)), "{payload}");
            }
        }
    }

    #[test]
    fn every_list_that_a_java_node_may_send_is_read() {
        for class in [
            "java.util.ImmutableCollections$List12",
            "java.util.ImmutableCollections$ListN",
            "java.util.Arrays$ArrayList",
            "java.util.Collections$SingletonList",
            "a list of tomorrow",
        ] {
            let properties = format!(r#"{{"message":"hi","userIds":["{class}",[1,2]]}}"#);
            assert_eq!(decode_sse(&properties), Ok(dto(&[1, 2], "hi")), "{class}");
        }
        for (list, users) in [
            ("null", &[][..]),
            ("[]", &[]),
            (r#"["java.util.ArrayList",[]]"#, &[]),
            ("[7]", &[7]),
            (r#"["1","2"]"#, &[1, 2]),
            (r#"["java.util.ArrayList",["1925000000000000001", 2 ]]"#, &[1_925_000_000_000_000_001, 2]),
        ] {
            let properties = format!(r#"{{"message":"hi","userIds":{list}}}"#);
            assert_eq!(decode_sse(&properties), Ok(dto(users, "hi")), "{list}");
        }
    }

    #[test]
    fn order_space_and_unknown_properties_do_not_matter() {
        for (properties, expected) in [
            (r#"{"userIds":["java.util.ArrayList",[1]],"message":"hi"}"#, dto(&[1], "hi")),
            (r#"{"sessionKeys":[2],"new":{"a":["\uD800",null]},"message":"hi","\uDC00":1}"#, dto(&[], "hi")),
            (" { \"message\" :\n\"hi\" , \"userIds\" : [ \"x\" , [ 1 ] ] } ", dto(&[1], "hi")),
            (r#"{"message":"first","message":"last"}"#, dto(&[], "last")),
        ] {
            assert_eq!(decode_sse(properties), Ok(expected), "{properties}");
        }
    }

    #[test]
    fn a_message_is_coerced_as_jackson_does() {
        for (json, message) in [
            ("5", "5"),
            ("-1.50e3", "-1.50e3"),
            ("true", "true"),
            (r#""null""#, "null"),
            (r#""\/\u00e9\ud83d\ude00""#, "/é😀"),
            (r#""a\uD83Db\uDE00\uD800\uD800c\uD83D""#, "a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}c\u{FFFD}"),
            ("\"raw 😀\"", "raw 😀"),
        ] {
            assert_eq!(decode_sse(&format!(r#"{{"message":{json}}}"#)), Ok(dto(&[], message)), "{json}");
        }
    }

    #[test]
    fn an_undecodable_payload_is_reported_by_kind_and_never_by_content() {
        use Undecodable::{Class, Message, NoMessage, Shape, Users, Utf8};
        for (payload, kind) in [
            (b"\xFFsecret".to_vec(), Utf8),
            ("secret".into(), Shape),
            ("".into(), Shape),
            (r#"{"message":"secret"}"#.into(), Shape),
            (r#"{"@class":"org.dromara.common.sse.dto.SseMessageDto","message":"secret"}"#.into(), Shape),
            (format!(r#"{SSE}"secret"]"#).into(), Shape),
            (format!(r#"{SSE}{{"message":"secret"}},1]"#).into(), Shape),
            (format!(r#"{SSE}{{"message":"secret"}}"#).into(), Shape),
            (format!(r#"{WEBSOCKET}{{"message":"secret"}}]"#).into(), Class),
            (format!(r"{SSE}{{}}]").into(), NoMessage),
            (format!(r#"{SSE}{{"message":null,"userIds":["secret",[1]]}}]"#).into(), NoMessage),
            (format!(r#"{SSE}{{"message":{{"a":"secret"}}}}]"#).into(), Message),
            (format!(r#"{SSE}{{"message":["secret"]}}]"#).into(), Message),
            (format!(r#"{SSE}{{"message":"x","userIds":"secret"}}]"#).into(), Users),
            (format!(r#"{SSE}{{"message":"x","userIds":["secret"]}}]"#).into(), Users),
            (format!(r#"{SSE}{{"message":"x","userIds":[1.5]}}]"#).into(), Users),
            (format!(r#"{SSE}{{"message":"x","userIds":[9223372036854775808]}}]"#).into(), Users),
            // An unknown user among others must not turn a message for a few users into one for all.
            (format!(r#"{SSE}{{"message":"x","userIds":["java.util.ArrayList",[null]]}}]"#).into(), Users),
            (format!(r#"{SSE}{{"message":"x","userIds":["java.util.ArrayList",null]}}]"#).into(), Users),
        ] {
            let error = Form::SSE.decode(&payload).unwrap_err();
            assert_eq!(error, kind, "{}", String::from_utf8_lossy(&payload));
            assert!(!error.to_string().contains("secret"));
        }
    }

    proptest! {
        #[test]
        fn an_encoded_message_decodes_to_itself(users: Vec<i64>, message: String) {
            for form in [Form::SSE, Form::WEBSOCKET] {
                let payload = form.encode(&users, &message);
                let bare = payload.chars().all(|character| (' '..='\u{FFFF}').contains(&character));
                prop_assert!(bare, "nothing that Jackson escapes is bare");
                prop_assert_eq!(form.decode(payload.as_bytes()), Ok(dto(&users, &message)));
            }
        }

        #[test]
        fn nothing_makes_the_decoder_panic(bytes: Vec<u8>, properties in r#"[\[\]{}",:\\u0-9a-f ]{0,40}"#) {
            Form::SSE.decode(&bytes).ok();
            decode_sse(&properties).ok();
        }
    }
}
