//! [`PublishError`] and [`SendError`]: errors of publishing and sending.

use crate::{Payload, bus::BusError, error::TopicError, settings::Limits};

/// Error of [`Hub::publish`](crate::Hub::publish).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is above `limits.maxMessageBytes`, its targets above `limits.maxTargets`, or both together above a quarter
    /// of `history.maxBytes`.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A message of bytes is for a transport that carries texts only.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// The message is to be retained and has other targets than one named topic.
    #[error(transparent)]
    NotRetainable(#[from] NotRetainable),
    /// The topic's name is invalid.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The bus failed.
    #[error("failed to publish to {target}: {source}")]
    Bus {
        /// The first topic, and how many more there are.
        target: String,
        /// The bus's error.
        source: BusError,
    },
}

impl PublishError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge(error) => error.status(),
            Self::NotText(error) => error.status(),
            Self::NotRetainable(_) | Self::Topic(_) => 400,
            Self::Bus { source, .. } => source.status(),
        }
    }
}

/// A message or its list of targets exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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
    /// The message with its targets takes more than a quarter of `history.maxBytes`: with its encodings it might not fit into
    /// the window, and would reach no session.
    #[error(
        "the message takes {size} bytes with its targets, {limit} are allowed (a quarter of history.maxBytes)"
    )]
    Envelope {
        /// The size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Error of a send on this node: [`Hub::send_local`](crate::Hub::send_local) and
/// [`SessionHandle::send_local`](crate::SessionHandle::send_local).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A bounded queue is full; the message was not queued there.
    #[error("the queue is full")]
    Overloaded,
    /// The session is closing.
    #[error("the session is closing")]
    Closed,
    /// The message is above `limits.maxMessageBytes`, or its targets above `limits.maxTargets`.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A message of bytes is for a transport that carries texts only.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// The message has an option that only published messages have: retain, a collapse key, or another slow policy.
    #[error("a local send has no {0}")]
    Unsupported(&'static str),
}

impl SendError {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::Overloaded | Self::Closed => 503,
            Self::TooLarge(error) => error.status(),
            Self::NotText(error) => error.status(),
            Self::Unsupported(_) => 422,
        }
    }
}

/// A message that is to be retained has other targets than one named topic. Nothing was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a retained message needs exactly one topic, and a named one: neither a user's nor `all`")]
pub struct NotRetainable;

/// A message of bytes is for a transport that carries texts only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of bytes cannot go to event streams: its scope must be a transport that carries bytes")]
pub struct NotText;

impl NotText {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        422
    }
}

impl TooLarge {
    /// HTTP status of the response to a request that failed with this error.
    pub fn status(&self) -> u16 {
        413
    }

    /// Checks a message against `limits.maxMessageBytes`.
    pub(crate) fn check(data: &Payload, limit: usize) -> Result<(), Self> {
        let size = data.as_bytes().len();
        if Limits::exceeds(size, limit) { Err(Self::Message { size, limit }) } else { Ok(()) }
    }
}
