//! [`BusError`]: errors of publishing.

/// Error of a [`Bus`](super::Bus), with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus cannot be reached, or did not answer before the envelope was sent. The envelope was not accepted; a retry
    /// may succeed.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// The bus is reachable and accepts nothing for now: it is full, lacks replicas, or does not allow this node to write.
    /// The envelope was not accepted; a retry may succeed once the problem has been fixed.
    #[error("the bus refused it: {0}")]
    Refused(String),
    /// More is published than the bus accepts. The envelope was not accepted; a retry may succeed after a pause.
    #[error("the bus takes no more for now: {0}")]
    Throttled(String),
    /// The envelope is above a limit of the bus. It was not accepted, and a retry cannot succeed.
    #[error("the envelope is too large for the bus: {0}")]
    TooLarge(String),
    /// This kind of bus does not support such an envelope. It was not accepted, and a retry cannot succeed.
    #[error("unsupported by this bus: {0}")]
    Unsupported(String),
    /// The envelope was sent to the bus, which did not answer: it may or may not have been accepted. After a retry it may
    /// be delivered twice, unless it has an [id](crate::EnvelopeId) and the bus recognizes ids.
    #[error("the bus is unavailable, and may have accepted it: {0}")]
    OutcomeUnknown(String),
}

impl BusError {
    /// The reason alone, without the kind.
    pub fn detail(&self) -> &str {
        match self {
            Self::Unavailable(detail)
            | Self::Refused(detail)
            | Self::Throttled(detail)
            | Self::TooLarge(detail)
            | Self::Unsupported(detail)
            | Self::OutcomeUnknown(detail) => detail,
        }
    }

    /// Status of the HTTP response to a request that failed for this: 413, 422, 429 or 503.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge(_) => 413,
            Self::Unsupported(_) => 422,
            Self::Throttled(_) => 429,
            Self::Unavailable(_) | Self::Refused(_) | Self::OutcomeUnknown(_) => 503,
        }
    }
}
