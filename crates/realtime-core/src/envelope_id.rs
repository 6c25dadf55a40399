//! [`EnvelopeId`]: what makes a second publish of one envelope recognizable.

use std::fmt;

use crate::key_text::KeyText;

/// Name of an envelope, of the publisher's choice: 1 to 64 printable ASCII characters without white space.
///
/// It makes a publish repeatable. Where the outcome of the first attempt is
/// [unknown](crate::bus::BusError::OutcomeUnknown), a retry with the same id is delivered once, on a bus that
/// recognizes ids and within the time for which it keeps them; each bus documents both. Clients never see it.
///
/// ```
/// use realtime_core::{Envelope, EnvelopeId, Message, Scope};
///
/// let envelope = Envelope::broadcast(Scope::Both, Message::text("maintenance at 22:00"));
/// let envelope = envelope.with_id(EnvelopeId::new("maintenance-4711")?);
/// assert_eq!(envelope.id().map(EnvelopeId::as_str), Some("maintenance-4711"));
/// # Ok::<(), realtime_core::error::EnvelopeIdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EnvelopeId(KeyText);

/// A text is no [`EnvelopeId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an envelope's id has 1 to 64 printable ASCII characters without white space, {0:?} has not")]
pub struct EnvelopeIdError(String);

impl EnvelopeId {
    /// Parses an id.
    ///
    /// # Errors
    /// When the text is empty, longer than 64 bytes, or holds anything but printable ASCII characters.
    pub fn new(text: &str) -> Result<Self, EnvelopeIdError> {
        KeyText::new(text).map(Self).map_err(EnvelopeIdError)
    }

    /// A random id of 128 bits.
    pub fn random() -> Self {
        Self(KeyText::random())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeId({})", self.0)
    }
}
