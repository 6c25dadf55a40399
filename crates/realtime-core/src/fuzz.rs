//! Targets of fuzz tests: functions that take any bytes and panic where a promise is broken (feature `fuzz`, unstable).

use std::{sync::LazyLock, time::SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::{
    Position, Topic, Transport,
    auth::{Handshake, JwtAlgorithm, JwtAuthenticator},
};

/// Parses a cursor: one that is taken is that of its position, and short.
pub fn cursors(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(position) = text.parse::<Position>() {
        let cursor = position.to_string();
        assert_eq!(cursor.parse(), Ok(position));
        assert!(cursor.len() <= 41 && cursor.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        assert!(position.next() >= position);
    }
}

/// Reads a request's query, in front of the first line feed, and a header behind it: what it names is valid.
pub fn handshakes(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (query, header) = data.split_at(at);
    let query = String::from_utf8_lossy(query);
    for name in ["Authorization", "cookie", "Last-Event-ID", "Sec-WebSocket-Protocol", "clientid"] {
        let handshake = Handshake::new(Transport::new("sse"), &query, [(name, header)], None);
        assert!(handshake.token().is_none_or(|token| !token.is_empty() && token.trim() == token));
        assert!(handshake.cursor().is_none_or(|cursor| !cursor.is_empty()));
        for topic in handshake.topics().into_iter().flatten().flatten() {
            if let Ok(topic) = Topic::new(topic) {
                assert!(!topic.as_str().contains(char::is_whitespace) && topic.as_str().len() <= 160);
            }
        }
    }
}

const SECRET: &str = "the secret of the fuzz tests, long enough";

/// Verifies a token: the bytes themselves, and a signed one with the header and the claims that they have around the first
/// zero. One that is admitted is good for some time, and no other spelling of it is admitted.
pub fn tokens(data: &[u8]) {
    static JWT: LazyLock<JwtAuthenticator> =
        LazyLock::new(|| JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).expect("there is a secret"));
    assert!(JWT.verify(&String::from_utf8_lossy(data)).is_err(), "a token that nobody has signed");
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(0);
    let (header, claims) = data.split_at(at);
    let header = if header.is_empty() { &br#"{"alg":"HS256"}"#[..] } else { header };
    let claims = claims.strip_prefix(b"\0").unwrap_or(claims);
    let message =
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC signs all");
    let token = format!("{message}.{signature}");
    let Ok(principal) = JWT.verify(&token) else { return };
    assert!(principal.expires_at.is_some_and(|end| end > SystemTime::now()));
    assert!(!principal.user.to_string().is_empty());
    // Another letter, anywhere; one more, one less.
    let at = data.len() * 7919 % token.len();
    for letter in ["A", "B", "_", ".", "", "="] {
        let other = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
        assert!(other == token || JWT.verify(&other).is_err(), "{other} is taken for {token}");
    }
    for last in b'A'..=b'z' {
        let other = format!("{}{}", &token[..token.len() - 1], char::from(last));
        assert!(other == token || JWT.verify(&other).is_err(), "{other} is taken for {token}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn bytes(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = select(words).prop_map(|word| word.as_bytes().to_vec());
        vec(prop_oneof![4 => word, 1 => vec(any::<u8>(), 0..4)], 0..14).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_cursors(data in bytes(&[".", "0", "1", "18446744073709551615", "+", "-", " ", "x"])) {
            cursors(&data);
        }

        #[test]
        fn any_handshakes(data in bytes(&[
            "Authorization=", "Bearer%20", "Bearer ", "bearer.", "&", "=", "%", "%00", "topics=", "fresh=*", "cursor=", "1.1",
            ",", ";", "\n", "a", "%FF", "lastEventId=", "clientid=", "+", "realtime.v1",
        ])) {
            handshakes(&data);
        }

        #[test]
        fn any_tokens(data in bytes(&[
            r#"{"alg":"HS256"}"#, "\0", r#"{"sub":1,"exp":4102444800}"#, r#"{"sub":"a""#, r#","exp":"#, "4e9", "1e400", "}",
            r#","nbf":0"#, r#","topics":["a"]"#, r#","grants":["*"]"#, r#","iat":-1.5"#, r#","userId":"b""#, r#","clientid":null"#,
            ",", "{", "\"", "-", r#""kid":"x""#,
        ])) {
            tokens(&data);
        }
    }

    #[test]
    fn a_good_token_is_admitted() {
        tokens(br#"{"sub":1,"exp":4102444800}"#);
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256"}"#), "eyJhbGciOiJIUzI1NiJ9");
    }
}
