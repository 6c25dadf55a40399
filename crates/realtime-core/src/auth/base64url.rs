//! Base64 in the alphabet for URLs, without padding (RFC 4648, section 5), as JSON Web Tokens have it.

/// The bytes of a text; `None` if there are none whose text it is.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for four in text.as_bytes().chunks(4) {
        let mut bits = 0;
        for n in 0..4 {
            bits = bits << 6 | four.get(n).map_or(Some(0), |digit| value(*digit))?;
        }
        let [_, three @ ..] = u32::to_be_bytes(bits);
        let (whole, rest) = three.split_at(four.len() - 1);
        if whole.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(whole);
    }
    Some(bytes)
}

/// The text of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | usize::from(*three.get(n).unwrap_or(&0)));
        text.extend((0..=three.len()).map(|n| char::from(DIGITS[bits >> (18 - 6 * n) & 63])));
    }
    text
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_text_and_are_read_back() {
        let all: Vec<u8> = (0..=255).rev().collect();
        for length in 0..all.len() {
            assert_eq!(decode(&encode(&all[..length])).unwrap(), all[..length]);
        }
        assert_eq!(encode(b"\xfb\xff\xfe"), "-__-");
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!((encode(bytes.as_bytes()).as_str(), decode(text).unwrap()), (text, bytes.into()));
        }
        for text in ["Z", "Zm9vY", "Zh", "Zm9", "Zg==", "Zm+v", "Zm/v", "Zm v", "Zmé"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
