//! [`PublishError`] and [`SendError`]: why a message was not sent.

use crate::{bus::BusError, settings::Limits};

/// Error of [`Hub::publish`](crate::Hub::publish).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The message is above `limits.maxMessageBytes`, or its targets above `limits.maxTargets`.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The bus failed.
    #[error("failed to publish to {target}: {source}")]
    Bus {
        /// The first topic, and how many more there are.
        target: String,
        /// The bus's error.
        source: BusError,
    },
}

/// A message or its list of targets is above a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// The text is above `limits.maxMessageBytes`.
    #[error("the message has {size} bytes, {limit} are allowed")]
    Message {
        /// The message's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The users and topics are more than `limits.maxTargets`.
    #[error("the message has {count} targets, {limit} are allowed")]
    Targets {
        /// Number of topics, users included.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// Error of a send on this node: [`Hub::send_local`](crate::Hub::send_local) and
/// [`SessionHandle::send_local`](crate::SessionHandle::send_local).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A bounded queue on the way is full; nothing was queued beyond it.
    #[error("the queue is full")]
    Overloaded,
    /// The session is closing.
    #[error("the session is closing")]
    Closed,
    /// The message is above `limits.maxMessageBytes`.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl TooLarge {
    /// Checks a text against `limits.maxMessageBytes`.
    pub(crate) fn check(text: &str, limits: &Limits) -> Result<(), Self> {
        let (size, limit) = (text.len(), limits.max_message_bytes);
        if Limits::exceeds(size, limit) { Err(Self::Message { size, limit }) } else { Ok(()) }
    }
}
