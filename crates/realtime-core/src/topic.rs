//! [`Topic`]: the target of messages.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{UserId, user::UserRef};

/// Target of messages: `user:<id>` for one user, `all` for all users, any other name for a group
/// (`role:admin`, `order:42`).
///
/// A `Topic` is always valid: 1 to 160 bytes without white space and control characters. Cloning it is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Topic(Arc<str>);

/// Error of a text that is not a [`Topic`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The text has no characters.
    #[error("a topic must not be empty")]
    Empty,
    /// The text is longer than [`Topic::MAX_BYTES`].
    #[error("a topic has at most {max} bytes, this one has {0}", max = Topic::MAX_BYTES)]
    TooLong(usize),
    /// The text contains white space or a control character.
    #[error("topic {0:?} holds white space or a control character")]
    BadCharacter(String),
}

impl Topic {
    /// The longest topic, in bytes. `user:` and the longest [`UserId`] fit.
    pub const MAX_BYTES: usize = 160;

    /// Topic that every session is in.
    pub const ALL: &'static str = "all";

    /// Topic whose sessions get presence changes.
    pub const PRESENCE: &'static str = "presence";

    /// Parses a topic.
    ///
    /// # Errors
    /// If the text is empty, too long, or contains white space or a control character.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(TopicError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(TopicError::BadCharacter(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The topic of all sessions.
    pub fn all() -> Self {
        Self(Self::ALL.into())
    }

    /// The topic of one user.
    pub fn user(user: &UserId) -> Self {
        // Every message to a user creates one: built here, it takes a single allocation.
        let mut text = SmallText::default();
        write!(text, "user:{user}").expect("the longest id fits");
        Self(text.as_str().into())
    }

    /// The user whose topic this is, if it is a user's topic.
    pub(crate) fn as_user(&self) -> Option<UserRef<'_>> {
        self.0.strip_prefix("user:").map(UserRef::parse)
    }

    /// Returns `true` for the topic of all sessions.
    pub fn is_all(&self) -> bool {
        *self.0 == *Self::ALL
    }

    /// Returns `true` for the topic of a group: neither a user's nor `all`.
    pub fn is_named(&self) -> bool {
        !self.is_all() && self.as_user().is_none()
    }

    /// The topic's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Buffer for a text of at most a topic's length.
struct SmallText {
    bytes: [u8; Topic::MAX_BYTES],
    len: usize,
}

impl SmallText {
    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).expect("texts behind each other are a text")
    }
}

impl Default for SmallText {
    fn default() -> Self {
        Self { bytes: [0; Topic::MAX_BYTES], len: 0 }
    }
}

impl fmt::Write for SmallText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_valid_by_being_one() {
        assert_eq!(Topic::user(&UserId::from(42)).as_str(), "user:42");
        assert!(Topic::new("all").unwrap().is_all());
        assert_eq!(Topic::new(""), Err(TopicError::Empty));
        assert_eq!(Topic::new(&"x".repeat(161)), Err(TopicError::TooLong(161)));
        assert!(matches!(Topic::new("a b"), Err(TopicError::BadCharacter(_))));
        assert!(serde_json::from_str::<Topic>(r#""a\u0000b""#).is_err());
    }

    #[test]
    fn a_users_topic_contains_the_user() {
        for id in ["42", "0", "-3", "007", "+5", "-0", "u-7", "9223372036854775808", "-9223372036854775808"] {
            let user: UserId = id.parse().unwrap();
            assert_eq!(Topic::user(&user).as_user(), Some((&user).into()), "{id}");
        }
        assert_eq!(Topic::new("role:admin").unwrap().as_user(), None);
        assert!(Topic::new("role:admin").unwrap().is_named() && Topic::new("users").unwrap().is_named());
        assert!(!Topic::user(&7.into()).is_named() && !Topic::all().is_named());
    }

    #[test]
    fn the_longest_user_id_makes_a_topic() {
        let user: UserId = "u".repeat(UserId::MAX_BYTES).parse().unwrap();
        let topic = Topic::user(&user);
        assert_eq!(Topic::new(topic.as_str()), Ok(topic.clone()));
    }
}
