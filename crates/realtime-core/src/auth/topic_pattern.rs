//! [`TopicPattern`]: named topics that a login may subscribe to.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{Topic, topic::TopicError};

/// Named topics that a login may subscribe to: one by its name, or with `*` at the end all that begin with what is
/// before it. `order:*` includes `order:7`; `*` includes every named topic. Topics of users and `all` are in none.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern(Arc<str>);

impl TopicPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`TopicError`] if the text would not be a topic.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        Topic::new(text).map(|_| Self(text.into()))
    }

    /// Returns `true` if it includes the topic.
    pub fn includes(&self, topic: &Topic) -> bool {
        topic.is_named()
            && match self.0.strip_suffix('*') {
                Some(start) => topic.as_str().starts_with(start),
                None => topic.as_str() == &*self.0,
            }
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicPattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicPattern({})", self.0)
    }
}

impl Serialize for TopicPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_includes_named_topics_only() {
        let includes = |pattern: &str, topic: &str| {
            TopicPattern::new(pattern).unwrap().includes(&Topic::new(topic).unwrap())
        };
        for (pattern, topic, expected) in [
            ("order:*", "order:7", true),
            ("order:*", "order:", true),
            ("order:*", "orders", false),
            ("news", "news", true),
            ("news", "news:1", false),
            ("*", "anything", true),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
            ("*", "all", false),
            ("user:*", "user:7", false),
            ("all", "all", false),
        ] {
            assert_eq!(includes(pattern, topic), expected, "{pattern} {topic}");
        }
        assert!(TopicPattern::new("").is_err() && TopicPattern::new("a *").is_err());
    }
}
