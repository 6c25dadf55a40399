//! [`StreamId`] and [`StreamKey`]: names of text streams.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use crate::Topic;

/// Name of a text stream within its topic: 1 to 64 printable ASCII characters without white space.
///
/// Cloning it is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct StreamId(Arc<str>);

/// Error of a text that is not a [`StreamId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stream's id has 1 to 64 printable ASCII characters without white space, {0:?} has not")]
pub struct StreamIdError(String);

impl StreamId {
    /// Parses an id.
    ///
    /// # Errors
    /// If the text is empty, longer than 64 bytes, or holds anything but printable ASCII characters.
    pub fn new(text: &str) -> Result<Self, StreamIdError> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(StreamIdError(text.chars().take(80).collect()))
        }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A text stream: its topic and its id there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The topic whose sessions read it.
    pub topic: Topic,
    /// Its id within the topic.
    pub id: StreamId,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of `{}`", self.id, self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_no_white_space_and_a_bound() {
        for bad in ["", "a b", "a\nb", "ü", &"x".repeat(65)] {
            assert!(StreamId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "answer:7/{x}", &"x".repeat(64)] {
            assert_eq!(StreamId::new(good).unwrap().as_str(), good);
        }
        assert!(serde_json::from_str::<StreamId>(r#""a b""#).is_err());
    }
}
