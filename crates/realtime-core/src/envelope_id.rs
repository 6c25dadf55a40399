//! [`EnvelopeId`]: what makes a second publish of one envelope recognizable.

use std::fmt;

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
pub struct EnvelopeId(Box<str>);

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
        if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(EnvelopeIdError(text.chars().take(80).collect()))
        }
    }

    /// A random id of 128 bits.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_fits_into_a_header_and_a_key() {
        for bad in ["", "a b", "a\nb", "ü", "a\u{7f}", &"x".repeat(65)] {
            assert!(EnvelopeId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "order:7/{paid}", &"x".repeat(64), EnvelopeId::random().as_str()] {
            assert_eq!(EnvelopeId::new(good).unwrap().as_str(), good);
        }
        assert_ne!(EnvelopeId::random(), EnvelopeId::random());
    }
}
