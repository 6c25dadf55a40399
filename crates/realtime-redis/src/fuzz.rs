//! Targets of fuzz tests: functions that take any bytes and panic where a promise is broken (feature `fuzz`, unstable).

use crate::ruoyi::Form;
pub use crate::streams::fuzz::stream_entries;

/// Decodes the payload of a Java node: what is understood comes back from what this node encodes.
pub fn ruoyi(payload: &[u8]) {
    for form in [Form::WEBSOCKET, Form::SSE] {
        if let Ok(dto) = form.decode(payload) {
            let encoded = form.encode(&dto.users, &dto.message);
            assert_eq!(form.decode(encoded.as_bytes()), Ok(dto));
        }
    }
    let text = String::from_utf8_lossy(payload);
    let users: Vec<i64> =
        payload.chunks(3).map(|bytes| bytes.iter().map(|byte| i64::from(*byte)).product()).collect();
    let dto = Form::SSE.decode(Form::SSE.encode(&users, &text).as_bytes()).expect("it was encoded here");
    assert_eq!((dto.users, dto.message.as_str()), (users, &*text));
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Bytes that are made of the format's own words, and anything.
    fn bytes(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = select(words).prop_map(|word| word.as_bytes().to_vec());
        vec(prop_oneof![4 => word, 1 => vec(any::<u8>(), 0..4)], 0..16).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_payloads_of_java(payload in bytes(&[
            r#"["org.dromara.common.sse.dto.SseMessageDto",{"#, r#""message":"#, r#""userIds":["java.util.ArrayList",["#,
            "\"a\"", "null", "1", "-1", "9223372036854775808", "1.5", "]", "}", ",", "[", "{", "true", r#""\ud83d""#,
            r#""\uDE00""#, " ", r#""sessionKeys":"#,
        ])) {
            ruoyi(&payload);
        }
    }
}
