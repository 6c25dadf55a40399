//! [`UserId`]: the id of a user.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The id of a user, written as a number or as text.
///
/// An id that reads as a whole number *is* that number: `UserId::from(5)` and `"5".parse()` are equal, and both
/// serialize to the JSON number `5`. The full range of a 64-bit signed integer is supported. Browsers round JSON numbers
/// beyond ±(2^53-1), such as Java's snowflake ids, so these serialize to text, as `"9007199254740993"`, and are read from
/// both. Any other id is text of 1 to 128 bytes without white space and control characters;
/// text that only looks like a number (`007`, `+5`) stays text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Number(i64),
    Text(Arc<str>),
}

/// Error of a text that is not a [`UserId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserIdError {
    /// The text has no characters.
    #[error("a user id must not be empty")]
    Empty,
    /// The text is longer than [`UserId::MAX_BYTES`].
    #[error("a user id has at most {max} bytes, this one has {0}", max = UserId::MAX_BYTES)]
    TooLong(usize),
    /// The text contains white space or a control character.
    #[error("user id {0:?} holds white space or a control character")]
    BadCharacter(String),
}

impl UserId {
    /// The longest text id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The greatest number that every reader of JSON keeps (RFC 8259, section 6).
    const MAX_EXACT: u64 = (1 << 53) - 1;

    /// The id as a number, if it is one. Java nodes support no other kind.
    pub fn as_number(&self) -> Option<i64> {
        match self.0 {
            Repr::Number(number) => Some(number),
            Repr::Text(_) => None,
        }
    }
}

impl From<&Self> for UserId {
    fn from(user: &Self) -> Self {
        user.clone()
    }
}

impl From<i64> for UserId {
    fn from(number: i64) -> Self {
        Self(Repr::Number(number))
    }
}

impl FromStr for UserId {
    type Err = UserIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(UserIdError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(UserIdError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UserIdError::BadCharacter(text.to_owned()));
        }
        Ok(Self(match UserRef::parse(text) {
            UserRef::Number(number) => Repr::Number(number),
            UserRef::Text(text) => Repr::Text(text.into()),
        }))
    }
}

/// A borrowed [`UserId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum UserRef<'a> {
    Number(i64),
    Text(&'a str),
}

impl<'a> UserRef<'a> {
    /// Parses a text without white space and control characters.
    pub(crate) fn parse(text: &'a str) -> Self {
        // "-0", "+5" and "007" parse as numbers but do not print as they were written.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let canonical = text == "0" || digits.starts_with(|first| matches!(first, '1'..='9'));
        text.parse().ok().filter(|_| canonical).map_or(Self::Text(text), Self::Number)
    }
}

impl<'a> From<&'a UserId> for UserRef<'a> {
    fn from(user: &'a UserId) -> Self {
        match &user.0 {
            Repr::Number(number) => Self::Number(*number),
            Repr::Text(text) => Self::Text(text),
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Number(number) => write!(f, "{number}"),
            Repr::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({self})")
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::Number(number) if number.unsigned_abs() > Self::MAX_EXACT => serializer.collect_str(number),
            Repr::Number(number) => serializer.serialize_i64(*number),
            Repr::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// A user as Java's services write it: a number is a number, whatever its size.
pub(crate) struct JavaUser<'a>(pub(crate) &'a UserId);

impl Serialize for JavaUser<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.0 {
            Repr::Number(number) => serializer.serialize_i64(*number),
            Repr::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = UserId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user id (a whole number or a string)")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<UserId, E> {
                Ok(number.into())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<UserId, E> {
                i64::try_from(number)
                    .map(UserId::from)
                    .map_err(|_| E::custom(format_args!("user id {number} is above {}", i64::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<UserId, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_numbers_in_json_as_far_as_browsers_keep_every_digit() {
        let json = r#"[1,"2",1925000000000000001,"u-7","007",-3,9007199254740991,-9007199254740991]"#;
        let ids: Vec<UserId> = serde_json::from_str(json).unwrap();
        let written = serde_json::to_string(&ids).unwrap();
        assert_eq!(
            written,
            r#"[1,2,"1925000000000000001","u-7","007",-3,9007199254740991,-9007199254740991]"#
        );
        assert_eq!(serde_json::from_str::<Vec<UserId>>(&written).unwrap(), ids);
        assert_eq!(ids[1], UserId::from(2));
        assert_eq!(ids[2].as_number(), Some(1_925_000_000_000_000_001));
        for number in [9_007_199_254_740_992, -9_007_199_254_740_993, i64::MAX, i64::MIN] {
            let id = UserId::from(number);
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{number}\""));
            assert_eq!(serde_json::from_str::<UserId>(&number.to_string()).unwrap(), id);
            assert_eq!(serde_json::from_str::<UserId>(&format!("\"{number}\"")).unwrap(), id);
            assert_eq!(serde_json::to_string(&JavaUser(&id)).unwrap(), number.to_string());
        }
    }

    #[test]
    fn ids_that_cannot_be_kept_are_refused_by_name() {
        for (json, message) in [
            (r#""""#, "must not be empty"),
            (r#""a b""#, "white space"),
            (r#""a\nb""#, "white space"),
            ("1.5", "invalid type: floating point"),
            ("18446744073709551615", "is above 9223372036854775807"),
            ("null", "a user id"),
        ] {
            let error = serde_json::from_str::<UserId>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
        assert_eq!("x".repeat(129).parse::<UserId>(), Err(UserIdError::TooLong(129)));
    }
}
