//! [`CollapseKey`]: what makes a newer message replace an older one.

use std::fmt;

use crate::key_text::KeyText;

/// Key by which a newer message replaces an older one, of the publisher's choice: 1 to 64 printable ASCII characters
/// without white space. See [`Envelope::collapse`](crate::Envelope::collapse). Clients never see it.
///
/// ```
/// use realtime_core::{CollapseKey, Envelope, Message, Scope, Topic};
///
/// let price = Envelope::to_topic(Topic::new("prices")?, Scope::Both, Message::text(r#"{"XAU":4711.5}"#));
/// let price = price.collapse(CollapseKey::new("XAU")?);
/// assert_eq!(price.collapse_key().map(CollapseKey::as_str), Some("XAU"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CollapseKey(KeyText);

/// A text is no [`CollapseKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a collapse key has 1 to 64 printable ASCII characters without white space, {0:?} has not")]
pub struct CollapseKeyError(String);

impl CollapseKey {
    /// Parses a key.
    ///
    /// # Errors
    /// When the text is empty, longer than 64 bytes, or holds anything but printable ASCII characters.
    pub fn new(text: &str) -> Result<Self, CollapseKeyError> {
        KeyText::new(text).map(Self).map_err(CollapseKeyError)
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for CollapseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CollapseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollapseKey({})", self.0)
    }
}
