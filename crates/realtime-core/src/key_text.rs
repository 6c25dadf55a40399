//! [`KeyText`]: a short text that fits into a header, a key of Redis and a line of a log.

use std::fmt;

/// 1 to 64 printable ASCII characters without white space.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyText(Box<str>);

impl KeyText {
    /// Parses a text.
    ///
    /// # Errors
    /// The beginning of the text, if it is empty, longer than 64 bytes, or has other characters.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(text.chars().take(80).collect())
        }
    }

    /// A random text of 128 bits.
    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_into_a_header_and_a_key_of_redis() {
        for bad in ["", "a b", "a\nb", "ü", "a\u{7f}", &"x".repeat(65)] {
            assert!(KeyText::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "order:7/{paid}", &"x".repeat(64), KeyText::random().as_str()] {
            assert_eq!(KeyText::new(good).unwrap().as_str(), good);
        }
        assert_ne!(KeyText::random(), KeyText::random());
    }
}
